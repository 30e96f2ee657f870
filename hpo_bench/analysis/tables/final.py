"""Mean, median and best of the final values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hpo_bench.analysis.budget import of_each
from hpo_bench.analysis.rounding import Rounded, rounded, within_error_of_best
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics.interval import Interval, Statistics
from hpo_bench.analysis.statistics.interval import label as statistics_label
from hpo_bench.analysis.summary import Summary, summarise
from hpo_bench.analysis.tables.cells import Cells, Parts, frames, interval_data, ordered


def make(runs: Runs, mode: Statistics, seed: int) -> Parts:
    """A row for each method, a column for each dataset, measure and statistic."""
    summaries = summarise(runs, mode, seed)
    by_group: dict[str, list[Summary]] = {}
    for summary in summaries:
        group = f"{summary.dataset_label}: {summary.measure}"
        by_group.setdefault(group, []).append(summary)

    cells: Cells = {}
    for group, rows in by_group.items():
        for statistic, numbers in _shown(rows).items():
            column = cells.setdefault((group, statistic), {})
            for row, number, best in zip(rows, numbers, within_error_of_best(numbers), strict=True):
                column[row.label] = (number.text, best)
        cells[group, "n_ok/n"] = {row.label: (f"{row.n_ok}/{row.n}", False) for row in rows}

    order = {summary.label: summary.order for summary in summaries}
    body, bold = frames(cells, ordered(order), ["Method"])
    n_ok = sum(row.n_ok for row in summaries)
    n = sum(row.n for row in summaries)
    label = statistics_label(mode, n_ok, n, seed, "mean ± SD over the resamples")
    if mode == "default":
        label += "; means are of the runs that are ok"
    labels = {run.dataset: run.dataset_label for run in runs}
    for dataset, budget in of_each(runs).items():
        label += f"; {labels[dataset]}: {budget}"
    return body, bold, _summary_data(summaries, mode, seed), label


def _shown(rows: Sequence[Summary]) -> dict[str, list[Rounded]]:
    """The numbers of some methods by statistic, in the methods' order."""
    shown: dict[str, list[Rounded]] = {"Mean": [], "Median": [], "Best": []}
    for row in rows:
        shown["Mean"].append(rounded(row.mean.estimate, row.mean.standard_deviation))
        shown["Median"].append(rounded(row.median.estimate, row.median.standard_deviation))
        shown["Best"].append(rounded(row.best))
    return shown


def _summary_data(summaries: Sequence[Summary], mode: Statistics, seed: int) -> pd.DataFrame:
    """A row per dataset, measure, method and statistic."""
    keys = ("dataset", "column", "measure", "method", "label")
    rows = []
    for summary in summaries:
        identity = {key: getattr(summary, key) for key in keys}
        counts = {"n_ok": summary.n_ok, "n": summary.n, "statistics": mode, "seed": seed}
        intervals = {
            "mean": summary.mean,
            "median": summary.median,
            "best": Interval(summary.best, np.nan, np.nan, np.nan, summary.n, "none", None),
        }
        for statistic, interval in intervals.items():
            rows.append({**identity, "statistic": statistic, **interval_data(interval), **counts})
    return pd.DataFrame(rows)
