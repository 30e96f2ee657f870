"""Compute the runs of an experiment, going on after failures and beside other processes."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from hpo_bench.errors import RunError, UserError
from hpo_bench.experiments.expand import Job, LoadedTable, units
from hpo_bench.progress import Reporter, Silent
from hpo_bench.running.execute import execute_together
from hpo_bench.running.pool import Pool
from hpo_bench.store.writer import Locked
from hpo_bench.system import locks

PATIENCE = 0.3  # seconds between looks at runs that other processes compute


@dataclass
class UnitOutcome:
    """What became of the jobs of a unit.

    Args:
        computed: jobs computed here, with repetitions computed.
        elsewhere: stored already.
        locked: another process computes them.
        failed: with what went wrong.
    """

    computed: list[tuple[Job, int]] = field(default_factory=list)
    elsewhere: list[Job] = field(default_factory=list)
    locked: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, Exception]] = field(default_factory=list)


def attempt(unit: Sequence[Job], reporter: Reporter, pool: Pool | None = None) -> UnitOutcome:
    """Compute a unit's runs, but those that are stored or locked. Failures are told, not raised."""
    runs = [replace(job.settings, source=LoadedTable(job.table)) for job in unit]
    outcome = UnitOutcome()
    try:
        results = execute_together(runs, reporter, pool)
    except (RunError, UserError) as error:
        outcome.failed += [(job, error) for job in unit]
        return outcome
    for job, result in zip(unit, results, strict=True):
        if isinstance(result, Locked):
            outcome.locked.append(job)
        elif isinstance(result, Exception):
            outcome.failed.append((job, result))
        elif result.computed:
            outcome.computed.append((job, result.computed))
        else:
            outcome.elsewhere.append(job)
    return outcome


@dataclass
class Tally:
    """What came of an experiment's pending runs: counts, and failures by run id."""

    computed: int = 0
    repetitions: int = 0
    elsewhere: int = 0
    failed: dict[str, Exception] = field(default_factory=dict)


class Whole:
    """One progress bar over everything: what single runs report is added up, what they say is
    passed on.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.counted = 0

    def say(self, text: str) -> None:
        """Pass on: a tracker that failed or a node that was lost is told of here as for a single
        run.
        """
        self.reporter.say(text)

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Count what an earlier call finished."""
        self.advance(done)

    def advance(self, units: int) -> None:
        """Pass on."""
        self.counted += units
        self.reporter.advance(units)

    def end(self) -> None:
        """Nothing: there is more to come."""


def carry_out(
    jobs: Sequence[Job], label: str, reporter: Reporter | None = None, pool: Pool | None = None
) -> Tally:
    """Compute the jobs, going on after failures, and coming back to runs that other processes were
    computing.

    Args:
        pool: where blocks are computed; threads of this process unless given.
    """
    reporter = reporter or Silent()
    queue = deque(units(jobs))
    tally, met, told = Tally(), 0, -math.inf
    reporter.begin(label, sum(job.size for job in jobs))
    try:
        while queue:
            unit, whole = queue.popleft(), Whole(reporter)
            begin = time.perf_counter()
            outcome = attempt(unit, whole, pool)
            _count(tally, outcome, reporter, time.perf_counter() - begin)
            locked = {job.run_id for job in outcome.locked}
            reporter.advance(
                sum(job.size for job in unit if job.run_id not in locked) - whole.counted
            )
            if outcome.locked:  # whoever holds it computes it: --force included, it is fresh then
                queue.append(tuple(_without_force(job) for job in outcome.locked))
            met = met + 1 if len(locked) == len(unit) else 0
            if queue and met >= len(queue):
                told = _tell_of_others(queue, reporter, told)
                time.sleep(PATIENCE)
    finally:
        reporter.end()
    return tally


def _tell_of_others(queue: Iterable[Sequence[Job]], reporter: Reporter, told: float) -> float:
    """Say every few seconds what is waited for, if it was last ``told`` long ago; when it was told
    last.
    """
    now = time.monotonic()
    if now - told < locks.TELL_EVERY:
        return told
    names = [job.run_id for unit in queue for job in unit]
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    reporter.say(f"waiting for other processes, which compute {names[0]}{others}")
    return now


def _without_force(job: Job) -> Job:
    return replace(job, settings=replace(job.settings, force=False))


def _count(tally: Tally, outcome: UnitOutcome, reporter: Reporter, seconds: float) -> None:
    tally.computed += len(outcome.computed)
    tally.repetitions += sum(count for _, count in outcome.computed)
    tally.elsewhere += len(outcome.elsewhere)
    for job, error in outcome.failed:
        tally.failed[job.run_id] = error
        reporter.say(f"failed: {' '.join(str(error).split())}")
    if outcome.computed:
        job, runs = outcome.computed[0][0], len(outcome.computed)
        what = (
            job.run_id
            if runs == 1
            else f"{runs} cells of {job.settings.method.name} on {job.settings.dataset}"
        )
        reporter.say(f"done: {what} ({seconds:.1f} s)")
