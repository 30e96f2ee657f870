"""Hypergradients against schedule-free and tuning-free optimisers: empirical CDFs of the final test MSE."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hpo_bench.figures.common import panels, paper, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import MAIN, Need, Selection

TITLE = "Hypergradients against schedule-free and tuning-free optimisers, UCI datasets"
RIVALS = ("random_adam", "schedule_free_sgd", "schedule_free_adamw", "prodigy")
METHODS = ("random", *RIVALS, "ours_wd_lr_m", "ours_wd_hdlr_m", "diff_through_opt")
NEEDS = (Need(("uci_energy", "uci_kin8nm", "uci_power"), METHODS, paper.REPETITIONS["uci"]),)


def points(selection: Selection, options: Options) -> Points:
    """Every method's empirical CDF, a panel a dataset; nothing without a rival's runs."""
    found = {dataset: selection.runs(MAIN, dataset) for dataset in selection.datasets}
    if not any(run.method in RIVALS for runs in found.values() for run in runs):
        return Points(pd.DataFrame(), {}, notes=("no runs of a rival",))
    return templates.cdf_points(templates.by_dataset(selection), options)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
