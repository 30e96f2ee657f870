"""Figure 14: distributions of the time of one training on the larger datasets.

They are of runs of one repetition per block on an otherwise idle device (``chunk=1 workers=1``),
because rows of one block share a wall time. These runs are kept in a store of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from hpo_bench.analysis import paper
from hpo_bench.analysis.costs import evaluates_between, seconds_without_evaluation
from hpo_bench.analysis.selection import Runs, by_dataset
from hpo_bench.figures.common import panels, places, standard, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.conditions import Except
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.figures.common.places import PointNumber
from hpo_bench.store.runs import Run

TITLE = "Time of one training, larger datasets"
REPETITIONS = 12
NEVER = 10**9  # record_every of runs that evaluate at the first and last step alone
ALONE: dict[str, Any] = {**standard.STANDARD, "chunk": 1}


def _alone(role: str, record_every: Any) -> Need:
    where = {**ALONE, "record_every": record_every}
    also, folder = ("workers=1",), "runtime"
    return Need(
        paper.LARGER,
        paper.TRAINED,
        REPETITIONS,
        where,
        role,
        also=also,
        folder=folder,
        each_data=True,
    )


NEEDS = (_alone("evaluated", Except((NEVER,))), _alone("bare", NEVER))
MULTI_PASS = {  # how many plain trainings a search takes, and the style of its line
    "30 × Random (Bayesian Optimisation)": (30, "-"),
    "200 × Random (population-based training)": (200, (0, (3, 1.5))),
}
SHOWN = (PointNumber("x", "seconds"), PointNumber("seed", "seed"), PointNumber("status", "status"))
FEWEST = 5  # values that a violin needs


def points(selection: NeededRuns, options: Options) -> Points:
    """Seconds of every training that was alone in its block.

    It is told which diverged, and whether the test set was evaluated.
    """
    frames: list[pd.DataFrame] = []
    kept: list[Run] = []
    notes: list[str] = []
    for role in ("evaluated", "bare"):
        runs, passed_over = common.alike(selection.runs(role))
        notes += passed_over
        for name, group in by_dataset(runs).items():
            if role == "evaluated" and not all(map(evaluates_between, group)):
                notes.append(f"{name}: too short for a test evaluation between its ends")
                continue
            frames.append(_times(group, options, bare=role == "bare").assign(part=role))
            kept += group
    if not frames:
        return Points(pd.DataFrame(), {}, notes=tuple(notes))
    frame = pd.concat(frames, ignore_index=True)
    groups = by_dataset(kept)
    shown = [
        {"key": name, "title": common.label(groups[name]), **common.budget(groups[name])}
        for name in selection.datasets
        if name in groups
    ]
    devices = {f"{run.environment.get('device')} ({run.environment.get('cpu')})" for run in kept}
    counts = frame.groupby(["dataset", "method", "part"]).size()
    statistics = (
        common.training(kept),
        f"one repetition per block, n = {common.extent(counts)} a violin",
        f"device: {', '.join(sorted(devices))}",
        "○ mean, × median of trainings that did not diverge; + diverged",
    )
    context = {"panels": shown, "methods": common.styles(kept)}
    return Points(frame, context, kept, statistics, tuple(notes), by_mode=False)


def _times(runs: Runs, options: Options, *, bare: bool) -> pd.DataFrame:
    """Seconds of the trainings of some runs, and what became of each."""
    finals = options.finals(runs)
    if bare:
        finals = finals.assign(seconds=seconds_without_evaluation(runs, finals))
    alone = finals[finals["rows_in_block"] == 1]
    return alone[["dataset", "method", "seed", "status", "seconds"]].reset_index(drop=True)


def draw(plotted: Plotted) -> Figure:
    """A panel a dataset, methods below each other."""
    shown = plotted.context["panels"]
    width = style.PAGE_WIDTH if len(shown) > 1 else style.PAGE_WIDTH * 0.6
    height = 0.6 + 0.32 * len(plotted.methods)
    figure = style.sheet(width, height, legend=_legend(plotted), footer=plotted.footer)
    axes = list(np.ravel(figure.subplots(1, len(shown), sharey=True)))
    for ax, panel in zip(axes, shown, strict=True):
        times(ax, plotted.of(dataset=panel["key"]), plotted)
    positions = np.arange(len(plotted.methods))
    axes[0].set_yticks(positions, [method["label"] for method in plotted.methods])
    axes[0].set_ylim(len(plotted.methods) - 0.4, -0.6)
    panels.titles(axes, shown)
    return figure


def _legend(plotted: Plotted) -> list[Artist]:
    entries: list[Artist] = []
    if len(plotted.of(part="evaluated")):
        entries.append(Patch(facecolor="#9a9a9a", alpha=0.6, label="with test evaluation"))
    if len(plotted.of(part="bare")):
        entries.append(Patch(facecolor="none", edgecolor="#5a5a5a", label="without"))
    for name, (_, look) in MULTI_PASS.items():
        entries.append(Line2D([], [], color="#5a5a5a", lw=0.9, ls=look, label=name))
    return entries


def times(ax: Axes, frame: pd.DataFrame, plotted: Plotted) -> Axes:
    """Violins with mean and median, diverged runs apart, and what multi-pass search would cost."""
    for position, method in enumerate(plotted.methods):
        for part, offset in (("evaluated", 0.0), ("bare", 0.28)):
            group = frame[(frame["method"] == method["name"]) & (frame["part"] == part)]
            ok = np.log10(group.loc[group["status"] == "ok", "seconds"].to_numpy(dtype=float))
            bad = group.loc[group["status"] != "ok", "seconds"]
            height, colour = position + offset, method["colour"]
            _violin(ax, ok, height, colour, filled=part == "evaluated")
            ax.plot(bad, np.full(len(bad), height), "+", color=colour, ms=4, mew=0.7)
            of = f"{len(ok)}/{len(group)}"
            places.tell(ax, group, method, SHOWN, group["seconds"], height, of=of)
    plain = frame[(frame["method"] == paper.PLAIN) & (frame["status"] == "ok")]
    part = "evaluated" if "evaluated" in set(plain["part"]) else "bare"
    seconds = plain.loc[plain["part"] == part, "seconds"]
    if len(seconds):
        for count, look in MULTI_PASS.values():
            ax.axvline(count * seconds.mean(), color="#5a5a5a", lw=0.9, ls=look)
    ax.set(xscale="log", xlabel="Seconds for one training")
    ax.grid(visible=True, axis="x")
    panels.log_ticks(ax, "x")
    return ax


def _violin(
    ax: Axes, log_seconds: NDArray[np.float64], position: float, colour: str, *, filled: bool
) -> None:
    """A violin of log times; too few or equal values are shown one by one."""
    if len(log_seconds) == 0:
        return
    seconds = 10**log_seconds
    if len(seconds) >= FEWEST and np.ptp(log_seconds) > 1e-6:
        from scipy.stats import gaussian_kde

        reach = 0.15 * np.ptp(log_seconds)
        grid = np.linspace(log_seconds.min() - reach, log_seconds.max() + reach, 100)
        density = gaussian_kde(log_seconds)(grid)
        width = 0.22 * density / density.max()
        face, alpha = (colour, 0.45) if filled else ("none", 1.0)
        look: dict[str, Any] = {"facecolor": face, "edgecolor": colour, "lw": 0.7, "alpha": alpha}
        ax.fill_between(10**grid, position - width, position + width, **look)
    else:
        ax.plot(seconds, np.full(len(seconds), position), "|", color=colour, ms=6)
    ax.plot(seconds.mean(), position, "o", mfc="white", mec="black", ms=2.6, mew=0.5, zorder=4)
    ax.plot(np.median(seconds), position, "x", color="black", ms=2.6, mew=0.6, zorder=5)
