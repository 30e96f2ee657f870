"""What the best of k repetitions is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpo_bench.analysis.statistics.bootstrap import _resample_counts
from hpo_bench.analysis.statistics.interval import (
    CONFIDENCE,
    RESAMPLES,
    Array,
    Interval,
    Summary,
    _interval,
    as_failures,
)


def _drawn_from(n: int, size: int) -> Array:
    """P(a group of ``size`` out of n lies within m given members) = C(m, size)/C(n, size) for m = 0
    … n, (n+1,).
    """
    if not 1 <= size <= n:
        raise ValueError(f"size={size}: a group needs between 1 and n={n} runs")
    m = np.arange(n + 1)
    factors = [(m - j).clip(0) / (n - j) for j in range(size)]
    return np.prod(factors, axis=0)


def best_of_groups_weights(validation: ArrayLike, size: int = 3) -> Array:
    """P(run wins) over all groups of ``size`` runs, where the lowest validation value wins its
    group, (n,).

    A failure (NaN or inf) loses to everything finite; runs that tie share their probability evenly.

    Args:
        validation: (n,).

    Raises:
        ValueError: fewer than ``size`` runs.
    """
    array = as_failures(validation)
    drawn = _drawn_from(array.size, size)
    _, place, count = np.unique(array, return_inverse=True, return_counts=True)
    behind = array.size - np.cumsum(count)  # runs worse than each distinct value
    return ((drawn[behind + count] - drawn[behind]) / count)[place]


def _expectation(values: Array, weights: Array) -> float:
    """Σ weight · value, +inf where a failure has weight."""
    possible = weights > 0
    return float(np.sum(values[possible] * weights[possible]))


def best_of_groups_expectation(validation: ArrayLike, test: ArrayLike, size: int = 3) -> float:
    """Expected test value of the run with the lowest validation value of a group, exactly over all
    C(n, size) groups.

    +inf where a whole group can fail; `best_of_groups_weights` has the distribution.

    Args:
        validation, test: (n,) each, failures as NaN or inf.

    Raises:
        ValueError: fewer than ``size`` runs.
    """
    return _expectation(as_failures(test), best_of_groups_weights(validation, size))


def random_group_winners(
    validation: ArrayLike, size: int = 3, seed: int = 0, paper: bool = False
) -> NDArray[np.int64]:
    """Indices of the winners of ⌊n/size⌋ groups of a random permutation of the runs; the last n mod
    size are left out.

    DIFFERENCE: a diverged run (NaN) counts as +inf and loses. In the released code it wins its
    group (argmin returns a NaN's place); ``paper=True`` does so too.

    Args:
        validation: (n,).
    """
    array = np.asarray(validation, dtype=float)
    array = np.where(np.isfinite(array), array, -np.inf) if paper else as_failures(array)
    groups = (
        np.random.default_rng(seed)
        .permutation(array.size)[: array.size // size * size]
        .reshape(-1, size)
    )
    return groups[np.arange(len(groups)), array[groups].argmin(axis=1)]


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
    """Bootstrap over runs of the exact distribution over all groups: its median, or its mean given
    a run did not fail.

    Args:
        validation, test: (n,) each, failures as NaN or inf; NaN for fewer than ``size`` runs.
    """
    metric = as_failures(test)
    if metric.size < size:
        return Interval(np.nan, np.nan, np.nan, np.nan, metric.size, f"none (n < {size})", None)
    order = np.argsort(as_failures(validation), kind="stable")
    counts = _resample_counts(metric.size, resamples, seed)[order]
    drawn = _drawn_from(metric.size, size)
    at_or_behind = np.cumsum(counts[::-1], axis=0)[::-1]
    weights = (
        drawn[at_or_behind] - drawn[at_or_behind - counts]
    )  # (n, resamples), best validation first
    own = best_of_groups_weights(validation, size)[order]
    summary = _weighted_means if statistic == "mean" else _weighted_medians
    value, *distribution = summary(metric[order], np.column_stack([own, weights]))
    return _interval(float(value), np.array(distribution), metric.size, seed, confidence)


def _weighted_means(values: Array, weights: Array) -> Array:
    """Mean of the finite values under each column of weights, NaN-free: inf where no finite value
    has weight.
    """
    ok = np.isfinite(values)
    mass = weights[ok].sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mass > 0, values[ok] @ weights[ok] / mass, np.inf)


def _weighted_medians(values: Array, weights: Array) -> Array:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order], axis=0) >= 0.5 * (1 - 1e-12)
    return values[order][reached.argmax(axis=0)]


def expected_best_of_k(values: ArrayLike, ks: Sequence[int], by: ArrayLike | None = None) -> Array:
    """Expected value of the best of k runs drawn without replacement, exactly (order statistics),
    (len(ks),).

    +inf where k runs can all fail.

    Args:
        values: (n,) failures as NaN or inf.
        ks: budgets, between 1 and n.
        by: (n,) what the best is chosen by, e.g. the validation loss; the values themselves by
            default.

    Raises:
        ValueError: a k that is below 1 or above n.
    """
    choice = values if by is None else by
    return np.array([best_of_groups_expectation(choice, values, k) for k in ks])
