"""Repetitions of one run, or of several of one kind, as rows of one tensor program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from hpo_bench.core.recorder import recorded_steps
from hpo_bench.core.table import Table
from hpo_bench.hypergradients.rows import grouped
from hpo_bench.running.checkpoint import Checkpoints
from hpo_bench.running.trainer import Trainer
from hpo_bench.settings.run import Settings
from hpo_bench.store.writer import Block


class Row(NamedTuple):
    """A repetition of one of the runs that are trained together.

    Args:
        run: the number of its run.
        seed: of the repetition.
    """

    run: int
    seed: int


Parts = Mapping[
    int, Block
]  # what a block of rows gives to each run that it holds rows of, by the run's number


@dataclass(frozen=True)
class Program:
    """One run, or several that differ in their look-back alone: their repetitions are rows of one
    tensor program.

    Args:
        runs: their settings.
        trainer: of what they share. Its estimator is as wide as the widest, and says what memory a
            row takes.
        checkpoints: where the blocks of each run leave theirs; empty without.
    """

    runs: tuple[Settings, ...]
    trainer: Trainer
    checkpoints: tuple[Checkpoints, ...] = ()

    @staticmethod
    def of(
        runs: Sequence[Settings],
        table: Table,
        device: torch.device,
        checkpoints: Sequence[Checkpoints] = (),
    ) -> Program:
        """The program of some runs. See `Trainer.of`.

        Raises:
            UserError: a combination that cannot work.
        """
        trainer = Trainer.of(runs[0], table, device)
        if len(runs) > 1:
            widest = grouped([settings.method.estimator for settings in runs])
            trainer = replace(trainer, plan=replace(trainer.plan, estimator=widest))
        return Program(tuple(runs), trainer, tuple(checkpoints))

    def alone(self, number: int) -> Trainer:
        """The trainer of one of the runs, as it is described in its ``run.json``."""
        return replace(self.trainer, settings=self.runs[number])

    def block(
        self, rows: Sequence[Row], on_progress: Callable[[int], None] = lambda updates: None
    ) -> Parts:
        """Train some rows side by side, from their checkpoint if there is one."""
        trainer = replace(self.trainer, checkpoints=self._checkpoints(rows))
        if len(self.runs) > 1:
            own = grouped([self.runs[row.run].method.estimator for row in rows])
            trainer = replace(trainer, plan=replace(trainer.plan, estimator=own))
        block = trainer.block([row.seed for row in rows], on_progress)
        return _split(
            block,
            rows,
            recorded_steps(trainer.settings.weight_updates, trainer.settings.record_every),
        )

    def _checkpoints(self, rows: Sequence[Row]) -> Checkpoints | None:
        """Where a block leaves its checkpoint: with the run of its first row, and under its own
        rows' names.
        """
        if not self.checkpoints:
            return None
        return self.checkpoints[rows[0].run].shared(
            [self.checkpoints[row.run].name for row in rows]
        )

    def begun(self, missing: Iterable[Row]) -> list[tuple[Row, ...]]:
        """Rows of the blocks that were interrupted, of at most ``chunk`` rows; each row once."""
        left, found = set(missing), []
        numbers = {checkpoints.name: number for number, checkpoints in enumerate(self.checkpoints)}
        largest = self.trainer.settings.chunk
        for checkpoints in self.checkpoints:
            for names, seeds in checkpoints.begun():
                if not numbers.keys() >= set(names):
                    continue
                rows = tuple(
                    Row(numbers[name], seed) for name, seed in zip(names, seeds, strict=True)
                )
                if left.issuperset(rows) and len(rows) <= (largest or len(rows)):
                    found.append(rows)
                    left.difference_update(rows)
        return found

    def drop_checkpoint(self, parts: Parts) -> None:
        """Remove what a finished block left to go on from."""
        rows = [Row(number, seed) for number, block in parts.items() for seed in block.seeds]
        checkpoints = self._checkpoints(rows)
        if checkpoints is not None:
            checkpoints.of([row.seed for row in rows]).drop()


def _split(block: Block, rows: Sequence[Row], steps: Sequence[int]) -> Parts:
    """Each run's own part of a block. Rows of one run lie side by side.

    Args:
        steps: those that are recorded.
    """
    runs = [row.run for row in rows]
    if len(set(runs)) == 1:
        return {runs[0]: block}
    lengths = {name: _rows_of_table(name, block, steps) for name in block.tables}
    parts: dict[int, Block] = {}
    for run in dict.fromkeys(runs):
        begin = runs.index(run)
        end = begin + runs.count(run)
        share = (end - begin) / len(runs)
        tables = {}
        for name, table in block.tables.items():
            tables[name] = table.slice(sum(lengths[name][:begin]), sum(lengths[name][begin:end]))
        parts[run] = Block(
            block.seeds[begin:end],
            tables,
            {name: array[begin:end] for name, array in block.weights.items()},
            {kind: seconds * share for kind, seconds in block.seconds.items()},
        )
    return parts


def _rows_of_table(name: str, block: Block, steps: Sequence[int]) -> list[int]:
    """Rows of a table that belong to each repetition: a diverged one's curves end where it
    diverged.
    """
    count = len(block.seeds)
    if name != "curves":
        return [block.tables[name].num_rows // count] * count
    ends = block.tables["final"]["diverged_at"].to_pylist()
    return [len(steps) if end is None else sum(step <= end for step in steps) for end in ends]
