"""Curves of a run summed up over its repetitions, and the trackers that can show them: TensorBoard,
MLflow, wandb.

Nothing of a tracker is imported unless it is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import os
import queue
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd

from hpo_bench.errors import UserError, nearest
from hpo_bench.progress import Reporter
from hpo_bench.settings.identity import flat
from hpo_bench.settings.run import TRACKERS, Settings
from hpo_bench.store.curves import (
    POINTS,
    Point,
    add_scalars,
    event_writer,
    finite_points,
    summarise,
)
from hpo_bench.store.files import write_json
from hpo_bench.store.runs import Run, read_table
from hpo_bench.store.writer import Block
from hpo_bench.system.inherited import settle_for_trackers, variable

BATCH = 1000  # metrics that MLflow takes at once
PARAMETERS = 100  # likewise
QUEUED = 100  # messages that may wait for a tracker
START_SECONDS = 10.0  # for a tracker's first answer
FORGET_SECONDS = 300.0  # that the other runs of a sweep do not wait again for one that gave none
# Likewise, for one that makes a database on this machine first, which takes MLflow about ten.
DATABASE_SECONDS = 60.0
CLOSE_SECONDS = 10.0  # for an answer to each message, once the run itself has ended
AT_MOST_SECONDS = 60.0  # for all that is still to be told then
SERVERS = {
    "mlflow": "MLFLOW_TRACKING_URI",
    "wandb": "WANDB_BASE_URL",
}  # variables that name a tracker's server
REMEMBERED = "tracker.json"  # beside a run's blocks: its id in the tracker


class Backend(Protocol):
    """One run in one tracker.

    Attributes:
        id: the tracker's own name of the run, by which a resumed run finds it again.
        shown: numbers of finished repetitions of which the tracker has points from before an
            interruption.
    """

    id: str
    shown: Collection[int]

    def log(self, axis: str, points: Iterator[Point]) -> None:
        """Add values over an axis:

        ``curves`` over weight updates, ``finished`` over finished repetitions.
        """
        ...

    def close(self, complete: bool) -> None:
        """No more will come."""
        ...


class Trackers:
    """Context: tells the trackers of runs that are computed together, if they have one. See
    `Tracked`.

    Args:
        runs: settings, id, and the folder of finished blocks of each.

    Raises:
        UserError: on entry: the tracker is not installed, cannot be started, or does not answer in
            time.
    """

    def __init__(self, runs: Sequence[tuple[Settings, str, Path]], reporter: Reporter) -> None:
        self._tracked = [
            Tracked(settings.tracker, settings, run_id, blocks, reporter)
            for settings, run_id, blocks in runs
            if settings.tracker is not None
        ]

    def __enter__(self) -> Trackers:
        if self._tracked:
            settle_for_trackers()
        try:
            for tracked in self._tracked:
                tracked.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for tracked in self._tracked:
            tracked.end(False)
        until = time.monotonic() + AT_MOST_SECONDS
        for tracked in self._tracked:
            tracked.wait(until)

    def finished(self, number: int, block: Block) -> None:
        """A block of a run is stored."""
        if self._tracked:
            self._tracked[number].finished(block)

    def complete(self, number: int, run: Run) -> None:
        """A whole run is stored."""
        if self._tracked:
            self._tracked[number].complete(run)


class Tracked:
    """Tells one run's tracker of it while it is computed, in a thread: no training waits for a
    tracker.

    While blocks finish, the final values of the repetitions so far are logged over their number;
    when all have finished, the curves summed up over all of them, over weight updates. The
    tracker's id is kept beside the run's blocks, so that an interrupted run goes on in the
    tracker's run that it began. A tracker that fails or falls silent is left, which is said once,
    and the run goes on."""

    def __init__(
        self, name: str, settings: Settings, run_id: str, blocks: Path, reporter: Reporter
    ) -> None:
        self._name, self._settings, self._run_id, self._blocks = name, settings, run_id, blocks
        self._reporter = reporter
        self._finals: list[pd.DataFrame] = []
        self._work: queue.SimpleQueue[Callable[[Backend], None] | None] = queue.SimpleQueue()
        self._started, self._ended, self._guard = (
            threading.Event(),
            threading.Event(),
            threading.Lock(),
        )
        self._refusal: str | None = None
        self._over = self._left = self._slow = False
        self._ended.set()  # nothing is waited for that has not begun
        self._moved = time.monotonic()

    def start(self) -> None:
        """Begin, or go on where an earlier call was interrupted.

        Raises:
            UserError: the tracker cannot be started, or does not answer in time.
        """
        check(self._name)
        seconds = _first_answer(self._name)
        self._finals += _stored_finals(self._blocks)
        self._ended.clear()
        threading.Thread(target=self._serve, name=f"tracker of {self._run_id}", daemon=True).start()
        if not self._started.wait(seconds):
            _SILENT_SINCE[_address(self._name)] = time.monotonic()
            self._refusal = _no_answer(self._name, seconds)
        if self._refusal is not None:
            self._over = self._left = True
            raise UserError(f"tracker={self._name}: cannot be started ({self._refusal})")

    def finished(self, block: Block) -> None:
        """A block is stored."""
        self._finals.append(block.tables["final"].to_pandas())
        so_far = tuple(self._finals)
        if self._work.qsize() < QUEUED:
            self._work.put(lambda backend: _show_finished(backend, so_far))
        elif not self._slow and not self._left:
            self._slow = True
            self._reporter.say(
                f"tracker={self._name} is slow: points of some finished repetitions are left out"
            )

    def complete(self, run: Run) -> None:
        """The whole run is stored."""

        def show(backend: Backend) -> None:
            curves = summarise(read_table(run, "curves"), read_table(run, "final"), POINTS)
            backend.log("curves", finite_points(curves))

        self._work.put(show)
        self.end(True)

    def end(self, complete: bool) -> None:
        """No more will come; only the first call counts."""
        if not self._over:
            self._over = True
            self._work.put(lambda backend: backend.close(complete))
            self._work.put(None)

    def wait(self, until: float) -> None:
        """Wait until all is told: to a moment of the monotonic clock, and not for one that has
        fallen silent.
        """
        while not self._left and not self._ended.is_set():
            left = min(until, self._moved + CLOSE_SECONDS) - time.monotonic()
            if left <= 0:
                self._leave(f"no answer within {CLOSE_SECONDS:.0f} s")
            self._ended.wait(max(left, 0.0))

    def _leave(self, reason: str) -> None:
        with self._guard:
            said, self._left = self._left, True
        if not said:
            self._reporter.say(
                f"tracker={self._name} failed ({reason}); the run goes on without it"
            )

    def _serve(self) -> None:
        """What the thread does: it alone talks to the tracker."""
        try:
            backend = self._begin()
        except Exception as error:  # whatever a tracker may raise
            self._refusal = _short(error)
            return
        finally:
            self._moved = time.monotonic()
            self._started.set()
        try:
            while not self._left and (action := self._work.get()) is not None:
                self._moved = time.monotonic()
                action(backend)
                self._moved = time.monotonic()
        except Exception as error:  # is no reason to lose a run
            self._leave(_short(error))
        finally:
            self._ended.set()

    def _begin(self) -> Backend:
        earlier = tuple(self._finals)
        backend = BACKENDS[self._name](
            self._settings.results_dir,
            self._run_id,
            self._settings.config,
            _remembered(self._blocks, self._name),
        )
        write_json(self._blocks / REMEMBERED, {"tracker": self._name, "id": backend.id})
        for count in range(1, len(earlier) + 1):
            if sum(map(len, earlier[:count])) not in backend.shown:
                _show_finished(backend, earlier[:count])
        return backend


def _show_finished(backend: Backend, finals: Sequence[pd.DataFrame]) -> None:
    backend.log("finished", finite_points(_so_far(pd.concat(finals))))


def _stored_finals(blocks: Path) -> list[pd.DataFrame]:
    """Final values of the blocks that an earlier call finished, in the order in which it did."""
    marks = sorted(blocks.glob("block-*/block.json"), key=lambda file: file.stat().st_mtime_ns)
    return [pd.read_parquet(mark.with_name("final.parquet")) for mark in marks]


def _remembered(blocks: Path, name: str) -> str | None:
    """The tracker's id of the run that an earlier call began;

    None if there is none, or of another tracker.
    """
    try:
        content = json.loads((blocks / REMEMBERED).read_text(encoding="utf-8"))
        return str(content["id"]) if content["tracker"] == name else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _so_far(final: pd.DataFrame) -> pd.DataFrame:
    """Final values summed up, at their number as the only step; when a repetition diverged is no
    matter.
    """
    diverged_at = np.where(final["status"] == "ok", np.inf, 0.0)
    return summarise(final.assign(step=len(final)), final.assign(diverged_at=diverged_at))


def check(name: str | None) -> None:
    """Make sure that a tracker is known and installed, before anything is computed.

    Raises:
        UserError: it is not.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise UserError(f"tracker={name}: {nearest(name, (*TRACKERS, 'null'))}")
    if find_spec(TRACKERS[name]) is None:
        raise UserError(
            f"tracker={name}: {TRACKERS[name]} is not installed; pip install 'hpo-bench[{name}]'"
        )


_SILENT_SINCE: dict[
    tuple[str, str | None], float
] = {}  # trackers that did not answer, and when that was found out


def _address(name: str) -> tuple[str, str | None]:
    return name, variable(SERVERS.get(name, "-"))


def _no_answer(name: str, seconds: float) -> str:
    server = _address(name)[1]
    return f"no answer{f' from {server}' if server else ''} within {seconds:.0f} s"


def _first_answer(name: str) -> float:
    """Seconds that a tracker has for its first answer, once it is imported, which may take as long
    on its own.

    Raises:
        UserError: it cannot be imported, its database cannot be opened (MLflow would try for
            minutes), or another run has waited for it in vain a moment ago.
    """
    silent = time.monotonic() - _SILENT_SINCE.get(_address(name), -math.inf)
    if silent < FORGET_SECONDS:
        raise UserError(
            f"tracker={name}: cannot be started ({_no_answer(name, START_SECONDS)}, {silent:.0f} "
            "s ago)"
        )
    try:
        importlib.import_module(TRACKERS[name])
    except Exception as error:  # whatever a broken installation may raise
        raise UserError(
            f"tracker={name}: {TRACKERS[name]} cannot be imported ({_short(error)})"
        ) from None
    database = _database() if name == "mlflow" else None
    if database is None:
        return START_SECONDS
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(database, timeout=START_SECONDS / 2)) as opened:
            opened.execute("BEGIN IMMEDIATE")
    except (OSError, sqlite3.Error) as error:
        uri = variable(SERVERS["mlflow"])
        raise UserError(
            f"tracker=mlflow: cannot be started ({SERVERS['mlflow']}={uri}: {_short(error)})"
        ) from None
    return DATABASE_SECONDS


def _database() -> Path | None:
    """The file of the database that MLflow is told to use, if it is told to use one on this
    machine.
    """
    scheme, _, path = (variable(SERVERS["mlflow"]) or "").partition(":///")
    file = path.partition("?")[0]
    return Path(file) if scheme == "sqlite" and file not in ("", ":memory:") else None


class TensorBoard:
    """Event files in ``<folder>/tensorboard/<run_id>``, made anew by each call: what was finished
    is told again.
    """

    def __init__(
        self, results_dir: Path, run_id: str, config: Mapping[str, Any], known: str | None
    ) -> None:
        folder = results_dir / "tensorboard" / run_id
        for file in folder.glob("events.out.tfevents.*"):
            file.unlink()
        self.id = run_id
        self.shown: Collection[int] = ()
        self.writer = event_writer(folder)

    def log(self, axis: str, points: Iterator[Point]) -> None:
        add_scalars(self.writer, axis, points)
        self.writer.flush()

    def close(self, complete: bool) -> None:
        self.writer.close()


class MLflow:
    """A run of the experiment ``hpo-bench``: at ``MLFLOW_TRACKING_URI``, or in the folder
    ``<folder>/mlruns``.
    """

    def __init__(
        self, results_dir: Path, run_id: str, config: Mapping[str, Any], known: str | None
    ) -> None:
        for name, value in PATIENCE_OF_MLFLOW.items():
            os.environ.setdefault(name, value)
        for name in (
            "mlflow",
            "alembic",
        ):  # which tell of every table that they make, and of every try
            logging.getLogger(name).setLevel(logging.ERROR)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        uri = variable("MLFLOW_TRACKING_URI")
        if uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (results_dir.absolute() / "mlruns").as_uri()
        self.client = MlflowClient(uri)
        self.shown: Collection[int] = ()
        if known is not None and self._resume(known):
            self.id = known
            return
        self.id = self.client.create_run(self._experiment(), run_name=run_id).info.run_id
        parameters = [Param(key, str(value)[:500]) for key, value in flat(config)]
        for begin in range(0, len(parameters), PARAMETERS):
            self.client.log_batch(self.id, params=parameters[begin : begin + PARAMETERS])

    def _resume(self, known: str) -> bool:
        """Go on in a run that was interrupted; False where it is not there (any more)."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.update_run(known, status="RUNNING")
        except MlflowException as error:
            if error.error_code not in (
                "RESOURCE_DOES_NOT_EXIST",
                "INVALID_PARAMETER_VALUE",
                "INVALID_STATE",
            ):
                raise
            return False
        self.shown = {
            metric.step for metric in self.client.get_metric_history(known, "finished/n_ok")
        }
        return True

    def _experiment(self) -> str:
        """Id of the experiment, which another process may be making at the same time."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name("hpo-bench")
        if found is None:
            try:
                return str(self.client.create_experiment("hpo-bench"))
            except MlflowException:
                found = self.client.get_experiment_by_name("hpo-bench")
                if found is None:
                    raise
        return str(found.experiment_id)

    def log(self, axis: str, points: Iterator[Point]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(f"{axis}/{name}", value, now, step)
            for step, row in points
            for name, value in row.items()
        ]
        for begin in range(0, len(metrics), BATCH):
            self.client.log_batch(self.id, metrics[begin : begin + BATCH])

    def close(self, complete: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if complete else "FAILED")


PATIENCE_OF_MLFLOW = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "8"}


class WandB:
    """A run of the project ``hpo-bench``, offline in ``<folder>/wandb`` unless ``WANDB_MODE`` says
    otherwise.

    Offline, a run that goes on is told again as a whole, under its id, and what was told before is
    removed."""

    def __init__(
        self, results_dir: Path, run_id: str, config: Mapping[str, Any], known: str | None
    ) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        results_dir.mkdir(parents=True, exist_ok=True)
        mode = cast("Any", variable("WANDB_MODE") or "offline")
        if known is not None and mode == "offline":
            for folder in (results_dir / "wandb").glob(f"offline-run-*-{known}"):
                shutil.rmtree(folder, ignore_errors=True)
        self.run = wandb.init(
            project="hpo-bench",
            name=run_id,
            dir=str(results_dir),
            config=dict(config),
            reinit="create_new",
            mode=mode,
            id=known,
            resume="allow" if known is not None and mode != "offline" else None,
            settings=wandb.Settings(silent=True, console="off", init_timeout=START_SECONDS),
        )
        self.id = str(self.run.id)
        last = self.run.summary.get("finished/step") if self.run.resumed else None
        self.shown: Collection[int] = range(0 if last is None else int(last) + 1)
        for axis in ("curves", "finished"):
            self.run.define_metric(f"{axis}/*", step_metric=f"{axis}/step")

    def log(self, axis: str, points: Iterator[Point]) -> None:
        for step, values in points:
            self.run.log(
                {
                    f"{axis}/step": step,
                    **{f"{axis}/{name}": value for name, value in values.items()},
                }
            )

    def close(self, complete: bool) -> None:
        self.run.finish(exit_code=0 if complete else 1)


BACKENDS: dict[str, Callable[[Path, str, Mapping[str, Any], str | None], Backend]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}
