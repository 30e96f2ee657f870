"""Fashion-MNIST with batch normalisation, and with Medium Diff-through-Opt: empirical CDFs of the
final test error.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.figures.common import panels, paper, templates
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.conditions import Preferably
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Fashion-MNIST with batch normalisation, and with Medium Diff-through-Opt"
REPETITIONS = paper.REPETITIONS["fashion_mnist"]
RIVALS = ("random", "ours_wd_lr_m", "diff_through_opt")
WHOLE = {
    **paper.STANDARD,
    "hyperparameter_updates": Preferably(5000),
}  # not those of the short problem
NEEDS = (
    Need(("fashion_mnist_batchnorm",), paper.ONE_PASS, REPETITIONS),
    Need(("fashion_mnist",), RIVALS, REPETITIONS, WHOLE, role="medium"),
    Need(
        ("fashion_mnist",),
        ("medium_diff_through_opt",),
        REPETITIONS,
        {**paper.START, "update_interval": 200},
        role="medium",
    ),
)


def points(selection: NeededRuns, options: Options) -> Points:
    """A panel for each of the two."""
    medium = [
        (f"{name}:medium", f"{common.label(runs)}, longer windows", runs)
        for name in selection.datasets
        if (runs := selection.runs("medium", name))
    ]
    return templates.cdf_points(
        [*templates.by_dataset(selection), *medium], options, select=common.of_any_length
    )


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
