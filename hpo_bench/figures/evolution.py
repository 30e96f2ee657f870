"""Evolution of the test loss during training on the larger datasets.

It is the bootstrapped median ± its bootstrap standard deviation."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.analysis import paper
from hpo_bench.figures.common import panels, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Evolution of the test loss, larger datasets"
NEEDS = tuple(
    Need((name,), paper.TRAINED, paper.REPETITIONS[name], each_data=True) for name in paper.LARGER
)


def points(selection: NeededRuns, options: Options) -> Points:
    """Every method's median at every (thinned) recorded step, a panel a dataset."""
    return templates.evolution_points(templates.by_dataset(selection), options, templates.loss)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.evolutions(plotted)
