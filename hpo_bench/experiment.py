"""From settings to stored results: plan blocks of repetitions, train them side by side, commit them as one run."""

from __future__ import annotations

import contextlib
import hashlib
import math
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch

from hpo_bench import __version__, counting, held, identity, native, tracking
from hpo_bench.checkpoint import Checkpoint, Checkpoints
from hpo_bench.core import batch_of_one, graphs, memory, start
from hpo_bench.core.batches import Rows, Stream, inputs_on
from hpo_bench.core.loop import MOMENTUM_SGD, Plan, Problem, Settled, Snapshot, beginning, train
from hpo_bench.core.loop import Start as StartTensors
from hpo_bench.core.recorder import QUANTILES, Recorder, recorded_steps
from hpo_bench.datasets.base import Table
from hpo_bench.datasets.preparation import check_table, content_of
from hpo_bench.errors import RunError, UserError, described
from hpo_bench.held import Wanted
from hpo_bench.hypergradients.base import Costs, Estimator, chosen
from hpo_bench.hypergradients.grouped import grouped
from hpo_bench.models.base import Model, Settles
from hpo_bench.progress import Reporter, Shown, Silent
from hpo_bench.search.base import chunk_of
from hpo_bench.settings import HYPERPARAMETERS, Settings
from hpo_bench.store import CURVE_COLUMNS, FINAL_COLUMNS, Block, Run, Writer

NUMBERS = 3  # raised by every change that moves a result (CHANGELOG, "Numbers"): part of each run's hash
ROUNDED = (2,)  # earlier ones whose results differ from today's in rounding alone; a change of the maths empties it
KEYS, KEY_BYTES = ("seed", "step", "elapsed_s"), 20  # columns that are made for the table alone, and their size a row
PER_WEIGHT_VECTORS = 16  # of P numbers, for a hyperparameter with one value per weight and its optimiser
SETTLING_BATCHES = 50  # of the training rows at most, on which statistics are estimated for weights of their own
MANY_THREADS_BYTES = 64 << 20  # activations of a block from which one block is worth all cores


@dataclass(frozen=True)
class Outcome:
    """What a call of `execute` did: the stored run, and how many repetitions were computed in this call."""

    run: Run
    computed: int


def execute(
    settings: Settings, reporter: Reporter | None = None, pool: Pool | None = None, *, wait: bool = True
) -> Outcome:
    """Make sure that a run is stored: nothing to do where it is, only the rest where it was interrupted.

    Args:
        pool: where its blocks are computed; threads of this process unless given.
        wait: where another process is computing the run, wait for its end (and say so every few seconds).

    Raises:
        UserError: the settings do not fit each other, the data, or the device.
        RunError: the run had begun and failed; what was finished is kept. `hpo_bench.store.Locked` without ``wait``.
    """
    (outcome,) = execute_together([settings], reporter, pool, wait=wait)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def execute_together(
    runs: Sequence[Settings], reporter: Reporter | None = None, pool: Pool | None = None, *, wait: bool = False
) -> list[Outcome | UserError | RunError]:
    """Make sure that some runs are stored, whose repetitions are rows of one program. See `execute`.

    Args:
        runs: one, or several that differ in their look-back alone (see `Program`).
        wait: see `execute`; for one run only, as two processes might wait for each other's.

    Returns:
        What became of each run, or the error that `execute` would raise for it (`hpo_bench.store.Locked` where another
        process is computing it). One run that cannot be computed does not keep the others from it.

    Raises:
        UserError: the settings do not fit each other, the data, or the device, and nothing was begun.
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

        return Writer(settings.results_dir, name, force=settings.force, waiting=waiting if wait else None)

    with ExitStack() as locks:
        claims: dict[int, Claim] = {}
        for number, settings in enumerate(runs):
            name, config_hash = identify(settings, table)
            try:
                writer = locks.enter_context(locked(settings, name))
                run = writer.complete()
                if run is None:
                    claims[number] = Claim.of(settings, name, config_hash, writer, reporter)
                    continue
            except (UserError, RunError) as error:
                outcomes[number] = error
                continue
            writer.drop_blocks()
            if writer.waited:
                reporter.say(f"{name}: stored by the other process")
            else:
                reporter.say(f"{name}: already complete, nothing to compute (--force computes it again)")
            outcomes[number] = Outcome(run, 0)
        if claims:
            made = _carry_out(list(claims.values()), table, device, reporter, pool)
            outcomes.update(zip(claims, made, strict=True))
    return [outcomes[number] for number in range(len(runs))]


@dataclass
class Claim:
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
    def of(settings: Settings, name: str, config_hash: str, writer: Writer, reporter: Reporter) -> Claim:
        """The claim of a run whose lock is held, with what is stored of it, here or in other runs."""
        earlier = writer.finished_seeds()
        if not writer.force:
            wanted = Wanted(name, config_hash, tuple(settings.seeds))
            taken = held.take(writer, settings.results_dir, wanted, earlier)
            if taken:
                earlier = writer.finished_seeds()
                missing = settings.repetitions - len(earlier)
                reporter.say(f"{name}: {held.told(taken, settings.repetitions, missing)}")
        return Claim(settings, name, config_hash, writer, earlier, set(settings.seeds) - earlier)


def _carry_out(
    claims: Sequence[Claim], table: Table, device: torch.device, reporter: Reporter, pool: Pool
) -> list[Outcome | UserError | RunError]:
    """Compute what is missing of each run, store every block as it comes, and commit each run with its last block."""
    settings = [claim.settings for claim in claims]
    checkpoints = [_checkpoints(claim) for claim in claims]
    program = Program.of(settings, table, device, checkpoints)
    missing = [
        Row(number, seed)
        for number, claim in enumerate(claims)
        for seed in claim.settings.seeds
        if seed in claim.missing
    ]
    chunk = program.trainer.chunk(len(missing) or sum(claim.settings.repetitions for claim in claims))
    begun = program.begun(missing)
    blocks = [*begun, *_divided(missing, begun, chunk.rows)]
    finished = sum(len(claim.earlier) for claim in claims)
    shared, label = settings[0], f"{settings[0].method.name} on {settings[0].dataset}"
    if blocks:
        name = claims[0].name if len(claims) == 1 else f"{len(claims)} runs of {label}"
        reporter.say(f"{name}: {_plan_line(chunk, len(missing), len(blocks), device, finished, len(begun))}")
        if table.notice is not None:
            reporter.say(f"{name}: {table.notice}")
        if program.trainer.why is not None:
            reporter.say(f"{name}: hypergradients in {program.trainer.why}")
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
    except Exception as error:  # whatever a model of one's own, a tracker or another machine may raise
        text = described(error)
        for number, claim in enumerate(claims):
            if claim.outcome is None:
                claim.writer.fail(claim.settings.seeds, document(number), text)
                claim.outcome = _failure(claim, text, memory.is_exhausted(error))
                claim.outcome.__cause__ = error
    return [claim.outcome for claim in claims if claim.outcome is not None]


def _checkpoints(claim: Claim) -> Checkpoints:
    """Where a run's blocks leave theirs: now and then if that was asked for, and always where they are stopped."""
    every = claim.settings.checkpoint_every
    return Checkpoints(claim.writer.blocks, math.inf if every is None else every, claim.name)


def _failure(claim: Claim, text: str, exhausted: bool) -> RunError:
    """The line for a run that had begun: what went wrong, what is stored, and how to go on."""
    stored = claim.settings.repetitions - len(claim.missing)
    kept = f"finished blocks are kept, {stored} of {claim.settings.repetitions} repetitions"
    advice = "a smaller chunk= may help" if exhausted else "the same command goes on with the rest"
    return RunError(f"{claim.name} failed: {text}; {kept}; {advice}")


def _give_up(claims: Sequence[Claim], error: UserError | RunError) -> None:
    """Say of each run that is not stored yet why it is not."""
    for claim in claims:
        if claim.outcome is None:
            claim.outcome = error


def _divided(missing: Sequence[Row], begun: Sequence[Sequence[Row]], size: int) -> list[Sequence[Row]]:
    """Blocks of ``size`` rows of what is missing and in no block that was begun."""
    known = {row for block in begun for row in block}
    rest = [row for row in missing if row not in known]
    return [rest[at : at + size] for at in range(0, len(rest), size)]


def _plan_line(
    chunk: memory.Chunk, missing: int, blocks: int, device: torch.device, finished: int, begun: int = 0
) -> str:
    size = f"{chunk.bytes / 2**20:.0f} MiB" if chunk.bytes < memory.GIB else f"{chunk.bytes / memory.GIB:.1f} GiB"
    text = (
        f"{missing} repetition{'s' * (missing > 1)} on {device} in {blocks} block{'s' * (blocks > 1)} "
        f"of up to {chunk.rows} ({chunk.reason}), {chunk.workers} at a time, about {size}"
    )
    text += f"; {finished} finished earlier" * bool(finished)
    return text + f"; {begun} go{'es' * (begun == 1)} on from a checkpoint" * bool(begun)


def describe(trainer: Trainer, config_hash: str, chunk: memory.Chunk) -> dict[str, Any]:
    """What ``run.json`` says beside status, seconds and seeds."""
    return {
        "config": _as_found(trainer.settings.config, trainer.table), "config_hash": config_hash,
        "data": described_data(trainer.settings, trainer.table),
        "own_code": own_code(trainer.settings.config),
        "code": code_version(), "environment": environment(trainer.device, chunk.workers), "chunk": chunk.rows,
        "hypergradients": trainer.why, "costs": costs(trainer),
    }  # fmt: skip


def costs(trainer: Trainer) -> dict[str, int] | None:
    """Weight updates, gradients and Hessian-vector products of one repetition; None for a search, whose trials tell."""
    settings = trainer.settings
    if settings.method.search is not None:
        return None
    estimator, _ = _chosen(settings, trainer.model, len(trainer.rows[settings.method.data_for_weights]))
    own = replace(trainer, plan=replace(trainer.plan, estimator=estimator))
    return counting.work(own).of(settings.weight_updates)


class Row(NamedTuple):
    """A repetition of one of the runs that are trained together.

    Args:
        run: the number of its run.
        seed: of the repetition.
    """

    run: int
    seed: int


Parts = Mapping[int, Block]  # what a block of rows gives to each run that it holds rows of, by the run's number


@dataclass(frozen=True)
class Program:
    """One run, or several that differ in their look-back alone: their repetitions are rows of one tensor program.

    Args:
        runs: their settings.
        trainer: of what they share. Its estimator is as wide as the widest, and says what memory a row takes.
        checkpoints: where the blocks of each run leave theirs; empty without.
    """

    runs: tuple[Settings, ...]
    trainer: Trainer
    checkpoints: tuple[Checkpoints, ...] = ()

    @staticmethod
    def of(
        runs: Sequence[Settings], table: Table, device: torch.device, checkpoints: Sequence[Checkpoints] = ()
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

    def block(self, rows: Sequence[Row], on_progress: Callable[[int], None] = lambda updates: None) -> Parts:
        """Train some rows side by side, from their checkpoint if there is one."""
        trainer = replace(self.trainer, checkpoints=self._checkpoints(rows))
        if len(self.runs) > 1:
            own = grouped([self.runs[row.run].method.estimator for row in rows])
            trainer = replace(trainer, plan=replace(trainer.plan, estimator=own))
        block = trainer.block([row.seed for row in rows], on_progress)
        return _split(block, rows, recorded_steps(trainer.settings.weight_updates, trainer.settings.record_every))

    def _checkpoints(self, rows: Sequence[Row]) -> Checkpoints | None:
        """Where a block leaves its checkpoint: with the run of its first row, and under its own rows' names."""
        if not self.checkpoints:
            return None
        return self.checkpoints[rows[0].run].shared([self.checkpoints[row.run].name for row in rows])

    def begun(self, missing: Iterable[Row]) -> list[tuple[Row, ...]]:
        """Rows of the blocks that were interrupted, of at most ``chunk`` rows; each row once."""
        left, found = set(missing), []
        numbers = {checkpoints.name: number for number, checkpoints in enumerate(self.checkpoints)}
        largest = self.trainer.settings.chunk
        for checkpoints in self.checkpoints:
            for names, seeds in checkpoints.begun():
                if not numbers.keys() >= set(names):
                    continue
                rows = tuple(Row(numbers[name], seed) for name, seed in zip(names, seeds, strict=True))
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
    """Rows of a table that belong to each repetition: a diverged one's curves end where it diverged."""
    count = len(block.seeds)
    if name != "curves":
        return [block.tables[name].num_rows // count] * count
    ends = block.tables["final"]["diverged_at"].to_pylist()
    return [len(steps) if end is None else sum(step <= end for step in steps) for end in ends]


class Pool(Protocol):
    """Where blocks are computed: threads of this process, or other machines."""

    def run(
        self, program: Program, blocks: Sequence[Sequence[Row]], workers: int, reporter: Reporter
    ) -> Iterator[Parts]:
        """Compute the blocks, up to ``workers`` side by side; yield what each gives to its runs when it is finished.

        `Program.block` computes one; units of progress are weight updates of one repetition.
        """
        ...


@dataclass(frozen=True)
class Threads:
    """Threads of this process: torch leaves the interpreter while it works, so they share nothing but the data."""

    def run(
        self, program: Program, blocks: Sequence[Sequence[Row]], workers: int, reporter: Reporter
    ) -> Iterator[Parts]:
        """See `Pool.run`; a block that fails stops the others at their next hyperparameter update.

        A block for which there is not enough memory is computed in halves.
        """
        stop = threading.Event()
        threads = torch.get_num_threads()

        def attempt(rows: Sequence[Row]) -> Parts:
            done = 0

            def on_progress(count: int) -> None:
                nonlocal done
                done += count * len(rows)
                if count:
                    reporter.advance(count * len(rows))
                if stop.is_set():
                    raise Stopped

            try:
                return program.block(rows, on_progress)
            except (SystemExit, KeyboardInterrupt) as error:  # raised by a model of one's own: no wish of the user's
                raise RuntimeError(described(error)) from error
            except (MemoryError, RuntimeError):
                reporter.advance(-done)
                raise

        def work(rows: Sequence[Row]) -> list[Parts]:
            torch.set_num_threads(program.trainer.threads(len(rows), workers))
            try:
                return [attempt(rows)]
            except (MemoryError, RuntimeError) as error:
                if len(rows) == 1 or not memory.is_exhausted(error):
                    raise
            half = -(-len(rows) // 2)
            reporter.say(f"not enough memory for {len(rows)} repetitions at once: going on with {half}")
            memory.give_back(program.trainer.device)
            return [*work(rows[:half]), *work(rows[half:])]

        with ThreadPoolExecutor(max(workers, 1)) as pool:
            futures = [pool.submit(work, rows) for rows in blocks]
            try:
                for future in as_completed(futures):
                    yield from future.result()
            finally:
                stop.set()
                for future in futures:
                    future.cancel()
                torch.set_num_threads(threads)


class Stopped(Exception):
    """Another block failed, or the user pressed Ctrl-C."""


@dataclass(frozen=True)
class Trainer:
    """One run's dataset, model and plan, ready to train any of its repetitions.

    Args:
        why: its estimator was chosen.
        checkpoints: where blocks leave theirs, or None.
    """

    settings: Settings
    table: Table
    model: Model
    plan: Plan
    rows: Mapping[str, Rows]
    dtype: torch.dtype
    device: torch.device
    why: str | None = None
    checkpoints: Checkpoints | None = None

    @staticmethod
    def of(settings: Settings, table: Table, device: torch.device) -> Trainer:
        """Check what needs the data or the estimator, and move the data to the device.

        Raises:
            UserError: a combination that cannot work.
        """
        check_table(table, settings.precision)
        dtype = getattr(torch, settings.precision)
        method = settings.method
        if method.search is not None:
            method.search.check(settings)
        if method.estimator is not None:
            wrong = [name for name in method.tuned if name not in method.estimator.tunes]
            if wrong:
                raise UserError(
                    f"tuned={list(method.tuned)}: method={method.name} cannot tune {wrong[0]}; "
                    f"allowed: {', '.join(method.estimator.tunes)}"
                )
        model, rows = settings.model.build(table, dtype, device), _rows(table, dtype, device)
        estimator, why = _chosen(settings, model, len(rows[method.data_for_weights]))
        plan = Plan(
            estimator, method.optimiser, method.tuned, settings.update_interval, settings.weight_updates,
            settings.clip_log10_lr, method.reset_weights, method.rule or MOMENTUM_SGD,
        )  # fmt: skip
        trainer = Trainer(settings, table, model, plan, rows, dtype, device, why)
        trainer.check_batches()
        return trainer

    def check_batches(self) -> None:
        """Refuse what would leave a batch of one row, or minibatches, to a model that cannot take it.

        Raises:
            UserError: names a batch size that works, or what is in the way.
        """
        second, evaluated = self._second(), ["test"]
        streams = {"training": self._training}
        if second is not None:
            streams[second[1]] = second[0]
        if self.settings.method.full_validation or self.settings.method.search is not None:
            evaluated.append("validation")
        batch_of_one.check(self.model, streams, self.settings.batch_size)
        check_minibatches = getattr(self.model, "check_minibatches", None)
        if check_minibatches is not None and self.settings.batch_size is not None:
            check_minibatches()
        for name in evaluated:
            batch_of_one.check_evaluated(self.model, self.rows[name], name)

    @property
    def _training(self) -> Rows:
        return self.rows[self.settings.method.data_for_weights]

    def _second(self) -> tuple[Rows, str] | None:
        """Rows and stream name of the second batches: see `hpo_bench.hypergradients.base.Estimator.second_batch`."""
        method = self.settings.method
        split = method.data_for_weights == "train"
        if method.full_validation:
            return None
        if method.estimator is None:
            return (self.rows["validation"], "validation") if split else None
        if method.estimator.second_batch == "validation" or split:
            return self.rows["validation"], "validation"
        return replace(self._training, split="validation"), "second"  # with carried states of its own

    def problem(self, seeds: Sequence[int]) -> Problem:
        """Streams of some repetitions."""
        settings = self.settings

        def stream(rows: Rows, name: str) -> Stream:
            return Stream(
                rows, self.model, settings.batch_size, shuffled=settings.data_order == "shuffled",
                dataset=settings.dataset, name=name, seeds=seeds,
            )  # fmt: skip

        second = self._second()
        return Problem(
            self.model,
            stream(self._training, "training"),
            stream(*second) if second is not None else None,
            self.rows["test"].batch(self.model),
            self.rows["validation"].batch(self.model) if settings.method.full_validation else None,
            settings.gradient_clip_norm,
            self._settled(),
        )

    def _settled(self) -> Settled | None:
        """How statistics are estimated for weights other than the trained ones: on some batches of the training rows.

        They are the same batches for all repetitions and at every step, so that nothing depends on a stream.
        """
        model, rows = self.model, self._training
        if self.settings.method.rule is None or not isinstance(model, Settles) or not model.carries_state:
            return None
        size = self._batch_rows()
        batches = [
            model.batch(rows.inputs[at : at + size], rows.targets[at : at + size], shared=True, split="training")
            for at in range(0, min(len(rows) - size + 1, SETTLING_BATCHES * size), size)
        ]

        def settled(weights: torch.Tensor, carried: Mapping[str, Any]) -> Mapping[str, Any]:
            return model.settled(weights, batches, carried)

        return settled

    def start(self, seeds: Sequence[int]) -> StartTensors:
        """Initial weights and hyperparameters of some repetitions."""
        settings = self.settings
        if settings.start.file is not None:
            values = start.read(settings.start.file, [seed - settings.seed for seed in seeds], self.model)
        else:
            values = start.draw(seeds, settings.dataset, self.model, settings.start)
        return start.to_device(values, settings.method, torch.empty(0, dtype=self.dtype, device=self.device))

    def _batch_rows(self) -> int:
        return min(self.settings.batch_size or len(self._training), len(self._training))

    def chunk(self, repetitions: int) -> memory.Chunk:
        """How many of ``repetitions`` to compute at once."""
        search = self.settings.method.search
        return self.rows_at_once(repetitions) if search is None else chunk_of(search, self, repetitions)

    def rows_at_once(self, repetitions: int) -> memory.Chunk:
        """How many of ``repetitions`` trainings to make at once."""
        settings, working_set = self.settings, self.model.working_set(self._batch_rows())
        return memory.choose(repetitions, self.need(), working_set, self.device, settings.chunk, settings.workers)

    def need(self) -> int:
        """Bytes that one repetition needs: linearisations, evaluation, and the record with the table made of it."""
        columns = len(CURVE_COLUMNS) - len(KEYS) + (len(QUANTILES) if self.settings.method.per_weight else 0)
        steps = len(recorded_steps(self.settings.weight_updates, self.settings.record_every))
        record = (
            steps * (2 * columns * self.dtype.itemsize + KEY_BYTES) + self.settings.weight_updates * self.dtype.itemsize
        )
        seen = max(len(self.rows[name]) for name in ("test", "validation"))
        batch = max(self._batch_rows(), min(self.settings.batch_size or seen, len(self.rows["validation"])))
        per_weight = PER_WEIGHT_VECTORS * len(self.settings.method.per_weight) * self.model.layout.count
        activations = self.model.row_bytes(batch, self.plan.kept) + self.model.evaluation_bytes(seen)
        return activations + per_weight * self.dtype.itemsize + record + self._orders()

    def _orders(self) -> int:
        """Bytes of the order of one repetition's rows in each stream."""
        if self.settings.batch_size is None or self.settings.data_order != "shuffled":
            return 0
        second = self._second()
        return 8 * (len(self._training) + (len(second[0]) if second is not None else 0))

    def threads(self, rows: int, workers: int) -> int:
        """Threads of torch for one block: one, unless the block is alone and large."""
        large = workers == 1 and rows * self.model.working_set(self._batch_rows()) >= MANY_THREADS_BYTES
        return memory.cores() if large else 1

    def recorder(self, rows: int) -> Recorder:
        """For a training of some repetitions."""
        settings = self.settings
        kept = settings.weight_updates // self.plan.interval if settings.save_hypergradients else 0
        per_weight = "lr" in settings.method.per_weight
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return Recorder(rows, settings.weight_updates, settings.record_every, per_weight, like, kept)

    def block(self, seeds: Sequence[int], on_progress: Callable[[int], None] = lambda updates: None) -> Block:
        """Train some repetitions as one tensor program, from their checkpoint if there is one; or search for each."""
        if self.settings.method.search is not None:
            return self.settings.method.search.block(self, seeds, on_progress)
        recorder = self.recorder(len(seeds))
        problem, first = self.problem(seeds), self.start(seeds)
        checkpoint = None if self.checkpoints is None else self.checkpoints.of(seeds)
        snapshot = None
        if checkpoint is not None and checkpoint.path.exists():
            snapshot = checkpoint.load(beginning(problem, self.plan, first), recorder)
        if snapshot is not None:
            on_progress(snapshot.number)
        end = train(
            problem, self.plan, first, recorder, snapshot=snapshot,
            on_interval=_saving(checkpoint, recorder, self.plan.update_interval, on_progress), engine=graphs.of,
        )  # fmt: skip
        curves, diverged_at, seconds = recorder.curves(), recorder.diverged_at(), recorder.seconds
        tables = {
            "final": final_table(seeds, first, recorder.steps, curves, diverged_at, seconds / len(seeds)),
            "curves": curves_table(seeds, recorder.steps, curves, diverged_at, recorder.elapsed),
        }
        if self.settings.save_hypergradients:
            tables["hypergradients"] = hypergradients_table(seeds, recorder.hypergradients())
        weights = {}
        if self.settings.save_weights:
            arrays = self.model.layout.arrays(self.plan.rule.evaluated(end.state).cpu().numpy())
            weights = {f"wT/{name}": array for name, array in arrays.items()}
        evaluate = recorder.evaluate_seconds
        return Block(
            tuple(seeds), tables, weights, {"train": seconds - evaluate, "evaluate": evaluate, "total": seconds}
        )


def _saving(
    checkpoint: Checkpoint | None, recorder: Recorder, interval: int, on_progress: Callable[[int], None]
) -> Callable[[Snapshot], None]:
    """What is done after every T weight updates: tell of it, and write the checkpoint if it is time, or the end."""

    def on_interval(snapshot: Snapshot) -> None:
        try:
            on_progress(interval)
        except Stopped:
            if checkpoint is not None:
                checkpoint.save(snapshot, recorder)
            raise
        if checkpoint is not None and checkpoint.due():
            checkpoint.save(snapshot, recorder)

    return on_interval


def _chosen(settings: Settings, model: Model, training: int) -> tuple[Estimator | None, str | None]:
    """The method's estimator, or the one that it chooses for this model and ``training`` rows, and why."""
    method = settings.method
    if method.estimator is None:
        return None, None
    batch = min(settings.batch_size or training, training)
    per_weight = tuple(name for name in method.per_weight if name in method.tuned)
    costs = Costs(settings.update_interval, lambda kept: model.row_bytes(batch, kept), per_weight)
    return chosen(method.estimator, costs)


def _rows(table: Table, dtype: torch.dtype, device: torch.device) -> dict[str, Rows]:
    """Parts of a dataset on the device; those that train the weights by the names of ``data_for_weights``."""
    inputs = inputs_on(table, dtype, device)
    targets = torch.from_numpy(table.targets).to(device=device)
    if targets.is_floating_point():
        targets = targets.to(dtype)
    both = table.training + table.validation

    def part(begin: int, end: int, split: Any) -> Rows:
        return Rows(inputs[begin:end], targets[begin:end], split)

    return {
        "train": part(0, table.training, "training"),
        "train_and_validation": part(0, both, "training"),
        "validation": part(table.training, both, "validation"),
        "test": part(both, both + table.test, "test"),
    }


def _nullable(values: np.ndarray | None, missing: np.ndarray | None, count: int, kind: pa.DataType) -> pa.Array:
    """Arrow array with nulls where ``missing``, or all null where there are no values."""
    return pa.nulls(count, kind) if values is None else pa.array(values, kind, mask=missing)


def final_table(
    seeds: Sequence[int], first: StartTensors, steps: Sequence[int], curves: Mapping[str, np.ndarray],
    diverged_at: np.ndarray, seconds: float,
) -> pa.Table:  # fmt: skip
    """One row per repetition: contract's ``final.parquet``."""
    from hpo_bench.core.hyperparameters import Hyperparameters

    count = len(seeds)
    initial = Hyperparameters.of(first.raw).natural
    values: dict[str, pa.Array] = {
        "seed": pa.array(list(seeds), pa.int64()),
        "status": pa.array(["ok" if at < 0 else "diverged" for at in diverged_at]),
        "diverged_at": _nullable(diverged_at, diverged_at < 0, count, pa.int64()),
        "seconds": pa.array(np.full(count, seconds)),
        "rows_in_block": pa.array(np.full(count, count), pa.int64()),
    }
    for name in HYPERPARAMETERS:
        values[f"initial_{name}"] = pa.array(initial[name][:, 0].double().cpu().numpy())
    for name in ("train_loss", "validation_loss", "test_loss", "test_metric", *HYPERPARAMETERS):
        column = curves.get(name)
        values[name] = _nullable(None if column is None else column[-1].astype(np.float64), None, count, pa.float64())
    best, unknown = _best_validation(curves.get("validation_loss"), diverged_at, steps)
    values["best_validation_step"] = _nullable(np.asarray(steps)[best], unknown, count, pa.int64())
    at_best = curves["test_metric"][best, np.arange(count)].astype(np.float64)
    values["test_metric_at_best_validation"] = _nullable(at_best, unknown, count, pa.float64())
    return pa.table({name: values[name] for name in FINAL_COLUMNS})


def _best_validation(
    validation: np.ndarray | None, diverged_at: np.ndarray, steps: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the recorded step with the least validation loss before any divergence, and where there is none."""
    if validation is None:
        return np.zeros(len(diverged_at), int), np.ones(len(diverged_at), bool)
    after = (diverged_at >= 0) & (np.asarray(steps)[:, None] >= diverged_at)
    usable = np.where(np.isfinite(validation) & ~after, validation, np.inf)
    return usable.argmin(axis=0), np.asarray(np.isinf(usable).all(axis=0))


def curves_table(
    seeds: Sequence[int], steps: Sequence[int], curves: Mapping[str, np.ndarray], diverged_at: np.ndarray,
    elapsed: np.ndarray,
) -> pa.Table:  # fmt: skip
    """One row per repetition and recorded step, up to the step at which a repetition diverged: ``curves.parquet``."""
    at = np.asarray(steps)
    keep = ((diverged_at[:, None] < 0) | (at[None, :] <= diverged_at[:, None])).ravel()
    count = int(keep.sum())

    def rows(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (len(seeds), len(at))).ravel()[keep]

    dtype = pa.from_numpy_dtype(curves["train_loss"].dtype)
    columns: dict[str, pa.Array] = {}
    for name in (*CURVE_COLUMNS, *(name for name in QUANTILES if name in curves)):
        if name == "seed":
            columns[name] = pa.array(rows(np.asarray(seeds)[:, None]), pa.int64())
        elif name == "step":
            columns[name] = pa.array(rows(at[None, :]), pa.int64())
        elif name == "elapsed_s":
            columns[name] = pa.array(rows(elapsed[None, :]), pa.float32())
        else:
            column = curves.get(name)
            columns[name] = _nullable(None if column is None else rows(column.T), None, count, dtype)
    return pa.table(columns)


def hypergradients_table(seeds: Sequence[int], kept: Mapping[str, np.ndarray]) -> pa.Table:
    """One row per repetition and hyperparameter update, raw space.

    Per-weight hyperparameters: the sum of the hypergradients (that of a common shift) and the mean step.

    Args:
        kept: see `Recorder.hypergradients`.
    """
    updates = max((len(values) for values in kept.values()), default=0)
    columns: dict[str, pa.Array] = {
        "seed": pa.array(np.repeat(np.asarray(seeds, np.int64), updates)),
        "hyper_step": pa.array(np.tile(np.arange(updates), len(seeds))),
    }
    for name, values in kept.items():
        for index, kind in enumerate(("hypergradient", "step")):
            columns[f"{kind}_{name}"] = pa.array(values[:, index].T.ravel())
    return pa.table(columns)


def pick_device(name: str) -> torch.device:
    """The device asked for; ``auto`` is a CUDA GPU where there is one.

    Raises:
        UserError: a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: torch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices; "
                        "allowed here: auto, cpu")  # fmt: skip
    return device


def identify(settings: Settings, table: Table) -> tuple[str, str]:
    """Run id, readable and ending in a hash of everything that decides the numbers, and the hash without the seeds."""
    config_hash = _config_hash(settings, table, NUMBERS)
    full = _digest({"config": config_hash, "seed": settings.seed, "repetitions": settings.repetitions})
    return f"{settings.dataset}-{settings.method.name}-s{settings.seed}-n{settings.repetitions}-{full}", config_hash


def rounded_otherwise(settings: Settings, table: Table) -> tuple[str, ...]:
    """Hashes that `identify` gave the same configuration where results differ from today's in rounding alone."""
    return tuple(_config_hash(settings, table, numbers) for numbers in ROUNDED)


def _config_hash(settings: Settings, table: Table, numbers: int) -> str:
    decisive = identity.decisive(settings.config)
    decisive["dataset"] = {"name": settings.dataset, "fingerprint": _fingerprint(settings, table)}
    decisive["numbers"] = numbers
    if settings.start.file is not None:
        # which of its rows a seed starts from depends on the run's first seed
        decisive["init"] = {"sha256": start.digest(settings.start.file), "first": settings.seed}
    return _digest(decisive)


def described_data(settings: Settings, table: Table) -> dict[str, Any]:
    """What ``run.json`` says about what was trained on: digests of it, and its size."""
    return {
        "fingerprint": _fingerprint(settings, table),
        "content": table.content or _content(settings, table),
        "rows": {"training": table.training, "validation": table.validation, "test": table.test},
        "inputs": list(table.inputs.shape[1:]),
        "outputs": table.outputs,
        "target": settings.config["dataset"].get("target"),
    }


def own_code(config: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the file of each component that is one's own, by its ``_target_``: it decides numbers, too."""
    found = {}
    for key, target in identity.flat(config):
        if not key.endswith("_target_") or str(target).startswith(("hpo_bench.", "torch.")):
            continue
        parts = str(target).split(".")
        modules = (sys.modules.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
        file = next((module.__file__ for module in modules if module and getattr(module, "__file__", None)), None)
        with contextlib.suppress(OSError):
            if file is not None:
                found[str(target)] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return found


def _content(settings: Settings, table: Table) -> str | None:
    """A digest of the loaded rows, where neither the configuration nor the loader identifies them."""
    if identity.is_public(settings.config["dataset"].get("source") or {}):
        return None
    return content_of(table.inputs, table.targets, table.test, str(table.target_scale))


def _fingerprint(settings: Settings, table: Table) -> str:
    """The table's fingerprint; of a loader that is not of this package, with a digest of what it loaded."""
    source = settings.config["dataset"].get("source") or {}
    if str(source.get("_target_", "hpo_bench.")).startswith("hpo_bench."):
        return table.fingerprint
    return identity.digest([table.fingerprint, _content(settings, table)])


def _as_found(config: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """The configuration with what ``auto`` turned out to be (one's own table)."""
    dataset = dict(config["dataset"])
    if dataset.get("task") == "auto":
        dataset |= {"task": table.task, "metric": "mse" if table.task == "regression" else "error"}
    if dataset.get("label") == "auto":
        dataset["label"] = table.label or table.name
    return {**config, "dataset": dataset}


def _digest(content: Any) -> str:
    return identity.digest(content)[:12]


@cache
def code_version() -> dict[str, Any]:
    """Version of this package and, in a checkout, the commit and whether files differ from it."""
    root = Path(__file__).resolve().parent.parent
    commit, dirty = None, None
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        status = _git(root, "status", "--porcelain", "--untracked-files=no")
        dirty = None if status is None else bool(status)
    return {"version": __version__, "numbers": NUMBERS, "git_commit": commit, "dirty": dirty}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(device: torch.device, workers: int) -> dict[str, Any]:
    """Where a run was computed."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": _cpu_name(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "kernels": native.kernels().why if device.type == "cpu" else None,
        "workers": workers,
    }


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
