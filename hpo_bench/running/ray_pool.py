"""Blocks as Ray tasks: a lost node costs the blocks it was computing, which another node computes
again.

The driver alone writes results, each block once, when it has it: nodes need no shared folder and no
data set."""

from __future__ import annotations

import logging
import os
import re
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hpo_bench import __version__
from hpo_bench.errors import UserError, described
from hpo_bench.running.probe import AddressKind, answers, check_address, locate

if TYPE_CHECKING:
    from hpo_bench.core.table import Table
    from hpo_bench.progress import Reporter
    from hpo_bench.running.program import Parts, Program, Row
    from hpo_bench.running.trainer import Trainer
    from hpo_bench.settings.run import Settings

# Repetitions below which a block is not divided further: side by side they cost little more than
# one.
LEAST_ROWS = 8
# Blocks handed to Ray per slot, so that none waits for the driver and few results wait in memory.
AHEAD = 2
POLL_SECONDS = 1.0
REPORT_SECONDS = 0.5
JOIN_SECONDS = 30.0  # for joining a cluster that answers
HEARTBEAT_SECONDS = 2.0  # between two questions whether the cluster is still there
# Without an answer, after which it is given up: Ray itself ends the process after 60.
LOST_SECONDS = 25.0
IDLE_SECONDS = 5.0  # without a block in work, after which it is said that no node can take one
START_SECONDS = 20.0  # the same, where a node could: it starts a process first, and may be busy
REMIND_SECONDS = 10.0
# For a node that can take a block, where none can: an autoscaling cluster brings one.
PATIENCE_SECONDS = 300.0
T = TypeVar("T")


@dataclass(frozen=True)
class SentTable:
    """A source that has its table already: what the driver sends to the nodes, so that none has to
    download it.
    """

    table: Table

    def load(self, validation_share: float) -> Table:
        """The table, in memory that may be written to (Ray's own may not)."""
        return replace(
            self.table, inputs=self.table.inputs.copy(), targets=self.table.targets.copy()
        )


@dataclass(frozen=True)
class Slots:
    """What a block asks of a node.

    Args:
        count: how many such blocks the cluster takes at once.
        cpus, gpus: of one block; a GPU is shared by as many blocks as fit in its memory.
        widest: CPUs of the largest node.
    """

    count: int
    cpus: int
    gpus: float
    widest: int

    @property
    def wanted(self) -> str:
        """What a node must have: ``a CPU``, ``4 CPUs``, ``a CPU and a GPU``."""
        cpus = f"{self.cpus} CPUs" if self.cpus > 1 else "a CPU"
        return f"{cpus} and a GPU" if self.gpus else cpus

    def fit(self, node: Mapping[str, Any]) -> bool:
        """Whether a node that does nothing else can take a block."""
        return _amount(node, "CPU") >= self.cpus and _amount(node, "GPU") >= self.gpus


@dataclass(frozen=True)
class BlockJob:
    """What all blocks of a run share, as it is sent to the nodes.

    Args:
        runs: settings with the loaded table for their source, and the device by its type.
        start: content of the file of ``init.file``, or None.
        threads: of torch in each task.
    """

    runs: tuple[Settings, ...]
    start: bytes | None
    threads: int
    version: str = __version__


class RayPool:
    """A pool on Ray, see `hpo_bench.running.pool.Pool`. It connects at the first block, once, and
    may be shared.

    Args:
        address: ``HOST:PORT`` of a running cluster, ``auto``, or None to start one on this machine.
        retries: how often a block is computed again whose node or process was lost.
        cpus: cores of a cluster that is started here; all by default.
        patience: seconds to wait for a node that can take a block, while there is none.
    """

    def __init__(
        self,
        address: str | None = None,
        retries: int = 5,
        cpus: int | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.address, self.retries, self.cpus, self.patience = address, retries, cpus, patience
        self._guard = threading.Lock()
        self._progress: Any = None
        self._watch: ClusterWatch | None = None

    def run(
        self, program: Program, blocks: Sequence[Sequence[Row]], workers: int, reporter: Reporter
    ) -> Iterator[Parts]:
        """Compute the blocks on the cluster. Unless ``chunk`` is fixed they are divided to occupy
        all of it.

        Raises:
            UserError: what a block raised, or the cluster cannot be joined.
            RuntimeError: what a block raised, Ray gave up on one, or the cluster was lost.
        """
        if not blocks:
            return
        ray, watch = self._connect(reporter)
        trainer, settings = program.trainer, program.trainer.settings
        room = slots(watch.nodes, trainer, workers)
        if settings.chunk is None:
            blocks = divide(blocks, room.count)
        if len(blocks) == 1:
            room = replace(room, cpus=min(trainer.threads(len(blocks[0]), 1), room.widest))
        tasks = _Tasks(
            ray,
            program,
            room,
            self.retries,
            list(blocks),
            reporter,
            self._progress,
            watch,
            self.patience,
            ahead=1 if settings.workers else AHEAD,
            workers=workers,
        )
        try:
            yield from tasks.finished()
        finally:
            tasks.cancel()

    def _connect(self, reporter: Reporter) -> tuple[Any, ClusterWatch]:
        with self._guard:
            os.environ.setdefault(
                "RAY_AUTH_MODE", "disabled"
            )  # keeps Ray from writing a token under the home folder
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            os.environ.setdefault(
                "RAY_task_oom_retries", str(self.retries)
            )  # without end unless told
            import ray

            if not ray.is_initialized():
                self.close_watch()
                self._watch = ClusterWatch(ray, *_start(ray, self.address, self.cpus))
                reporter.say(f"Ray {ray.__version__}: {_size(self._watch.nodes)}")
            if self._watch is None:  # somebody else's connection in this process
                self._watch = ClusterWatch(
                    ray, str(ray.get_runtime_context().gcs_address), AddressKind.CLUSTER
                )
            if self._progress is None:
                self._progress = _start_progress(ray)
            return ray, self._watch

    def close_watch(self) -> None:
        """Ask the cluster nothing more: the connection is another one, or none."""
        if self._watch is not None:
            self._watch.close()
        self._watch = self._progress = None

    def close(self) -> None:
        """Leave the cluster, or stop the one started here (the end of the process does so too)."""
        import ray

        with self._guard:
            self.close_watch()
            ray.shutdown()


def _start(ray: Any, address: str | None, cpus: int | None) -> tuple[str, AddressKind]:
    """Start a cluster here, or join one; where it is asked whether it is still there.

    Raises:
        UserError: it cannot be joined.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:  # not in a thread: what Ray starts ends with the thread that started it
        with _signals_kept():
            ray.init("local", include_dashboard=False, num_cpus=cpus, **quiet)
        return str(ray.get_runtime_context().gcs_address), AddressKind.CLUSTER
    kind, place = check_address(address), locate(address)
    way = place if kind is AddressKind.CLUSTER else f"ray://{place}"
    try:
        within(JOIN_SECONDS, lambda: ray.init(way, **quiet))
    except (ConnectionError, RuntimeError, ValueError, ImportError, TimeoutError) as error:
        advice = "from a machine outside it use its client port, 10001 by default"
        raise UserError(
            f"--on ray://{address}: cannot join that cluster ({described(error)}); {advice}"
        ) from None
    return place, kind


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself in a main thread; the program's own answer to it comes back."""
    mine = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, before)


def within(seconds: float, action: Callable[[], object]) -> None:
    """Do something that may never end, in a thread that is left behind if it does not.

    Raises:
        TimeoutError: it has not ended in time.
    """
    raised: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)
        finally:
            ended.set()

    threading.Thread(target=work, daemon=True).start()
    if not ended.wait(seconds):
        raise TimeoutError(f"no answer for {seconds:.0f} s")
    if raised:
        raise raised[0]


class ClusterWatch:
    """Knows the nodes of a cluster, and whether it still answers, without ever waiting for it.

    Two threads ask, each in its own time: when the head is lost, Ray's own calls wait for a minute,
    and then Ray ends the process. `lost` tells earlier.

    Args:
        place, kind: the port that is asked.
    """

    def __init__(self, ray: Any, place: str, kind: AddressKind) -> None:
        self._ray, self._place, self._kind = ray, place, kind
        self._over = threading.Event()
        self._silent_since: float | None = None
        self.nodes: Sequence[Mapping[str, Any]] = ray.nodes()
        for target in (self._listen, self._look):
            threading.Thread(target=target, daemon=True).start()

    def close(self) -> None:
        """Stop asking the cluster."""
        self._over.set()

    @property
    def lost(self) -> bool:
        """Whether the cluster has been silent for `LOST_SECONDS`."""
        since = self._silent_since
        return since is not None and time.monotonic() - since > LOST_SECONDS

    def _listen(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            asked = time.monotonic()
            if answers(self._place, self._kind):
                self._silent_since = None
            elif self._silent_since is None:
                self._silent_since = asked

    def _look(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            if self._silent_since is None:
                with suppress(
                    Exception
                ):  # a look that fails is made again; `lost` tells of what lasts
                    self.nodes = self._ray.nodes()


def _alive(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [node for node in nodes if node["Alive"]]


def _amount(node: Mapping[str, Any], kind: str) -> float:
    return float(node["Resources"].get(kind, 0))


def _size(nodes: Sequence[Mapping[str, Any]]) -> str:
    """A cluster for a reader: ``2 nodes, 8 CPUs, 0 GPUs``."""
    alive = _alive(nodes)
    cpus, gpus = (sum(_amount(node, kind) for node in alive) for kind in ("CPU", "GPU"))
    return f"{len(alive)} node{'s' * (len(alive) != 1)}, {cpus:g} CPUs, {gpus:g} GPUs"


def slots(known: Sequence[Mapping[str, Any]], trainer: Trainer, workers: int) -> Slots:
    """One CPU a block, and on GPUs as much of one as the driver's choice of ``workers`` leaves it.

    Raises:
        UserError: the cluster has no GPU.
    """
    asked = trainer.settings.workers
    nodes = _alive(known)
    cpus, gpus = ([int(_amount(node, kind)) for node in nodes] for kind in ("CPU", "GPU"))
    widest = max(1, *cpus)
    if trainer.device.type == "cuda":
        if not sum(gpus):
            raise UserError(
                f"device={trainer.settings.device}: no node of the Ray cluster has a GPU; "
                "device=cpu works"
            )
        return Slots(sum(gpus) * workers, 1, 1 / workers, widest)
    count = max(sum(cpus), 1)
    return Slots(min(count, asked) if asked else count, 1, 0.0, widest)


def divide(blocks: Sequence[Sequence[T]], slots: int) -> list[Sequence[T]]:
    """Divide blocks into nearly equal parts until every slot has one, none smaller than
    `LEAST_ROWS`.
    """
    parts = -(-slots // len(blocks))
    divided: list[Sequence[T]] = []
    for block in blocks:
        count = max(1, min(parts, len(block) // LEAST_ROWS))
        edges = [len(block) * index // count for index in range(count + 1)]
        divided += [block[begin:end] for begin, end in pairwise(edges)]
    return divided


@dataclass(frozen=True)
class Failure:
    """What a block raised, as text: an exception of a user's own class may not survive the way
    back.

    Args:
        kind: a mistake of the user's, memory that ran out, or anything else.
    """

    text: str
    kind: Literal["mistake", "memory", "failure"]

    @staticmethod
    def of(error: BaseException) -> Failure:
        """That of an exception."""
        from hpo_bench.running import memory

        if isinstance(error, UserError):
            return Failure(described(error), "mistake")
        return Failure(described(error), "memory" if memory.is_exhausted(error) else "failure")

    def error(self) -> UserError | RuntimeError:
        """The exception that stands for it in the driver."""
        return UserError(self.text) if self.kind == "mistake" else RuntimeError(self.text)


@dataclass
class _Tasks:
    """The blocks of one run on the cluster, a bounded number of them at a time.

    Args:
        blocks: grows when blocks are divided for want of memory.
        pending: numbers of the blocks that Ray has, by what it will give for them.
        begun: numbers of those that a node has begun.
        ahead: how many blocks Ray has for each slot.
    """

    ray: Any
    program: Program
    slots: Slots
    retries: int
    blocks: list[Sequence[Row]]
    reporter: Reporter
    progress: Any
    watch: ClusterWatch
    patience: float
    ahead: int
    workers: int
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    pending: dict[Any, int] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    shown: dict[int, int] = field(default_factory=dict)

    def finished(self) -> Iterator[Parts]:
        """What blocks give to their runs, as they are finished."""
        ray, updates = self.ray, self.program.trainer.settings.total_updates
        try:
            job = ray.put(_job(self.program, self.slots))
        except ModuleNotFoundError as error:  # Ray Client unpacks it on the head
            raise _lacks(str(error.name)) from None
        task = ray.remote(_compute).options(
            num_cpus=self.slots.cpus,
            num_gpus=self.slots.gpus,
            max_retries=self.retries,
            retry_exceptions=False,
        )
        waiting = list(reversed(range(len(self.blocks))))
        known = self._addresses()
        tended = moved = time.monotonic()
        reminded: float | None = None
        while waiting or self.pending:
            while waiting and len(self.pending) < self.slots.count * self.ahead:
                index = waiting.pop()
                rows = list(self.blocks[index])
                self.pending[task.remote(job, rows, (self.run, index), self.progress)] = index
            done = self._done()
            for reference in done:
                index = self.pending.pop(reference)
                result = self._fetch(reference, self.blocks[index])
                if isinstance(result, Failure):
                    waiting += self._halves(index, result)
                    continue
                self._show(index, updates)
                yield result
            now = time.monotonic()
            if now - tended >= POLL_SECONDS:
                tended = now
                known = self._say_lost(known)
                self._poll()
            if done or self.begun & set(self.pending.values()):
                moved, reminded = now, None
            elif now - moved >= self._silence() and (
                reminded is None or now - reminded >= REMIND_SECONDS
            ):
                self._say_idle(now - moved)
                reminded = now

    def _done(self) -> list[Any]:
        """References that are ready, after `POLL_SECONDS` at most.

        Raises:
            RuntimeError: the cluster was lost.
        """
        if self.watch.lost:
            raise self._gone()
        try:
            done, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=POLL_SECONDS)
        except ConnectionError:  # of Ray Client
            raise self._gone() from None
        return list(done)

    def _gone(self) -> RuntimeError:
        return RuntimeError("the Ray cluster no longer answers")

    def _fetch(self, reference: Any, rows: Sequence[Row]) -> Parts | Failure:
        errors = self.ray.exceptions
        try:
            result: Parts | Failure = self.ray.get(reference)
            return result
        except ConnectionError:
            raise self._gone() from None
        except errors.RayError as error:
            if missing := re.search(r"No module named '([\w.]+)'", str(error)):
                raise _lacks(missing[1]) from None
            cause = error.cause if isinstance(error, errors.RayTaskError) else error
            if not isinstance(cause, errors.RayError):
                raise RuntimeError(described(cause)) from None
            reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
            raise RuntimeError(
                f"Ray gave up on seeds {rows[0].seed} to {rows[-1].seed}: {reason}"
            ) from None

    def _halves(self, index: int, failure: Failure) -> list[int]:
        """Numbers of the two halves of a block for which a node had not enough memory.

        Raises:
            UserError, RuntimeError: the block failed for another reason, or has one row.
        """
        rows = self.blocks[index]
        if failure.kind != "memory" or len(rows) == 1:
            raise failure.error()
        half = -(-len(rows) // 2)
        self.reporter.say(
            f"not enough memory for {len(rows)} repetitions at once: going on with {half}"
        )
        self.reporter.advance(-self.shown.pop(index, 0) * len(rows))
        self.blocks += [rows[:half], rows[half:]]
        return [len(self.blocks) - 1, len(self.blocks) - 2]

    def _poll(self) -> None:
        with suppress(
            self.ray.exceptions.RayError, ConnectionError
        ):  # only shown: a late answer is no failure
            for index, updates in self.ray.get(
                self.progress.read.remote(self.run), timeout=POLL_SECONDS
            ).items():
                self.begun.add(index)
                self._show(index, updates)

    def _show(self, index: int, updates: int) -> None:
        """Advance by what is new; a block that is computed again does not go back."""
        before = self.shown.get(index, 0)
        if updates > before:
            self.shown[index] = updates
            self.reporter.advance((updates - before) * len(self.blocks[index]))

    def _addresses(self) -> Mapping[str, str]:
        return {node["NodeID"]: node["NodeManagerAddress"] for node in _alive(self.watch.nodes)}

    def _say_lost(self, before: Mapping[str, str]) -> Mapping[str, str]:
        now = self._addresses()
        for lost in before.keys() - now.keys():
            self.reporter.say(f"Ray lost the node {before[lost]}; its blocks are computed again")
        for new in now.keys() - before.keys():
            self.reporter.say(f"Ray has a new node, {now[new]}")
        if (
            before.keys() - now.keys()
        ):  # its blocks are no longer in work until another node tells of them
            self.begun.clear()
            self.progress.forget.remote(self.run)
        if before.keys() != now.keys():
            with suppress(
                UserError
            ):  # no GPU is left: what is waited for is said, as long as there is patience
                room = slots(self.watch.nodes, self.program.trainer, self.workers)
                self.slots = replace(self.slots, count=room.count)
        return now

    def _can_begin(self) -> bool:
        """Whether a node could take a block if it did nothing else."""
        return any(self.slots.fit(node) for node in _alive(self.watch.nodes))

    def _silence(self) -> float:
        """Seconds without a block in work after which it is said what is waited for."""
        return START_SECONDS if self._can_begin() else IDLE_SECONDS

    def _say_idle(self, seconds: float) -> None:
        """Say what is waited for.

        Raises:
            RuntimeError: no node can take a block, and patience is at its end.
        """
        size = _size(self.watch.nodes)
        if self._can_begin():
            self.reporter.say(
                f"Ray ({size}) has begun no block for {seconds:.0f} s: others may be using the "
                "cluster"
            )
            return
        lack = f"no node of the Ray cluster has {self.slots.wanted} ({size})"
        if seconds >= self.patience:
            raise RuntimeError(f"{lack}, nor has one come in {seconds:.0f} s")
        self.reporter.say(
            f"{lack}: waiting for one, {self.patience - seconds:.0f} s at most (Ctrl-C ends this)"
        )

    def cancel(self) -> None:
        """Stop what is still computed (another block failed, or the user pressed Ctrl-C)."""
        if self.watch.lost:
            return
        for reference in self.pending:
            with suppress(Exception):
                self.ray.cancel(reference, force=True)
        with suppress(Exception):
            self.progress.forget.remote(self.run)


def _lacks(module: str) -> UserError:
    return UserError(
        f"the nodes of the Ray cluster have no module {module}; install there what is installed "
        "here"
    )


def _job(program: Program, slots: Slots) -> BlockJob:
    trainer, source = program.trainer, SentTable(program.trainer.table)
    file = trainer.settings.start.file
    sent = tuple(
        replace(settings, source=source, device=trainer.device.type) for settings in program.runs
    )
    return BlockJob(sent, file.read_bytes() if file is not None else None, slots.cpus)


class _Progress:
    """An actor: weight updates that each block of each run has made, as its task told last."""

    def __init__(self) -> None:
        self.updates: dict[str, dict[int, int]] = {}

    def report(self, run: str, index: int, updates: int) -> None:
        """A block has come so far."""
        self.updates.setdefault(run, {})[index] = updates

    def read(self, run: str) -> dict[int, int]:
        """All blocks of a run."""
        return self.updates.get(run, {})

    def forget(self, run: str) -> None:
        """The run is over."""
        self.updates.pop(run, None)


def _start_progress(ray: Any) -> Any:
    """Start it on the driver's node, so that no other node takes it along."""
    here = ray.get_runtime_context().get_node_id()
    near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
    return ray.remote(_Progress).options(num_cpus=0, scheduling_strategy=near).remote()


def _compute(
    job: BlockJob, rows: Sequence[Row], block: tuple[str, int], progress: Any
) -> Parts | Failure:
    """The task: one block, on whatever node;

    ``block`` names it in what it tells of its progress.
    """
    progress.report.remote(*block, 0)
    try:
        return _trained(job, rows, block, progress)
    except (
        BaseException
    ) as error:  # of whatever class, SystemExit included: one repetition failed, not the worker
        return Failure.of(error)


def _trained(job: BlockJob, rows: Sequence[Row], block: tuple[str, int], progress: Any) -> Parts:
    import torch

    from hpo_bench.running.program import Program
    from hpo_bench.running.trainer import pick_device

    if job.version != __version__:
        raise UserError(
            f"a node of the Ray cluster has hpo-bench {__version__}, this machine {job.version}"
        )
    torch.set_num_threads(job.threads)
    done, said = 0, time.monotonic()

    def on_progress(count: int) -> None:
        nonlocal done, said
        done += count
        if time.monotonic() - said >= REPORT_SECONDS:
            said = time.monotonic()
            progress.report.remote(*block, done)

    runs, shared = job.runs, job.runs[0]
    table = shared.source.load(shared.validation_share)
    with tempfile.TemporaryDirectory(prefix="hpo-bench-") as folder:
        if job.start is not None:
            file = Path(folder) / "init.npz"
            file.write_bytes(job.start)
            runs = tuple(
                replace(settings, start=replace(settings.start, file=file)) for settings in runs
            )
        return Program.of(runs, table, pick_device(shared.device)).block(rows, on_progress)
