"""How the values of runs are distributed, and shares of runs with their intervals."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from hpo_bench.analysis.statistics.interval import CONFIDENCE, Array, Interval, as_failures


def ecdf(values: ArrayLike, confidence: float = CONFIDENCE) -> tuple[Array, Array, Array, Array]:
    """Empirical CDF with a pointwise confidence band.

    Failures (NaN or inf) are right-censored: it ends below 1.

    Args:
        values: (n,) one value a run.

    Returns:
        sorted distinct finite values x, P(value ≤ x), lower and upper bound (SciPy's log-log
        Greenwood interval; where that is undefined, at P = 1, Wilson's); all empty where every run
        failed.
    """
    array = as_failures(values)
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        return np.empty(0), np.empty(0), np.empty(0), np.empty(0)
    censored = np.full(array.size - finite.size, finite.max())
    cdf = scipy.stats.ecdf(scipy.stats.CensoredData(uncensored=finite, right=censored)).cdf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # undefined at P = 1
        greenwood = cdf.confidence_interval(confidence, method="log-log")

    x = np.unique(finite)
    place = np.searchsorted(cdf.quantiles, x)
    low = np.array(greenwood.low.probabilities[place])
    high = np.array(greenwood.high.probabilities[place])
    counts = np.searchsorted(np.sort(finite), x, side="right")
    for at in np.flatnonzero(np.isnan(low) | np.isnan(high)):
        interval = wilson(int(counts[at]), array.size, confidence)
        low[at], high[at] = interval.low, interval.high
    return cdf.quantiles[place], cdf.probabilities[place], low, high


def weighted_ecdf(values: ArrayLike, weights: ArrayLike) -> tuple[Array, Array]:
    """Empirical CDF of weighted values; failures keep their weight at +inf.

    Args:
        values: (n,) one value a run.
        weights: (n,) probabilities, as `best_of_groups_weights` gives; they sum to 1.

    Returns:
        sorted distinct finite values x, P(value ≤ x).
    """
    array, weight = as_failures(values), np.asarray(weights, dtype=float)
    x, place = np.unique(array, return_inverse=True)
    p = np.cumsum(np.bincount(place, weights=weight, minlength=x.size), dtype=float)
    return x[np.isfinite(x)], p[np.isfinite(x)]


def weighted_quantile(values: ArrayLike, weights: ArrayLike, q: float = 0.5) -> float:
    """Smallest value at or below which a share of ``q`` of the weight lies.

    It is +inf where that is a failure.

    Args:
        values, weights: (n,) each, as in `weighted_ecdf`.
    """
    x, p = weighted_ecdf(values, weights)
    place = int(np.searchsorted(p, q * (1 - 1e-12)))
    return float(x[place]) if place < x.size else np.inf


def wilson(k: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson score interval of a rate k/n.

    The estimate is k/n and the standard deviation the binomial one; all are NaN for n = 0.
    """
    method = f"Wilson {100 * confidence:g} %"
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, np.nan, 0, method, None)
    bounds = scipy.stats.binomtest(int(k), int(n)).proportion_ci(
        confidence_level=confidence, method="wilson"
    )
    rate = k / n
    return Interval(
        rate,
        float(np.sqrt(rate * (1 - rate) / n)),
        float(bounds.low),
        float(bounds.high),
        n,
        method,
        None,
    )
