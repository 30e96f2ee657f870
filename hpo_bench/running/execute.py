"""Make sure that runs are stored: claim them, train what is missing, commit block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from hpo_bench.core.table import Table
from hpo_bench.datasets.preparation import check_table
from hpo_bench.errors import RunError, UserError, described
from hpo_bench.progress import Reporter, Shown, Silent
from hpo_bench.running import memory, tracking
from hpo_bench.running.checkpoint import Checkpoints
from hpo_bench.running.identify import identify
from hpo_bench.running.pool import Pool, Threads
from hpo_bench.running.program import Program, Row
from hpo_bench.running.provenance import describe
from hpo_bench.running.trainer import pick_device
from hpo_bench.settings.run import Settings
from hpo_bench.store import held
from hpo_bench.store.held import Wanted
from hpo_bench.store.runs import Run
from hpo_bench.store.writer import Writer


@dataclass(frozen=True)
class Outcome:
    """What a call of `execute` did: the stored run, and how many repetitions were computed in this
    call.
    """

    run: Run
    computed: int


def execute(
    settings: Settings,
    reporter: Reporter | None = None,
    pool: Pool | None = None,
    *,
    wait: bool = True,
) -> Outcome:
    """Make sure that a run is stored: nothing to do where it is, only the rest where it was
    interrupted.

    Args:
        pool: where its blocks are computed; threads of this process unless given.
        wait: where another process is computing the run, wait for its end (and say so every few
            seconds).

    Raises:
        UserError: the settings do not fit each other, the data, or the device.
        RunError: the run had begun and failed; what was finished is kept.
            `hpo_bench.store.writer.Locked` without ``wait``.
    """
    (outcome,) = execute_together([settings], reporter, pool, wait=wait)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def execute_together(
    runs: Sequence[Settings],
    reporter: Reporter | None = None,
    pool: Pool | None = None,
    *,
    wait: bool = False,
) -> list[Outcome | UserError | RunError]:
    """Make sure that some runs are stored, whose repetitions are rows of one program. See
    `execute`.

    Args:
        runs: one, or several that differ in their look-back alone (see `Program`).
        wait: see `execute`; for one run only, as two processes might wait for each other's.

    Returns:
        What became of each run, or the error that `execute` would raise for it
        (`hpo_bench.store.writer.Locked` where another process is computing it). One run that cannot
        be computed does not keep the others from it.

    Raises:
        UserError: the settings do not fit each other, the data, or the device, and nothing was
            begun.
    """
    reporter, pool = reporter or Silent(), pool or Threads()
    shared = runs[0]
    tracking.check(shared.tracker)
    device = pick_device(shared.device)
    table = shared.source.load(shared.validation_share)
    check_table(table, shared.precision)
    outcomes: dict[int, Outcome | UserError | RunError] = {}

    def locked(settings: Settings, name: str) -> Writer:
        def waiting(holder: str) -> None:
            reporter.say(f"{name}: {holder} is computing it; waiting for its end")

        return Writer(
            settings.results_dir, name, force=settings.force, waiting=waiting if wait else None
        )

    with ExitStack() as locks:
        claims: dict[int, ClaimedRun] = {}
        for number, settings in enumerate(runs):
            name, config_hash = identify(settings, table)
            try:
                writer = locks.enter_context(locked(settings, name))
                run = writer.complete()
                if run is None:
                    claims[number] = ClaimedRun.of(settings, name, config_hash, writer, reporter)
                    continue
            except (UserError, RunError) as error:
                outcomes[number] = error
                continue
            writer.drop_blocks()
            if writer.waited:
                reporter.say(f"{name}: stored by the other process")
            else:
                reporter.say(
                    f"{name}: already complete, nothing to compute (--force computes it again)"
                )
            outcomes[number] = Outcome(run, 0)
        if claims:
            made = _carry_out(list(claims.values()), table, device, reporter, pool)
            outcomes.update(zip(claims, made, strict=True))
    return [outcomes[number] for number in range(len(runs))]


@dataclass
class ClaimedRun:
    """A run that this process computes, and whose lock it holds.

    Args:
        earlier: seeds that an earlier call finished.
        missing: seeds that are not stored yet.
        outcome: what became of it; None while it is computed.
    """

    settings: Settings
    name: str
    config_hash: str
    writer: Writer
    earlier: set[int]
    missing: set[int]
    outcome: Outcome | UserError | RunError | None = None

    @staticmethod
    def of(
        settings: Settings, name: str, config_hash: str, writer: Writer, reporter: Reporter
    ) -> ClaimedRun:
        """The claim of a run whose lock is held, with what is stored of it, here or in other
        runs.
        """
        earlier = writer.finished_seeds()
        if not writer.force:
            wanted = Wanted(name, config_hash, tuple(settings.seeds))
            taken = held.take(writer, settings.results_dir, wanted, earlier)
            if taken:
                earlier = writer.finished_seeds()
                missing = settings.repetitions - len(earlier)
                reporter.say(f"{name}: {held.told(taken, settings.repetitions, missing)}")
        return ClaimedRun(
            settings, name, config_hash, writer, earlier, set(settings.seeds) - earlier
        )


def _carry_out(
    claims: Sequence[ClaimedRun], table: Table, device: torch.device, reporter: Reporter, pool: Pool
) -> list[Outcome | UserError | RunError]:
    """Compute what is missing of each run, store every block as it comes, and commit each run with
    its last block.
    """
    settings = [claim.settings for claim in claims]
    checkpoints = [_checkpoints(claim) for claim in claims]
    program = Program.of(settings, table, device, checkpoints)
    missing = [
        Row(number, seed)
        for number, claim in enumerate(claims)
        for seed in claim.settings.seeds
        if seed in claim.missing
    ]
    chunk = program.trainer.chunk(
        len(missing) or sum(claim.settings.repetitions for claim in claims)
    )
    begun = program.begun(missing)
    blocks = [*begun, *_divided(missing, begun, chunk.rows)]
    finished = sum(len(claim.earlier) for claim in claims)
    shared, label = settings[0], f"{settings[0].method.name} on {settings[0].dataset}"
    if blocks:
        name = claims[0].name if len(claims) == 1 else f"{len(claims)} runs of {label}"
        reporter.say(
            f"{name}: {_plan_line(chunk, len(missing), len(blocks), device, finished, len(begun))}"
        )
        if table.notice is not None:
            reporter.say(f"{name}: {table.notice}")
        if program.trainer.estimator_reason is not None:
            reporter.say(f"{name}: hypergradients in {program.trainer.estimator_reason}")
        for remark in getattr(program.trainer.model, "remarks", ()) if len(missing) > 1 else ():
            reporter.say(f"{name}: {remark}")

    def document(number: int) -> dict[str, Any]:
        return describe(program.alone(number), claims[number].config_hash, chunk)

    def commit(number: int) -> None:
        claim = claims[number]
        run = claim.writer.commit(claim.settings.seeds, document(number))
        claim.outcome = Outcome(run, claim.settings.repetitions - len(claim.earlier))
        trackers.complete(number, run)

    tracked = [(claim.settings, claim.name, claim.writer.blocks) for claim in claims]
    updates = shared.total_updates
    total = sum(claim.settings.repetitions for claim in claims) * updates
    try:
        with ExitStack() as contexts:
            contexts.enter_context(Shown(reporter, label, total, finished * updates))
            trackers = contexts.enter_context(tracking.Trackers(tracked, reporter))
            for number, claim in enumerate(claims):
                if not claim.missing:  # killed between its last block and its commit
                    commit(number)
            for parts in pool.run(program, blocks, chunk.workers, reporter):
                for number, block in parts.items():
                    claims[number].writer.write_block(block)
                    claims[number].missing.difference_update(block.seeds)
                    trackers.finished(number, block)
                program.drop_checkpoint(parts)
                for number in parts:
                    if not claims[number].missing:
                        commit(number)
    except (RunError, UserError) as error:
        _give_up(claims, error)
    except (
        Exception
    ) as error:  # whatever a model of one's own, a tracker or another machine may raise
        text = described(error)
        for number, claim in enumerate(claims):
            if claim.outcome is None:
                claim.writer.fail(claim.settings.seeds, document(number), text)
                claim.outcome = _failure(claim, text, memory.is_exhausted(error))
                claim.outcome.__cause__ = error
    return [claim.outcome for claim in claims if claim.outcome is not None]


def _checkpoints(claim: ClaimedRun) -> Checkpoints:
    """Where a run's blocks leave theirs: now and then if that was asked for, and always where they
    are stopped.
    """
    every = claim.settings.checkpoint_every
    return Checkpoints(claim.writer.blocks, math.inf if every is None else every, claim.name)


def _failure(claim: ClaimedRun, text: str, exhausted: bool) -> RunError:
    """The line for a run that had begun: what went wrong, what is stored, and how to go on."""
    stored = claim.settings.repetitions - len(claim.missing)
    kept = f"finished blocks are kept, {stored} of {claim.settings.repetitions} repetitions"
    advice = "a smaller chunk= may help" if exhausted else "the same command goes on with the rest"
    return RunError(f"{claim.name} failed: {text}; {kept}; {advice}")


def _give_up(claims: Sequence[ClaimedRun], error: UserError | RunError) -> None:
    """Say of each run that is not stored yet why it is not."""
    for claim in claims:
        if claim.outcome is None:
            claim.outcome = error


def _divided(
    missing: Sequence[Row], begun: Sequence[Sequence[Row]], size: int
) -> list[Sequence[Row]]:
    """Blocks of ``size`` rows of what is missing and in no block that was begun."""
    known = {row for block in begun for row in block}
    rest = [row for row in missing if row not in known]
    return [rest[at : at + size] for at in range(0, len(rest), size)]


def _plan_line(
    chunk: memory.Chunk,
    missing: int,
    blocks: int,
    device: torch.device,
    finished: int,
    begun: int = 0,
) -> str:
    size = (
        f"{chunk.bytes / 2**20:.0f} MiB"
        if chunk.bytes < memory.GIB
        else f"{chunk.bytes / memory.GIB:.1f} GiB"
    )
    text = (
        f"{missing} repetition{'s' * (missing > 1)} on {device} in {blocks} "
        f"block{'s' * (blocks > 1)} "
        f"of up to {chunk.rows} ({chunk.reason}), {chunk.workers} at a time, about {size}"
    )
    text += f"; {finished} finished earlier" * bool(finished)
    return text + f"; {begun} go{'es' * (begun == 1)} on from a checkpoint" * bool(begun)
