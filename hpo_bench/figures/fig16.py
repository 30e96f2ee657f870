"""Figure 16: the short problem, where Long Diff-through-Opt differentiates whole trainings."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.analysis import paper
from hpo_bench.figures.common import horizons, standard
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Short horizon: comparison with Long Diff-through-Opt"
METHODS = ("random", "ours_wd_lr_m", "diff_through_opt")
REPETITIONS = 60
UCI, FASHION = paper.UCI_OF_THE_TABLES, ("fashion_mnist",)


def _short(datasets: tuple[str, ...], hyperparameter_updates: int) -> Need:
    where = {**standard.STANDARD, "hyperparameter_updates": hyperparameter_updates}
    return Need(datasets, METHODS, REPETITIONS, where, role="short")


def _long(datasets: tuple[str, ...], update_interval: int) -> Need:
    where = {**standard.STARTS, "update_interval": update_interval}
    return Need(datasets, ("long_diff_through_opt",), REPETITIONS, where, role="long")


NEEDS = (_short(UCI, 20), _short(FASHION, 100), _long(UCI, 200), _long(FASHION, 1000))


def points(selection: NeededRuns, options: Options) -> Points:
    """CDF and evolution of every method on each dataset."""
    return horizons.points(selection, options, ("short", "long"))


def draw(plotted: Plotted) -> Figure:
    """A row of panels per dataset."""
    return horizons.draw(plotted)
