"""The paper's figures of runs that are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpo_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from hpo_bench.api.results import Results


def plot(
    figure: str,
    results: Results,
    *,
    dataset: str | None = None,
    method: str | Sequence[str] | None = None,
    statistics: str = "default",
    seed: int = 0,
) -> Figure:
    """Draw one of the figures of ``hpo-bench list figures`` from some runs alone.

        results = hpo_bench.load("results", dataset="uci_energy")
        hpo_bench.plot("fig09", results).savefig("energy.pdf")

    Nothing is written. A notebook shows the figure in the house style, and ``savefig`` writes it
    so, whatever Matplotlib's settings are. Sizes are in inches, as printed.

    Args:
        figure: ``fig09`` (also ``figure9`` or ``9``) is the paper's Figure 9; others by name.
        results: the runs; those that the figure has no place for are passed over.
        dataset: draw this dataset alone. Where none of the results is on a dataset of the figure,
            and all are on one dataset, that is meant.
        method: ids to compare instead of the figure's own.
        statistics: ``default`` counts diverged repetitions as +inf, ``paper`` drops them.
        seed: of bootstraps.

    Raises:
        UserError: there is no such figure, or none of the runs fits it; the line names what is
            missing and the command that makes it.
    """
    from hpo_bench import figures
    from hpo_bench.analysis.statistics.interval import MODES
    from hpo_bench.api.results import Results, _names
    from hpo_bench.figures.common.base import Options
    from hpo_bench.figures.common.make import figure_of

    if not isinstance(results, Results):
        raise UserError("plot: the runs must be Results, as hpo_bench.load returns them")
    if statistics not in MODES:
        raise UserError(f"statistics={statistics}: {nearest(statistics, MODES)}")
    options = Options(statistics="paper" if statistics == "paper" else "default", seed=seed)
    chosen = figures.resolve(figure)
    methods = tuple(_names("method", method) or ())
    return figure_of(chosen, results.runs, options, dataset=dataset, methods=methods)
