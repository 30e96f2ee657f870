"""Bayesian optimisation with a Gaussian process: one training after the other, each a whole one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo_bench.core import checks
from hpo_bench.core.seeds import generator
from hpo_bench.core.table import Table
from hpo_bench.errors import UserError
from hpo_bench.running.work import work
from hpo_bench.search import rows as training
from hpo_bench.search.journal import Journal, packed, unpacked
from hpo_bench.search.ledger import Ledger
from hpo_bench.search.rows import SearchRows, advance, all_pairs, begin, bounds, to_raw
from hpo_bench.settings.conditions import check_whole
from hpo_bench.settings.run import HYPERPARAMETERS, Settings
from hpo_bench.store.writer import Block

if TYPE_CHECKING:
    from hpo_bench.running.trainer import Trainer

NEEDED = (
    "optuna",
    "greenlet",
)  # greenlet: Optuna searches its acquisition function in another order without it
Bounds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class BayesianOptimisation:
    """Random trainings, then trainings at the greatest expected improvement of a Gaussian process
    (Optuna's).

    Learning rate and weight decay are searched in log10, momentum as it is, within the ranges of
    random starts. Every trial starts from weights of its own. The repetitions of a block train
    their trials of one number side by side.

    DIFFERENCE: the paper does not say which library or kernel; Optuna's `GPSampler` is a Matérn-5/2
    process with fitted noise and log expected improvement.

    DIFFERENCE: the objective is capped at ``diverged``, so that a loss of 1e30 bends the process no
        more than a NaN.

    Args:
        trials: trainings of a repetition.
        random: how many of them come first, at random.
        diverged: objective of a diverged training, un-normalised (MSE in the target's unit,
            cross-entropy); None for 1.5 times the targets' variance, or 1.3 times the cross-entropy
            of guessing: what the paper's come to.
        published: see `hpo_bench.running.trainer.Search`.
    """

    trials: int = 30
    random: int = 5
    diverged: float | None = None
    published: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_whole({"trials": self.trials, "random": self.random})
        if self.diverged is not None:
            checks.positive("method.search.diverged", self.diverged)

    def check(self, settings: Settings) -> None:
        training.check(settings)
        lacking = [name for name in NEEDED if find_spec(name) is None]
        if lacking:
            raise UserError(
                f"method={settings.method.name} needs {lacking[0]}, which is not installed: "
                "pip install 'hpo-bench[search]'"
            )

    def weight_updates(self, settings: Settings) -> int:
        """The weight updates of ``trials`` trainings."""
        return self.trials * settings.weight_updates

    def side_by_side(self, settings: Settings) -> int:
        """One: each trial waits for those before it."""
        return 1

    def block(
        self, trainer: Trainer, seeds: Sequence[int], on_progress: Callable[[int], None]
    ) -> Block:
        settings = trainer.settings
        ledger = Ledger(seeds, work(trainer), settings.save_weights)
        journal = Journal(trainer, seeds, ledger, on_progress, self.weight_updates(settings))
        saved = journal.load() or {}
        for trial in range(int(saved.get("round", 0)), self.trials):
            self._round(trainer, seeds, trial, ledger, journal, saved)
            saved = {}
            following = trial + 1
            journal.reached(following / self.trials, partial(_round_reached, following))
        return ledger.block(trainer)

    def _round(
        self,
        trainer: Trainer,
        seeds: Sequence[int],
        trial: int,
        ledger: Ledger,
        journal: Journal,
        saved: Mapping[str, np.ndarray],
    ) -> None:
        """Train one trial of every repetition, from the middle if it was ``saved`` there."""
        updates = trainer.settings.weight_updates
        middle = "raw/lr" in saved
        if middle:
            raw = {name: saved[f"raw/{name}"] for name in HYPERPARAMETERS}
        else:
            with journal.stretch() as check:
                raw = self._raw(trainer, seeds, trial, ledger, check)
        first = begin(trainer, seeds, *all_pairs(len(seeds), [trial]), raw)

        def contents(rows: SearchRows) -> dict[str, np.ndarray]:
            return {
                "round": np.array(trial),
                **{f"raw/{name}": values for name, values in raw.items()},
                **packed(rows),
            }

        def on_pause(number: int, rows: Callable[[], SearchRows]) -> None:
            journal.reached((trial + number / updates) / self.trials, lambda: contents(rows()))

        start = unpacked(first, saved) if middle else first
        begun = time.perf_counter()
        last, losses = advance(trainer, start, updates, divide=False, on_pause=on_pause)
        ledger.note(first, last, losses, 0, time.perf_counter() - begun)

    def _raw(
        self,
        trainer: Trainer,
        seeds: Sequence[int],
        trial: int,
        ledger: Ledger,
        check: Callable[[], None],
    ) -> dict[str, np.ndarray]:
        """Raw hyperparameters of one trial of every repetition, (repetitions,) each."""
        if trial < self.random:
            drawn = begin(trainer, seeds, *all_pairs(len(seeds), [trial])).snapshot.raw
            return {name: values[:, 0].double().cpu().numpy() for name, values in drawn.items()}
        settings, past = trainer.settings, ledger.trials
        limit = self.limit(trainer.table)
        proposed = []
        for repetition, seed in enumerate(seeds):
            check()
            own = past["repetition"] == repetition
            points = searched({name: past[f"initial_{name}"][own] for name in HYPERPARAMETERS})
            values = objective(past["validation_loss"][own], trainer.table, limit)
            number = (
                generator(seed, settings.dataset, "bayesopt", trial).bit_generator.random_raw()
                >> 32
            )
            proposed.append(suggest(points, values, bounds(settings.start), int(number)))
        return {
            name: to_raw(name, np.array([point[name] for point in proposed]))
            for name in HYPERPARAMETERS
        }

    def limit(self, table: Table) -> float:
        """The objective's cap: what stands for a trial that diverged, and for worse ones."""
        if self.diverged is not None:
            return float(self.diverged)
        if table.task == "regression":
            return 1.5 * table.target_scale**2
        return 1.3 * math.log(table.outputs)


def objective(validation: np.ndarray, table: Table, limit: float) -> np.ndarray:
    """What is minimised: the validation loss in its unit (un-normalised MSE), ``limit`` where it is
    more or none.
    """
    scale = table.target_scale**2 if table.task == "regression" else 1.0
    return np.minimum(np.where(np.isnan(validation), np.inf, validation * scale), limit)


def searched(natural: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """From hyperparameters to the box's coordinates."""
    return {
        name: value if name == "momentum" else np.log10(value) for name, value in natural.items()
    }


def suggest(
    points: Mapping[str, np.ndarray], values: np.ndarray, box: Bounds, seed: int
) -> dict[str, float]:
    """The next point of the box, a function of its arguments alone: the sampler is made anew from
    all trials so far.

    Costs some tenths of a second.

    Args:
        points: of the trials so far, (trials,) each.
        values: theirs, to be minimised.
        seed: of the sampler, below 2^32.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(low, high) for name, (low, high) in box.items()
    }
    study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=seed, n_startup_trials=0))
    clipped = {name: np.clip(points[name], *box[name]) for name in box}
    for row, value in enumerate(values):
        at = {name: float(clipped[name][row]) for name in box}
        study.add_trial(
            optuna.trial.create_trial(params=at, distributions=ranges, value=float(value))
        )
    return {name: float(value) for name, value in study.ask(ranges).params.items()}


def _round_reached(number: int) -> dict[str, np.ndarray]:
    """What the journal keeps between rounds."""
    return {"round": np.array(number)}
