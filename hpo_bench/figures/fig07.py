"""Figure 7: error of approximate hypergradients at the first hyperparameter update.

They are compared with exact ones. Both come from runs with ``save_hypergradients``: the
approximation from Ours, the exact one from Diff-through-Opt, which differentiates through the same
last i weight updates, from the same initial weights, hyperparameters and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter
from numpy.typing import NDArray

from hpo_bench.analysis.selection import Runs, comparable, grouped
from hpo_bench.errors import StoreError
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common import standard, style
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.figures.common.places import PointNumber
from hpo_bench.figures.common.sensitivity import CELL, grid, tell_cells, triangular
from hpo_bench.settings.run import HYPERPARAMETERS
from hpo_bench.store.runs import Run, read_table
from hpo_bench.system import notices

Array = NDArray[np.float64]

TITLE = "Error of approximate hypergradients at the first hyperparameter update"
WHERE: dict[str, Any] = {
    **standard.STARTS,
    "update_interval": standard.GRID,
    "look_back": standard.GRID,
    "hyper.clip_log10_lr": None,
    "save_hypergradients": True,
}
ALSO = ("hyperparameter_updates=1",)
APPROXIMATE, EXACT = "ours_wd_lr_m", "diff_through_opt"
NEEDS = (Need(("uci_energy",), (APPROXIMATE, EXACT), 50, WHERE, valid=triangular, also=ALSO),)
APPROXIMATED = {"name": APPROXIMATE, "colour": "#000000"}
LABELS = {"lr": "learning rate", "weight_decay": "weight decay", "momentum": "momentum"}
COLUMNS = ["kind", "hyperparameter", "update_interval", "look_back", "error", "n_ok", "n"]
KINDS = {
    "absolute": "Mean absolute error",
    "relative": "Median relative error",
    "step": "Mean relative difference\nof the first Adam step",
}


def points(selection: NeededRuns, options: Options) -> Points:
    """Errors of every cell (T, i ≤ T), averaged over the repetitions that both methods have.

    The default: mean of |ĝ - g| and median of |ĝ - g| / |g|. The paper's: mean of |Δ̂ - Δ| / |Δ|,
    where Δ is the change of the (raw) hyperparameter by one Adam step, for lr and weight decay
    only."""
    approximate, exact = (_by_cell(selection.runs(), method) for method in (APPROXIMATE, EXACT))
    both = sorted(approximate.keys() & exact.keys())
    if not both:
        return Points(pd.DataFrame(), {})
    rows: list[dict[str, Any]] = []
    of_approximate: list[Run] = []
    of_exact: list[Run] = []
    for cell in both:
        rows += _errors(cell, approximate[cell], exact[cell], options)
        of_approximate += approximate[cell]
        of_exact += exact[cell]
    runs = [*of_approximate, *of_exact]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    kinds = ["absolute", "relative"] if options.failure_aware else ["step"]
    n_ok, n = frame["n_ok"].sum(), frame["n"].sum()
    statistics = (
        "hypergradients of the first hyperparameter update against those through the same last i "
        "weight updates",
        f"n = {common.extent(frame['n'])} in a cell",
        f"{n - n_ok} of {n} errors not finite and left out",
        "no intervals",
    )
    return Points(frame, {"kinds": kinds, "dataset": common.label(runs)}, runs, statistics)


def _by_cell(runs: Runs, method: str) -> dict[tuple[int, int], Runs]:
    """Comparable runs of a method by cell (T, i)."""

    def cell(run: Run) -> tuple[int, int]:
        return int(run.config["update_interval"]), int(run.config["look_back"])

    groups = grouped([run for run in runs if run.method == method], cell)
    return {key: comparable(group).runs for key, group in groups.items()}


def _first_update(runs: Runs) -> pd.DataFrame:
    """Hypergradients and steps of the first hyperparameter update, by seed."""
    frame = pd.concat([_hypergradients(run) for run in runs])
    return frame[frame["hyper_step"] == 0].drop_duplicates("seed").set_index("seed")


def _hypergradients(run: Run) -> pd.DataFrame:
    try:
        return read_table(run, "hypergradients")
    except StoreError as error:
        notices.leave_out_late({run.place: error})
        raise


def _errors(
    cell: tuple[int, int], approximate: Runs, exact: Runs, options: Options
) -> list[dict[str, Any]]:
    """Rows of `COLUMNS` of one cell, for each hyperparameter that is tuned."""
    both = pd.merge(
        _first_update(approximate),
        _first_update(exact),
        left_index=True,
        right_index=True,
        suffixes=("", "_exact"),
    )
    tuned = [name for name in HYPERPARAMETERS if f"hypergradient_{name}_exact" in both]
    rows = []
    for name in tuned:
        if options.failure_aware:
            absolute, relative = _differences(both, f"hypergradient_{name}")
            rows.append(_row("absolute", name, cell, absolute, np.mean))
            rows.append(_row("relative", name, cell, relative, np.median))
        elif name != "momentum":
            _, relative = _differences(both, f"step_{name}")
            rows.append(_row("step", name, cell, relative, np.mean))
    return rows


def _differences(both: pd.DataFrame, column: str) -> tuple[Array, Array]:
    """|a - b| and |a - b| / |b|, where 0 / 0 is no error."""
    approximate = both[column].to_numpy(dtype=float)
    exact = both[f"{column}_exact"].to_numpy(dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        absolute = np.abs(approximate - exact)
        return absolute, np.where(absolute == 0, 0.0, absolute / np.abs(exact))


def _row(
    kind: str,
    name: str,
    cell: tuple[int, int],
    errors: Array,
    average: Callable[[Array], Any],
) -> dict[str, Any]:
    """The average error of one cell over the repetitions in which it is finite."""
    finite = errors[np.isfinite(errors)]
    return {
        "kind": kind,
        "hyperparameter": name,
        "update_interval": cell[0],
        "look_back": cell[1],
        "error": float(average(finite)) if finite.size else np.nan,
        "n_ok": int(finite.size),
        "n": int(errors.size),
    }


def draw(plotted: Plotted) -> Figure:
    """A row per kind of error, a panel per hyperparameter, each with its own colour scale."""
    kinds = plotted.context["kinds"]
    names = [name for name in HYPERPARAMETERS if name in set(plotted.frame["hyperparameter"])]
    figure = style.sheet(0.6 + 2.1 * len(names), 0.2 + 1.75 * len(kinds), footer=plotted.footer)
    axes = figure.subplots(len(kinds), max(len(names), 1), squeeze=False)
    for row, kind in enumerate(kinds):
        for column, name in enumerate(names):
            ax = axes[row, column]
            cells = plotted.of(kind=kind, hyperparameter=name)
            image = triangle(ax, cells)
            shown = (*CELL, PointNumber(KINDS[kind], "error"))
            tell_cells(ax, cells, APPROXIMATED | {"label": LABELS[name]}, shown)
            bar = figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02, ticks=_ticks(image))
            bar.ax.yaxis.set_major_formatter(
                LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf))
            )
            bar.ax.yaxis.set_minor_formatter(NullFormatter())
            if name == names[-1]:
                bar.set_label(KINDS[kind])
            ax.set_title(f"({chr(97 + row * len(names) + column)}) {LABELS[name]}")
        axes[row, 0].set_ylabel("Update interval $T$")
    for ax in axes[-1]:
        ax.set_xlabel("Look-back distance $i$")
    return figure


def _ticks(image: AxesImage) -> LogLocator:
    """Powers of ten, and where the colours span less than two of them those in between."""
    low, high = image.get_clim()
    return LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,))


def triangle(ax: Axes, frame: pd.DataFrame) -> AxesImage:
    """Cells i ≤ T on a logarithmic colour scale; an error of exactly 0 is marked."""
    values = grid(frame, "error")
    positive = values[np.isfinite(values) & (values > 0)]
    low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
    shown = np.where(values > 0, values, np.nan)
    norm = LogNorm(low, max(high, low * 1.001))
    image = ax.imshow(shown, cmap="viridis", norm=norm, origin="lower")
    for row, column in np.argwhere(values == 0):
        ax.text(column, row, "0", ha="center", va="center", size=5.5, color=style.GREY)
    ticks = np.arange(0, len(standard.GRID), 3)
    ax.set_xticks(ticks, [str(tick + 1) for tick in ticks])
    ax.set_yticks(ticks, [str(tick + 1) for tick in ticks])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return image
