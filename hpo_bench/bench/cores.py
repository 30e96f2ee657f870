"""What a second core brings.

The same blocks of repetitions are trained by one worker and by one a core, in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from hpo_bench.progress import Silent
from hpo_bench.running.memory import cores
from hpo_bench.running.pool import Threads
from hpo_bench.running.program import Program, Row
from hpo_bench.settings.run import Settings

BLOCKS = 2  # a core


@dataclass(frozen=True)
class Cores:
    """Times of ``workers`` side by side against one, round by round."""

    name: str
    workers: int
    ratios: tuple[float, ...]


def several_cores(settings: Settings, *, updates: int, rounds: int) -> Cores:
    """Train two blocks a core with one worker and with all."""
    short = replace(
        settings, hyperparameter_updates=updates // settings.update_interval, device="cpu"
    )
    program = Program.of([short], short.source.load(short.validation_share), torch.device("cpu"))
    workers = cores()
    rows = program.trainer.chunk(100 * workers).rows
    blocks = [[Row(0, at * rows + row) for row in range(rows)] for at in range(BLOCKS * workers)]

    def seconds(side_by_side: int) -> float:
        begin = time.perf_counter()
        for _ in Threads().run(program, blocks, side_by_side, Silent()):
            pass
        return time.perf_counter() - begin

    seconds(workers)
    ratios = [seconds(1) / seconds(workers) for _ in range(rounds)]
    return Cores(
        f"{settings.method.name} on {settings.dataset}",
        workers,
        tuple(float(np.round(r, 3)) for r in ratios),
    )
