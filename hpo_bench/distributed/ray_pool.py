"""Blocks as Ray tasks: a lost node costs the blocks it was computing, which another node computes again.

The driver alone writes results, each block once, when it has it: nodes need no shared folder and no data set.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hpo_bench import __version__
from hpo_bench.errors import UserError

if TYPE_CHECKING:
    from hpo_bench.datasets.base import Table
    from hpo_bench.experiment import Parts, Program, Row, Trainer
    from hpo_bench.progress import Reporter
    from hpo_bench.settings import Settings

CLIENT_PORT = 10001  # where `ray start --head` answers drivers that are not on a machine of the cluster
LEAST_ROWS = 8  # repetitions below which a block is not divided further: side by side they cost little more than one
AHEAD = 2  # blocks handed to Ray per slot, so that none waits for the driver and few results wait in memory
POLL_SECONDS = 1.0
REPORT_SECONDS = 0.5
T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """A source that has its table already: what the driver sends to the nodes, so that none has to download it."""

    table: Table

    def load(self, validation_share: float) -> Table:
        """The table, in memory that may be written to (Ray's own may not)."""
        return replace(self.table, inputs=self.table.inputs.copy(), targets=self.table.targets.copy())


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


@dataclass(frozen=True)
class Job:
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
    """A pool on Ray, see `hpo_bench.experiment.Pool`. It connects at the first block, once, and may be shared.

    Args:
        address: ``HOST:PORT`` of a running cluster, ``auto``, or None to start one on this machine.
        retries: how often a block is computed again whose node or process was lost.
        cpus: cores of a cluster that is started here; all by default.
    """

    def __init__(self, address: str | None = None, retries: int = 5, cpus: int | None = None) -> None:
        self.address, self.retries, self.cpus = address, retries, cpus
        self._guard = threading.Lock()
        self._progress: Any = None

    def run(
        self, program: Program, blocks: Sequence[Sequence[Row]], workers: int, reporter: Reporter
    ) -> Iterator[Parts]:
        """Compute the blocks on the cluster. Unless ``chunk`` is fixed they are divided to occupy all of it.

        Raises:
            UserError, RuntimeError: what a block raised, or that Ray gave up on one.
        """
        if not blocks:
            return
        ray = self._connect(reporter)
        trainer, settings = program.trainer, program.trainer.settings
        room = slots(ray, trainer, workers)
        if settings.chunk is None:
            blocks = divide(blocks, room.count)
        if len(blocks) == 1:
            room = replace(room, cpus=min(trainer.threads(len(blocks[0]), 1), room.widest))
        tasks = _Tasks(ray, program, room, self.retries, blocks, reporter, self._progress)
        limit = room.count if settings.workers else room.count * AHEAD
        try:
            yield from tasks.finished(limit)
        finally:
            tasks.cancel()

    def _connect(self, reporter: Reporter) -> Any:
        with self._guard:
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # keeps Ray from writing a token under the home folder
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            import ray

            if not ray.is_initialized():
                _start(ray, self.address, self.cpus)
                resources = ray.cluster_resources()
                nodes = sum(bool(node["Alive"]) for node in ray.nodes())
                reporter.say(
                    f"Ray {ray.__version__}: {nodes} node{'s' * (nodes != 1)}, {resources.get('CPU', 0):g} CPUs, "
                    f"{resources.get('GPU', 0):g} GPUs"
                )
                self._progress = None
            if self._progress is None:
                self._progress = _start_progress(ray)
            return ray

    def close(self) -> None:
        """Leave the cluster, or stop the one started here (the end of the process does so too)."""
        import ray

        with self._guard:
            self._progress = None
            ray.shutdown()


def check_address(address: str) -> None:
    """Make sure that something answers at ``HOST:PORT``; ``auto`` is left to Ray.

    Raises:
        UserError: not an address, or nothing there.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UserError(f"--on ray://{address}: must be ray://HOST:PORT (as ray start --head printed it) or ray://auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"--on ray://{address}: nothing answers there ({error.strerror or error}); ray start --head makes one"
        ) from None


def _start(ray: Any, address: str | None, cpus: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init("local", include_dashboard=False, num_cpus=cpus, **quiet)
        return
    ways = [address] if address == "auto" else [address, f"ray://{address}"]
    if address.endswith(f":{CLIENT_PORT}"):
        ways.reverse()
    reason = ""
    for way in ways:
        try:
            ray.init(way, **quiet)
            return
        except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
            reason = reason or " ".join(str(error).split())[:200]
    raise UserError(
        f"--on ray://{address}: cannot join that cluster ({reason}); from a machine outside it use its client port, "
        f"{CLIENT_PORT} by default"
    )


def slots(ray: Any, trainer: Trainer, workers: int) -> Slots:
    """One CPU a block, and on GPUs as much of one as the driver's choice of ``workers`` leaves it.

    Raises:
        UserError: the cluster has no GPU.
    """
    asked = trainer.settings.workers
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = ([int(node.get(kind, 0)) for node in nodes] for kind in ("CPU", "GPU"))
    widest = max(1, *cpus)
    if trainer.device.type == "cuda":
        if not sum(gpus):
            raise UserError(f"device={trainer.settings.device}: no node of the Ray cluster has a GPU; device=cpu works")
        return Slots(sum(gpus) * workers, 1, 1 / workers, widest)
    count = max(sum(cpus), 1)
    return Slots(min(count, asked) if asked else count, 1, 0.0, widest)


def divide(blocks: Sequence[Sequence[T]], slots: int) -> list[Sequence[T]]:
    """Divide blocks into nearly equal parts until every slot has one, none smaller than `LEAST_ROWS`."""
    parts = -(-slots // len(blocks))
    divided: list[Sequence[T]] = []
    for block in blocks:
        count = max(1, min(parts, len(block) // LEAST_ROWS))
        edges = [len(block) * index // count for index in range(count + 1)]
        divided += [block[begin:end] for begin, end in pairwise(edges)]
    return divided


@dataclass
class _Tasks:
    """The blocks of one run on the cluster, a bounded number of them at a time."""

    ray: Any
    program: Program
    slots: Slots
    retries: int
    blocks: Sequence[Sequence[Row]]
    reporter: Reporter
    progress: Any
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    pending: dict[Any, int] = field(default_factory=dict)
    shown: dict[int, int] = field(default_factory=dict)

    def finished(self, limit: int) -> Iterator[Parts]:
        """What blocks give to their runs, as they are finished."""
        ray, updates = self.ray, self.program.trainer.settings.total_updates
        try:
            job = ray.put(_job(self.program, self.slots))
        except ModuleNotFoundError as error:  # Ray Client unpacks it on the head
            raise _lacks(str(error.name)) from None
        task = ray.remote(_compute).options(
            num_cpus=self.slots.cpus, num_gpus=self.slots.gpus, max_retries=self.retries, retry_exceptions=False
        )
        waiting = list(reversed(list(enumerate(self.blocks))))
        nodes = self._alive()
        while waiting or self.pending:
            while waiting and len(self.pending) < limit:
                index, rows = waiting.pop()
                self.pending[task.remote(job, list(rows), (self.run, index), self.progress)] = index
            done, _ = ray.wait(list(self.pending), num_returns=1, timeout=POLL_SECONDS)
            for reference in done:
                index = self.pending.pop(reference)
                parts = self._fetch(reference, self.blocks[index])
                self._show(index, updates)
                yield parts
            if not done:
                self._poll()
                nodes = self._say_lost(nodes)

    def _fetch(self, reference: Any, rows: Sequence[Row]) -> Parts:
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except errors.RayError as error:
            cause = error.cause if isinstance(error, errors.RayTaskError) else error
            if not isinstance(cause, errors.RayError):
                raise cause from None
            if missing := re.search(r"No module named '([\w.]+)'", str(error)):
                raise _lacks(missing[1]) from None
            reason = str(cause).strip().splitlines()[0]
            raise RuntimeError(f"Ray gave up on seeds {rows[0].seed} to {rows[-1].seed}: {reason}") from None

    def _poll(self) -> None:
        with suppress(self.ray.exceptions.RayError):  # progress is only shown: a late answer is no failure
            for index, updates in self.ray.get(self.progress.read.remote(self.run), timeout=POLL_SECONDS).items():
                self._show(index, updates)

    def _show(self, index: int, updates: int) -> None:
        """Advance by what is new; a block that is computed again does not go back."""
        before = self.shown.get(index, 0)
        if updates > before:
            self.shown[index] = updates
            self.reporter.advance((updates - before) * len(self.blocks[index]))

    def _alive(self) -> Mapping[str, str]:
        return {node["NodeID"]: node["NodeManagerAddress"] for node in self.ray.nodes() if node["Alive"]}

    def _say_lost(self, before: Mapping[str, str]) -> Mapping[str, str]:
        now = self._alive()
        for lost in before.keys() - now.keys():
            self.reporter.say(f"Ray lost the node {before[lost]}; its blocks are computed again")
        for new in now.keys() - before.keys():
            self.reporter.say(f"Ray has a new node, {now[new]}")
        return now

    def cancel(self) -> None:
        """Stop what is still computed (another block failed, or the user pressed Ctrl-C)."""
        for reference in self.pending:
            with suppress(Exception):
                self.ray.cancel(reference, force=True)
        with suppress(Exception):
            self.progress.forget.remote(self.run)


def _lacks(module: str) -> UserError:
    return UserError(f"the nodes of the Ray cluster have no module {module}; install there what is installed here")


def _job(program: Program, slots: Slots) -> Job:
    trainer, source = program.trainer, Loaded(program.trainer.table)
    file = trainer.settings.start.file
    sent = tuple(replace(settings, source=source, device=trainer.device.type) for settings in program.runs)
    return Job(sent, file.read_bytes() if file is not None else None, slots.cpus)


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


def _compute(job: Job, rows: Sequence[Row], block: tuple[str, int], progress: Any) -> Parts:
    """The task: one block, on whatever node; ``block`` names it in what it tells of its progress."""
    import torch

    from hpo_bench.experiment import Program, pick_device

    if job.version != __version__:
        raise UserError(f"a node of the Ray cluster has hpo-bench {__version__}, this machine {job.version}")
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
            runs = tuple(replace(settings, start=replace(settings.start, file=file)) for settings in runs)
        return Program.of(runs, table, pick_device(shared.device)).block(rows, on_progress)
