"""How fast a large model is: from one gradient, one Hessian-vector product, one evaluation.

A few weight updates of every method would take minutes where a single gradient takes seconds, and
methods differ there in how many of these they need, which `hpo_bench.running.work` counts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from hpo_bench.core.model import Batch
from hpo_bench.running.trainer import Trainer
from hpo_bench.running.work import work

Result = TypeVar("Result")

LARGE = 8 << 20  # bytes of a batch's activations from which on a model counts as large
SHARE = 0.1  # of a batch that is measured first, and alone where that takes long
LONG = 0.3  # seconds
LEAST = 2  # rows: batch normalisation takes no fewer


@dataclass(frozen=True)
class Speed:
    """Seconds that one repetition takes for each part of its training.

    Args:
        gradient: of a batch, forward pass included.
        product: a Hessian-vector product of a batch.
        evaluation: of a row.
    """

    gradient: float
    product: float
    evaluation: float

    def update(self, trainer: Trainer) -> float:
        """Seconds of a weight update, tuning included."""
        updates = trainer.settings.weight_updates
        costs = work(trainer).of(updates)
        gradients, products = costs["gradients"], costs["hessian_products"]
        return (gradients * self.gradient + products * self.product) / updates

    def record(self, trainer: Trainer) -> float:
        """Seconds of the losses that a recorded row of the curves has."""
        rows = len(trainer.rows["test"])
        if trainer.settings.method.full_validation:
            rows += len(trainer.rows["validation"])
        return rows * self.evaluation


def is_large(trainer: Trainer) -> bool:
    """Whether a few weight updates of every method would take minutes."""
    return trainer.model.working_set(_batch_rows(trainer)) >= LARGE


@torch.no_grad()
def measure(trainer: Trainer) -> Speed:
    """Measure a large model at its initial weights, with a part of a batch where that is enough."""
    rows, weights = _batch_rows(trainer), trainer.start([trainer.settings.seed]).weights
    size = min(rows, max(LEAST, math.ceil(SHARE * rows)))
    _derivatives(trainer, weights, min(rows, LEAST))  # whatever is done once is done now
    gradient, product = _derivatives(trainer, weights, size)
    if gradient < LONG and size < rows:
        size = rows
        gradient, product = _derivatives(trainer, weights, size)
    evaluated = min(size, len(trainer.rows["test"]))
    batch = _batch(trainer, "test", evaluated)
    carried = trainer.model.initial_carried(1)
    seconds, _ = _timed(lambda: trainer.model.evaluate(weights, batch, carried))
    return Speed(gradient * rows / size, product * rows / size, seconds / evaluated)


def _derivatives(trainer: Trainer, weights: Tensor, size: int) -> tuple[float, float]:
    """Seconds of a gradient and of a Hessian-vector product of some rows."""
    batch, carried = _batch(trainer, "train", size), trainer.model.initial_carried(1)
    gradient, at = _timed(lambda: trainer.model.linearise(weights, batch, carried, True))
    product, _ = _timed(lambda: at.hessian_product(at.gradient))
    return gradient, product


def _batch(trainer: Trainer, part: str, size: int) -> Batch:
    rows = trainer.rows[part]
    return trainer.model.batch(
        rows.inputs[:size], rows.targets[:size], shared=True, split=rows.split
    )


def _batch_rows(trainer: Trainer) -> int:
    rows = len(trainer.rows[trainer.settings.method.data_for_weights])
    return min(trainer.settings.batch_size or rows, rows)


def _timed(compute: Callable[[], Result]) -> tuple[float, Result]:
    begin = time.perf_counter()
    result = compute()
    return time.perf_counter() - begin, result
