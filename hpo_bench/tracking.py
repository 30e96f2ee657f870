"""Curves of a run summed up over its repetitions, and the trackers that can show them: TensorBoard, MLflow, wandb.

Nothing of a tracker is imported unless it is asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from hpo_bench.errors import UserError, nearest
from hpo_bench.identity import flat
from hpo_bench.progress import Reporter
from hpo_bench.settings import HYPERPARAMETERS, TRACKERS, Settings
from hpo_bench.store import Block, Run, read_table

LOSSES = ("train_loss", "validation_loss", "test_loss", "test_metric")
POINTS = 500  # of a curve that are sent to a tracker
BATCH = 1000  # metrics that MLflow takes at once


# --- what is shown ---


def summarise(curves: pd.DataFrame, final: pd.DataFrame, points: int | None = None) -> pd.DataFrame:
    """Median and quartiles over repetitions at every recorded step: columns ``lr/median``, ``lr/q25``, … and ``n_ok``.

    From its divergence on a repetition counts as +inf in losses and metric, and not at all in hyperparameters.

    Args:
        curves, final: tables of one run, or of some of its repetitions.
        points: keep about so many steps, evenly, with the first and the last.

    Returns:
        Index ``step``; columns that the run does not have are left out.
    """
    steps = np.unique(curves["step"])
    if points is not None and len(steps) > points:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, points).round().astype(int))]
    diverged_at = final.set_index("seed")["diverged_at"].to_numpy(dtype=float, na_value=np.inf)
    diverged = steps[:, None] >= diverged_at[None, :]
    made = {"n_ok": (~diverged).sum(axis=1).astype(float)}
    chosen = curves[curves["step"].isin(steps)]
    for name in (*LOSSES, *HYPERPARAMETERS):
        if chosen[name].isna().all():
            continue
        values = chosen.pivot(index="step", columns="seed", values=name).reindex(columns=final["seed"]).to_numpy(float)
        values = np.where(diverged, np.inf if name in LOSSES else np.nan, values)
        made |= {f"{name}/{kind}": column for kind, column in _quartiles(values).items()}
    return pd.DataFrame(made, index=pd.Index(steps, name="step"))


def _quartiles(values: np.ndarray) -> dict[str, np.ndarray]:
    """Median and quartiles of each row without its NaNs; NaN where nothing is left."""
    kept = [row[~np.isnan(row)] for row in values]

    def each(statistic: Callable[[np.ndarray], Any]) -> np.ndarray:
        return np.array([statistic(row) if row.size else np.nan for row in kept], dtype=float)

    return {
        "median": each(np.median),
        "q25": each(lambda row: np.quantile(row, 0.25, method="inverted_cdf")),
        "q75": each(lambda row: np.quantile(row, 0.75, method="inverted_cdf")),
    }


def finite_points(frame: pd.DataFrame) -> Iterator[tuple[int, dict[str, float]]]:
    """Rows of a frame by index, without values that are not finite (trackers draw them badly or refuse them)."""
    for step, row in zip(frame.index, frame.to_dict("records"), strict=True):
        yield int(step), {str(name): float(value) for name, value in row.items() if np.isfinite(value)}


# --- where it is shown ---


class Backend(Protocol):
    """One run in one tracker."""

    def log(self, axis: str, points: Iterator[tuple[int, dict[str, float]]]) -> None:
        """Add values over an axis: ``curves`` over weight updates, ``finished`` over finished repetitions."""
        ...

    def close(self, complete: bool) -> None:
        """No more will come."""
        ...


class Tracked:
    """Context: tells the run's tracker, if it has one, of the run while it is computed.

    While blocks finish, the final values of the repetitions so far are logged over their number; when all have
    finished, the curves summed up over all of them, over weight updates. A tracker that fails is left; the run goes on.

    Raises:
        UserError: on entry: the tracker is not installed or cannot be started.
    """

    def __init__(self, settings: Settings, run_id: str, reporter: Reporter) -> None:
        self._settings, self._run_id, self._reporter = settings, run_id, reporter
        self._backend: Backend | None = None
        self._finals: list[pd.DataFrame] = []

    def __enter__(self) -> Tracked:
        name = self._settings.tracker
        check(name)
        if name is not None:
            try:
                self._backend = BACKENDS[name](self._settings.results_dir, self._run_id, self._settings.config)
            except Exception as error:
                raise UserError(f"tracker={name}: cannot be started ({_short(error)})") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._guarded(lambda backend: backend.close(kind is None))

    def finished(self, block: Block) -> None:
        """A block is stored."""
        if self._backend is None:
            return
        self._finals.append(block.tables["final"].to_pandas())
        self._log("finished", lambda: _so_far(pd.concat(self._finals)))

    def complete(self, run: Run) -> None:
        """The whole run is stored."""
        self._log("curves", lambda: summarise(read_table(run, "curves"), read_table(run, "final"), POINTS))

    def _log(self, axis: str, make: Callable[[], pd.DataFrame]) -> None:
        self._guarded(lambda backend: backend.log(axis, finite_points(make())))

    def _guarded(self, action: Callable[[Backend], None]) -> None:
        if self._backend is None:
            return
        try:
            action(self._backend)
        except Exception as error:  # whatever a tracker may raise is no reason to lose a run
            self._backend = None
            self._reporter.say(f"tracker={self._settings.tracker} failed ({_short(error)}); the run goes on without it")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _so_far(final: pd.DataFrame) -> pd.DataFrame:
    """Final values summed up, at their number as the only step; when a repetition diverged is no matter."""
    last = final[["seed", *LOSSES, *HYPERPARAMETERS]].assign(step=len(final))
    return summarise(last, final.assign(diverged_at=np.where(final["status"] == "ok", np.inf, 0.0)))


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
        raise UserError(f"tracker={name}: {TRACKERS[name]} is not installed; pip install 'hpo-bench[{name}]'")


class TensorBoard:
    """Event files in ``<folder>/tensorboard/<run_id>``."""

    def __init__(self, results_dir: Path, run_id: str, config: Mapping[str, Any]) -> None:
        self.writer = event_writer(results_dir / "tensorboard" / run_id)

    def log(self, axis: str, points: Iterator[tuple[int, dict[str, float]]]) -> None:
        """See `Backend.log`."""
        add_scalars(self.writer, axis, points)
        self.writer.flush()

    def close(self, complete: bool) -> None:
        """See `Backend.close`."""
        self.writer.close()


def event_writer(folder: Path) -> Any:
    """A writer of TensorBoard event files.

    Raises:
        UserError: the extra is not installed, or the folder cannot be written.
    """
    if find_spec("tensorboardX") is None:
        raise UserError("TensorBoard event files need tensorboardX; pip install 'hpo-bench[tensorboard]'")
    from tensorboardX import SummaryWriter

    try:
        return SummaryWriter(str(folder), write_to_disk=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None


def add_scalars(writer: Any, prefix: str, points: Iterator[tuple[int, dict[str, float]]]) -> None:
    """Scalars ``<prefix>/<name>`` over steps."""
    for step, values in points:
        for name, value in values.items():
            writer.add_scalar(f"{prefix}/{name}", value, step)


class MLflow:
    """A run of the experiment ``hpo-bench``: at ``MLFLOW_TRACKING_URI``, or in the database ``<folder>/mlflow.db``."""

    def __init__(self, results_dir: Path, run_id: str, config: Mapping[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (results_dir.absolute() / "mlruns").as_uri()
        self.client = MlflowClient(uri)
        experiment = self.client.get_experiment_by_name("hpo-bench")
        number = experiment.experiment_id if experiment else self.client.create_experiment("hpo-bench")
        self.run = self.client.create_run(number, run_name=run_id).info.run_id
        for key, value in flat(config):
            self.client.log_param(self.run, key, str(value)[:500])

    def log(self, axis: str, points: Iterator[tuple[int, dict[str, float]]]) -> None:
        """See `Backend.log`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(f"{axis}/{name}", value, now, step) for step, row in points for name, value in row.items()]
        for begin in range(0, len(metrics), BATCH):
            self.client.log_batch(self.run, metrics[begin : begin + BATCH])

    def close(self, complete: bool) -> None:
        """See `Backend.close`."""
        self.client.set_terminated(self.run, "FINISHED" if complete else "FAILED")


class WandB:
    """A run of the project ``hpo-bench``, offline in ``<folder>/wandb`` unless ``WANDB_MODE`` says otherwise."""

    def __init__(self, results_dir: Path, run_id: str, config: Mapping[str, Any]) -> None:
        import wandb

        results_dir.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project="hpo-bench", name=run_id, dir=str(results_dir), config=dict(config), reinit="create_new",
            mode=os.environ.get("WANDB_MODE", "offline"), settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        for axis in ("curves", "finished"):
            self.run.define_metric(f"{axis}/*", step_metric=f"{axis}/step")

    def log(self, axis: str, points: Iterator[tuple[int, dict[str, float]]]) -> None:
        """See `Backend.log`."""
        for step, values in points:
            self.run.log({f"{axis}/step": step, **{f"{axis}/{name}": value for name, value in values.items()}})

    def close(self, complete: bool) -> None:
        """See `Backend.close`."""
        self.run.finish(exit_code=0 if complete else 1)


BACKENDS: dict[str, Callable[[Path, str, Mapping[str, Any]], Backend]] = {
    "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB,
}  # fmt: skip
