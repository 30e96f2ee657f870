"""Mean, median and best of every method on every dataset.

They are made by the default statistics, in which failures count, or by the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo_bench.analysis import paper
from hpo_bench.analysis.frames import curves, failure_aware, finals
from hpo_bench.analysis.paper import GROUP_SIZE, GROUP_SOURCE
from hpo_bench.analysis.selection import Runs, by_dataset, by_method
from hpo_bench.analysis.statistics.best_of_groups import (
    best_of_groups_bootstrap,
    best_of_groups_weights,
    random_group_winners,
)
from hpo_bench.analysis.statistics.bootstrap import bootstrap
from hpo_bench.analysis.statistics.interval import Interval, Statistics


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
    """Measures of a dataset: its metric, for classification after the test cross-entropy."""
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
        runs: one configuration per dataset and method, as `selection.comparable` selects.
        mode: ``paper`` reads curves, for the best of whole trajectories.
        seed: of the resamples and of the paper's grouping.
    """
    summaries: list[Summary] = []
    for of_dataset in by_dataset(runs).values():
        methods = list(by_method(of_dataset).values())
        frames = [finals(method).sort_values("seed", ignore_index=True) for method in methods]
        for measure in measures(of_dataset):
            for method, frame in zip(methods, frames, strict=True):
                summaries.append(_summary(method, frame, measure, mode, seed))
    return summaries


def _summary(
    runs: Runs, frame: pd.DataFrame, measure: Measure, mode: Statistics, seed: int
) -> Summary:
    first = frame.iloc[0]
    if mode == "paper":
        numbers = _paper(runs, frame, measure, seed)
    elif first["method"] == GROUP_SOURCE:
        numbers = _default_of_groups(frame, measure, seed)
    else:
        numbers = _default(frame, measure, seed)
    return Summary(
        dataset=first["dataset"],
        dataset_label=first["dataset_label"],
        method=paper.shown_name(first["method"]),
        label=paper.shown_label(first["method"], first["label"]),
        colour=first["colour"],
        order=first["order"],
        column=measure.column,
        measure=measure.label,
        **numbers,
    )


def _default(frame: pd.DataFrame, measure: Measure, seed: int) -> dict[str, Any]:
    """Failure-aware statistics: every run counts in the median, those that are ok in the mean."""
    values = failure_aware(frame, measure.column) * measure.scale
    ok = np.isfinite(values)
    return {
        "mean": bootstrap(values[ok], "mean", seed=seed),
        "median": bootstrap(values, "median", seed=seed),
        "best": float(values.min()),
        "n_ok": int(ok.sum()),
        "n": len(values),
    }


def _default_of_groups(frame: pd.DataFrame, measure: Measure, seed: int) -> dict[str, Any]:
    """The same of Random (3-batched), exactly over all groups of three runs."""
    values = failure_aware(frame, measure.column) * measure.scale
    validation = failure_aware(frame, "validation_loss")

    # The best value is that of a run that can win a group: one with a bad validation loss cannot.
    can_win = np.zeros(len(values), bool)
    if len(values) >= GROUP_SIZE:
        can_win = best_of_groups_weights(validation, GROUP_SIZE) > 0
    return {
        "mean": best_of_groups_bootstrap(validation, values, GROUP_SIZE, "mean", seed=seed),
        "median": best_of_groups_bootstrap(validation, values, GROUP_SIZE, "median", seed=seed),
        "best": float(values[can_win].min(initial=np.inf)),
        "n_ok": int(np.isfinite(values).sum()),
        "n": len(values),
    }


def _paper(runs: Runs, frame: pd.DataFrame, measure: Measure, seed: int) -> dict[str, Any]:
    """The paper's statistics: failed runs are dropped.

    Best is the minimum of the whole trajectories of the runs that are kept.
    """
    kept = paper_sample(runs, frame, measure.column, seed)
    values = kept.finals * measure.scale
    return {
        "mean": bootstrap(values, "mean", seed=seed),
        "median": bootstrap(values, "median", seed=seed),
        "best": float(pd.Series(kept.lowest).min()) * measure.scale,
        "n_ok": len(values),
        "n": kept.repetitions,
    }


@dataclass(frozen=True)
class Sample:
    """What the paper's statistics are made of, of one method on one dataset, unscaled.

    Args:
        finals: final values of the repetitions that are kept, (n,).
        lowest: the lowest values of their recorded trajectories, (n,); NaN where none is recorded.
        repetitions: how many there are, those that are dropped too; of Random (3-batched) how many
            groups.
        recorded: steps of a trajectory.
    """

    finals: NDArray[np.float64]
    lowest: NDArray[np.float64]
    repetitions: int
    recorded: int


def paper_sample(runs: Runs, frame: pd.DataFrame, column: str, seed: int) -> Sample:
    """The values that the paper's statistics keep.

    Args:
        runs: one method on one dataset; of `paper.GROUP_SOURCE` Random (3-batched) is made.
        frame: their `frames.finals`, by seed.
        column: the measure.
        seed: of the paper's random grouping.
    """
    if frame["method"].iloc[0] == GROUP_SOURCE:
        validation = failure_aware(frame, "validation_loss")
        frame = frame.iloc[random_group_winners(validation, GROUP_SIZE, seed, paper=True)]
    kept = frame[paper_keeps(frame, column)]
    trajectories = curves(runs, [column]).groupby("seed")[column]
    steps = trajectories.size()
    return Sample(
        finals=kept[column].to_numpy(dtype=float),
        lowest=trajectories.min().reindex(kept["seed"]).to_numpy(dtype=float),
        repetitions=len(frame),
        recorded=int(steps.max()) if len(steps) else 0,
    )


def paper_keeps(frame: pd.DataFrame, column: str = "test_metric") -> NDArray[np.bool_]:
    """Rows of `frames.finals` that the paper's tables keep, (rows,).

    They have not diverged, and their test loss is below the limit of their dataset.

    Args:
        frame: of any datasets and methods.
        column: the measure, which must be finite.
    """
    limit = frame["dataset"].map(paper.LOSS_LIMITS).to_numpy(dtype=float, na_value=np.inf)
    loss = frame["test_loss"].to_numpy(dtype=float, na_value=np.nan)
    return np.isfinite(failure_aware(frame, column)) & ~(loss >= limit)
