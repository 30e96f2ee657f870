"""How short the horizon of a hypergradient is: its sign and size against what happens later.

From audits over time: at some moments of a training a method's hypergradient is compared with the
exact derivative of the validation loss over the next n weight updates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo_bench.analysis.selection import grouped
from hpo_bench.errors import StoreError
from hpo_bench.figures.common import places, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import AUDITS, Need, NeededRuns
from hpo_bench.figures.common.places import PointNumber
from hpo_bench.settings.run import in_order
from hpo_bench.store.audits import OVER_TIME
from hpo_bench.store.runs import Run, read_table
from hpo_bench.system import notices

TITLE = "Hypergradients against the exact derivative over the next n weight updates"
DATASETS = ("uci_energy", "uci_boston", "uci_naval")
METHODS = ("ours_wd_lr_m", "ours_discounted")
NEEDS = (Need(DATASETS, METHODS, 20, folder=AUDITS),)
COLUMNS = ("seed", "step", "horizon", "hyperparameter", "approximate", "exact")
KINDS = {"sign": "Same sign", "size": "Times as large"}
LABELS = {"lr": "learning rate", "weight_decay": "weight decay", "momentum": "momentum"}
SHOWN = (PointNumber("next updates", "x"), PointNumber("y", "y"), PointNumber("n", "n"))
POOLED = -1  # in place of the moment, of points of all moments


def points(selection: NeededRuns, options: Options) -> Points:
    """Of each horizon, at each moment and of all moments: the share of repetitions in which the
    signs agree, and the median of how many times the exact derivative the hypergradient is.
    """
    rows: list[dict[str, Any]] = []
    shown: list[Run] = []
    panels, notes, left_out, compared = [], [], 0, 0
    for dataset in selection.datasets:
        of_dataset = selection.runs(dataset=dataset)
        panels.append({"key": dataset, "title": common.label(of_dataset)})
        for method, audits in grouped(of_dataset, lambda audit: audit.method).items():
            audit = max(audits, key=lambda audit: (len(audit.seeds), audit.run_id))
            shown.append(audit)
            notes += [f"{dataset}, {method}: left out {other.run_id}"
                      for other in audits if other is not audit]  # fmt: skip
            frame = _compared(audit)
            alive = frame[np.isfinite(frame["approximate"]) & np.isfinite(frame["exact"])]
            left_out, compared = left_out + len(frame) - len(alive), compared + len(frame)
            place = {"panel": dataset, "method": method}
            rows += [{**place, **row} for row in _rows(alive)]
    context = {"panels": panels, "methods": common.styles(shown)}
    statistics = (
        "a method's hypergradient against the exact derivative of the validation loss over the "
        "next n weight updates, hyperparameters held",
        f"n = {common.extent(len(audit.seeds) for audit in shown)} repetitions",
        "thin: one moment of the training each; thick: all moments",
        f"{left_out} of {compared} comparisons not finite and left out",
    )
    return Points(pd.DataFrame(rows), context, shown, statistics, tuple(notes), by_mode=False)


def _compared(audit: Run) -> pd.DataFrame:
    """The comparisons of single hyperparameters."""
    try:
        frame = read_table(audit, OVER_TIME, COLUMNS)
    except StoreError as error:
        notices.leave_out_late({audit.path: error})
        raise
    return frame[frame["hyperparameter"] != "all"]


def _rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Points of one audit: of each moment, and of all."""
    same = np.sign(frame["approximate"]) == np.sign(frame["exact"])
    with np.errstate(divide="ignore", invalid="ignore"):
        size = (frame["approximate"] / frame["exact"]).abs()
    measured = frame.assign(same=same, size=size)
    for moments in (measured, measured.assign(step=POOLED)):
        for (name, step, horizon), cell in moments.groupby(["hyperparameter", "step", "horizon"]):
            at = {"hyperparameter": name, "moment": step, "x": horizon, "n": len(cell)}
            yield {"kind": "sign", **at, "y": float(cell["same"].mean())}
            yield {"kind": "size", **at, "y": float(cell["size"].median())}


def draw(plotted: Plotted) -> Figure:
    """Two rows for each dataset, a column for each hyperparameter."""
    panels, found = plotted.context["panels"], set(plotted.frame["hyperparameter"])
    names = in_order(sorted(found))
    rows = [(panel, kind) for panel in panels for kind in KINDS]
    legend = [style.entry(method) for method in plotted.methods]
    width, height = 0.7 + 2.05 * len(names), 0.2 + 1.22 * len(rows)
    figure = style.sheet(width, height, legend=legend, footer=plotted.footer)
    axes = figure.subplots(len(rows), len(names), squeeze=False, sharex=True)
    for row, (panel, kind) in enumerate(rows):
        for column, name in enumerate(names):
            ax = axes[row, column]
            for method in plotted.methods:
                of_method = plotted.of(panel=panel["key"], kind=kind, hyperparameter=name)
                _lines(ax, of_method[of_method["method"] == method["name"]], method)
            _scale(ax, kind)
            if kind == "sign":
                ax.set_title(f"{panel['title']}: {LABELS.get(name, name)}")
        axes[row, 0].set_ylabel(KINDS[kind])
    for ax in axes[-1]:
        ax.set_xlabel("Next $n$ weight updates")
    return figure


def _lines(ax: Axes, frame: pd.DataFrame, method: dict[str, Any]) -> None:
    """A line for each moment, and one for all."""
    for moment, cell in frame.groupby("moment"):
        is_pooled = moment == POOLED
        look = {"lw": 1.4} if is_pooled else {"lw": 0.5, "alpha": 0.45}
        cell = cell.sort_values("x")
        ax.plot(cell["x"], cell["y"], **style.line(method, **look), zorder=3 if is_pooled else 2)
        of = "all moments" if is_pooled else f"at update {moment:g}"
        places.tell(ax, cell, method, SHOWN, cell["x"], cell["y"], line="line", of=of)


def _scale(ax: Axes, kind: str) -> None:
    """Horizons on a logarithmic scale, and a line where nothing is gained or lost."""
    ax.set_xscale("log")
    ax.grid(visible=True)
    if kind == "sign":
        ax.set_ylim(-0.03, 1.03)
        ax.axhline(0.5, color=style.GREY, lw=0.6, ls=":")
    else:
        ax.set_yscale("log")
        ax.axhline(1, color=style.GREY, lw=0.6, ls=":")
