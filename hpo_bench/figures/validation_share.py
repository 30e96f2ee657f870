"""UCI Energy with larger validation parts: empirical CDFs of the final test MSE."""

from __future__ import annotations

from matplotlib.figure import Figure

from hpo_bench.figures.common import panels, paper, templates
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns

TITLE = "Empirical CDFs of the final test MSE with larger validation parts"
WHERE = {**paper.STANDARD, "validation_share": paper.SHARES}
NEEDS = (Need(("uci_energy",), paper.ONE_PASS, paper.REPETITIONS["uci"], WHERE),)


def points(selection: NeededRuns, options: Options) -> Points:
    """Every method's empirical CDF, a panel a share."""
    by_share = {
        share: [run for run in selection.runs() if run.config["validation_share"] == share]
        for share in paper.SHARES
    }
    shown = [
        (str(share), f"{100 * share:g} % for validation", runs)
        for share, runs in by_share.items()
        if runs
    ]
    return templates.cdf_points(shown, options)


def draw(plotted: Plotted) -> Figure:
    """Panels with one legend."""
    return panels.cdfs(plotted)
