"""UCI Energy with larger validation parts: empirical CDFs of the final test MSE."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.analysis import paper
from hpo_bench.analysis.selection import grouped
from hpo_bench.figures.common import panels, standard, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Empirical CDFs of the final test MSE with larger validation parts"
WHERE = {**standard.STANDARD, "validation_share": paper.LARGER_VALIDATION_SHARES}
NEEDS = (Need(("uci_energy",), paper.ONE_PASS, paper.REPETITIONS["uci"], WHERE),)


def points(selection: NeededRuns, options: Options) -> Points:
    """Every method's empirical CDF, a panel a share."""
    by_share = grouped(selection.runs(), lambda run: float(run.config["validation_share"]))
    shown = [
        (str(share), f"{100 * share:g} % for validation", by_share[share])
        for share in paper.LARGER_VALIDATION_SHARES
        if share in by_share
    ]
    return templates.cdf_points(shown, options)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
