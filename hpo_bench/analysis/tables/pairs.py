"""Two methods at a time, compared on the seeds that they share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from hpo_bench.analysis.compare import bounds
from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.rounding import rounded
from hpo_bench.analysis.selection import Runs, by_dataset, by_method
from hpo_bench.analysis.statistics.interval import RESAMPLES, Statistics
from hpo_bench.analysis.statistics.pairs import Comparison, holm, paired_comparison
from hpo_bench.analysis.summary import measures, paper_keeps
from hpo_bench.analysis.tables.cells import Cells, Parts, frames, interval_data
from hpo_bench.errors import UserError


@dataclass(frozen=True)
class Pair:
    """Two methods on one dataset by its metric, compared on shared seeds.

    Args:
        methods, labels: of the two.
        holm: the p-value, adjusted within the dataset.
    """

    dataset: str
    dataset_label: str
    methods: tuple[str, str]
    labels: tuple[str, str]
    comparison: Comparison
    holm: float


def pairs(runs: Runs, mode: Statistics = "default", seed: int = 0) -> list[Pair]:
    """Compare all pairs of methods of each dataset on shared seeds.

    Differences are in the metric's shown unit.

    Args:
        runs: one configuration per dataset and method.
        mode: with ``paper`` only seeds that both keep.
    """
    compared = []
    for of_dataset in by_dataset(runs).values():
        scale = measures(of_dataset)[-1].scale
        methods = by_method(of_dataset).values()
        frames = [_by_seed(finals(method), mode, scale) for method in methods]
        couples = list(combinations(frames, 2))
        comparisons = [_compare(a, b, seed) for a, b in couples]
        adjusted = holm([comparison.p_value for comparison in comparisons])
        for (a, b), comparison, p in zip(couples, comparisons, adjusted, strict=True):
            of_a, of_b = a.iloc[0], b.iloc[0]
            compared.append(
                Pair(
                    dataset=of_a["dataset"],
                    dataset_label=of_a["dataset_label"],
                    methods=(of_a["method"], of_b["method"]),
                    labels=(of_a["label"], of_b["label"]),
                    comparison=comparison,
                    holm=float(p),
                )
            )
    return compared


def _by_seed(frame: pd.DataFrame, mode: Statistics, scale: float) -> pd.DataFrame:
    """Final values by seed with a column ``value``: NaN where the statistics drop it."""
    counts = paper_keeps(frame) if mode == "paper" else np.ones(len(frame), bool)
    values = np.where(counts, failure_aware(frame) * scale, np.nan)
    return frame.assign(value=values).set_index("seed")


def _compare(a: pd.DataFrame, b: pd.DataFrame, seed: int) -> Comparison:
    shared = pd.concat({"a": a["value"], "b": b["value"]}, axis=1, join="inner").dropna()
    return paired_comparison(shared["a"], shared["b"], seed=seed)


def make(runs: Runs, mode: Statistics, seed: int) -> Parts:
    """A row for each pair of methods on a dataset.

    Raises:
        UserError: no dataset has two methods.
    """
    compared = pairs(runs, mode, seed)
    if not compared:
        raise UserError("table pairs: needs runs of two methods on one dataset")
    cells: Cells = {}
    rows = []
    for pair in compared:
        row, result = (pair.dataset_label, *pair.labels), pair.comparison
        texts = {
            "n": str(result.n),
            "P(A better)": bounds(result.probability),
            "Median A − median B": bounds(result.difference),
            "p (Wilcoxon)": _p(result.p_value),
            "p (Holm)": _p(pair.holm),
        }
        rows.append(row)
        for column, text in texts.items():
            significant = column == "p (Holm)" and pair.holm < 0.05
            cells.setdefault(column, {})[row] = (text, significant)
    body, bold = frames(cells, rows, ["Dataset", "A", "B"])
    data = pd.DataFrame([_pair_data(pair, mode, seed) for pair in compared])
    label = (
        f"statistics: {mode}; pairs by shared seeds, lower is better, ties count half; "
        f"brackets: 95 % intervals (Wilson; paired bootstrap, {RESAMPLES} resamples, seed {seed}); "
        "Holm within a dataset; bold: p < 0.05"
    )
    return body, bold, data, label


def _pair_data(pair: Pair, mode: Statistics, seed: int) -> dict[str, Any]:
    result = pair.comparison
    return {
        "dataset": pair.dataset,
        "method_a": pair.methods[0],
        "method_b": pair.methods[1],
        "n": result.n,
        **interval_data(result.probability, "probability_"),
        **interval_data(result.difference, "difference_"),
        "p_wilcoxon": result.p_value,
        "p_holm": pair.holm,
        "statistics": mode,
        "seed": seed,
    }


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else rounded(value).text
