"""What a figure is made of: the points that are plotted, and how they were computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from hpo_bench.analysis.frames import finals
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics.interval import CONFIDENCE, RESAMPLES, Statistics
from hpo_bench.figures.common.needs import Need, NeededRuns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RULES: Mapping[str, str] = {
    "default": "failure-aware statistics: diverged runs count as +∞",
    "paper": "the paper's statistics: diverged runs are dropped",
}


@dataclass(frozen=True)
class Options:
    """How points are computed from runs.

    Args:
        statistics: failure-aware (``default``) or as in the ``paper``.
        resamples, seed: of bootstraps.
        confidence: level of intervals.
        finals: reads final values of runs.
    """

    statistics: Statistics = "default"
    resamples: int = RESAMPLES
    seed: int = 0
    confidence: float = CONFIDENCE
    finals: Callable[[Runs], pd.DataFrame] = finals

    @property
    def failure_aware(self) -> bool:
        """Whether diverged runs count as +inf; else they are dropped."""
        return self.statistics == "default"


@dataclass(frozen=True)
class Points:
    """What is plotted, and where it comes from.

    Args:
        frame: the points, a row each; text columns are those of `artefact.TEXT_COLUMNS`.
        context: what drawing needs beside the points (labels, methods, …); only JSON's types.
        runs: the stored runs that they were computed from; none of a figure that needs some: it
            cannot be drawn yet.
        statistics: of the figure, in the order of the footer, as "bands: …"; empty for an
            illustration.
        notes: runs that were passed over, and why.
        by_mode: whether the points depend on `Options.statistics`.
    """

    frame: pd.DataFrame
    context: dict[str, Any]
    runs: Runs = ()
    statistics: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    by_mode: bool = True


@dataclass(frozen=True)
class Plotted:
    """All that a figure is drawn from: what its CSV and manifest hold."""

    frame: pd.DataFrame
    context: Mapping[str, Any]
    footer: str = ""

    @property
    def methods(self) -> list[dict[str, Any]]:
        """Name, label, colour and line style of the methods, in the legend's order."""
        return list(self.context.get("methods", []))

    def of(self, **values: Any) -> pd.DataFrame:
        """Rows in which columns have these values."""
        frame = self.frame
        for column, value in values.items():
            frame = frame[frame[column] == value]
        return frame


class FigureModule(Protocol):
    """What a module of `hpo_bench.figures` holds; see there."""

    TITLE: str
    NEEDS: tuple[Need, ...]

    @staticmethod
    def points(selection: NeededRuns, options: Options) -> Points:
        """Compute what is plotted from the runs that the figure needs."""
        ...

    @staticmethod
    def draw(plotted: Plotted) -> Figure:
        """Draw those points; called inside `style.style`."""
        ...
