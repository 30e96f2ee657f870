"""Performance profiles over the datasets: on what share of them a method is near the best.

They are those of Dolan and Moré (2002), by the final median, and, as AlgoPerf draws them, by the
cost until a target is reached."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo_bench.analysis import rivals
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics.ranks import profile, ratios_to_best
from hpo_bench.figures.common import needs_of_rivals, panels, places, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import NeededRuns
from hpo_bench.figures.common.places import PointNumber

TITLE = "Performance profiles over datasets"
NEEDS = needs_of_rivals.NEEDS
SHOWN = (PointNumber("x", "x"), PointNumber("share of the datasets", "y"))
FARTHEST = 100.0  # multiple of the best that is shown
FINAL = "Final median ÷ least"
COST = "Gradient-equivalents to the target ÷ least"


def points(selection: NeededRuns, options: Options) -> Points:
    """Share of the datasets on which each method is within a multiple of the best.

    The target is the final median of AdamW with its defaults on the same dataset. Methods that lack
    one of the datasets are left out.
    """
    chosen, notes = needs_of_rivals.on_all(selection)
    if not chosen:
        return Points(pd.DataFrame(), {}, notes=notes)
    medians, _ = rivals.final_medians(chosen, options.finals)
    frames = [_profiles(medians, "final")]
    shown = [{"key": "final", "xlabel": FINAL}]
    costs = _costs(chosen, medians, options)
    if np.isfinite(costs.to_numpy()).any():
        frames.append(_profiles(costs, "cost"))
        shown.append({"key": "cost", "xlabel": COST})
    else:
        notes = (*notes, f"no profile by cost: no runs of {rivals.TARGET}, or none tells its costs")
    context = {"panels": shown, "methods": common.styles(chosen)}
    statistics = (
        f"share of {len(medians)} datasets: {', '.join(medians.index)}",
        common.training(chosen),
        "target: the final median of AdamW with its defaults, at the first recorded step at which "
        "the median is as low; least: of all methods on a dataset",
        "no intervals",
    )
    frame = pd.concat(frames, ignore_index=True)
    return Points(frame, context, chosen, statistics, notes, by_mode=False)


def _costs(runs: Runs, medians: pd.DataFrame, options: Options) -> pd.DataFrame:
    """What each method costs until it reaches the target, datasets × methods."""
    if rivals.TARGET not in medians.columns:
        return pd.DataFrame()
    of_target = {str(dataset): float(value) for dataset, value in medians[rivals.TARGET].items()}
    targets = {dataset: value for dataset, value in of_target.items() if np.isfinite(value)}
    return rivals.costs_to_target(runs, targets, options.finals)


def _profiles(values: pd.DataFrame, panel: str) -> pd.DataFrame:
    """The profile of each method, from the best (1) on."""
    frames = []
    ratios = ratios_to_best(values.to_numpy())
    for method, of_method in zip(values.columns, ratios.T, strict=True):
        x, y = profile(of_method)
        frames.append(pd.DataFrame({"panel": panel, "method": method, "x": x, "y": y}))
    return pd.concat(frames, ignore_index=True)


def draw(plotted: Plotted) -> Figure:
    """A panel for each measure, with one legend."""
    shown = plotted.context["panels"]
    entries = [style.entry(method) for method in plotted.methods]
    figure, axes = panels.sheet_of_panels(len(shown), entries, plotted.footer, height=2.0)
    for ax, panel in zip(axes, shown, strict=True):
        profiles(ax, plotted.of(panel=panel["key"]), plotted)
        ax.set_xlabel(panel["xlabel"])
    axes[0].set_ylabel("Share of the datasets")
    return figure


def profiles(ax: Axes, frame: pd.DataFrame, plotted: Plotted) -> Axes:
    """Steps on a logarithmic axis; what fails everywhere has no line."""
    finite = frame["x"].max() if len(frame) else 10.0
    right = min(max(1.2 * finite, 2.0), FARTHEST)
    for method in plotted.methods:
        curve = frame[frame["method"] == method["name"]]
        if curve.empty:
            continue
        before = [] if curve["x"].iloc[0] == 1 else [0.0]
        starts = [1.0] * len(before)
        x = np.concatenate([starts, curve["x"], [max(right, curve["x"].iloc[-1])]])
        y = np.concatenate([before, curve["y"], curve["y"].iloc[-1:]])
        ax.plot(x, y, drawstyle="steps-post", **style.line(method))
        places.tell(ax, curve, method, SHOWN, curve["x"], curve["y"], line="steps")
    ax.set(xscale="log", xlim=(1, right), ylim=(0, 1.03))
    ax.grid(visible=True)
    panels.log_ticks(ax, "x")
    return ax
