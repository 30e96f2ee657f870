"""Figure 6: sensitivity of the final test MSE to the update interval and the look-back distance."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.figures.common import sensitivity, style
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import NeededRuns

TITLE = "Sensitivity to update interval and look-back distance"
GRIDS = ("ours_wd_lr_m", "diff_through_opt")
NEEDS = sensitivity.needs(*GRIDS, exact=("diff_through_opt",))


def points(selection: NeededRuns, options: Options) -> Points:
    """Medians of all cells."""
    return sensitivity.points(selection, options, GRIDS)


def draw(plotted: Plotted) -> Figure:
    """Random's value beside a heat-map for each method, with one colour scale."""
    figure = style.sheet(style.PAGE_WIDTH, 2.75, footer=sensitivity.note(plotted.footer))
    axes = figure.subplots(1, 3, width_ratios=[2.4, 10, 10])
    scale = sensitivity.norm(plotted.frame)
    image = sensitivity.single_cell(axes[0], plotted.of(method="random"), scale)
    for ax, name in zip(axes[1:], GRIDS, strict=True):
        sensitivity.heat_map(ax, plotted.of(method=name), scale)
    for ax, name in zip(axes, ("random", *GRIDS), strict=True):
        sensitivity.tell(ax, plotted, name)
    label = sensitivity.colour_bar_label(plotted.context)
    figure.colorbar(image, ax=list(axes), label=label, fraction=0.04, pad=0.01)
    style.title(axes, sensitivity.titles(("random", *GRIDS), plotted.context))
    return figure
