"""CDFs and evolutions of methods whose trainings differ in length: Figures 16 and 18."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hpo_bench.analysis.costs import of_several_machines
from hpo_bench.figures.common import panels, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import NeededRuns
from hpo_bench.figures.common.templates import metric
from hpo_bench.store.runs import Run


def points(selection: NeededRuns, options: Options, roles: Sequence[str]) -> Points:
    """CDF and evolution of every method on each dataset, on the seeds that all roles share.

    Args:
        roles: groups of runs of equal length.
    """
    frames: list[pd.DataFrame] = []
    counts: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    kept: list[Run] = []
    notes: list[str] = []
    for dataset in selection.datasets:
        groups = []
        for role in roles:
            of_role, passed_over = common.of_any_length(selection.runs(role, dataset))
            notes += passed_over
            if of_role:
                groups.append(of_role)
        seeds = common.shared_seeds(groups)
        runs = [run for group in groups for run in group]
        measure = metric(runs)
        cdf, count = common.cdf(runs, measure, options, dataset, seeds)
        evolution, _ = common.evolution(runs, measure, options, dataset, seeds=seeds)
        frames += [cdf.assign(part="cdf"), evolution.assign(part="evolution")]
        counts += count
        shown.append({"key": dataset, "title": common.label(runs), "label": measure.label})
        kept += runs
    context = {"panels": shown, "methods": common.styles(kept), "counts": counts}
    statistics = (
        *common.cdf_statistics(kept, options)[:-1],
        *common.evolution_statistics(kept, options)[1:],
        *of_several_machines(kept),
    )
    return Points(pd.concat(frames, ignore_index=True), context, kept, statistics, tuple(notes))


def draw(plotted: Plotted) -> Figure:
    """A row per dataset: CDF, evolution against weight updates, evolution against run time."""
    shown = plotted.context["panels"]
    figure = style.sheet(
        style.PAGE_WIDTH,
        0.1 + 1.75 * len(shown),
        legend=panels.legend(plotted),
        footer=plotted.footer,
    )
    axes = figure.subplots(len(shown), 3, squeeze=False)
    for row, panel in zip(axes, shown, strict=True):
        cdf = plotted.of(part="cdf", panel=panel["key"])
        evolution = plotted.of(part="evolution", panel=panel["key"])
        panels.cdf(row[0], cdf, plotted.methods)
        row[0].set(xlabel=panel["label"], ylabel=f"{panel['title']}\nEmpirical CDF")
        against = {"step": "Weight updates", "seconds": "Seconds for one repetition"}
        for ax, (x, label) in zip(row[1:], against.items(), strict=True):
            panels.evolution(ax, evolution[evolution[x] > 0], plotted.methods, x)
            ax.set(xscale="log", xlabel=label, ylabel=panel["label"])
            panels.log_ticks(ax, "x")
    style.title(list(axes[0]), ["final values", "against weight updates", "against run time"])
    return figure
