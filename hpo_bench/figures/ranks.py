"""Ranks of the methods over the datasets, as a critical-difference diagram."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo_bench.analysis import rivals
from hpo_bench.analysis.statistics.ranks import ranking
from hpo_bench.figures.common import needs_of_rivals, places, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import NeededRuns
from hpo_bench.figures.common.places import PointNumber

TITLE = "Ranks over datasets, with the critical difference"
NEEDS = needs_of_rivals.NEEDS
SHOWN = (PointNumber("mean rank", "rank"),)
LINE = 0.15  # inches between the names of two methods
MEAN = "mean"  # the part of the mean ranks


def points(selection: NeededRuns, options: Options) -> Points:
    """Rank of every method's final median on each dataset, and the means of these ranks.

    Methods that lack one of the datasets are left out.
    """
    chosen, notes = needs_of_rivals.on_all(selection)
    if not chosen:
        return Points(pd.DataFrame(), {}, notes=notes)
    medians, counts = rivals.final_medians(chosen, options.finals)
    result = ranking(medians.to_numpy())
    of_sets = []
    for dataset, ranks in zip(map(str, medians.index), result.ranks, strict=True):
        columns = {"method": medians.columns, "median": medians.loc[dataset], "rank": ranks}
        of_sets.append(pd.DataFrame(columns).assign(part="set", dataset=dataset))
    means = pd.DataFrame({"method": medians.columns, "median": np.nan, "rank": result.means})
    frame = pd.concat([*of_sets, means.assign(part=MEAN, dataset="")], ignore_index=True)
    context = {
        "methods": [
            {**look, "rank": float(result.means[medians.columns.get_loc(look["name"])])}
            for look in common.styles(chosen)
        ],
        "critical_difference": result.critical_difference,
        "cliques": [list(clique) for clique in result.cliques],
    }
    p_value = "not defined" if np.isnan(result.p_value) else f"{result.p_value:.2g}"
    statistics = (
        f"ranks of final medians (n = {common.extent(counts.to_numpy().ravel())}) on "
        f"{len(medians)} datasets: {', '.join(medians.index)}",
        common.training(chosen),
        f"Friedman p = {p_value}",
        "bars: groups that Nemenyi's critical difference (CD, 5 %) does not tell apart",
    )
    return Points(frame, context, chosen, statistics, notes, by_mode=False)


def draw(plotted: Plotted) -> Figure:
    """Methods on an axis of mean ranks, named on both sides, the best on the left."""
    methods = sorted(plotted.methods, key=lambda method: (method["rank"], method["name"]))
    cliques = plotted.context["cliques"]
    rows = -(-len(methods) // 2)
    height = 0.55 + LINE * (rows + 0.6 * len(cliques) + 1)
    figure = style.sheet(style.PAGE_WIDTH, height, footer=plotted.footer)
    ax = diagram(figure.subplots(), methods, plotted.context, height)
    for method in methods:
        mean = plotted.of(part=MEAN, method=method["name"])
        places.tell(ax, mean, method, SHOWN, mean["rank"], 0.0)
    return figure


def diagram(ax: Axes, methods: list[dict[str, Any]], context: Any, height: float) -> Axes:
    """The diagram; lengths below the axis are in inches."""
    last = max(len(methods), 2)
    ranks = [method["rank"] for method in methods]
    width = 0.45 * (last - 1)  # of the space for names, on either side
    ax.set(xlim=(1 - width, last + width), ylim=(height - 0.5, -0.45))
    ax.axis("off")
    ax.plot([1, last], [0, 0], color="black", lw=0.8)
    for rank in range(1, last + 1):
        ax.plot([rank] * 2, [0, -0.05], color="black", lw=0.6)
        if rank in (1, last) or last < 12 or rank % 5 == 0:
            ax.text(rank, -0.08, str(rank), ha="center", va="bottom", size=7)

    difference = min(context["critical_difference"], last - 1)
    ax.plot([1, 1 + difference], [-0.3, -0.3], color="black", lw=1.2)
    text = f"CD = {context['critical_difference']:.2f}"
    ax.text(1 + difference / 2, -0.33, text, ha="center", va="bottom", size=7)

    top = 0.08
    for first, end in context["cliques"]:
        reach = [ranks[first] - 0.05, ranks[end] + 0.05]
        ax.plot(reach, [top, top], color="black", lw=2.2, solid_capstyle="butt")
        top += 0.6 * LINE
    half = -(-len(methods) // 2)
    for place, method in enumerate(methods):
        on_the_left = place < half
        row = place if on_the_left else len(methods) - 1 - place
        y = top + LINE * (row + 0.6)
        side = 1 - 0.03 * last if on_the_left else last + 0.03 * last
        look = style.line(method, lw=0.8)
        ax.plot([method["rank"]] * 2, [0, y], **look)
        ax.plot([method["rank"], side], [y, y], **look)
        text = f"{method['label']}  {method['rank']:.1f}"
        if not on_the_left:
            text = f"{method['rank']:.1f}  {method['label']}"
        ax.text(side, y, f" {text} ", ha="right" if on_the_left else "left", va="center", size=7)
    return ax
