"""Engine against the sequential reference, side by side on one core, as ratios with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from hpo_bench.bench.sequential import Parts, train
from hpo_bench.errors import UserError
from hpo_bench.experiment import Trainer
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.settings import Settings


@dataclass(frozen=True)
class Comparison:
    """Time per weight update and repetition on one core.

    Args:
        rows: repetitions that the engine trained at once.
        engine, sequential: milliseconds of each round, taken in turns.
        flops: floating-point operations of the matrix products of one weight update of one repetition.
    """

    dataset: str
    method: str
    rows: int
    engine: tuple[float, ...]
    sequential: tuple[float, ...]
    flops: float

    @property
    def ratios(self) -> np.ndarray:
        """Sequential over engine, round by round."""
        return np.array(self.sequential) / np.array(self.engine)

    @property
    def achieved(self) -> float:
        """FLOP/s of the engine in its median round."""
        return self.flops / (float(np.median(self.engine)) * 1e-3)


def compare(settings: Settings, *, updates: int, rounds: int, rows: int | None = None) -> Comparison:
    """Train ``updates`` weight updates with both, ``rounds`` times in turns, in one thread.

    Args:
        settings: full-batch regression with a method that the reference knows (no tuning, Neumann or unrolled).
        rows: repetitions at once in the engine; None for as many as ``chunk=auto`` would take.

    Raises:
        UserError: a dataset that the reference does not know.
    """
    table = settings.source.load(settings.validation_share)
    if table.task != "regression" or settings.batch_size is not None:
        raise UserError(f"dataset={settings.dataset}: the reference trains full batches of regression sets only")
    interval = settings.update_interval
    short = replace(settings, hyperparameter_updates=updates // interval, workers=1, chunk=rows, device="cpu")
    trainer = Trainer.of(short, table, torch.device("cpu"))
    count = trainer.chunk(rows or 200).rows
    seeds = range(settings.seed, settings.seed + count)
    start = trainer.start(seeds)
    weights = [view[0].clone() for view in trainer.model.layout.views(start.weights).values()]
    raw = {name: value[0, 0] for name, value in start.raw.items()}
    estimator = settings.method.estimator
    assert estimator is None or isinstance(estimator, Neumann | Unroll)
    parts = Parts.of(table, trainer.dtype, settings.method.data_for_weights != "train")
    hidden = trainer.model.layout.shapes[0][0]

    def engine() -> None:
        trainer.block(seeds)

    def sequential() -> None:
        train(parts, weights, raw, updates=updates, interval=interval, estimator=estimator, hidden=hidden)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _seconds(engine), _seconds(sequential)
        pairs = [(_seconds(engine) / count, _seconds(sequential)) for _ in range(rounds)]
    finally:
        torch.set_num_threads(threads)
    fast, slow = (tuple(1e3 * pair[side] / updates for pair in pairs) for side in (0, 1))
    return Comparison(settings.dataset, settings.method.name, count, fast, slow, product_flops(trainer))


def product_flops(trainer: Trainer) -> float:
    """Operations of one update's matrix products in the closed form: the arithmetic that cannot be saved.

    A forward pass is one product H × (d+1) × B and one 1 × H × B, a gradient adds a second large product, a
    Hessian-vector product is two; test and validation losses are forward passes.
    """
    hidden, features = trainer.model.layout.shapes[0]
    rows = {name: len(part) for name, part in trainer.rows.items()}
    method, window = trainer.settings.method, trainer.plan.window
    large, small = 2 * hidden * (features + 1), 2 * hidden
    training = rows[method.data_for_weights]
    seen = rows["test"] + (rows["validation"] if method.data_for_weights == "train" else 0)
    total: float = training * (2 * large + small) + seen * (large + small)
    if method.estimator is not None:
        terms = method.estimator.look_back if window == 1 else window
        total += ((terms - 1) * training * 2 * large + rows["validation"] * (2 * large + small)) / trainer.plan.interval
    return total


def _seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
