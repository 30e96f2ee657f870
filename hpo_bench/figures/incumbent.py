"""Best configuration found so far (chosen by validation loss) against its cost: one-pass methods
and multi-pass search.

A one-pass method is restarted from k random initialisations; a multi-pass method stores one curve
per repetition, a row per decision, with what its trials have cost so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hpo_bench.analysis import incumbent, summary
from hpo_bench.analysis.incumbent import AXES, PRODUCT
from hpo_bench.analysis.selection import Runs, comparable
from hpo_bench.analysis.summary import GROUP_SOURCE, Measure
from hpo_bench.figures.common import panels, paper, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.figures.common.templates import metric
from hpo_bench.store.runs import Run

TITLE = "Incumbent against cost: one-pass methods and multi-pass search"
DATASETS = ("uci_energy", "uci_kin8nm", "uci_power", "fashion_mnist")
ONE_PASS = (
    GROUP_SOURCE,
    "ours_wd_lr_m",
    "ours_wd_hdlr_m",
    "diff_through_opt",
)  # that have a validation loss
SEARCHES = ("asha_random", "asha_ours_wd_lr_m", "pbt_random", "pbt_ours_wd_lr_m")
NEEDS = (
    Need(DATASETS, ONE_PASS, 200, role="one_pass"),
    Need(DATASETS, ("bayesopt",), 32, paper.START, role="search"),
    Need(DATASETS[:3], SEARCHES, 1, paper.START, role="search"),
)


def points(selection: NeededRuns, options: Options) -> Points:
    """Median and quartiles of the incumbent's test metric of every method by each cost, a row of
    panels a dataset.
    """
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
        for name, group in summary.by(runs, "method").items():
            finals = options.finals(group)
            frame, n = (_searched if group[0] in search.runs else _restarted)(
                group, finals, measure
            )
            if frame.empty:
                notes.append(f"{dataset}, {name}: left out, it has no validation loss to choose by")
                continue
            missing = ", ".join(
                AXES[axis].lower() for axis in AXES if axis not in set(frame["part"])
            )
            notes += [
                f"{dataset}, {name}: not shown by {missing}, which its runs do not tell"
            ] * bool(missing)
            frames.append(frame.assign(panel=dataset, dataset=dataset, method=name))
            counts.append({"panel": dataset, "method": name, "n": n})
            kept += group
        shown.append({"key": dataset, "title": common.label(runs), "label": measure.label})
    if not kept:
        return Points(pd.DataFrame(), {}, notes=tuple(notes))
    context = {"panels": shown, "methods": _styles(kept), "counts": counts}
    return Points(
        pd.concat(frames, ignore_index=True),
        context,
        kept,
        _statistics(kept),
        tuple(notes),
        by_mode=False,
    )


def _statistics(runs: Runs) -> tuple[str, ...]:
    less = incumbent.scaled_down(runs)
    return (
        f"of each training: {common.training(runs)}",
        *([f"scaled down from the paper: {less}"] if less else []),
        "median and quartiles of the incumbent's test metric, chosen by validation loss",
        "one-pass: best of k trainings after one another, exactly over all subsets of k, their batch's time shared, "
        "evaluations for their curves included",
        f"gradient-equivalents: gradients + {PRODUCT} × Hessian-vector products",
        "diverged runs lose, no resampling",
    )


def _styles(runs: Runs) -> list[dict[str, Any]]:
    """Styles; here the runs that elsewhere feed Random (3-batched) are Random, chosen by
    validation.
    """
    plain = {run.run_id: run.method_label for run in runs if run.method == GROUP_SOURCE}
    return [
        {**method, "name": GROUP_SOURCE, "label": next(iter(plain.values()))}
        if method["name"] == common.shown_name(GROUP_SOURCE)
        else method
        for method in common.styles(runs)
    ]


def _restarted(runs: Runs, finals: pd.DataFrame, measure: Measure) -> tuple[pd.DataFrame, int]:
    return incumbent.restarted(runs, finals, measure), len(finals)


def _searched(runs: Runs, finals: pd.DataFrame, measure: Measure) -> tuple[pd.DataFrame, int]:
    found = incumbent.paths(runs, finals, measure)
    return (incumbent.searched(found), len(found)) if found else (pd.DataFrame(), len(finals))


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
                ax.text(
                    0.5, 0.5, "not stored", ha="center", transform=ax.transAxes, color=style.GREY
                )
                continue
            panels.evolution(ax, frame, plotted.methods, "x")
            ax.set_xscale("log")
            panels.log_ticks(ax, "x")
        frame = plotted.of(panel=panel["key"])
        panels.limit_above(row[0], frame["y"])
        row[0].set_ylabel(panel["label"])
    style.title(list(grid.ravel()), [panel["title"] for panel in shown for _ in AXES])
    return figure
