"""Figure 4: pseudocode of the method beside its sensitivity to T and i."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo_bench.figures.common import sensitivity, style
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import NeededRuns

TITLE = "Pseudocode, and sensitivity to update interval and look-back distance"
GRIDS = ("ours_wd_lr_m",)
NEEDS = sensitivity.needs(*GRIDS)
PSEUDOCODE = (
    (0, r"initialise weights $w_0$, hyperparameters $\lambda$"),
    (0, r"$\mathbf{for}$ $t = 1, 2, \ldots, T K$ $\mathbf{do}$"),
    (1, r"$w_t \leftarrow w_{t-1} - u(\lambda, w_{t-1})$"),
    (1, r"$\mathbf{if}$ $T$ divides $t$ $\mathbf{then}$"),
    (2, r"$v \leftarrow \partial L_V / \partial w$ at $w_t$"),
    (2, r"$p \leftarrow v$"),
    (2, r"$\mathbf{for}$ $j = 1, \ldots, i - 1$ $\mathbf{do}$"),
    (3, r"$v \leftarrow v - v\, (\partial u / \partial w)$"),
    (3, r"$p \leftarrow p + v$"),
    (2, r"$g \leftarrow -p\, (\partial u / \partial \lambda)$"),
    (2, r"$\lambda \leftarrow \lambda + \mathrm{Adam}(g)$"),
)


def points(selection: NeededRuns, options: Options) -> Points:
    """Medians of all cells."""
    return sensitivity.points(selection, options, GRIDS)


def draw(plotted: Plotted) -> Figure:
    """Pseudocode, Random's value, the method's heat-map."""
    figure = style.sheet(style.PAGE_WIDTH, 2.75, footer=sensitivity.note(plotted.footer))
    axes = figure.subplots(1, 3, width_ratios=[9.5, 2.4, 10])
    pseudocode(axes[0])
    scale = sensitivity.norm(plotted.frame)
    sensitivity.single_cell(axes[1], plotted.of(method="random"), scale)
    image = sensitivity.heat_map(axes[2], plotted.of(method=GRIDS[0]), scale)
    for ax, name in zip(axes[1:], ("random", *GRIDS), strict=True):
        sensitivity.tell(ax, plotted, name)
    label = sensitivity.colour_bar_label(plotted.context)
    figure.colorbar(image, ax=list(axes[1:]), label=label, fraction=0.05, pad=0.02)
    style.title(axes[1:], sensitivity.titles(("random", *GRIDS), plotted.context))
    return figure


def pseudocode(ax: Axes) -> Axes:
    """Numbered lines between rules."""
    ax.set(xlim=(0, 1), ylim=(len(PSEUDOCODE) + 0.5, -1.3))
    ax.axis("off")
    for height, width in ((-1.2, 1.0), (-0.25, 0.6), (len(PSEUDOCODE) + 0.2, 1.0)):
        ax.axhline(height, color="black", lw=width)
    ax.text(0, -0.72, "One-pass hyperparameter optimisation", va="center", weight="bold")
    for number, (depth, text) in enumerate(PSEUDOCODE):
        look: dict[str, Any] = {"size": 6.5, "color": style.GREY, "ha": "right", "va": "center"}
        ax.text(0.05, number + 0.3, str(number + 1), **look)
        ax.text(0.1 + 0.07 * depth, number + 0.3, text, va="center")
        for level in range(1, depth + 1):
            x = 0.045 + 0.07 * level + 0.04
            ax.plot([x] * 2, [number - 0.15, number + 0.75], color="#bbbbbb", lw=0.5)
    return ax
