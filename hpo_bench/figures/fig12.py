"""Figure 12: empirical CDFs of the final test loss on the larger datasets.

On Penn Treebank that is the perplexity."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.analysis import paper
from hpo_bench.figures.common import panels, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Empirical CDFs of the final test loss, larger datasets"
NEEDS = tuple(
    Need((name,), paper.ONE_PASS, paper.REPETITIONS[name], each_data=True) for name in paper.LARGER
)


def points(selection: NeededRuns, options: Options) -> Points:
    """Every method's empirical CDF, a panel a dataset."""
    return templates.cdf_points(templates.by_dataset(selection), options, templates.loss)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
