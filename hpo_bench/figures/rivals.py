"""Medians during training against what it costs: hypergradients beside today's optimisers.

The costs are weight updates, gradient-equivalents (`analysis.incumbent`) and seconds of a
repetition."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hpo_bench.analysis.costs import of_several_machines
from hpo_bench.analysis.incumbent import AXES, PRODUCT
from hpo_bench.analysis.rivals import work_per_update
from hpo_bench.analysis.selection import Runs, by_method
from hpo_bench.figures.common import needs_of_rivals, panels, style, templates
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import NeededRuns
from hpo_bench.store.runs import Run

TITLE = "Medians against cost: hypergradients and today's optimisers"
NEEDS = needs_of_rivals.NEEDS
HEIGHT = 1.7  # inches of a row of panels, where so many rows fit on a page
PAGE = 7.6


def points(selection: NeededRuns, options: Options) -> Points:
    """Median of every method at each recorded step, by each cost, a row of panels a dataset."""
    frames: list[pd.DataFrame] = []
    counts: common.Counts = []
    shown: list[dict[str, str]] = []
    kept: list[Run] = []
    notes: list[str] = []
    for key, title, runs in needs_of_rivals.with_rivals(selection):
        chosen, passed_over = common.alike(runs)
        measure = templates.metric(chosen)
        notes += passed_over
        frame, count = common.evolution(chosen, measure, options, key)
        frames += _by_cost(frame, chosen, options)
        counts += count
        kept += chosen
        shown.append({"key": key, "title": title, "label": measure.label})
    if not kept:
        return Points(pd.DataFrame(), {}, notes=(*notes, needs_of_rivals.NONE))
    context = {"panels": shown, "methods": common.styles(kept), "counts": counts}
    statistics = (
        common.training(kept),
        f"medians (with their bootstrap SDs in the CSV, {options.resamples} resamples of runs, "
        f"seed {options.seed})",
        common.LEGEND,
        f"gradient-equivalents: gradients + {PRODUCT} × Hessian-vector products",
        "seconds: a block's wall time ÷ its rows",
        *of_several_machines(kept),
    )
    return Points(pd.concat(frames, ignore_index=True), context, kept, statistics, tuple(notes))


def _by_cost(frame: pd.DataFrame, runs: Runs, options: Options) -> list[pd.DataFrame]:
    """The points of an evolution once for each cost, in ``x``."""
    work: dict[str, float] = {}
    for method, group in by_method(runs).items():
        work[method] = work_per_update(group, options.finals(group))
    frame = frame[frame["step"] > 0]  # a start has no place on a logarithmic axis of costs
    per_update = frame["method"].map(work).to_numpy(dtype=float)
    costs = {
        "weight_updates": frame["step"],
        "gradient_equivalents": frame["step"] * per_update,
        "seconds": frame["seconds"],
    }
    values = frame.drop(columns=["step", "seconds"])
    return [values.assign(part=axis, x=costs[axis]) for axis in AXES]


def draw(plotted: Plotted) -> Figure:
    """A row of panels a dataset, a column a cost, with one legend."""
    shown = plotted.context["panels"]
    height = min(HEIGHT * len(shown), PAGE)
    figure = style.sheet(
        style.PAGE_WIDTH, height, legend=panels.legend(plotted), footer=plotted.footer
    )
    grid = figure.subplots(len(shown), len(AXES), squeeze=False, sharey="row")
    for row, panel in zip(grid, shown, strict=True):
        for ax, axis in zip(row, AXES, strict=True):
            frame = plotted.of(panel=panel["key"], part=axis)
            finite = frame[np.isfinite(frame["x"])]
            if not np.isfinite(finite["y"]).any():
                look = {"ha": "center", "color": style.GREY, "transform": ax.transAxes}
                ax.text(0.5, 0.5, "not stored", **look)
                continue
            panels.evolution(ax, finite.assign(low=np.nan), plotted.methods, "x")
            ax.set_xscale("log")
            panels.log_ticks(ax, "x")
        panels.limit_above(row[0], plotted.of(panel=panel["key"])["y"])
        row[0].set_ylabel(f"{panel['title']}\n{panel['label']}", fontsize=7)
    for ax, label in zip(grid[-1], AXES.values(), strict=True):
        ax.set_xlabel(label)
    return figure
