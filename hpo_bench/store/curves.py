"""Curves of many repetitions in a few numbers, and their TensorBoard files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo_bench.errors import UserError
from hpo_bench.store.runs import hyperparameters_of

LOSSES = ("train_loss", "validation_loss", "test_loss", "test_metric")
POINTS = 500  # of a curve that are sent to a tracker

Point = tuple[int, dict[str, float]]  # a step, and values by name


def summarise(curves: pd.DataFrame, final: pd.DataFrame, points: int | None = None) -> pd.DataFrame:
    """Summarise repetitions by their median and quartiles at every recorded step.

    From its divergence on a repetition counts as +inf in losses and metric, and not at all in
    hyperparameters.

    Args:
        curves, final: tables of one run, or of some of its repetitions.
        points: keep about so many steps, evenly, with the first and the last.

    Returns:
        Index ``step``; columns ``n_ok`` and ``lr/median``, ``lr/q25``, ``lr/q75``, … for every
        value that the run has.
    """
    steps = np.unique(curves["step"])
    if points is not None and len(steps) > points:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, points).round().astype(int))]
    diverged_at = final.set_index("seed")["diverged_at"].to_numpy(dtype=float, na_value=np.inf)
    diverged = steps[:, None] >= diverged_at[None, :]
    columns = {"n_ok": (~diverged).sum(axis=1).astype(float)}
    rows = curves[curves["step"].isin(steps)]
    for name in (*LOSSES, *hyperparameters_of(final.columns)):
        if rows[name].isna().all():
            continue
        values = (
            rows.pivot(index="step", columns="seed", values=name)
            .reindex(columns=final["seed"])
            .to_numpy(float)
        )
        # A diverged loss is worse than any, so it belongs in the median; a diverged learning rate
        # says nothing about the others.
        values = np.where(diverged, np.inf if name in LOSSES else np.nan, values)
        for statistic, column in _quartiles(values).items():
            columns[f"{name}/{statistic}"] = column
    return pd.DataFrame(columns, index=pd.Index(steps, name="step"))


def _quartiles(values: np.ndarray) -> dict[str, np.ndarray]:
    """Median and quartiles of each row without its NaNs; NaN where nothing is left."""
    # NumPy's own functions that pass over NaN would warn at a row that holds nothing else.
    present = [row[~np.isnan(row)] for row in values]

    def each(statistic: Callable[[np.ndarray], Any]) -> np.ndarray:
        return np.array([statistic(row) if row.size else np.nan for row in present], dtype=float)

    # Quartiles are values that occur: between a finite value and +inf there is none.
    return {
        "median": each(np.median),
        "q25": each(lambda row: np.quantile(row, 0.25, method="inverted_cdf")),
        "q75": each(lambda row: np.quantile(row, 0.75, method="inverted_cdf")),
    }


def finite_points(frame: pd.DataFrame) -> Iterator[Point]:
    """The rows of a frame as points, without values that are not finite.

    Trackers draw such values badly, or refuse them.
    """
    for step, row in zip(frame.index, frame.to_dict("records"), strict=True):
        values = {str(name): float(value) for name, value in row.items() if np.isfinite(value)}
        yield int(step), values


class EventWriter:
    """Writes TensorBoard event files in the thread that calls it.

    That of tensorboardX has a thread of its own, which ends without a word when the disk is full
    and leaves the others waiting for it.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._writer.flush()

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Write the value that a curve has at one step."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        self._writer.write_event(
            Event(wall_time=time.time(), step=step, summary=scalar(name, value))
        )

    def flush(self) -> None:
        """Write what is kept back."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is kept back, and close the file."""
        self._writer.close()


def event_writer(folder: Path) -> EventWriter:
    """Open a TensorBoard event file in a folder.

    Raises:
        UserError: the extra is not installed, or the folder cannot be written.
    """
    if find_spec("tensorboardX") is None:
        raise UserError(
            "TensorBoard event files need tensorboardX; pip install 'hpo-bench[tensorboard]'"
        )
    try:
        return EventWriter(folder)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None


def add_scalars(writer: EventWriter, prefix: str, points: Iterator[Point]) -> None:
    """Write each value of some points as the scalar ``<prefix>/<name>`` of its step."""
    for step, values in points:
        for name, value in values.items():
            writer.add_scalar(f"{prefix}/{name}", value, step)
