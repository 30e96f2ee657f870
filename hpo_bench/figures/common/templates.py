"""Whole figures of one kind: a panel of empirical CDFs or evolutions for each dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.summary import Measure, measures
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Points
from hpo_bench.figures.common.needs import NeededRuns
from hpo_bench.store.runs import Run

Choose = Callable[[Runs], Measure]
Select = Callable[[Runs], tuple[list[Run], tuple[str, ...]]]
Panel = tuple[str, str, Runs]


def metric(runs: Runs) -> Measure:
    """The dataset's metric."""
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
    choose: Choose = metric,
    select: Select = common.alike,
) -> Points:
    """Points of a figure of empirical CDFs.

    Args:
        choose: the measure that is plotted.
        select: which of a panel's runs stand side by side.
    """
    return _points(panels, options, choose, select, common.cdf, common.cdf_statistics, "xlabel")


def evolution_points(panels: Sequence[Panel], options: Options, choose: Choose = metric) -> Points:
    """Points of a figure of evolutions."""
    return _points(
        panels,
        options,
        choose,
        common.alike,
        common.evolution,
        common.evolution_statistics,
        "ylabel",
    )


def _points(
    panels: Sequence[Panel],
    options: Options,
    choose: Choose,
    select: Select,
    compute: Any,
    describe: Any,
    axis: str,
) -> Points:
    frames: list[pd.DataFrame] = []
    counts: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    kept: list[Run] = []
    notes: list[str] = []
    for key, title, runs in panels:
        chosen, passed_over = select(runs)
        measure = choose(chosen)
        notes += passed_over
        frame, count = compute(chosen, measure, options, key)
        frames.append(frame)
        counts += count
        kept += chosen
        shown.append({"key": key, "title": title, axis: measure.label})
    context = {"panels": shown, "methods": common.styles(kept), "counts": counts}
    return Points(
        pd.concat(frames, ignore_index=True), context, kept, describe(kept, options), tuple(notes)
    )
