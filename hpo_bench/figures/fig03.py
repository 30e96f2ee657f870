"""Figure 3: trajectories of learning rate and weight decay over the final test MSE."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from hpo_bench.analysis.frames import curves, failure_aware
from hpo_bench.analysis.selection import Runs, repetitions, weight_updates
from hpo_bench.figures.common import places, standard, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.conditions import Fixed
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.figures.common.places import PointNumber
from hpo_bench.figures.common.templates import metric

TITLE = "Trajectories of learning rate and weight decay over the final test MSE"
MOMENTUM = Fixed(0.6225)  # sigmoid(0.5)
DATASETS = ("uci_energy",)
MOVING = {**standard.STANDARD, "init.momentum": MOMENTUM}
WIDE = {**MOVING, "init.log10_lr": [-6, 1], "init.log10_weight_decay": [-7, 2]}
NEEDS = (
    Need(DATASETS, ("random",), 500, WIDE, role="background"),
    Need(DATASETS, ("ours_wd_lr",), 50, MOVING, role="trajectories"),
)
DIVERGED_AS = 150.0  # test MSE that stands for a diverged (or worse) run in the background
SHOWN_POINT = (
    PointNumber("step", "step"),
    PointNumber("x", "log10_lr"),
    PointNumber("y", "log10_weight_decay"),
)
SHOWN = 20  # trajectories
POINTS = 60  # of a trajectory, about
DIGITS = 4  # decimals of the background
GRID = 90  # points of the background in each direction
LR, WEIGHT_DECAY = (-6.0, -0.5), (-7.0, 1.0)  # log10, the part that is drawn


def points(selection: NeededRuns, options: Options) -> Points:
    """Background on a grid, the runs it is interpolated from, and the trajectories."""
    background, notes = common.alike(selection.runs("background"))
    moving, more = common.alike(selection.runs("trajectories"))
    parts, statistics = [], []
    if background:
        samples = _samples(background, options)
        interpolated, fitted = _interpolated(samples)
        parts += [samples, interpolated]
        diverged = int((samples["status"] == "diverged").sum())
        statistics.append(
            f"background: Gaussian process ({fitted}) of {len(samples)} Random runs, of which "
            f"{diverged} diverged (NaN, taken as {DIVERGED_AS:g})"
        )
    if moving:
        paths = _trajectories(moving)
        parts.append(paths)
        shown, there_are = paths["path"].nunique(), repetitions(moving)
        statistics.append(f"{shown} of {there_are} trajectories, ○ start, □ end")
    kept = [*background, *moving]
    context = {
        "methods": common.styles(moving),
        "measure": metric(kept).label,
        "dataset": common.label(kept),
        "momentum": MOMENTUM.number,
    }
    frame = pd.concat(parts, ignore_index=True)
    return Points(
        frame, context, kept, (common.training(kept), *statistics), (*notes, *more), by_mode=False
    )


def _samples(runs: Runs, options: Options) -> pd.DataFrame:
    """Final test metric of each run at its hyperparameters.

    Diverged and worse runs count as `DIVERGED_AS`.
    """
    finals = options.finals(runs)
    value = np.minimum(failure_aware(finals), DIVERGED_AS)
    return pd.DataFrame(
        {
            "part": "sample",
            "log10_lr": np.log10(finals["initial_lr"].to_numpy(dtype=float)),
            "log10_weight_decay": np.log10(finals["initial_weight_decay"].to_numpy(dtype=float)),
            "value": value,
            "status": finals["status"],
        }
    )


def _interpolated(samples: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Posterior mean of a Gaussian process on log10 of the value, and what was fitted.

    The mean is on the grid that is drawn.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel

    x = samples[["log10_lr", "log10_weight_decay"]].to_numpy()
    y = np.log10(np.maximum(samples["value"].to_numpy(), 1e-12))
    process = GaussianProcessRegressor(
        RBF(1.0, (0.1, 20.0)) + WhiteKernel(0.1, (1e-5, 10.0)), normalize_y=True
    )
    with warnings.catch_warnings():
        # A bound may be reached: the small print has the values.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(x, y)
    lr, weight_decay = np.meshgrid(np.linspace(*LR, GRID), np.linspace(*WEIGHT_DECAY, GRID))
    mean = process.predict(np.column_stack([lr.ravel(), weight_decay.ravel()]))
    # Linear algebra differs in the last digits from machine to machine: those are not shown, so
    # that the figure is the same byte for byte.
    value = np.round(10**mean, DIGITS)
    grid = {"log10_lr": lr.ravel(), "log10_weight_decay": weight_decay.ravel(), "value": value}
    length, noise = process.kernel_.k1.length_scale, process.kernel_.k2.noise_level
    fitted = f"RBF of length {length:.2g} + white noise of {noise:.2g}"
    return pd.DataFrame({"part": "background", **grid}), fitted


def _trajectories(runs: Runs) -> pd.DataFrame:
    """Learning rate and weight decay of the first seeds at some steps.

    The first and last steps are among them.
    """
    seeds = sorted({seed for run in runs for seed in run.seeds})[:SHOWN]
    interval = int(runs[0].config["update_interval"])
    every = max(1, weight_updates(runs[0]) // POINTS // interval)
    of_all = curves(runs, ["lr", "weight_decay"], every * interval)
    shown = of_all[of_all["seed"].isin(seeds)].sort_values(["seed", "step"])
    with np.errstate(divide="ignore", invalid="ignore"):
        frame = pd.DataFrame(
            {
                "part": "trajectory",
                "path": shown["seed"],
                "step": shown["step"],
                "log10_lr": np.log10(shown["lr"].to_numpy(dtype=float)),
                "log10_weight_decay": np.log10(shown["weight_decay"].to_numpy(dtype=float)),
            }
        )
    finite = np.isfinite(frame["log10_lr"]) & np.isfinite(frame["log10_weight_decay"])
    on_the_plane: pd.DataFrame = frame[finite]
    return on_the_plane


def draw(plotted: Plotted) -> Figure:
    """Background with its colour bar, trajectories on top."""
    figure = style.sheet(style.COLUMN_WIDTH * 1.25, 3.0, footer=plotted.footer)
    ax = figure.subplots()
    background = plotted.of(part="background")
    if len(background):
        filled = landscape(ax, background)
        bar = figure.colorbar(
            filled,
            ax=ax,
            label=f"Final {style.decapitalised(plotted.context['measure'])}",
            pad=0.02,
        )
        ticks = [
            tick
            for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
            if filled.get_clim()[0] <= np.log10(tick) < 2.1
        ]
        bar.set_ticks([*np.log10(ticks), np.log10(DIVERGED_AS)], labels=[*map(str, ticks), "NaN"])
    moved = plotted.of(part="trajectory")
    trajectories(ax, moved)
    for method in plotted.methods:
        _tell(ax, moved, method)
    ax.set(
        xlim=LR,
        ylim=WEIGHT_DECAY,
        xlabel=r"$\log_{10}$(learning rate)",
        ylabel=r"$\log_{10}$(weight decay)",
    )
    return figure


def _tell(ax: Axes, moved: pd.DataFrame, method: Mapping[str, Any]) -> None:
    """Say where each trajectory goes."""
    for seed, path in moved.groupby("path"):
        x, y = path["log10_lr"], path["log10_weight_decay"]
        places.tell(ax, path, method, SHOWN_POINT, x, y, line="line", of=f"seed {seed:g}")


def landscape(ax: Axes, background: pd.DataFrame) -> QuadContourSet:
    """Filled contours of log10 of the value; its upper end is where runs diverge."""
    shape = (background["log10_weight_decay"].nunique(), background["log10_lr"].nunique())
    x, y, value = (
        background[name].to_numpy().reshape(shape)
        for name in ("log10_lr", "log10_weight_decay", "value")
    )
    z, top = np.log10(value), np.log10(DIVERGED_AS)
    levels = np.linspace(min(z.min(), top - 0.5), top, 25)
    filled = ax.contourf(x, y, np.clip(z, levels[0], levels[-1]), levels=levels, cmap="viridis")
    filled.set_edgecolor("face")
    return filled


def trajectories(ax: Axes, frame: pd.DataFrame) -> Axes:
    """A line with arrow heads for each run, from a circle to a square."""
    for _, path in frame.groupby("path"):
        x, y = path["log10_lr"].to_numpy(), path["log10_weight_decay"].to_numpy()
        ax.plot(x, y, color="white", lw=1.5, alpha=0.5, solid_capstyle="round")
        ax.plot(x, y, color="#b2182b", lw=0.8)
        _heads(ax, x, y)
        ax.plot(x[0], y[0], "o", color="white", mec="black", mew=0.6, ms=3.6, zorder=4)
        ax.plot(x[-1], y[-1], "s", color="white", mec="black", mew=0.6, ms=3.6, zorder=4)
    return ax


def _heads(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Arrow heads at a third and two thirds of the way, where there is a way."""
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    if way[-1] < 0.4:
        return
    for share in (0.4, 0.8):
        index = int(np.clip(np.searchsorted(way, share * way[-1]), 1, len(x) - 1))
        style.arrow_head(ax, (x[index - 1], y[index - 1]), (x[index], y[index]), "#b2182b")
