"""Bootstrap intervals of medians and means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from hpo_bench.analysis.statistics.interval import (
    CONFIDENCE,
    RESAMPLES,
    Array,
    Interval,
    Summary,
    as_failures,
    percentile_interval,
)

STEPS_AT_ONCE = 32  # of a curve's bootstrap: what keeps a thousand resamples in cache


def _median(values: Array, axis: int = -1) -> Array:
    return np.asarray(np.median(values, axis=axis))


def _mean(values: Array, axis: int = -1) -> Array:
    return np.asarray(np.mean(values, axis=axis))


STATISTICS: dict[Summary, Callable[..., Array]] = {"mean": _mean, "median": _median}


def bootstrap(
    values: ArrayLike,
    statistic: Summary = "mean",
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Bootstrap of the mean or median of runs.

    Failures (NaN or inf) count as +inf; drop them first if they must not. The estimate is the mean
    over the resamples of the resample's statistic and the standard deviation theirs, as in the
    paper's tables; see `percentile_interval` for what happens where a resample is infinite.

    Args:
        values: (n,) one value a run; n = 0 gives NaN, n = 1 the value without SD and interval.
    """
    array = as_failures(values)
    function = STATISTICS[statistic]
    if array.size < 2:
        only = float(array[0]) if array.size else np.nan
        return Interval(only, np.nan, np.nan, np.nan, array.size, "none (n < 2)", None)
    with np.errstate(invalid="ignore"):  # inf - inf in SciPy's own interval, which is not used
        distribution = scipy.stats.bootstrap(
            (array,),
            function,
            n_resamples=resamples,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    of_runs = float(function(array))
    return percentile_interval(of_runs, distribution, array.size, seed, confidence)


def medians_of(
    values: ArrayLike,
    size: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Where the median of ``size`` runs lies, drawn from these; failures as +inf.

    The estimate is the median of all of them. It says whether somebody's median of ``size`` runs
    could be ours."""
    array = as_failures(values)
    if array.size < 2:
        only = float(array[0]) if array.size else np.nan
        return Interval(only, np.nan, np.nan, np.nan, array.size, "none (n < 2)", None)
    draws = np.random.default_rng(seed).choice(array, (resamples, size))
    distribution = np.median(draws, axis=-1)
    median = float(np.median(array))
    method = f"medians of {size} drawn runs,"
    interval = percentile_interval(median, distribution, array.size, seed, confidence, method)
    return replace(interval, estimate=median)


def resample_counts(n: int, resamples: int, seed: int) -> NDArray[Any]:
    """How often each run is in each resample, (n, resamples)."""
    indices = np.random.default_rng(seed).integers(n, size=(resamples, n), dtype=np.int64)
    offsets = np.arange(resamples)[:, None] * n
    counts = np.bincount((indices + offsets).ravel(), minlength=resamples * n).reshape(resamples, n)
    narrow = np.int16 if n < 2**15 else np.int32  # the median of a curve is bound by memory traffic
    return np.ascontiguousarray(counts.T, dtype=narrow)


def _medians_of_counts(matrix: Array, counts: NDArray[Any]) -> Array:
    """Median of every resample at every step, (resamples, steps).

    The middle order statistics are found by counting, so that no resample is ever built.

    Args:
        matrix: (n, steps), NaN = not there; a few steps at a time keep the work in cache.
        counts: (n, resamples).
    """
    order = np.argsort(matrix, axis=0, kind="stable")  # NaN last
    present = ~np.isnan(matrix)
    total = np.stack([counts[runs].sum(axis=0, dtype=counts.dtype) for runs in present.T])
    lower, upper = (total - 1) // 2, total // 2
    reached, first, second = np.zeros_like(total), np.zeros_like(total), np.zeros_like(total)
    for runs in order:  # of each step the run with the next larger value
        reached += counts[runs]
        first += reached <= lower
        second += reached <= upper
    values = np.take_along_axis(matrix, order, axis=0).T
    last = len(matrix) - 1
    below = np.take_along_axis(values, np.minimum(first, last), axis=1)
    above = np.take_along_axis(values, np.minimum(second, last), axis=1)
    return np.where(total > 0, (below + above) / 2, np.nan).T


def _means_of_counts(matrix: Array, counts: NDArray[Any]) -> Array:
    """Mean of every resample at every step, (resamples, steps).

    What is not there (NaN) is left out, and +inf stays +inf.
    """
    weights = counts.T.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = weights @ np.where(np.isfinite(matrix), matrix, 0.0) / (weights @ ~np.isnan(matrix))
    return np.where(weights @ (matrix == np.inf) > 0, np.inf, means)


def bootstrap_curve(
    matrix: ArrayLike, statistic: Summary = "median", resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Array, Array]:
    """Bootstrap of the mean or median of runs at every step.

    All steps have the same resamples of runs. It takes O(runs · steps · resamples) time, and
    O(runs · resamples) memory beside the matrix and the result.

    Args:
        matrix: (runs, steps); +inf = failed at that step, NaN = no value there (a shorter run):
            left out.

    Returns:
        estimate and standard deviation, (steps,) each, as in `bootstrap`; the standard deviation
        is NaN where there are fewer than two values.
    """
    values = np.asarray(matrix, dtype=float)
    runs, steps = values.shape
    estimate, deviation = np.full(steps, np.nan), np.full(steps, np.nan)
    if runs == 0:
        return estimate, deviation
    counts = resample_counts(runs, resamples, seed)
    resample = _means_of_counts if statistic == "mean" else _medians_of_counts
    for start in range(0, steps, STEPS_AT_ONCE):
        part = values[:, start : start + STEPS_AT_ONCE]
        summary = _curve_summary(part, resample(part, counts), statistic)
        estimate[start : start + STEPS_AT_ONCE], deviation[start : start + STEPS_AT_ONCE] = summary
    return estimate, deviation


def _curve_summary(part: Array, resampled: Array, statistic: Summary) -> tuple[Array, Array]:
    """Estimate and standard deviation of each step, (steps,) each.

    They are those of `percentile_interval`, resamples without any value left out.

    Args:
        part: values of the runs, (runs, steps).
        resampled: the statistic of each resample, (resamples, steps).
    """
    present = ~np.isnan(resampled)
    count = present.sum(axis=0)
    filled = np.where(present, resampled, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=0) / count
        squares = np.where(present, resampled - mean, 0.0) ** 2
        deviation = np.sqrt(squares.sum(axis=0) / (count - 1))

    infinite = np.isinf(resampled).any(axis=0)
    estimate = np.where(infinite, _of_runs(part, statistic), mean)
    deviation = np.where(infinite, np.inf, deviation)
    too_few = (~np.isnan(part)).sum(axis=0) < 2
    return estimate, np.where(too_few, np.nan, deviation)


def _of_runs(part: Array, statistic: Summary) -> Array:
    """The statistic of what is there at each step, (steps,); NaN where nothing is."""
    of_steps = np.full(part.shape[1], np.nan)
    for step, column in enumerate(part.T):
        values = column[~np.isnan(column)]
        if values.size:
            of_steps[step] = STATISTICS[statistic](values)
    return of_steps


def quantile_band(matrix: ArrayLike, low: float = 0.25, high: float = 0.75) -> tuple[Array, Array]:
    """Two quantiles of the runs at every step, (steps,) each.

    They are order statistics of the values that are there.

    Args:
        matrix: (runs, steps); +inf = failed, NaN = no value there.
    """
    ordered = np.sort(np.asarray(matrix, dtype=float), axis=0)  # NaN last
    count = (~np.isnan(ordered)).sum(axis=0)
    if ordered.shape[0] == 0:
        return np.full(ordered.shape[1], np.nan), np.full(ordered.shape[1], np.nan)

    def at(q: float) -> Array:
        place = np.clip(np.ceil(q * count).astype(int) - 1, 0, None)  # inverse of the empirical CDF
        values: Array = np.take_along_axis(ordered, place[None, :], axis=0)[0]
        return values

    return at(low), at(high)
