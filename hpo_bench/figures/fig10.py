"""Figure 10: the learning rate during one repetition of every method, all from the same
initialisation.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo_bench.analysis import summary
from hpo_bench.analysis.frames import curves
from hpo_bench.analysis.selection import Runs, weight_updates
from hpo_bench.figures.common import panels, paper, style, templates
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.store.runs import Run

TITLE = "Evolution of the learning rate in one repetition, UCI datasets"
METHODS = tuple(method for method in paper.TRAINED if method != "ours_wd_hdlr_m")
NEEDS = (Need(paper.UCI, METHODS, paper.REPETITIONS["uci"]),)
LEAST = 1e-6


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
            frames.append(
                _rates([run for run in chosen if seed in run.seeds], seed).assign(
                    panel=key, dataset=key
                )
            )
            shown.append({"key": key, "title": title, "seed": seed})
            kept += chosen
    frame = (
        pd.concat(frames, ignore_index=True)
        if frames
        else pd.DataFrame(columns=["panel", "method", "step", "y"])
    )
    seeds = ", ".join(f"{panel['title']} {panel['seed']}" for panel in shown)
    same = len({panel["seed"] for panel in shown}) == 1
    told = (
        f"one repetition, seed {shown[0]['seed']}"
        if same
        else f"one repetition each, seeds: {seeds}"
    )
    statistics = (common.training(kept), told, "× diverged") if kept else ()
    return Points(
        frame,
        {"panels": shown, "methods": common.styles(kept)},
        kept,
        statistics,
        tuple(notes),
        by_mode=False,
    )


def _with_one_rate(runs: Runs) -> list[Run]:
    """Runs of methods with one learning rate a repetition."""
    return [run for run in runs if "lr" not in (run.config["method"].get("per_weight") or ())]


def common_seed(runs: Runs) -> int:
    """The lowest of the seeds that most methods have."""
    counts = Counter(seed for _, seed in {(run.method, seed) for run in runs for seed in run.seeds})
    return min(counts, key=lambda seed: (-counts[seed], seed))


def _rates(runs: Runs, seed: int) -> pd.DataFrame:
    rates = []
    for method, group in summary.by(
        runs, "method"
    ).items():  # several runs may have this seed: it is drawn once
        curve = curves(group, ["lr"], common.thinning(group))
        own = curve[curve["seed"] == seed]
        y = own["lr"].to_numpy(dtype=float, na_value=np.nan)
        status = (
            "complete"
            if len(own) and own["step"].iloc[-1] == weight_updates(group[0])
            else "diverged"
        )
        rates.append(
            pd.DataFrame({"method": method, "step": own["step"], "y": y, "status": status})
        )
    return pd.concat(rates, ignore_index=True)


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
    drawn: list[np.ndarray] = []
    for method in plotted.methods:
        own = frame[
            (frame["method"] == method["name"]) & (frame["y"] > 0) & np.isfinite(frame["y"])
        ]
        if own.empty:
            continue
        y = own["y"].to_numpy()
        hides = sum(
            len(other) >= len(y) and np.allclose(other[: len(y)], y, rtol=0.02) for other in drawn
        )
        ax.plot(
            own["step"],
            y,
            **style.line(method, **({"linestyle": (0, (3, 3 * hides))} if hides else {})),
        )
        drawn.append(y)
        if own["status"].iloc[0] == "diverged":
            ax.plot(own["step"].iloc[-1], own["y"].iloc[-1], "x", color=method["colour"], ms=5)
    ax.set_yscale("log")
    ax.set_ylim(bottom=LEAST, top=max(1.0, ax.get_ylim()[1]))
    ax.margins(x=0.01)
    ax.grid(visible=True)
    panels.log_ticks(ax, "y")
    return ax
