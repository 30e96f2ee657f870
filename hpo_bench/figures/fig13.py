"""Figure 13: empirical CDFs of the final test error on the larger image datasets."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.analysis import paper
from hpo_bench.figures.common import panels, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Empirical CDFs of the final test error, larger datasets"
IMAGES = ("fashion_mnist", "cifar10")
NEEDS = tuple(
    Need((name,), paper.ONE_PASS, paper.REPETITIONS[name], each_data=True) for name in IMAGES
)


def points(selection: NeededRuns, options: Options) -> Points:
    """Every method's empirical CDF, a panel a dataset."""
    return templates.cdf_points(templates.by_dataset(selection), options)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
