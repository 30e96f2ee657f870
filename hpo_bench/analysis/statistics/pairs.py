"""Two methods compared: on shared seeds, or as two samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from hpo_bench.analysis.statistics.distributions import wilson
from hpo_bench.analysis.statistics.interval import (
    CONFIDENCE,
    RESAMPLES,
    Array,
    Interval,
    as_failures,
    percentile_interval,
)


@dataclass(frozen=True)
class Comparison:
    """Method A against method B on shared seeds; lower is better.

    Args:
        n: shared seeds.
        probability: P(A < B), ties (both diverged, too) counting half, with a Wilson interval whose
            lower bound takes every tie as a loss of A and whose upper bound as a win.
        difference: median of A minus median of B, with a paired bootstrap interval.
        p_value: two-sided Wilcoxon signed-rank test (zeros split evenly); 1 where all pairs tie,
            NaN without pairs.
    """

    n: int
    probability: Interval
    difference: Interval
    p_value: float


def paired_comparison(
    a: ArrayLike,
    b: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare two methods run by run on shared seeds.

    Failures (NaN or inf) are +inf, and lower is better.

    Args:
        a, b: (n,) each, entry j of both from the same seed.

    Raises:
        ValueError: unequal lengths.
    """
    left, right = as_failures(a), as_failures(b)
    if left.shape != right.shape:
        raise ValueError(f"paired comparison of {left.size} with {right.size} runs")
    n = left.size
    wins, ties = int((left < right).sum()), int((left == right).sum())
    probability = Interval(
        estimate=(wins + ties / 2) / n if n else np.nan,
        standard_deviation=np.nan,
        low=wilson(wins, n, confidence).low,
        high=wilson(wins + ties, n, confidence).high,
        n=n,
        method=wilson(0, n, confidence).method,
        seed=None,
    )
    difference = bootstrap_two(left, right, "difference", True, resamples, seed, confidence)
    return Comparison(n, probability, difference, _wilcoxon(left, right))


def _minus(a: Array, b: Array) -> Array:
    """a − b, where two failures differ by nothing."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)


def _difference_of_medians(a: Array, b: Array, axis: int = -1) -> Array:
    return _minus(np.median(a, axis=axis), np.median(b, axis=axis))


def _ratio(above: Array, below: Array) -> Array:
    """above / below, where equals (two failures, too) have the ratio 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(above == below, 1.0, above / below)


def _ratio_of_medians(a: Array, b: Array, axis: int = -1) -> Array:
    return _ratio(np.median(a, axis=axis), np.median(b, axis=axis))


def _ratio_of_spreads(a: Array, b: Array, axis: int = -1) -> Array:
    def spread(values: Array) -> Array:
        low, high = np.quantile(values, (0.25, 0.75), axis=axis, method="inverted_cdf")
        return _minus(high, low)

    return _ratio(spread(a), spread(b))


OfTwo = Literal["difference", "ratio", "spread"]
STATISTICS_OF_TWO: dict[OfTwo, Callable[..., Array]] = {
    "difference": _difference_of_medians,
    "ratio": _ratio_of_medians,
    "spread": _ratio_of_spreads,
}


def bootstrap_two(
    a: ArrayLike,
    b: ArrayLike,
    statistic: OfTwo = "difference",
    paired: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Bootstrap of the difference or ratio of two medians, or of the ratio of two spreads.

    A spread is an interquartile range. Failures are +inf; two infinite medians, or ranges, are
    equal. The estimate is that of the runs themselves.

    Args:
        a, b: (n,) each; with ``paired`` entry j of both from the same seed and resampled together.
    """
    left, right = as_failures(a), as_failures(b)
    function, n = STATISTICS_OF_TWO[statistic], min(left.size, right.size)
    if n < 2:
        only = float(function(left, right)) if n else np.nan
        return Interval(only, np.nan, np.nan, np.nan, n, "none (n < 2)", None)
    with np.errstate(invalid="ignore"):
        distribution = scipy.stats.bootstrap(
            (left, right),
            function,
            n_resamples=resamples,
            paired=paired,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    method = "paired bootstrap percentile" if paired else "bootstrap percentile"
    of_runs = float(function(left, right))
    interval = percentile_interval(of_runs, distribution, n, seed, confidence, method)
    return replace(interval, estimate=of_runs)


def _wilcoxon(a: Array, b: Array) -> float:
    """Two-sided p-value of the signed-rank test; 1 where all pairs tie, NaN without pairs."""
    difference = _minus(a, b)
    if difference.size == 0:
        return np.nan
    if not difference.any():
        return 1.0
    return float(scipy.stats.wilcoxon(difference, zero_method="zsplit").pvalue)


def holm(p_values: ArrayLike) -> Array:
    """Holm's step-down adjustment of p-values for multiple tests, in their order.

    NaN stays NaN and is no test.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * (order.size - np.arange(order.size))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
