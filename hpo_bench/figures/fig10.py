"""Figure 10: the learning rate during one repetition of every method.

All of them start from the same initialisation. Methods that tune AdamW, which are not the paper's,
stand beside them where they are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hpo_bench.analysis import paper, rivals
from hpo_bench.analysis.frames import curves
from hpo_bench.analysis.selection import Runs, by_method, weight_updates
from hpo_bench.figures.common import panels, places, style, templates
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.figures.common.places import PointNumber
from hpo_bench.store.runs import Run

TITLE = "Evolution of the learning rate in one repetition, UCI datasets"
METHODS = tuple(method for method in paper.TRAINED if method != "ours_wd_hdlr_m")
ADAMW = tuple(method for method in rivals.ADAMW if method.startswith(("ours", "diff")))
NEEDS = (
    Need(paper.UCI, METHODS, paper.REPETITIONS["uci"]),
    Need((*rivals.DATASETS, *rivals.OFFLINE), ADAMW, paper.REPETITIONS["uci"], optional=True),
)
SHOWN = (PointNumber("x", "step"), PointNumber("y", "y"))
LEAST = 1e-6  # learning rate that is shown


def points(selection: NeededRuns, options: Options) -> Points:
    """Learning rates of the lowest seed that most methods have, a panel a dataset."""
    frames: list[pd.DataFrame] = []
    shown: list[dict[str, Any]] = []
    kept: list[Run] = []
    notes: list[str] = []
    for key, title, runs in templates.by_dataset(selection):
        chosen, passed_over = common.alike(_with_one_rate(runs))
        notes += passed_over
        if chosen:
            seed = common_seed(chosen)
            having_it = [run for run in chosen if seed in run.seeds]
            frames.append(_rates(having_it, seed).assign(panel=key, dataset=key))
            shown.append({"key": key, "title": title, "seed": seed})
            kept += chosen
    if not kept:
        empty = pd.DataFrame(columns=["panel", "method", "step", "y"])
        return Points(empty, {"panels": [], "methods": []}, notes=tuple(notes), by_mode=False)
    statistics = (common.training(kept), _which_seeds(shown), "× diverged")
    context = {"panels": shown, "methods": common.styles(kept)}
    frame = pd.concat(frames, ignore_index=True)
    return Points(frame, context, kept, statistics, tuple(notes), by_mode=False)


def _which_seeds(shown: Sequence[Mapping[str, Any]]) -> str:
    """The one seed of all panels, or the seed of each."""
    if len({panel["seed"] for panel in shown}) == 1:
        return f"one repetition, seed {shown[0]['seed']}"
    seeds = [f"{panel['title']} {panel['seed']}" for panel in shown]
    return f"one repetition each, seeds: {', '.join(seeds)}"


def _with_one_rate(runs: Runs) -> list[Run]:
    """Runs of methods with one learning rate a repetition."""
    return [run for run in runs if "lr" not in (run.config["method"].get("per_weight") or ())]


def common_seed(runs: Runs) -> int:
    """The lowest of the seeds that most methods have."""
    repetitions = {(run.method, seed) for run in runs for seed in run.seeds}
    counts = Counter(seed for _, seed in repetitions)
    return min(counts, key=lambda seed: (-counts[seed], seed))


def _rates(runs: Runs, seed: int) -> pd.DataFrame:
    """The learning rate of each method in the repetition of this seed."""
    frames = []
    for method, group in by_method(runs).items():  # several runs may have it: it is drawn once
        of_all = curves(group, ["lr"], common.thinning(group))
        curve = of_all[of_all["seed"] == seed]
        status = "diverged"
        if len(curve) and curve["step"].iloc[-1] == weight_updates(group[0]):
            status = "complete"
        y = curve["lr"].to_numpy(dtype=float, na_value=np.nan)
        columns = {"step": curve["step"], "y": y, "status": status}
        frames.append(pd.DataFrame({"method": method, **columns}))
    return pd.concat(frames, ignore_index=True)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    shown = plotted.context["panels"]
    entries = [style.entry(method) for method in plotted.methods]
    figure, axes = panels.sheet_of_panels(len(shown), entries, plotted.footer)
    for ax, panel in zip(axes, shown, strict=True):
        rates(ax, plotted.of(panel=panel["key"]), plotted)
        ax.set_xlabel("Weight updates")
    for ax in axes[:: panels.columns_of(len(axes))]:
        ax.set_ylabel("Learning rate")
    style.title(axes, [panel["title"] for panel in shown])
    return figure


def rates(ax: Axes, frame: pd.DataFrame, plotted: Plotted) -> Axes:
    """A line per method, dashed where it would hide an equal one; a cross where it diverged."""
    shown = frame[(frame["y"] > 0) & np.isfinite(frame["y"])]
    lines: list[NDArray[np.float64]] = []
    for method in plotted.methods:
        curve = shown[shown["method"] == method["name"]]
        if curve.empty:
            continue
        y = curve["y"].to_numpy()
        equal = [
            line
            for line in lines
            if len(line) >= len(y) and np.allclose(line[: len(y)], y, rtol=0.02)
        ]
        dashes = {"linestyle": (0, (3, 3 * len(equal)))} if equal else {}
        ax.plot(curve["step"], y, **style.line(method, **dashes))
        places.tell(ax, curve, method, SHOWN, curve["step"], y, line="line", of="one repetition")
        lines.append(y)
        if curve["status"].iloc[0] == "diverged":
            ax.plot(curve["step"].iloc[-1], y[-1], "x", color=method["colour"], ms=5)
    ax.set_yscale("log")
    ax.set_ylim(bottom=LEAST, top=max(1.0, ax.get_ylim()[1]))
    ax.margins(x=0.01)
    ax.grid(visible=True)
    panels.log_ticks(ax, "y")
    return ax
