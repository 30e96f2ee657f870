"""The runner's own cost for a repetition: everything but the training.

That is planning, tables, writing and indexing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpo_bench.analysis.paper import ONE_PASS
from hpo_bench.core.recorder import recorded_steps
from hpo_bench.experiments.carry_out import carry_out
from hpo_bench.experiments.definition import Experiment, Part, groups
from hpo_bench.experiments.expand import expand
from hpo_bench.progress import Reporter
from hpo_bench.running.program import Parts, Program, Row
from hpo_bench.running.tables import curves_table, final_table
from hpo_bench.store import index
from hpo_bench.store.runs import runs_folder
from hpo_bench.store.writer import Block

PARTS = 8  # as many as uci_main has datasets
COLUMNS = (
    "train_loss",
    "validation_loss",
    "test_loss",
    "test_metric",
    "lr",
    "weight_decay",
    "momentum",
)


@dataclass(frozen=True)
class Overhead:
    """Milliseconds for a repetition: wall time of each stage, and processor time of all.

    ``resume``: seconds to plan again and find all of them stored.
    """

    repetitions: int
    planning: float
    writing: float
    indexing: float
    cpu: float
    resume: float

    @property
    def total(self) -> float:
        """Wall time of all three."""
        return self.planning + self.writing + self.indexing


class Untrained:
    """A pool that makes up its results: blocks cost what their tables cost."""

    def run(
        self, program: Program, blocks: Sequence[Sequence[Row]], workers: int, reporter: Reporter
    ) -> Iterator[Parts]:
        """Yield the blocks at once."""
        trainer = program.trainer
        steps = recorded_steps(trainer.settings.weight_updates, trainer.settings.record_every)
        random = np.random.default_rng(0)
        for rows in blocks:
            seeds = tuple(row.seed for row in rows)
            curves = {name: random.random((len(steps), len(seeds)), np.float32) for name in COLUMNS}
            ok = np.full(len(seeds), -1, np.int64)
            initial = trainer.plan.hyperparameters(trainer.start(seeds).raw).natural
            tables = {
                "final": final_table(seeds, initial, steps, curves, ok, 0.0),
                "curves": curves_table(seeds, initial, steps, curves, ok, np.zeros(len(steps))),
            }
            block = Block(seeds, tables, {}, {"train": 0.0, "evaluate": 0.0, "total": 0.0})
            yield {rows[0].run: block}


def overhead(repetitions: int = 200, hyperparameter_updates: int = 400) -> Overhead:
    """Measure with 72 runs of ``repetitions`` and curves of 10·K + 1 rows: 14 400 repetitions as in
    ``uci_main``.

    Writes to a temporary folder (2 GB by default) that is removed.
    """
    parts = tuple(
        Part(
            f"part{number}",
            ("diabetes",),
            ONE_PASS,
            repetitions,
            seed=number * repetitions,
            overrides=(f"hyperparameter_updates={hyperparameter_updates}",),
        )
        for number in range(PARTS)
    )
    experiment = Experiment("overhead", "paper", "", (), (), parts)
    with tempfile.TemporaryDirectory(prefix="hpo-bench-overhead-") as folder:
        times, begin = [time.perf_counter()], time.process_time()
        jobs = expand(experiment, Path(folder)).jobs
        times.append(time.perf_counter())
        carry_out(jobs, "", pool=Untrained())
        times.append(time.perf_counter())
        index.read(runs_folder(folder))
        times.append(time.perf_counter())
        cpu = time.process_time() - begin
        found = index.statuses(
            runs_folder(folder), [job.run_id for job in expand(experiment, Path(folder)).jobs]
        )
        times.append(time.perf_counter())
    assert len(found) == len(ONE_PASS) * PARTS == sum(1 for _ in groups(experiment))
    assert set(found.values()) == {"complete"}
    count = repetitions * len(jobs)
    planning, writing, indexing, resume = np.diff(times)
    each = 1000 / count
    return Overhead(count, each * planning, each * writing, each * indexing, each * cpu, resume)
