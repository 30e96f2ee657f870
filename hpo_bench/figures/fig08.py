"""Figure 8: evolution of the test MSE during training on the UCI sets.

It is the bootstrapped median ± its bootstrap standard deviation."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.analysis import paper
from hpo_bench.figures.common import panels, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Evolution of the test MSE, UCI datasets"
NEEDS = (Need(paper.UCI, paper.TRAINED, paper.REPETITIONS["uci"]),)


def points(selection: NeededRuns, options: Options) -> Points:
    """Every method's median at every (thinned) recorded step, a panel a dataset."""
    return templates.evolution_points(templates.by_dataset(selection), options)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.evolutions(plotted)
