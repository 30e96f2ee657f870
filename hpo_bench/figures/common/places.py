"""Where the points of a figure stand on its image, for a page that tells them under the pointer.

Drawers `tell` which rows of the plotted points a curve shows; `of` says where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hpo_bench.analysis.paper import shown_name
from hpo_bench.figures.common import style
from hpo_bench.figures.common.base import Plotted

Line = Literal["", "line", "steps"]
UNITS = 10_000  # an image is as many units wide, and as many high
FAR = 10 * UNITS  # what lies further off than that is put there
TEX = {"$": "", r"\log_{10}": "log10 ", r"\lambda": "λ", r"\eta": "η", "{": "", "}": "", "\\": ""}


@dataclass(frozen=True)
class PointNumber:
    """A number of a point that is told.

    Args:
        words: what it is; the label of that axis where it is ``x`` or ``y``.
        column: of the plotted points.
        low, high: columns of its interval, if it has one.
    """

    words: str
    column: str
    low: str = ""
    high: str = ""


@dataclass(frozen=True)
class Told:
    """A curve, or points that belong together, on some axes.

    Args:
        name, label, colour: of the method.
        rows: of the plotted points, (N,).
        x, y: where they stand, in the units of the axes, (N,).
        line: how they are joined; not at all where it is empty.
        of: repetitions that are ok and all, as text; looked up in the figure's context where it is
            empty.
    """

    ax: Axes
    name: str
    label: str
    colour: str
    rows: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    shown: tuple[PointNumber, ...]
    line: Line
    panel: str
    dataset: str
    of: str


def tell(
    ax: Axes,
    frame: pd.DataFrame,
    method: Mapping[str, Any],
    shown: Sequence[PointNumber],
    x: Any,
    y: Any,
    *,
    line: Line = "",
    of: str = "",
) -> None:
    """Remember which points stand on some axes; nothing where the figure is none of ours.

    Args:
        frame: rows of the plotted points, under their index.
        method: its ``name``, ``label`` and ``colour``.
        x, y: one number a row, or one for all.
    """
    sheet = ax.figure
    if not isinstance(sheet, style.Sheet) or frame.empty:
        return
    places = [np.broadcast_to(np.asarray(each, dtype=float), len(frame)) for each in (x, y)]
    first = frame.iloc[0]
    told = Told(
        ax=ax,
        name=str(method["name"]),
        label=str(method["label"]).replace(r"\$", "$"),
        colour=str(method.get("colour", "#000000")),
        rows=frame.index.to_numpy(dtype=np.int64),
        x=places[0],
        y=places[1],
        shown=tuple(shown),
        line=line,
        panel=str(first.get("panel", "")),
        dataset=str(first.get("dataset", first.get("panel", ""))),
        of=of,
    )
    sheet.told.append(told)


def of(figure: Figure, plotted: Plotted) -> dict[str, Any]:
    """Where the points of a laid-out figure stand, for JSON.

    Returns:
        ``panels``, each with its ``title``, ``dataset`` and ``box`` (left, top, right, bottom), and
        ``series``, each with the number of its ``panel``, the method's ``name``, ``label`` and
        ``colour``, ``of`` (n_ok/n), how they are joined (``line``), what is ``shown`` of a point
        (words, column, low, high), the ``rows`` as pairs of first and count, and ``at``: x and y of
        each, as differences from the point before. Lengths are in `UNITS`.
    """
    told: list[Told] = getattr(figure, "told", [])
    axes = list(dict.fromkeys(each.ax for each in told))
    for ax in axes:
        ax.apply_aspect()
    labels = _y_labels(axes)
    panels = [
        {
            "title": _plain(ax.get_title()),
            "dataset": next(each.dataset for each in told if each.ax is ax),
            "box": _box(ax),
        }
        for ax in axes
    ]
    series = [
        {
            "panel": axes.index(each.ax),
            "name": shown_name(each.name),
            "label": each.label,
            "colour": each.colour,
            "of": each.of or _counted(each, plotted),
            "line": each.line,
            "shown": [_words(shown, each.ax, labels[each.ax]) for shown in each.shown],
            "rows": _ranges(each.rows),
            "at": _differences(each),
        }
        for each in told
    ]
    return {"panels": panels, "series": series}


def _y_labels(axes: Sequence[Axes]) -> dict[Axes, str]:
    """The labels of vertical axes; panels in a row may share that of the first."""
    labels: dict[Axes, str] = {}
    last = ""
    for ax in axes:
        last = ax.get_ylabel() or last
        labels[ax] = last
    return labels


def _plain(text: str) -> str:
    """A label without the marks of formulas, on one line."""
    for mark, meaning in TEX.items():
        text = text.replace(mark, meaning)
    return " ".join(text.split())


def _box(ax: Axes) -> list[int]:
    """Left, top, right and bottom of some axes."""
    left, bottom, width, height = ax.get_position().bounds
    edges = (left, 1 - bottom - height, left + width, 1 - bottom)
    return [round(UNITS * edge) for edge in edges]


def _words(shown: PointNumber, ax: Axes, y_label: str) -> list[str]:
    of_axis = {"x": ax.get_xlabel(), "y": y_label}
    words = _plain(of_axis.get(shown.words, shown.words))
    return [words, shown.column, shown.low, shown.high]


def _counted(told: Told, plotted: Plotted) -> str:
    """n_ok/n of a method on a panel as the figure's context has them; empty where it has none."""
    for count in plotted.context.get("counts", ()):
        if count["panel"] == told.panel and count["method"] == told.name:
            return f"{count['n_ok']}/{count['n']}" if "n_ok" in count else f"n = {count['n']}"
    return ""


def _ranges(rows: NDArray[np.int64]) -> list[int]:
    """Whole numbers as runs of following ones: first, count, first, count, …"""
    starts = np.flatnonzero(np.append(True, np.diff(rows) != 1))
    counts = np.diff(np.append(starts, len(rows)))
    return np.column_stack([rows[starts], counts]).ravel().tolist()


def _differences(told: Told) -> list[int]:
    """Places on the image, x before y, each as its difference from the point before."""
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = told.ax.transData.transform(np.column_stack([told.x, told.y]))
    canvas = told.ax.get_figure(root=True)
    assert canvas is not None
    size = canvas.bbox.size
    shares = np.column_stack([pixels[:, 0] / size[0], 1 - pixels[:, 1] / size[1]])
    units = np.nan_to_num(UNITS * shares, nan=FAR, posinf=FAR, neginf=-FAR)
    whole = np.rint(np.clip(units, -FAR, FAR)).astype(np.int64)
    return np.diff(whole, axis=0, prepend=np.zeros((1, 2), dtype=np.int64)).ravel().tolist()
