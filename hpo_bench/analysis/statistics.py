"""Statistics of runs as functions of arrays (no pandas): a repetition that diverged counts as +inf.

Every random function takes a seed and says in its result which method, seed and n it stands for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistics = Literal["default", "paper"]
Summary = Literal["mean", "median"]
MODES: tuple[Statistics, ...] = ("default", "paper")
RESAMPLES = 1000
CONFIDENCE = 0.95
STEPS_AT_ONCE = 32  # of a curve's bootstrap: what keeps a thousand resamples in cache


@dataclass(frozen=True)
class Interval:
    """An estimate with its uncertainty.

    Args:
        estimate: see the function that made it.
        standard_deviation: standard error of the estimate; inf where a resample is infinite, NaN where n < 2.
        low, high: bounds of the confidence interval; NaN where there is none.
        n: how many values it rests on.
        method: kind of interval.
        seed: of the resamples, None where nothing is random.
    """

    estimate: float
    standard_deviation: float
    low: float
    high: float
    n: int
    method: str
    seed: int | None


@dataclass(frozen=True)
class Comparison:
    """Method A against method B on shared seeds; lower is better.

    Args:
        n: shared seeds.
        probability: P(A < B), ties (both diverged, too) counting half, with a Wilson interval whose lower bound takes
            every tie as a loss of A and whose upper bound as a win.
        difference: median of A minus median of B, with a paired bootstrap interval.
        p_value: two-sided Wilcoxon signed-rank test (zeros split evenly); 1 where all pairs tie, NaN without pairs.
    """

    n: int
    probability: Interval
    difference: Interval
    p_value: float


def label(
    mode: Statistics, n_ok: int, n: int, seed: int | None = 0, interval: str = "", resamples: int = RESAMPLES
) -> str:
    """What an artefact must say about its statistics: mode, n_ok/n, kind of interval, resamples and seed."""
    rule = {"default": "diverged = +inf", "paper": "diverged runs dropped"}[mode]
    parts = [f"statistics: {mode} ({rule})", f"n_ok/n = {n_ok}/{n}"]
    if interval:
        parts.append(f"interval: {interval}")
    if seed is not None:
        parts.append(f"{resamples} bootstrap resamples, seed {seed}")
    return "; ".join(parts)


def as_failures(values: ArrayLike) -> Array:
    """The values with everything that is not finite turned into +inf."""
    array = np.asarray(values, dtype=float)
    return np.where(np.isfinite(array), array, np.inf)


def survival_median(values: ArrayLike, axis: int = 0) -> Any:
    """Median with failures (NaN or inf) as +inf: inf as soon as half of the runs failed; NaN where there are none."""
    array = as_failures(values)
    if array.shape[axis] == 0:
        return np.full(np.delete(array.shape, axis), np.nan)[()]
    return np.median(array, axis=axis)


# --- bootstrap ---


def _median(values: Array, axis: int = -1) -> Array:
    return np.median(values, axis=axis)


def _mean(values: Array, axis: int = -1) -> Array:
    return np.mean(values, axis=axis)


_STATISTICS: dict[str, Callable[..., Array]] = {"mean": _mean, "median": _median}


def _quantile(values: Array, q: float) -> float:
    """Smallest value at or below which a share of ``q`` lies: never between a finite value and inf."""
    return float(np.quantile(values, q, method="inverted_cdf"))


def _interval(
    own: float, distribution: Array, n: int, seed: int, confidence: float, method: str = "bootstrap percentile"
) -> Interval:
    """Sum up a bootstrap distribution, see `bootstrap`."""
    finite = bool(np.isfinite(distribution).all())
    tail = (1 - confidence) / 2
    return Interval(
        estimate=float(distribution.mean()) if finite else own,
        standard_deviation=float(distribution.std(ddof=1)) if finite else np.inf,
        low=_quantile(distribution, tail),
        high=_quantile(distribution, 1 - tail),
        n=n,
        method=f"{method} {100 * confidence:g} %",
        seed=seed,
    )


def bootstrap(
    values: ArrayLike,
    statistic: Summary = "mean",
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Bootstrap of the mean or median of runs; failures (NaN or inf) count as +inf, drop them first if they must not.

    The estimate is the mean over the resamples of the resample's statistic, the standard deviation their SD (paper.md,
    tables), the interval the percentile one. Where a resample is infinite that mean does not exist: the estimate is
    then the statistic of the runs themselves and the SD is inf.

    Args:
        values: (n,) one value a run; n = 0 gives NaN, n = 1 the value without SD and interval.
    """
    array = as_failures(values)
    function = _STATISTICS[statistic]
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
    return _interval(float(function(array)), distribution, array.size, seed, confidence)


def medians_of(
    values: ArrayLike, size: int, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """Where the median of ``size`` runs lies, drawn from these; failures as +inf.

    The estimate is the median of all of them. It says whether somebody's median of ``size`` runs could be ours.
    """
    array = as_failures(values)
    if array.size < 2:
        only = float(array[0]) if array.size else np.nan
        return Interval(only, np.nan, np.nan, np.nan, array.size, "none (n < 2)", None)
    distribution = np.median(np.random.default_rng(seed).choice(array, (resamples, size)), axis=-1)
    own = float(np.median(array))
    found = _interval(own, distribution, array.size, seed, confidence, f"medians of {size} drawn runs,")
    return replace(found, estimate=own)


def _resample_counts(n: int, resamples: int, seed: int) -> NDArray[Any]:
    """How often each run is in each resample, (n, resamples)."""
    indices = np.random.default_rng(seed).integers(n, size=(resamples, n), dtype=np.int64)
    offsets = np.arange(resamples)[:, None] * n
    counts = np.bincount((indices + offsets).ravel(), minlength=resamples * n).reshape(resamples, n)
    narrow = np.int16 if n < 2**15 else np.int32  # the median of a curve is bound by memory traffic
    return np.ascontiguousarray(counts.T, dtype=narrow)


def _medians_of_counts(matrix: Array, counts: NDArray[Any]) -> Array:
    """Median of every resample at every step, (resamples, steps): the middle order statistics, found by counting.

    Args:
        matrix: (n, steps), NaN = not there; a few steps at a time keep the work in cache.
        counts: (n, resamples).
    """
    order = np.argsort(matrix, axis=0, kind="stable")  # NaN last
    total = np.stack([counts[there].sum(axis=0, dtype=counts.dtype) for there in ~np.isnan(matrix).T])
    lower, upper = (total - 1) // 2, total // 2
    reached, first, second = np.zeros_like(total), np.zeros_like(total), np.zeros_like(total)
    for runs in order:  # of each step the run with the next larger value
        reached += counts[runs]
        first += reached <= lower
        second += reached <= upper
    values = np.take_along_axis(matrix, order, axis=0).T
    places = np.minimum([first, second], len(matrix) - 1)
    medians = (np.take_along_axis(values, places[0], axis=1) + np.take_along_axis(values, places[1], axis=1)) / 2
    return np.where(total > 0, medians, np.nan).T


def _means_of_counts(matrix: Array, counts: NDArray[Any]) -> Array:
    """Mean of every resample at every step, (resamples, steps); NaN = not there, +inf stays +inf."""
    weights = counts.T.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = weights @ np.where(np.isfinite(matrix), matrix, 0.0) / (weights @ ~np.isnan(matrix))
    return np.where(weights @ (matrix == np.inf) > 0, np.inf, means)


def bootstrap_curve(
    matrix: ArrayLike, statistic: Summary = "median", resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Array, Array]:
    """Bootstrap of the mean or median of runs at every step, with the same resamples of runs for all steps.

    O(runs · steps · resamples) time, O(runs · resamples) memory beside the matrix and the result.

    Args:
        matrix: (runs, steps); +inf = failed at that step, NaN = no value there (a shorter run): left out.

    Returns:
        estimate and standard deviation, (steps,) each, as in `bootstrap`; the SD is NaN where n < 2.
    """
    values = np.asarray(matrix, dtype=float)
    runs, steps = values.shape
    estimate, deviation = np.full(steps, np.nan), np.full(steps, np.nan)
    if runs == 0:
        return estimate, deviation
    counts = _resample_counts(runs, resamples, seed)
    resample = _means_of_counts if statistic == "mean" else _medians_of_counts
    for start in range(0, steps, STEPS_AT_ONCE):
        part = values[:, start : start + STEPS_AT_ONCE]
        summary = _curve_summary(part, resample(part, counts), statistic)
        estimate[start : start + STEPS_AT_ONCE], deviation[start : start + STEPS_AT_ONCE] = summary
    return estimate, deviation


def _curve_summary(part: Array, resampled: Array, statistic: Summary) -> tuple[Array, Array]:
    """Estimate and SD of each step: `_interval` for (resamples, steps), resamples without any value left out."""
    own = np.array([_STATISTICS[statistic](column[~np.isnan(column)]) if (~np.isnan(column)).any() else np.nan
                    for column in part.T])  # fmt: skip
    there = ~np.isnan(resampled)
    count = there.sum(axis=0)
    filled = np.where(there, resampled, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=0) / count
        deviation = np.sqrt((np.where(there, resampled - mean, 0.0) ** 2).sum(axis=0) / (count - 1))
    infinite = np.isinf(resampled).any(axis=0)
    deviation = np.where(infinite, np.inf, deviation)
    return np.where(infinite, own, mean), np.where((~np.isnan(part)).sum(axis=0) < 2, np.nan, deviation)


def quantile_band(matrix: ArrayLike, low: float = 0.25, high: float = 0.75) -> tuple[Array, Array]:
    """Quantiles of the runs at every step, (steps,) each: order statistics, +inf = failed, NaN = no value there.

    Args:
        matrix: (runs, steps).
    """
    ordered = np.sort(np.asarray(matrix, dtype=float), axis=0)  # NaN last
    count = (~np.isnan(ordered)).sum(axis=0)
    if ordered.shape[0] == 0:
        return np.full(ordered.shape[1], np.nan), np.full(ordered.shape[1], np.nan)

    def at(q: float) -> Array:
        place = np.clip(np.ceil(q * count).astype(int) - 1, 0, None)  # inverse of the empirical CDF
        return np.take_along_axis(ordered, place[None, :], axis=0)[0]

    return at(low), at(high)


# --- distributions ---


def ecdf(values: ArrayLike, confidence: float = CONFIDENCE) -> tuple[Array, Array, Array, Array]:
    """Empirical CDF with a pointwise confidence band; failures (NaN or inf) are right-censored: it ends below 1.

    Args:
        values: (n,) one value a run.

    Returns:
        sorted distinct finite values x, P(value ≤ x), lower and upper bound (SciPy's log-log Greenwood interval, where
        that is undefined, at P = 1, Wilson's); all empty where every run failed.
    """
    array = as_failures(values)
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        return np.empty(0), np.empty(0), np.empty(0), np.empty(0)
    censored = np.full(array.size - finite.size, finite.max())
    cdf = scipy.stats.ecdf(scipy.stats.CensoredData(uncensored=finite, right=censored)).cdf
    counts = np.searchsorted(np.sort(finite), np.unique(finite), side="right")
    place = np.searchsorted(cdf.quantiles, np.unique(finite))
    low, high = _greenwood(cdf, confidence)
    undefined = np.isnan(low[place]) | np.isnan(high[place])
    wilsons = [wilson(int(count), array.size, confidence) if bad else None
               for count, bad in zip(counts, undefined, strict=True)]  # fmt: skip
    low_x = np.array([w.low if w else bound for w, bound in zip(wilsons, low[place], strict=True)])
    high_x = np.array([w.high if w else bound for w, bound in zip(wilsons, high[place], strict=True)])
    return cdf.quantiles[place], cdf.probabilities[place], low_x, high_x


def _greenwood(cdf: Any, confidence: float) -> tuple[Array, Array]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # undefined at P = 1: the caller's case
        bounds = cdf.confidence_interval(confidence, method="log-log")
    return bounds.low.probabilities, bounds.high.probabilities


def weighted_ecdf(values: ArrayLike, weights: ArrayLike) -> tuple[Array, Array]:
    """Empirical CDF of weighted values: sorted finite x and P(value ≤ x); failures keep their weight at +inf.

    Args:
        values: (n,) one value a run.
        weights: (n,) probabilities, as `best_of_groups_weights` gives; they sum to 1.
    """
    array, weight = as_failures(values), np.asarray(weights, dtype=float)
    x, place = np.unique(array, return_inverse=True)
    p = np.cumsum(np.bincount(place, weights=weight, minlength=x.size), dtype=float)
    return x[np.isfinite(x)], p[np.isfinite(x)]


def weighted_quantile(values: ArrayLike, weights: ArrayLike, q: float = 0.5) -> float:
    """Smallest value at or below which a share of ``q`` of the weight lies, +inf where that is a failure.

    Args:
        values, weights: (n,) each, as in `weighted_ecdf`.
    """
    x, p = weighted_ecdf(values, weights)
    place = int(np.searchsorted(p, q * (1 - 1e-12)))
    return float(x[place]) if place < x.size else np.inf


def wilson(k: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson score interval of a rate k/n; the estimate is k/n, the SD the binomial one; NaN for n = 0."""
    method = f"Wilson {100 * confidence:g} %"
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, np.nan, 0, method, None)
    bounds = scipy.stats.binomtest(int(k), int(n)).proportion_ci(confidence_level=confidence, method="wilson")
    rate = k / n
    return Interval(rate, float(np.sqrt(rate * (1 - rate) / n)), float(bounds.low), float(bounds.high), n, method, None)


# --- best of a group ---


def _drawn_from(n: int, size: int) -> Array:
    """P(a group of ``size`` out of n lies within m given members) = C(m, size)/C(n, size) for m = 0 … n, (n+1,)."""
    if not 1 <= size <= n:
        raise ValueError(f"size={size}: a group needs between 1 and n={n} runs")
    m = np.arange(n + 1)
    factors = [(m - j).clip(0) / (n - j) for j in range(size)]
    return np.prod(factors, axis=0)


def best_of_groups_weights(validation: ArrayLike, size: int = 3) -> Array:
    """P(run wins) over all groups of ``size`` runs, where the lowest validation value wins its group, (n,).

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
    """Expected test value of the run with the lowest validation value of a group, exactly over all C(n, size) groups.

    +inf where a whole group can fail; `best_of_groups_weights` has the distribution.

    Args:
        validation, test: (n,) each, failures as NaN or inf.

    Raises:
        ValueError: fewer than ``size`` runs.
    """
    return _expectation(as_failures(test), best_of_groups_weights(validation, size))


def random_group_winners(validation: ArrayLike, size: int = 3, seed: int = 0, paper: bool = False) -> NDArray[np.int64]:
    """Indices of the winners of ⌊n/size⌋ groups of a random permutation of the runs; the last n mod size are left out.

    DIFFERENCE: a diverged run (NaN) counts as +inf and loses. In the released code it wins its group (argmin returns a
    NaN's place); ``paper=True`` does so too.

    Args:
        validation: (n,).
    """
    array = np.asarray(validation, dtype=float)
    array = np.where(np.isfinite(array), array, -np.inf) if paper else as_failures(array)
    groups = np.random.default_rng(seed).permutation(array.size)[: array.size // size * size].reshape(-1, size)
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
    """Bootstrap over runs of the exact distribution over all groups: its median, or its mean given a run did not fail.

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
    weights = drawn[at_or_behind] - drawn[at_or_behind - counts]  # (n, resamples), best validation first
    own = best_of_groups_weights(validation, size)[order]
    summary = _weighted_means if statistic == "mean" else _weighted_medians
    value, *distribution = summary(metric[order], np.column_stack([own, weights]))
    return _interval(float(value), np.array(distribution), metric.size, seed, confidence)


def _weighted_means(values: Array, weights: Array) -> Array:
    """Mean of the finite values under each column of weights, NaN-free: inf where no finite value has weight."""
    ok = np.isfinite(values)
    mass = weights[ok].sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mass > 0, values[ok] @ weights[ok] / mass, np.inf)


def _weighted_medians(values: Array, weights: Array) -> Array:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order], axis=0) >= 0.5 * (1 - 1e-12)
    return values[order][reached.argmax(axis=0)]


def expected_best_of_k(values: ArrayLike, ks: Sequence[int], by: ArrayLike | None = None) -> Array:
    """Expected value of the best of k runs drawn without replacement, exactly (order statistics), (len(ks),).

    +inf where k runs can all fail.

    Args:
        values: (n,) failures as NaN or inf.
        ks: budgets, between 1 and n.
        by: (n,) what the best is chosen by, e.g. the validation loss; the values themselves by default.

    Raises:
        ValueError: a k that is below 1 or above n.
    """
    choice = values if by is None else by
    return np.array([best_of_groups_expectation(choice, values, k) for k in ks])


# --- comparisons ---


def paired_comparison(
    a: ArrayLike, b: ArrayLike, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> Comparison:
    """Compare two methods run by run on shared seeds; failures (NaN or inf) are +inf, and lower is better.

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
    return Comparison(
        n,
        probability,
        bootstrap_two(left, right, "difference", True, resamples, seed, confidence),
        _wilcoxon(left, right),
    )


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


_OF_TWO: dict[str, Callable[..., Array]] = {
    "difference": _difference_of_medians,
    "ratio": _ratio_of_medians,
    "spread": _ratio_of_spreads,
}


def bootstrap_two(
    a: ArrayLike,
    b: ArrayLike,
    statistic: Literal["difference", "ratio", "spread"] = "difference",
    paired: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Bootstrap of the difference or ratio of two medians, or the ratio of two interquartile ranges (``spread``).

    Failures are +inf; two infinite medians, or ranges, are equal.

    The estimate is that of the runs themselves.

    Args:
        a, b: (n,) each; with ``paired`` entry j of both from the same seed and resampled together.
    """
    left, right = as_failures(a), as_failures(b)
    function, n = _OF_TWO[statistic], min(left.size, right.size)
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
    own = float(function(left, right))
    return replace(_interval(own, distribution, n, seed, confidence, method), estimate=own)


def _wilcoxon(a: Array, b: Array) -> float:
    difference = _minus(a, b)
    if difference.size == 0:
        return np.nan
    if not difference.any():
        return 1.0
    return float(scipy.stats.wilcoxon(difference, zero_method="zsplit").pvalue)


def holm(p_values: ArrayLike) -> Array:
    """Holm's step-down adjustment of p-values for multiple tests, in their order; NaN stays NaN and is no test."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * (order.size - np.arange(order.size))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
