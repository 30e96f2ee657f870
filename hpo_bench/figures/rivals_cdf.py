"""Hypergradients against today's optimisers.

These are empirical CDFs of the final test metric."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hpo_bench.figures.common import needs_of_rivals, panels, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import NeededRuns

TITLE = "Hypergradients against today's optimisers: empirical CDFs"
NEEDS = needs_of_rivals.NEEDS


def points(selection: NeededRuns, options: Options) -> Points:
    """Every method's empirical CDF, a panel for each dataset on which a rival was run."""
    shown = needs_of_rivals.with_rivals(selection)
    if not shown:
        return Points(pd.DataFrame(), {}, notes=(needs_of_rivals.NONE,))
    return templates.cdf_points(shown, options)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
