"""Figure 18: UCI Energy with Full Diff-through-Opt.

Its look-back is the whole training of 4000 weight updates."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.figures.common import horizons, standard
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Full horizon: comparison with Full Diff-through-Opt"
METHODS = ("random", "ours_wd_lr_m", "diff_through_opt")
REPETITIONS = 36
NEEDS = (
    Need(("uci_energy",), METHODS, REPETITIONS, role="one_pass"),
    Need(("uci_energy",), ("full_diff_through_opt",), REPETITIONS, standard.STARTS, role="full"),
)


def points(selection: NeededRuns, options: Options) -> Points:
    """CDF and evolution of every method, on the initialisations that Full Diff-through-Opt has."""
    return horizons.points(selection, options, ("one_pass", "full"))


def draw(plotted: Plotted) -> Figure:
    """CDF and evolutions side by side."""
    return horizons.draw(plotted)
