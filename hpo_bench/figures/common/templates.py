"""Whole figures of one kind: a panel of empirical CDFs or evolutions for each dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pandas as pd

from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.summary import Measure, measures
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Points
from hpo_bench.figures.common.needs import NeededRuns
from hpo_bench.store.runs import Run

ChooseMeasure = Callable[[Runs], Measure]
SelectRuns = Callable[[Runs], tuple[list[Run], tuple[str, ...]]]
Panel = tuple[str, str, Runs]  # key, title and runs


class ComputePoints(Protocol):
    """Points of one panel and how many runs are ok, as `points.cdf` gives them."""

    def __call__(
        self, runs: Runs, measure: Measure, options: Options, panel: str, /
    ) -> tuple[pd.DataFrame, common.Counts]: ...


def metric(runs: Runs) -> Measure:
    """The metric of the dataset of some runs, which every dataset has."""
    return measures(runs)[-1]


def loss(runs: Runs) -> Measure:
    """The test loss of classification; the metric elsewhere."""
    return measures(runs)[0]


def by_dataset(selection: NeededRuns, role: str = "main") -> list[Panel]:
    """A panel per dataset: key, title, runs."""
    groups = [(name, selection.runs(role, name)) for name in selection.datasets]
    return [(name, common.label(runs), runs) for name, runs in groups if runs]


def cdf_points(
    panels: Sequence[Panel],
    options: Options,
    choose: ChooseMeasure = metric,
    select: SelectRuns = common.alike,
) -> Points:
    """Points of a figure of empirical CDFs.

    Args:
        choose: the measure that is plotted.
        select: which of a panel's runs stand side by side.
    """
    return _points(panels, options, choose, select, common.cdf, common.cdf_statistics, "xlabel")


def evolution_points(
    panels: Sequence[Panel], options: Options, choose: ChooseMeasure = metric
) -> Points:
    """Points of a figure of evolutions, of methods that were trained for as long."""
    compute, describe = common.evolution, common.evolution_statistics
    return _points(panels, options, choose, common.alike, compute, describe, "ylabel")


def _points(
    panels: Sequence[Panel],
    options: Options,
    choose: ChooseMeasure,
    select: SelectRuns,
    compute: ComputePoints,
    describe: Callable[[Runs, Options], tuple[str, ...]],
    axis: str,
) -> Points:
    """Points of a panel after the other, their measure named on ``axis``."""
    frames: list[pd.DataFrame] = []
    counts: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    kept: list[Run] = []
    notes: list[str] = []
    for key, title, runs in panels:
        chosen, passed_over = select(runs)
        measure = choose(chosen)
        notes += passed_over
        panel_frame, count = compute(chosen, measure, options, key)
        frames.append(panel_frame)
        counts += count
        kept += chosen
        shown.append({"key": key, "title": title, axis: measure.label, **common.budget(chosen)})
    context = {"panels": shown, "methods": common.styles(kept), "counts": counts}
    frame = pd.concat(frames, ignore_index=True)
    return Points(frame, context, kept, describe(kept, options), tuple(notes))
