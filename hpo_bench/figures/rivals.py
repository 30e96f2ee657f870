"""Hypergradients against schedule-free and tuning-free optimisers.

These are empirical CDFs of the final test MSE."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hpo_bench.analysis import paper
from hpo_bench.figures.common import panels, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Hypergradients against schedule-free and tuning-free optimisers, UCI datasets"
RIVALS = ("random_adam", "schedule_free_sgd", "schedule_free_adamw", "prodigy")
METHODS = ("random", *RIVALS, "ours_wd_lr_m", "ours_wd_hdlr_m", "diff_through_opt")
NEEDS = (Need(paper.UCI_OF_THE_TABLES, METHODS, paper.REPETITIONS["uci"]),)


def points(selection: NeededRuns, options: Options) -> Points:
    """Every method's empirical CDF, a panel for each dataset on which a rival was run."""
    shown = []
    for name, title, runs in templates.by_dataset(selection):
        if any(run.method in RIVALS for run in runs):
            shown.append((name, title, runs))
    if not shown:
        return Points(pd.DataFrame(), {}, notes=("no runs of a rival",))
    return templates.cdf_points(shown, options)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
