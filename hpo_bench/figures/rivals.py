"""Hypergradients against schedule-free and tuning-free optimisers: empirical CDFs of the final test MSE."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.figures.common import panels, paper, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, Selection

TITLE = "Hypergradients against schedule-free and tuning-free optimisers, UCI datasets"
METHODS = (
    "random", "random_adam", "schedule_free_sgd", "schedule_free_adamw", "prodigy", "ours_wd_lr_m", "ours_wd_hdlr_m",
    "diff_through_opt",
)  # fmt: skip
NEEDS = (Need(("uci_energy", "uci_kin8nm", "uci_power"), METHODS, paper.REPETITIONS["uci"]),)


def points(selection: Selection, options: Options) -> Points:
    """Every method's empirical CDF, a panel a dataset."""
    return templates.cdf_points(templates.by_dataset(selection), options)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
