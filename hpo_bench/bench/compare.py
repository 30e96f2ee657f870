"""Engine against the sequential reference, side by side on one core, as ratios with spread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from hpo_bench.bench.runtime import NEVER
from hpo_bench.bench.sequential import Parts, batches, train
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.running.trainer import Trainer
from hpo_bench.settings.run import Settings


@dataclass(frozen=True)
class SpeedComparison:
    """Time per weight update and repetition on one core.

    Args:
        rows: repetitions that the engine trained at once.
        engine, sequential: milliseconds of each round, taken in turns.
        flops: floating-point operations of the matrix products of one weight update of one
            repetition.
    """

    dataset: str
    method: str
    rows: int
    engine: tuple[float, ...]
    sequential: tuple[float, ...]
    flops: float

    @property
    def ratios(self) -> NDArray[np.float64]:
        """Times of the reference over those of the engine, round by round, (rounds,)."""
        return np.asarray(np.array(self.sequential) / np.array(self.engine))

    @property
    def achieved(self) -> float:
        """FLOP/s of the engine in its median round."""
        return self.flops / (float(np.median(self.engine)) * 1e-3)


def compare(
    settings: Settings, *, updates: int, rounds: int, rows: int | None = None
) -> SpeedComparison:
    """Train ``updates`` weight updates with both, ``rounds`` times in turns, in one thread.

    Both record at every update where all rows make a batch; with smaller batches neither does, and
    evaluating whole sets is left out.

    Args:
        settings: with a method that the reference knows (no tuning, Neumann or unrolled) and one
            hidden layer.
        rows: repetitions at once in the engine; None for as many as ``chunk=auto`` would take.
    """
    table = settings.source.load(settings.validation_share)
    interval, full = settings.update_interval, settings.batch_size is None
    short = replace(
        settings,
        hyperparameter_updates=updates // interval,
        workers=1,
        chunk=rows,
        device="cpu",
        record_every=1 if full else NEVER,
    )
    trainer = Trainer.of(short, table, torch.device("cpu"))
    count = trainer.chunk(rows or 200).rows
    seeds = range(settings.seed, settings.seed + count)
    work = sequential_work(trainer, record_every=1 if full else 0)

    def engine() -> float:
        seconds = trainer.block(seeds).seconds
        return (seconds["total"] if full else seconds["train"]) / count

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        engine(), _seconds(work)
        pairs = [(engine(), _seconds(work)) for _ in range(rounds)]
    finally:
        torch.set_num_threads(threads)
    fast, slow = (tuple(1e3 * pair[side] / updates for pair in pairs) for side in (0, 1))
    return SpeedComparison(
        settings.dataset, settings.method.name, count, fast, slow, product_flops(trainer)
    )


def sequential_work(trainer: Trainer, record_every: int) -> Callable[[], object]:
    """What the reference does for the first repetition of a run."""
    settings, seed = trainer.settings, trainer.settings.seed
    start = trainer.start([seed])
    weights = [view[0].clone() for view in trainer.model.layout.views(start.weights).values()]
    raw = {name: value[0, 0] for name, value in start.raw.items()}
    estimator = settings.method.estimator
    assert estimator is None or isinstance(estimator, Neumann | Unroll)
    parts = Parts.of(trainer.table, trainer.dtype, settings.method.data_for_weights != "train")

    def work() -> None:
        training, validation = (
            batches(part, settings.batch_size, settings.dataset, name, seed)
            for part, name in ((parts.training, "training"), (parts.validation, "validation"))
        )
        train(
            parts,
            weights,
            raw,
            updates=settings.weight_updates,
            interval=settings.update_interval,
            estimator=estimator,
            record_every=record_every,
            training=training,
            validation=validation,
        )

    return work


def product_flops(trainer: Trainer) -> float:
    """Operations of one update's matrix products in the closed form: the arithmetic that cannot be
    saved.

    A forward pass is one product H × (d+1) × B and one C × H × B, a gradient adds a second large
    product, a Hessian-vector product is two; test and validation losses are forward passes, counted
    where all rows make a batch."""
    (hidden, features), outputs = trainer.model.layout.shapes[0], trainer.table.outputs
    settings, window = trainer.settings, trainer.plan.window
    method, full = settings.method, settings.batch_size is None
    rows = {
        name: min(len(part), settings.batch_size or len(part))
        for name, part in trainer.rows.items()
    }
    large, small = 2 * hidden * (features + 1), 2 * hidden * outputs
    training = rows[method.data_for_weights]
    seen = (
        rows["test"] + (rows["validation"] if method.data_for_weights == "train" else 0)
        if full
        else 0
    )
    total: float = training * (2 * large + small) + seen * (large + small)
    if method.estimator is not None:
        estimator = method.estimator
        terms = estimator.look_back if isinstance(estimator, Neumann) else window
        total += (
            (terms - 1) * training * 2 * large + rows["validation"] * (2 * large + small)
        ) / trainer.plan.interval
    return total


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
