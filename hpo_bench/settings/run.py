"""What one run is: frozen values, which were parsed and checked once at the edge.

`docs/reference.md` tells of each setting. Imports no hydra and no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpo_bench.core.table import Source

if TYPE_CHECKING:
    from hpo_bench.core.estimator import Estimator
    from hpo_bench.core.optimisers import Optimiser
    from hpo_bench.core.rule import Rule

HYPERPARAMETERS = ("lr", "weight_decay", "momentum")
# Trackers, and the module that has to be installed for each.
TRACKERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
DataForWeights = Literal["train", "train_and_validation"]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of hyperparameters, each once: the paper's three first, then as they come."""
    found = dict.fromkeys(names)
    paper = [name for name in HYPERPARAMETERS if name in found]
    return tuple(dict.fromkeys((*paper, *found)))


@dataclass(frozen=True)
class Method:
    """How hyperparameters are set during one training.

    Args:
        estimator: what estimates hypergradients (`hpo_bench.hypergradients`), or None where nothing
            is tuned.
        optimiser: what turns hypergradients into steps in raw space (`hpo_bench.core.optimisers`);
            None without one.
        tuned: hyperparameters that are tuned, some of `hyperparameters`.
        per_weight: those that have one value per weight instead of one per repetition.
        data_for_weights: rows that train the weights.
        full_validation: log the loss of the whole validation set instead of one validation batch.
        lr_schedule: multiply the learning rate by the repetition's multiplier after every T weight
            updates.
        reset_weights: put the weights back to their initial values after every hyperparameter
            update but the last.
        fixed: natural values that hyperparameters start from instead of a random draw.
        rule: how the weights are updated; None for SGD with momentum.
        schedule: what the learning rate is multiplied by at each weight update
            (`hpo_bench.core.schedules`); None where it stays.
        search: trains many times for each repetition (`hpo_bench.search`); None for one training.
    """

    name: str
    estimator: Estimator | None
    optimiser: Optimiser | None
    tuned: tuple[str, ...]
    per_weight: tuple[str, ...]
    data_for_weights: DataForWeights
    full_validation: bool = False
    lr_schedule: bool = False
    reset_weights: bool = False
    rule: Rule | None = None
    search: Any = None
    schedule: Any = None
    fixed: Mapping[str, float] = field(default_factory=dict)

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names of what the rule has."""
        return HYPERPARAMETERS if self.rule is None else tuple(self.rule.coordinates)


@dataclass(frozen=True)
class StartRanges:
    """Where repetitions start: a file that fixes it, or the ranges of the uniform draws.

    Args:
        file: an ``.npz`` with ``w0/PARAMETER`` (R, …), ``raw/lr`` etc. (R,), optional
            ``lr_multiplier`` (R,).
        log10_lr, log10_weight_decay, momentum, lr_multiplier: (low, high) of the uniform
            distributions.
        others: likewise of hyperparameters that other rules have, where the rule's own ranges are
            not meant.
    """

    file: Path | None
    log10_lr: tuple[float, float]
    log10_weight_decay: tuple[float, float]
    momentum: tuple[float, float]
    lr_multiplier: tuple[float, float]
    others: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def of(self, name: str) -> tuple[float, float] | None:
        """The range of one hyperparameter; None where the rule's own is meant."""
        known = {
            "lr": self.log10_lr,
            "weight_decay": self.log10_weight_decay,
            "momentum": self.momentum,
        }
        return known.get(name) or self.others.get(name)


@dataclass(frozen=True)
class Settings:
    """One run: trainings of one method on one dataset that differ in their seeds alone.

    Args:
        seed: of the first repetition; the others follow, ``seed + 1`` and so on.
        repetitions: R, how many trainings there are.
        update_interval: T, weight updates per hyperparameter update.
        look_back: i, look-back distance of the estimator.
        hyperparameter_updates: K; a training has T·K weight updates whatever the method.
        clip_log10_lr: bounds of log10 lr after every hyperparameter update, or None.
        batch_size: None for full batches.
        validation_share: share of the training-and-validation rows held out for validation.
        gradient_clip_norm: bound on the norm of the training-loss gradient of each repetition, or
            None.
        record_every: weight updates between rows of the curves.
        chunk: repetitions trained at once, or None to choose by the device's memory.
        checkpoint_every: seconds between checkpoints of a block in training, or None for none.
        tracker: where curves are shown as well (`hpo_bench.running.tracking`), or None.
        workers: blocks computed side by side, or None for one a CPU core.
        model: builds the model (`hpo_bench.models`): called with the dataset's `Table` and the
            precision.
        config: the resolved configuration, as plain containers, for ``run.json`` and its hash.
    """

    seed: int
    repetitions: int
    update_interval: int
    look_back: int
    hyperparameter_updates: int
    method: Method
    dataset: str
    source: Source
    model: Any
    start: StartRanges
    clip_log10_lr: tuple[float, float] | None
    batch_size: int | None
    validation_share: float
    data_order: Literal["shuffled", "sequential"]
    gradient_clip_norm: float | None
    record_every: int
    device: str
    precision: Literal["float32", "float64"]
    chunk: int | None
    workers: int | None
    results_dir: Path
    save_weights: bool
    save_hypergradients: bool
    force: bool = False
    checkpoint_every: float | None = None
    tracker: str | None = None
    config: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def seeds(self) -> range:
        """The seeds of the repetitions."""
        return range(self.seed, self.seed + self.repetitions)

    @property
    def weight_updates(self) -> int:
        """T·K, the length of a training."""
        return self.update_interval * self.hyperparameter_updates

    @property
    def total_updates(self) -> int:
        """Weight updates of one repetition: of its training, or of all trainings of its search."""
        search = self.method.search
        return self.weight_updates if search is None else int(search.weight_updates(self))
