"""What one would take today beside one-pass tuning, and what each of it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from hpo_bench.analysis import incumbent, paper
from hpo_bench.analysis.frames import curves, failure_aware, finals, matrix
from hpo_bench.analysis.selection import Runs, by_dataset, by_method, settings
from hpo_bench.analysis.statistics.interval import Interval, survival_median
from hpo_bench.analysis.statistics.ranks import FEWEST_SETS, probabilities_of_best
from hpo_bench.analysis.summary import measures
from hpo_bench.store.runs import Run

# They tune nothing by hypergradients of the validation loss.
RIVALS = (
    "random_cosine",
    "sgd_calibrated",
    "random_adam",
    "random_adam_cosine",
    "adamw_default",
    "adamw_calibrated",
    "nadamw",
    "schedule_free_sgd",
    "schedule_free_adamw",
    "prodigy",
    "prodigy_cosine",
    "dog",
    "momo",
    "mechanic",
    "hypergradient_adam",
    "ultimate",
)
TUNED = (
    "ours_wd_lr_m",
    "ours_wd_hdlr_m",
    "diff_through_opt",
    "ours_adamw",
    "diff_through_opt_adamw",
    "ours_discounted",
)
METHODS = (paper.PLAIN, *RIVALS, *TUNED)
ADAMW = (
    "random_adam",
    "adamw_default",
    "ours_adamw_wd_lr",
    "ours_adamw",
    "diff_through_opt_adamw",
)
DATASETS = (*paper.UCI, "fashion_mnist")
OFFLINE = ("diabetes", "digits")  # those of the smallest scale
TARGET = "adamw_default"  # what nobody had to tune: its final value is the target of the others

TRAIN = "train"


def data_for_weights(run: Run) -> str:
    """Which rows train the weights of a run: ``train``, or ``train_and_validation``."""
    own = settings(run)
    chosen = own["data_for_weights"]
    return str(own.get("method.data_for_weights", TRAIN) if chosen == "method" else chosen)


def as_meant(run: Run) -> bool:
    """Whether the weights of a run are trained on the rows that its method names."""
    return bool(settings(run)["data_for_weights"] in ("method", None))


def final_medians(
    runs: Runs, read: Callable[[Runs], pd.DataFrame] = finals
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Median final metric, datasets × methods, and how many repetitions it rests on.

    More than half failed is +inf; NaN (and 0) where a method has no run.

    Args:
        runs: one configuration per dataset and method.
    """
    medians: dict[str, dict[str, float]] = {}
    counts: dict[str, dict[str, int]] = {}
    for dataset, of_dataset in by_dataset(runs).items():
        measure = measures(of_dataset)[-1]
        for method, group in by_method(of_dataset).items():
            values = failure_aware(read(group), measure.column) * measure.scale
            medians.setdefault(method, {})[dataset] = float(survival_median(values))
            counts.setdefault(method, {})[dataset] = len(values)
    frame = pd.DataFrame(medians)
    return frame, pd.DataFrame(counts).reindex_like(frame).fillna(0)


def compared_on_all(there: pd.DataFrame) -> pd.DataFrame:
    """The datasets × methods that can be ranked: every method was run on every set of them.

    Of the methods that all sets with at least so many methods have, and the sets that have these,
    those that hold the most runs; of equals the ones with more sets. So a set on which only some
    methods were run does not take the others out of the comparison.

    Args:
        there: datasets × methods, whether there is a run.
    """
    methods_of = there.sum(axis=1)
    best = there.iloc[:0, :0]
    for least in sorted(set(methods_of), reverse=True):
        methods = there.columns[there[methods_of >= least].all(axis=0)]
        block = there.loc[there[methods].all(axis=1), methods]
        if len(block) >= FEWEST_SETS and block.size >= best.size:
            best = block
    return best


def costs_to_target(
    runs: Runs, targets: Mapping[str, float], read: Callable[[Runs], pd.DataFrame] = finals
) -> pd.DataFrame:
    """Gradient-equivalents until the median reaches a target, datasets × methods.

    +inf where it does not at any recorded step, NaN where a run does not tell its costs.

    Args:
        runs: one configuration per dataset and method.
        targets: by dataset, in the shown unit.
    """
    costs: dict[str, dict[str, float]] = {}
    for dataset, of_dataset in by_dataset(runs).items():
        if dataset not in targets:
            continue
        measure = measures(of_dataset)[-1]
        for method, group in by_method(of_dataset).items():
            frame = read(group)
            steps, _, values = matrix(curves(group, [measure.column]), measure.column, frame)
            reached = survival_median(values) * measure.scale <= targets[dataset]
            cost = np.inf
            if reached.any():
                cost = float(steps[int(np.argmax(reached))]) * work_per_update(group, frame)
            costs.setdefault(method, {})[dataset] = cost
    return pd.DataFrame(costs)


def work_per_update(runs: Runs, frame: pd.DataFrame) -> float:
    """Gradient-equivalents of a weight update, tuning included; NaN where runs do not tell."""
    whole = incumbent.of_one_training(runs, frame)
    return whole["gradient_equivalents"] / whole["weight_updates"]


def best_on_a_seed(runs: Runs) -> dict[str, Interval]:
    """How likely each method is the best of all on a random seed of one dataset, by method.

    Only seeds that all methods share count.

    Args:
        runs: one configuration per method, of one dataset.
    """
    columns: dict[str, pd.Series] = {}
    for method, group in by_method(runs).items():
        frame = finals(group)
        columns[method] = pd.Series(failure_aware(frame), index=frame["seed"])
    table = pd.concat(columns, axis=1, join="inner")
    names: Sequence[str] = list(columns)
    return dict(zip(names, probabilities_of_best(table.to_numpy()), strict=True))
