"""How long runs take and how much memory: measured with a few weight updates of each program."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from hpo_bench.core.recorder import recorded_steps
from hpo_bench.experiments.expand import Job
from hpo_bench.experiments.speed import Speed, is_large, measure
from hpo_bench.running import memory
from hpo_bench.running.program import Program
from hpo_bench.running.trainer import Trainer, pick_device

CALIBRATION_INTERVAL = 50  # weight updates per hyperparameter update in a calibration, at most
QUICK = 0.1  # seconds below which a calibration is done again with more updates
NOT_OF_THE_RATE = (  # settings that do not change how long a weight update takes
    "seed",
    "repetitions",
    "hyperparameter_updates",
    "init",
    "results_dir",
    "chunk",
    "workers",
)
OF_THE_SPEED = ("model", "batch_size", "precision", "device")  # what decides that of a large model


@dataclass(frozen=True)
class Estimate:
    """What a unit is expected to take here.

    Args:
        seconds: wall time.
        bytes: memory.
        shards: blocks that it is divided into.
    """

    seconds: float
    bytes: int
    shards: int


@dataclass(frozen=True)
class Rate:
    """What one thread takes for one repetition, in seconds.

    Args:
        update: a weight update, tuning included.
        evaluation: of the losses that a recorded row of the curves has.
    """

    update: float
    evaluation: float


class Calibration:
    """Estimates from a few weight updates of each distinct program, and of large models from one
    gradient and the like.

    Args:
        on_measure: told the dataset before a large model is measured, which may take seconds.
    """

    def __init__(self, on_measure: Callable[[str], None] = lambda dataset: None) -> None:
        self._rates: dict[str, Rate] = {}
        self._speeds: dict[str, Speed] = {}
        self._on_measure = on_measure

    def estimate(self, unit: Sequence[Job]) -> Estimate:
        """Time and memory of a unit.

        Raises:
            UserError: it cannot run on this device.
        """
        cells, table = [job.settings for job in unit], unit[0].table
        device = pick_device(cells[0].device)
        repetitions = sum(cell.repetitions for cell in cells)
        program = Program.of(cells, table, device)
        chunk = program.trainer.chunk(repetitions)
        plain, trained, trainer = _training(unit[-1]), chunk, program.trainer
        if plain is not unit[-1]:
            trainer = Trainer.of(plain.settings, table, device)
            trained = trainer.chunk(plain.settings.repetitions)
        if is_large(trainer):
            rate = self._rate_of_large(plain, trainer, trained)
        else:
            rate = self._rate(plain, trained, device)
        of_one = rate.update * cells[0].total_updates
        if plain is unit[-1]:
            rows = recorded_steps(cells[0].weight_updates, cells[0].record_every)
            of_one += rate.evaluation * len(rows)
        seconds = repetitions * of_one / max(trained.workers, 1)
        return Estimate(seconds, chunk.bytes, math.ceil(repetitions / chunk.rows))

    def _rate_of_large(self, job: Job, trainer: Trainer, chunk: memory.Chunk) -> Rate:
        """The rate with a large model, which is measured once for all methods."""
        content = {name: job.settings.config.get(name) for name in OF_THE_SPEED}
        key = json.dumps([job.table.fingerprint, content, chunk.workers], sort_keys=True)
        if key not in self._speeds:
            self._on_measure(job.settings.dataset)
            with _threads(trainer.threads(1, chunk.workers)):
                self._speeds[key] = measure(trainer)
        speed = self._speeds[key]
        return Rate(speed.update(trainer), speed.record(trainer))

    def _rate(self, job: Job, chunk: memory.Chunk, device: torch.device) -> Rate:
        content = dict(job.settings.config)
        for setting in NOT_OF_THE_RATE:
            content.pop(setting, None)
        key = json.dumps([job.table.fingerprint, content, chunk.rows], sort_keys=True)
        if key not in self._rates:
            self._rates[key] = _measure(job, chunk, device)
        return self._rates[key]


def _training(job: Job) -> Job:
    """What a search trains side by side, as a job of plain trainings; other jobs as they are.

    The time that a search takes for its decisions and evaluations is left out of an estimate.
    """
    settings, search = job.settings, job.settings.method.search
    if search is None:
        return job
    plain = replace(
        settings,
        method=replace(settings.method, search=None),
        record_every=settings.weight_updates,
        repetitions=settings.repetitions * search.side_by_side(settings),
    )
    return replace(job, settings=plain)


def _measure(job: Job, chunk: memory.Chunk, device: torch.device) -> Rate:
    """The rate of a program, from a few weight updates of a block.

    They are told apart from the losses at both of its ends, which take longer than they do where a
    data set is large: a training records a row every so often.
    """
    interval = min(job.settings.update_interval, CALIBRATION_INTERVAL)
    seeds = [job.settings.seed + row for row in range(min(chunk.rows, job.settings.repetitions))]
    rate = Rate(0.0, 0.0)
    with _threads(torch.get_num_threads()):
        for count in (1, max(2, math.ceil(20 / interval))):
            short = replace(
                job.settings,
                update_interval=interval,
                hyperparameter_updates=count,
                save_weights=False,
            )
            trainer = Trainer.of(short, job.table, device)
            torch.set_num_threads(trainer.threads(len(seeds), chunk.workers))
            begin = time.perf_counter()
            evaluation = trainer.block(seeds).seconds["evaluate"]
            seconds = time.perf_counter() - begin
            rows = recorded_steps(short.weight_updates, short.record_every)
            rate = Rate(
                (seconds - evaluation) / (len(seeds) * short.weight_updates),
                evaluation / (len(seeds) * len(rows)),
            )
            if seconds > QUICK:
                break
    return rate


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def gibibytes(count: int) -> str:
    """A number of bytes for a reader, in GiB or MiB."""
    if count >= memory.GIB / 10:
        return f"{count / memory.GIB:.2f} GiB"
    return f"{count / 2**20:.0f} MiB"
