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
    """Compute a unit's runs, but those that are stored or locked.

    Failures are told in what is returned, and not raised.
    """
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
    """One progress bar over everything.

    What single runs report is added up, and what they say is passed on.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.counted = 0

    def say(self, text: str) -> None:
        """Pass a line on: what a tracker or a node says is told as for a single run."""
        self.reporter.say(text)

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Count the work that an earlier call finished."""
        self.advance(done)

    def advance(self, units: int) -> None:
        """Count work, and pass it on to the one bar."""
        self.counted += units
        self.reporter.advance(units)

    def end(self) -> None:
        """Leave the bar as it is, because there is more to come."""


def carry_out(
    jobs: Sequence[Job], label: str, reporter: Reporter | None = None, pool: Pool | None = None
) -> Tally:
    """Compute the jobs, going on after failures.

    Runs that other processes are computing are come back to.

    Args:
        pool: where blocks are computed; threads of this process unless given.
    """
    reporter = reporter or Silent()
    queue = deque(units(jobs))
    tally = Tally()
    in_a_row = 0  # units met, one after the other, of which other processes compute everything
    told_at = -math.inf
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
            if outcome.locked:
                # Whoever holds them computes them, so that they are fresh then, --force or not.
                queue.append(tuple(_without_force(job) for job in outcome.locked))
            in_a_row = in_a_row + 1 if len(locked) == len(unit) else 0
            if queue and in_a_row >= len(queue):
                told_at = _tell_of_others(queue, reporter, told_at)
                time.sleep(PATIENCE)
    finally:
        reporter.end()
    return tally


def _tell_of_others(queue: Iterable[Sequence[Job]], reporter: Reporter, told_at: float) -> float:
    """Say what is waited for, unless that was said a few seconds ago.

    Args:
        told_at: when it was said last, by the monotonic clock; so is what is returned.
    """
    now = time.monotonic()
    if now - told_at < locks.TELL_EVERY:
        return told_at
    names = [job.run_id for unit in queue for job in unit]
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    reporter.say(f"waiting for other processes, which compute {names[0]}{others}")
    return now


def _without_force(job: Job) -> Job:
    return replace(job, settings=replace(job.settings, force=False))


def _count(tally: Tally, outcome: UnitOutcome, reporter: Reporter, seconds: float) -> None:
    """Add the outcome of a unit to the tally, and say what it was."""
    tally.computed += len(outcome.computed)
    tally.repetitions += sum(count for _, count in outcome.computed)
    tally.elsewhere += len(outcome.elsewhere)
    for job, error in outcome.failed:
        tally.failed[job.run_id] = error
        reporter.say(f"failed: {' '.join(str(error).split())}")
    if outcome.computed:
        job, runs = outcome.computed[0][0], len(outcome.computed)
        what = job.run_id
        if runs > 1:
            what = f"{runs} cells of {job.settings.method.name} on {job.settings.dataset}"
        reporter.say(f"done: {what} ({seconds:.1f} s)")
