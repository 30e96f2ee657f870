"""Small problems for tests of the engine: random tables, settings built by hand, and slow
references by autograd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.loop import train
from hpo_bench.core.optimisers import SGD, Adam
from hpo_bench.core.rule import Step
from hpo_bench.core.sgd import COORDINATES, MomentumSGD
from hpo_bench.core.table import Table
from hpo_bench.core.update import Linearisation, State
from hpo_bench.hypergradients.dot_product import DotProduct
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.models.mlp import MLP
from hpo_bench.rules.adam import AdamW
from hpo_bench.running.trainer import Trainer
from hpo_bench.settings.run import Method, Settings, StartRanges

torch.set_num_threads(
    1
)  # as the engine does for models of this size; two threads may split a sum in two


advance = MomentumSGD().advance


def in_force(raw: Mapping[str, Tensor]) -> Hyperparameters:
    """The paper's hyperparameters, from raw values."""
    return Hyperparameters.of(raw, COORDINATES)


def make_table(
    task: str = "regression", rows: int = 60, features: int = 4, classes: int = 3, seed: int = 0
) -> Table:
    """Random inputs with targets that depend on them: 60 % training, 20 % validation, 20 % test."""
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((rows, features))
    score = inputs @ random.standard_normal((features, classes)) + 0.1 * random.standard_normal(
        (rows, classes)
    )
    regression = task == "regression"
    targets = np.tanh(score[:, :1]) if regression else score.argmax(1)
    training, validation = rows * 6 // 10, rows * 2 // 10
    return Table(
        name=f"random_{task}",
        task=task,
        inputs=inputs,
        targets=targets,
        training=training,
        validation=validation,
        test=rows - training - validation,
        outputs=1 if regression else classes,
        target_scale=2.5 if regression else 1.0,
        fingerprint=f"{task}-{rows}-{features}-{classes}-{seed}",
    )


@dataclass(frozen=True)
class Given:
    """A source that has its table already."""

    table: Table

    def load(self, validation_share: float) -> Table:
        """The table."""
        return self.table


ALL = ("weight_decay", "lr", "momentum")
OF_ADAMW = ("weight_decay", "lr", "beta1")


def make_method(name: str, look_back: int = 5, update_interval: int = 10, **changes: Any) -> Method:
    """Methods of the paper and beyond it, as their yamls say (tests/settings/test_parse.py
    compares those of the paper).
    """
    adam = Adam(0.05)
    both, train = "train_and_validation", "train"
    neumann = Neumann(look_back)
    known = {
        "random": Method(name, None, None, (), (), both),
        "random_lr_schedule": Method(name, None, None, (), (), both, lr_schedule=True),
        "random_validation": Method(name, None, None, (), (), train, full_validation=True),
        "lorraine": Method(name, neumann, adam, ("weight_decay",), (), train),
        "baydin": Method(name, DotProduct(), SGD(0.001), ("lr",), (), both),
        "ours_wd_lr": Method(name, neumann, adam, ("weight_decay", "lr"), (), train),
        "ours_wd_lr_m": Method(name, neumann, adam, ALL, (), train),
        "ours_wd_hdlr_m": Method(name, neumann, adam, ALL, ("lr",), train),
        "diff_through_opt": Method(name, Unroll(look_back), adam, ALL, (), train),
        "random_adam": Method(name, None, None, (), (), both, rule=AdamW()),
        "ours_adamw": Method(name, neumann, adam, OF_ADAMW, (), train, rule=AdamW()),
        "diff_through_opt_adamw": Method(
            name, Unroll(look_back), adam, OF_ADAMW, (), train, rule=AdamW()
        ),
        "ours_discounted": Method(name, Forward(discount=0.95), adam, ALL, (), train),
        "rtho": Method(name, Forward(), adam, ALL, (), train),
        "long_diff_through_opt": Method(
            name, Unroll(update_interval), adam, ALL, (), train, reset_weights=True
        ),
    }
    return replace(known[name], **changes)


METHODS = (
    "random",
    "random_lr_schedule",
    "random_validation",
    "lorraine",
    "baydin",
    "ours_wd_lr",
    "ours_wd_lr_m",
    "ours_wd_hdlr_m",
    "diff_through_opt",
    "long_diff_through_opt",
)
BEYOND = ("random_adam", "ours_adamw", "diff_through_opt_adamw", "ours_discounted", "rtho")


def make_settings(
    results_dir: Path,
    method: str | Method = "ours_wd_lr_m",
    table: Table | None = None,
    **changes: Any,
) -> Settings:
    """Five hyper updates of ten weight updates in float64 unless changed."""
    table = table or make_table()
    interval, look_back = changes.get("update_interval", 10), changes.get("look_back", 5)
    values: dict[str, Any] = {
        "seed": 0,
        "repetitions": 3,
        "update_interval": interval,
        "look_back": look_back,
        "hyperparameter_updates": 5,
        "method": method
        if isinstance(method, Method)
        else make_method(method, look_back, interval),
        "dataset": table.name,
        "source": Given(table),
        "model": MLP((7,)),
        "start": StartRanges(None, (-2.0, -1.0), (-5.0, -3.0), (0.2, 0.8), (0.9, 1.0)),
        "clip_log10_lr": (-10.0, 0.0),
        "batch_size": None,
        "validation_share": 0.25,
        "data_order": "shuffled",
        "gradient_clip_norm": None,
        "record_every": 1,
        "device": "cpu",
        "precision": "float64",
        "chunk": None,
        "workers": None,
        "results_dir": results_dir,
        "save_weights": False,
        "save_hypergradients": False,
    }
    values.update(changes)
    decisive = {
        k: str(v)
        for k, v in values.items()
        if k not in {"results_dir", "source", "chunk", "workers", "method", "checkpoint_every"}
    }
    config = {
        **decisive,
        "dataset": {"name": table.name},
        "method": {"name": values["method"].name, "is": str(values["method"])},
    }
    return Settings(**values, config=config)


def trained(
    settings: Settings, engine: Any = None, device: str = "cpu", **arguments: Any
) -> tuple[Any, Any, Any]:
    """End, record, and what ``engine`` (see `hpo_bench.core.loop.train`) made, of one training of
    all repetitions.
    """
    trainer = Trainer.of(settings, settings.source.load(0.25), torch.device(device))
    recorder, made = trainer.recorder(settings.repetitions), []

    def keeping(training: Any) -> Any:
        made.append(engine(training))
        return made[0]

    end = train(
        trainer.problem(list(settings.seeds)),
        trainer.plan,
        trainer.start(list(settings.seeds)),
        recorder,
        engine=None if engine is None else keeping,
        **arguments,
    )
    return end, recorder, made


def quadratic(curvature: Tensor, centre: Tensor) -> Any:
    """Linearisation of ½(w - c)ᵀA(w - c), row by row: curvature (R, P, P), centre (R, P)."""

    def at(weights: Tensor) -> Linearisation:
        gap = weights - centre
        gradient = torch.einsum("rpq,rq->rp", curvature, gap)
        return Linearisation(
            0.5 * (gap * gradient).sum(-1),
            gradient,
            lambda vector: torch.einsum("rpq,rq->rp", curvature, vector),
        )

    return at


def random_quadratic(rows: int = 3, count: int = 4, seed: int = 0) -> tuple[Any, Any, Tensor]:
    """Well-conditioned training and validation quadratics and initial weights, float64."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=random)

    def spd() -> Tensor:
        root = draw(rows, count, count)
        return root @ root.transpose(1, 2) / count + torch.eye(count, dtype=torch.float64)

    return (
        quadratic(spd(), draw(rows, count)),
        quadratic(spd(), draw(rows, count)),
        draw(rows, count),
    )


def make_raw(rows: int = 3, per_weight: int = 0, seed: int = 1) -> dict[str, Tensor]:
    """Raw hyperparameters (rows, 1), the learning rate (rows, per_weight) if wanted."""
    random = torch.Generator().manual_seed(seed)

    def draw(low: float, high: float, width: int) -> Tensor:
        return low + (high - low) * torch.rand(rows, width, dtype=torch.float64, generator=random)

    return {
        "lr": draw(-1.5, -0.8, per_weight or 1),
        "weight_decay": draw(-3.0, -1.0, 1),
        "momentum": draw(-1.0, 1.0, 1),
    }


def run_steps(
    linearise: Any,
    weights: Tensor,
    raw: dict[str, Tensor],
    count: int,
    clip: float | None = None,
    buffer: Tensor | None = None,
) -> tuple[State, list[Step]]:
    """``count`` weight updates from ``weights``, all of them kept."""
    hyper = in_force(raw)
    state = State(weights, torch.zeros_like(weights) if buffer is None else buffer)
    steps = []
    for _ in range(count):
        state, step = advance(state, linearise(state.weights), hyper, clip)
        steps.append(step)
    return state, steps


def final_loss(
    linearise: Any,
    validation: Any,
    weights: Tensor,
    raw: dict[str, Tensor],
    count: int,
    clip: float | None = None,
    buffer: Tensor | None = None,
) -> Tensor:
    """Validation loss (R,) after ``count`` weight updates: what an exact hypergradient
    differentiates.
    """
    state, _ = run_steps(linearise, weights, raw, count, clip, buffer)
    return validation(state.weights).loss
