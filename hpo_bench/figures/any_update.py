"""Hypergradients through AdamW beside AdamW untuned, and SGD tuned.

These are empirical CDFs of the final test metric."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hpo_bench.analysis import paper, rivals
from hpo_bench.figures.common import panels, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Tuning through AdamW: empirical CDFs of the final test metric"
METHODS = (*rivals.ADAMW, "ours_wd_lr_m")
NEEDS = (
    Need(rivals.DATASETS, METHODS, paper.REPETITIONS["uci"]),
    Need(rivals.OFFLINE, METHODS, paper.REPETITIONS["uci"], optional=True),
)


def points(selection: NeededRuns, options: Options) -> Points:
    """Every method's empirical CDF, a panel for each dataset on which AdamW was run."""
    shown = []
    for name, title, runs in templates.by_dataset(selection):
        if any(run.method in rivals.ADAMW for run in runs):
            shown.append((name, title, runs))
    if not shown:
        return Points(pd.DataFrame(), {}, notes=("no runs of AdamW",))
    return templates.cdf_points(shown, options)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
