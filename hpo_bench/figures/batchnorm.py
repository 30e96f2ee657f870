"""Empirical CDFs of the final test error on Fashion-MNIST with changes.

One is batch normalisation, the other Medium Diff-through-Opt, whose look-back is longer."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.analysis import paper
from hpo_bench.figures.common import panels, standard, templates
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.conditions import Preferably
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Fashion-MNIST with batch normalisation, and with Medium Diff-through-Opt"
REPETITIONS = paper.REPETITIONS["fashion_mnist"]
RIVALS = ("random", "ours_wd_lr_m", "diff_through_opt")

# Those of whole length rather than those of the short problem.
WHOLE = {**standard.STANDARD, "hyperparameter_updates": Preferably(5000)}
LONGER = {**standard.STARTS, "update_interval": 200}
PLAIN = ("fashion_mnist",)
NEEDS = (
    Need(("fashion_mnist_batchnorm",), paper.ONE_PASS, REPETITIONS),
    Need(PLAIN, RIVALS, REPETITIONS, WHOLE, role="medium"),
    Need(PLAIN, ("medium_diff_through_opt",), REPETITIONS, LONGER, role="medium"),
)


def points(selection: NeededRuns, options: Options) -> Points:
    """Every method's empirical CDF, a panel for each of the two changes."""
    shown = templates.by_dataset(selection)
    for name, title, runs in templates.by_dataset(selection, "medium"):
        shown.append((f"{name}:medium", f"{title}, longer windows", runs))
    return templates.cdf_points(shown, options, select=common.of_any_length)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
