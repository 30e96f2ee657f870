"""What the best of a group of repetitions is worth, chosen by its validation loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpo_bench.analysis.statistics.bootstrap import resample_counts
from hpo_bench.analysis.statistics.interval import (
    CONFIDENCE,
    RESAMPLES,
    Array,
    Interval,
    Summary,
    as_failures,
    percentile_interval,
)


def _drawn_from(n: int, size: int) -> Array:
    """P(a group of ``size`` out of n lies within m given members), m = 0 … n, (n+1,).

    That is C(m, size)/C(n, size), as a product that does not overflow.

    Raises:
        ValueError: fewer than ``size`` runs.
    """
    if not 1 <= size <= n:
        raise ValueError(f"size={size}: a group needs between 1 and n={n} runs")
    m = np.arange(n + 1)
    factors = [(m - j).clip(0) / (n - j) for j in range(size)]
    return np.asarray(np.prod(factors, axis=0))


def best_of_groups_weights(validation: ArrayLike, size: int = 3) -> Array:
    """P(run wins) over all groups of ``size`` runs, (n,).

    The lowest validation value wins its group. A failure (NaN or inf) loses to everything finite;
    runs that tie share their probability evenly.

    Args:
        validation: (n,).

    Raises:
        ValueError: fewer than ``size`` runs.
    """
    array = as_failures(validation)
    drawn = _drawn_from(array.size, size)
    _, place, count = np.unique(array, return_inverse=True, return_counts=True)
    behind = array.size - np.cumsum(count)  # runs worse than each distinct value
    chances: Array = (drawn[behind + count] - drawn[behind]) / count
    return chances[place]


def random_group_winners(
    validation: ArrayLike, size: int = 3, seed: int = 0, paper: bool = False
) -> NDArray[np.int64]:
    """Indices of the winners of ⌊n/size⌋ groups of a random permutation of the runs.

    The last n mod size runs of the permutation are left out.

    DIFFERENCE: a diverged run (NaN) counts as +inf and loses. In the released code it wins its
    group (argmin returns a NaN's place); ``paper=True`` does so too.

    Args:
        validation: (n,).
    """
    array = np.asarray(validation, dtype=float)
    array = np.where(np.isfinite(array), array, -np.inf) if paper else as_failures(array)
    order = np.random.default_rng(seed).permutation(array.size)
    groups = order[: array.size // size * size].reshape(-1, size)
    winners: NDArray[np.int64] = groups[np.arange(len(groups)), array[groups].argmin(axis=1)]
    return winners


def best_of_groups_random(
    validation: ArrayLike, test: ArrayLike, size: int = 3, seed: int = 0, paper: bool = False
) -> Array:
    """Test values of the winners of `random_group_winners`, (⌊n/size⌋,).

    Args:
        validation, test: (n,) each.
        paper: a failed run wins its group and gives NaN, else failures are +inf.
    """
    winners = random_group_winners(validation, size, seed, paper)
    values = np.asarray(test, dtype=float)[winners]
    return values if paper else as_failures(values)


def best_of_groups_bootstrap(
    validation: ArrayLike,
    test: ArrayLike,
    size: int = 3,
    statistic: Summary = "median",
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Bootstrap over runs of the exact distribution over all groups.

    The statistic is the median of that distribution, or its mean given a run did not fail.

    Args:
        validation, test: (n,) each, failures as NaN or inf; NaN for fewer than ``size`` runs.
    """
    metric = as_failures(test)
    if metric.size < size:
        return Interval(np.nan, np.nan, np.nan, np.nan, metric.size, f"none (n < {size})", None)
    order = np.argsort(as_failures(validation), kind="stable")
    counts = resample_counts(metric.size, resamples, seed)[order]
    drawn = _drawn_from(metric.size, size)
    at_or_behind = np.cumsum(counts[::-1], axis=0)[::-1]
    # Chances to win, (n, resamples), best validation first; those of the runs themselves before.
    resampled = drawn[at_or_behind] - drawn[at_or_behind - counts]
    of_runs = best_of_groups_weights(validation, size)[order]
    weights = np.column_stack([of_runs, resampled])
    summary = _weighted_means if statistic == "mean" else _weighted_medians
    value, *distribution = summary(metric[order], weights)
    return percentile_interval(float(value), np.array(distribution), metric.size, seed, confidence)


def _weighted_means(values: Array, weights: Array) -> Array:
    """Mean of the finite values under each column of weights; inf where none of them has weight.

    Args:
        values: (n,).
        weights: (n, columns).
    """
    ok = np.isfinite(values)
    mass = weights[ok].sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mass > 0, values[ok] @ weights[ok] / mass, np.inf)


def _weighted_medians(values: Array, weights: Array) -> Array:
    """Median of the values under each column of weights, as `_weighted_means`."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order], axis=0) >= 0.5 * (1 - 1e-12)
    medians: Array = values[order][reached.argmax(axis=0)]
    return medians
