"""The best configuration so far, chosen by validation loss, against its cost.

One-pass methods stand beside multi-pass search. A one-pass method is restarted from k random
initialisations; a multi-pass method stores one curve per repetition, a row per decision, with what
its trials have cost so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hpo_bench.analysis import incumbent, paper
from hpo_bench.analysis.costs import of_several_machines
from hpo_bench.analysis.incumbent import AXES, PRODUCT
from hpo_bench.analysis.paper import GROUP_SOURCE
from hpo_bench.analysis.selection import Runs, by_method, comparable
from hpo_bench.analysis.summary import Measure
from hpo_bench.figures.common import panels, standard, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.figures.common.templates import metric
from hpo_bench.store.runs import Run

TITLE = "Incumbent against cost: one-pass methods and multi-pass search"
FASHION = "fashion_mnist"
DATASETS = (*paper.UCI_OF_THE_TABLES, FASHION)
BAYESOPT, *POPULATIONS = paper.SEARCHES
NEEDS = (
    Need(paper.UCI_OF_THE_TABLES, paper.BUDGETED, paper.REPETITIONS["uci"], role="one_pass"),
    Need((FASHION,), paper.BUDGETED, paper.REPETITIONS[FASHION], role="one_pass"),
    Need(DATASETS, (BAYESOPT,), 32, standard.STARTS, role="search"),
    Need(paper.UCI_OF_THE_TABLES, tuple(POPULATIONS), 1, standard.STARTS, role="search"),
)


def points(selection: NeededRuns, options: Options) -> Points:
    """Median and quartiles of every method's incumbent by each cost, a row of panels a dataset."""
    frames: list[pd.DataFrame] = []
    counts: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    kept: list[Run] = []
    notes: list[str] = []
    for dataset in selection.datasets:
        one_pass, more = common.alike(selection.runs("one_pass", dataset))
        search = comparable(selection.runs("search", dataset))
        notes += [*more, *search.notes]
        runs = [*one_pass, *search.runs]
        measure = metric(runs)
        for name, group in by_method(runs).items():
            compute = _searched if group[0] in search.runs else _restarted
            frame, n = compute(group, options.finals(group), measure)
            if frame.empty:
                notes.append(f"{dataset}, {name}: left out, it has no validation loss to choose by")
                continue
            shown_axes = set(frame["part"])
            missing = [label.lower() for axis, label in AXES.items() if axis not in shown_axes]
            if missing:
                axes = ", ".join(missing)
                notes.append(f"{dataset}, {name}: not shown by {axes}, which its runs do not tell")
            frames.append(frame.assign(panel=dataset, dataset=dataset, method=name))
            counts.append({"panel": dataset, "method": name, "n": n})
            kept += group
        shown.append({"key": dataset, "title": common.label(runs), "label": measure.label})
    if not kept:
        return Points(pd.DataFrame(), {}, notes=tuple(notes))
    context = {"panels": shown, "methods": _styles(kept), "counts": counts}
    frame = pd.concat(frames, ignore_index=True)
    return Points(frame, context, kept, _statistics(kept), tuple(notes), by_mode=False)


def _statistics(runs: Runs) -> tuple[str, ...]:
    lines = [f"of each training: {common.training(runs)}"]
    less = incumbent.scaled_down(runs)
    if less:
        lines.append(f"scaled down from the paper: {less}")
    return (
        *lines,
        "median and quartiles of the incumbent's test metric, chosen by validation loss",
        "one-pass: best of k trainings after one another, exactly over all subsets of k, their "
        "batch's time shared, evaluations for their curves included",
        f"gradient-equivalents: gradients + {PRODUCT} × Hessian-vector products",
        "diverged runs lose, no resampling",
        *of_several_machines(runs),
    )


def _styles(runs: Runs) -> list[dict[str, Any]]:
    """Styles of the methods.

    Here the runs that elsewhere feed Random (3-batched) are Random, chosen by validation loss.
    """
    labels = {run.method: run.method_label for run in reversed(runs)}
    looks = common.styles(runs)
    for look in looks:
        if look["name"] == paper.shown_name(GROUP_SOURCE):
            look.update(name=GROUP_SOURCE, label=labels[GROUP_SOURCE])
    return looks


def _restarted(runs: Runs, finals: pd.DataFrame, measure: Measure) -> tuple[pd.DataFrame, int]:
    """Points of a one-pass method, and how many repetitions they rest on."""
    return incumbent.restarted(runs, finals, measure), len(finals)


def _searched(runs: Runs, finals: pd.DataFrame, measure: Measure) -> tuple[pd.DataFrame, int]:
    """Points of a search, and how many repetitions they rest on."""
    incumbents = incumbent.paths(runs, finals, measure)
    if not incumbents:
        return pd.DataFrame(), len(finals)
    return incumbent.searched(incumbents), len(incumbents)


def draw(plotted: Plotted) -> Figure:
    """A row of panels a dataset, a column a cost, with one legend."""
    shown = plotted.context["panels"]
    counts = pd.DataFrame(plotted.context["counts"])
    totals = counts.groupby("method")["n"].sum()
    entries = [style.entry(method, f"  n={totals[method['name']]}") for method in plotted.methods]
    figure = style.sheet(style.PAGE_WIDTH, 1.8 * len(shown), legend=entries, footer=plotted.footer)
    grid = figure.subplots(len(shown), len(AXES), squeeze=False, sharey="row")
    for row, panel in zip(grid, shown, strict=True):
        for ax, (axis, label) in zip(row, AXES.items(), strict=True):
            ax.set_xlabel(label)
            frame = plotted.of(panel=panel["key"], part=axis)
            if not np.isfinite(frame["y"]).any():
                look = {"ha": "center", "color": style.GREY, "transform": ax.transAxes}
                ax.text(0.5, 0.5, "not stored", **look)
                continue
            panels.evolution(ax, frame, plotted.methods, "x")
            ax.set_xscale("log")
            panels.log_ticks(ax, "x")
        frame = plotted.of(panel=panel["key"])
        panels.limit_above(row[0], frame["y"])
        row[0].set_ylabel(panel["label"])
    style.title(list(grid.ravel()), [panel["title"] for panel in shown for _ in AXES])
    return figure
