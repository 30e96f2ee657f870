"""Mean, median and best of every method on every dataset, by the default statistics or the
paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo_bench.analysis import frames as tabular
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics import best_of_groups, bootstrap
from hpo_bench.analysis.statistics.interval import Interval, Statistics
from hpo_bench.store.runs import Run

GROUP_SOURCE = "random_validation"  # its runs feed Random (3-batched)
GROUPED = ("random_3_batched", "Random (3-batched)")
GROUP_SIZE = 3
# The paper's tables drop runs whose test loss is this high.
PAPER_LOSS_LIMIT = {"fashion_mnist": 1e3, "fashion_mnist_batchnorm": 1e3}


@dataclass(frozen=True)
class Measure:
    """What is compared on a dataset.

    Args:
        column: of final.parquet and curves.parquet; lower is better.
        label: with the scale's factor where it is not 1.
        scale: what the stored value is multiplied by when shown.
    """

    column: str
    label: str
    scale: float


@dataclass(frozen=True)
class Summary:
    """One method on one dataset by one measure, in the measure's shown unit.

    Args:
        mean: bootstrap of the mean of the runs that are ok.
        median: bootstrap of the median; of all runs (failures +inf), or with the paper's statistics
            of those ok.
        best: lowest final value, or with the paper's statistics the lowest value of any whole
            trajectory.
        n_ok, n: runs that are ok, and all.
    """

    dataset: str
    dataset_label: str
    method: str
    label: str
    colour: str
    order: float
    column: str
    measure: str
    mean: Interval
    median: Interval
    best: float
    n_ok: int
    n: int


def measures(runs: Runs) -> tuple[Measure, ...]:
    """Measures of a dataset: its metric, and for classification the test loss (cross-entropy)
    before it.
    """
    dataset = runs[0].config["dataset"]
    scale = float(dataset.get("metric_scale") or 1.0)
    label = str(dataset.get("metric_label", "Test metric"))
    shown = label if scale == 1 or "×" in label else f"{label} × {scale:g}"
    metric = Measure("test_metric", shown, scale)
    if dataset.get("task") == "classification":
        return Measure("test_loss", "Test cross-entropy", 1.0), metric
    return (metric,)


def summarise(runs: Runs, mode: Statistics = "default", seed: int = 0) -> list[Summary]:
    """Sum up comparable runs by dataset, measure and method, in the methods' order.

    ``random_validation`` gives way to Random (3-batched), which is made of it: by the exact
    distribution over all groups of three, or with the paper's statistics by one random grouping.

    Args:
        runs: one configuration per dataset and method, as `load.comparable` selects.
        mode: ``paper`` reads curves, for the best of whole trajectories.
        seed: of the resamples and of the paper's grouping.
    """
    found: list[Summary] = []
    for group in by(runs, "dataset").values():
        methods = by(group, "method").values()
        frames = [
            tabular.finals(method).sort_values("seed", ignore_index=True) for method in methods
        ]
        for measure in measures(group):
            found += [
                _summary(*pair, measure, mode, seed) for pair in zip(methods, frames, strict=True)
            ]
    return found


def by(runs: Runs, attribute: Literal["dataset", "method"]) -> dict[str, list[Run]]:
    """Runs by dataset or by method, in their order."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(getattr(run, attribute), []).append(run)
    return groups


def _summary(
    runs: Runs, frame: pd.DataFrame, measure: Measure, mode: Statistics, seed: int
) -> Summary:
    first = frame.iloc[0]
    name, label = GROUPED if first["method"] == GROUP_SOURCE else (first["method"], first["label"])
    return Summary(
        dataset=first["dataset"],
        dataset_label=first["dataset_label"],
        method=name,
        label=label,
        colour=first["colour"],
        order=first["order"],
        column=measure.column,
        measure=measure.label,
        **(
            _paper(runs, frame, measure, seed)
            if mode == "paper"
            else _default(frame, measure, seed)
        ),
    )


def _default(frame: pd.DataFrame, measure: Measure, seed: int) -> dict[str, Any]:
    """Failure-aware statistics: every run counts in medians, the mean is that of the runs that are
    ok.
    """
    values = tabular.failure_aware(frame, measure.column) * measure.scale
    ok = np.isfinite(values)
    counts = {"n_ok": int(ok.sum()), "n": len(values)}
    if frame["method"].iloc[0] != GROUP_SOURCE:
        mean, median = (
            bootstrap.bootstrap(values[ok], "mean", seed=seed),
            bootstrap.bootstrap(values, "median", seed=seed),
        )
        return {"mean": mean, "median": median, "best": float(values.min()), **counts}
    validation = tabular.failure_aware(frame, "validation_loss")
    possible = (
        best_of_groups.best_of_groups_weights(validation, GROUP_SIZE) > 0
        if len(values) >= GROUP_SIZE
        else ok & False
    )
    mean = best_of_groups.best_of_groups_bootstrap(
        validation, values, GROUP_SIZE, "mean", seed=seed
    )
    median = best_of_groups.best_of_groups_bootstrap(
        validation, values, GROUP_SIZE, "median", seed=seed
    )
    return {
        "mean": mean,
        "median": median,
        "best": float(values[possible].min(initial=np.inf)),
        **counts,
    }


def _paper(runs: Runs, frame: pd.DataFrame, measure: Measure, seed: int) -> dict[str, Any]:
    """The paper's statistics: failed runs are dropped, best is the minimum of the kept runs' whole
    trajectories.
    """
    if frame["method"].iloc[0] == GROUP_SOURCE:
        validation = tabular.failure_aware(frame, "validation_loss")
        frame = frame.iloc[
            best_of_groups.random_group_winners(validation, GROUP_SIZE, seed, paper=True)
        ]
    ok = paper_keeps(frame, measure.column)
    values = frame.loc[ok, measure.column].to_numpy(dtype=float) * measure.scale
    curves = tabular.curves(runs, [measure.column])
    trajectories = curves.loc[curves["seed"].isin(frame.loc[ok, "seed"]), measure.column]
    return {
        "mean": bootstrap.bootstrap(values, "mean", seed=seed),
        "median": bootstrap.bootstrap(values, "median", seed=seed),
        "best": float(trajectories.min()) * measure.scale,
        "n_ok": len(values),
        "n": len(frame),
    }


def paper_keeps(frame: pd.DataFrame, column: str = "test_metric") -> NDArray[np.bool_]:
    """Rows of `load.finals` that the paper's tables keep, (rows,): not diverged, and no loss above
    its limit.

    Args:
        frame: of any datasets and methods.
        column: the measure, which must be finite.
    """
    limit = frame["dataset"].map(PAPER_LOSS_LIMIT).to_numpy(dtype=float, na_value=np.inf)
    loss = frame["test_loss"].to_numpy(dtype=float, na_value=np.nan)
    return np.isfinite(tabular.failure_aware(frame, column)) & ~(loss >= limit)
