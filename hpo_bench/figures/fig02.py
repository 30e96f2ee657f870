"""Figure 2: two readings of the learning rate η, computed on a least-squares loss of one weight.

(a) η scales the gradient of a fixed loss L; (b) a step of size one on the scaled loss ηL. Both lead
to the same weight."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hpo_bench.figures.common import places, style
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.figures.common.places import PointNumber

TITLE = "Two readings of the learning rate: scaling the gradient, or scaling the loss"
NEEDS: tuple[Need, ...] = ()

RATES = (0.3, 0.7)
COLOURS = {1.0: "black", 0.3: "#0072B2", 0.7: "#D55E00"}
SHOWN = (PointNumber("x", "weight"), PointNumber("loss", "value"))
START = 1.55


def points(selection: NeededRuns, options: Options) -> Points:
    """Loss curves, and for each learning rate the step of both readings."""
    x = np.random.default_rng(2).normal(size=20)
    y = 0.2 * x
    grid = np.linspace(-0.35, 1.9, 120)

    def loss(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        squares = (np.multiply.outer(weights, x) - y) ** 2
        return np.asarray(0.5 * squares.mean(axis=-1))

    curves = []
    for panel, rate in (("a", 1.0), *(("b", rate) for rate in RATES)):
        curve = {"rate": rate, "weight": grid, "value": rate * loss(grid)}
        curves.append(pd.DataFrame({"part": "loss", "panel": panel, **curve}))

    slope = float(((START * x - y) * x).mean())
    start = float(loss(np.array(START)))
    steps = []
    for rate in RATES:
        for panel, scale in (("a", 1.0), ("b", rate)):
            tangent = {"weight": START, "value": scale * start, "slope": scale * slope}
            end = START - rate * slope
            steps.append({"part": "step", "panel": panel, "rate": rate, **tangent, "end": end})
    return Points(pd.concat([*curves, pd.DataFrame(steps)], ignore_index=True), {})


def draw(plotted: Plotted) -> Figure:
    """Both readings side by side."""
    figure = style.sheet(style.PAGE_WIDTH * 0.8, 2.2, footer=plotted.footer)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    titles = (r"$\eta$ scales the gradient of $L$", r"a step of size one on the loss $\eta L$")
    for ax, panel in zip(axes, "ab", strict=True):
        reading(ax, plotted, panel)
    style.title(axes, titles)
    axes[0].set_ylabel("Loss")
    return figure


def reading(ax: Axes, plotted: Plotted, panel: str) -> Axes:
    """Loss curves with tangents at the start, and the steps as arrows below them."""
    curves = plotted.of(part="loss", panel=panel)
    for rate in sorted(set(curves["rate"])):
        curve = curves[curves["rate"] == rate]
        ax.plot(curve["weight"], curve["value"], color=COLOURS[rate])
        named = {"name": "loss", "label": f"loss × {rate:g}", "colour": COLOURS[rate]}
        places.tell(ax, curve, named, SHOWN, curve["weight"], curve["value"], line="line")
        name = "$L$" if rate == 1 else rf"$\eta_{RATES.index(rate) + 1} L$"
        end = (curve["weight"].iloc[-1], curve["value"].iloc[-1])
        ax.annotate(name, end, (2, 0), textcoords="offset points", color=COLOURS[rate])
    steps = plotted.of(part="step", panel=panel).sort_values("rate")
    for number, step in enumerate(steps.itertuples(), start=1):
        _step(ax, step, number, panel)
    ax.set(xlabel="Weight $w$", xlim=(-0.4, 2.35), ylim=(-0.62, 1.42), yticks=[])
    ax.set_xticks([START, *steps["end"]])
    ax.set_xticklabels(["$w_{t-1}$", r"$w_t(\eta_1)$", r"$w_t(\eta_2)$"])
    ax.axvline(START, color="#bbbbbb", lw=0.6, ls=":", zorder=0)
    return ax


def _step(ax: Axes, step: object, number: int, panel: str) -> None:
    """The start of one step with its tangent, and an arrow to its end."""
    rate, value, slope, end = (getattr(step, name) for name in ("rate", "value", "slope", "end"))
    colour, height = COLOURS[rate], -0.17 - 0.24 * (number - 1)
    of_curve = COLOURS[1.0] if panel == "a" else colour
    tangent = np.array([START - 0.75, START + 0.3])
    ax.plot(tangent, value + slope * (tangent - START), color=of_curve, lw=0.7, ls="--")
    ax.plot(START, value, "o", color=of_curve)
    ax.axvline(end, color=colour, lw=0.6, ls=":", zorder=0)
    arrow = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (end, height), (START, height), arrowprops=arrow)
    index = rf"\eta_{number}"
    text = rf"${index} \times (-\nabla L)$" if panel == "a" else rf"$1 \times (-\nabla({index} L))$"
    ax.text(START + 0.05, height, text, color=colour, va="center", size=7.5)
