"""Many methods on many data sets: ranks with a critical difference, and performance profiles.

Ranks are Friedman's, and the critical difference is Nemenyi's (Demšar 2006); profiles are those of
Dolan and Moré (2002). Failures count: they are +inf, and so worst.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from hpo_bench.analysis.statistics.distributions import wilson
from hpo_bench.analysis.statistics.interval import CONFIDENCE, Array, Interval, as_failures

FEWEST_METHODS = 3  # that Friedman's test compares
FEWEST_SETS = 2


@dataclass(frozen=True)
class Ranking:
    """Methods ranked on each of several data sets.

    Args:
        ranks: 1 is best, ties share the mean of theirs, (sets, methods).
        p_value: of Friedman's test that all methods rank alike; NaN for fewer than three methods
            or two sets, or where all tie.
        critical_difference: two mean ranks that differ by less are not told apart (Nemenyi).
        cliques: the largest groups of methods that are not told apart, as (first, last) places in
            the order of the mean ranks, from 0.
    """

    ranks: Array
    p_value: float
    critical_difference: float
    cliques: tuple[tuple[int, int], ...]

    @property
    def means(self) -> Array:
        """Mean ranks over the sets, (methods,)."""
        means: Array = self.ranks.mean(axis=0)
        return means


def ranking(values: ArrayLike, confidence: float = CONFIDENCE) -> Ranking:
    """Rank methods on each data set; lower values are better.

    Args:
        values: (sets, methods), failures NaN or inf.
    """
    table = as_failures(values)
    ranks: Array = scipy.stats.rankdata(table, axis=1)
    sets, methods = ranks.shape
    p_value = np.nan
    if methods >= FEWEST_METHODS and sets >= FEWEST_SETS and (np.ptp(ranks, axis=1) > 0).any():
        p_value = float(scipy.stats.friedmanchisquare(*ranks.T).pvalue)
    difference = critical_difference(methods, sets, confidence)
    ordered = np.sort(ranks.mean(axis=0))
    return Ranking(ranks, p_value, difference, cliques(ordered, difference))


def critical_difference(methods: int, sets: int, confidence: float = CONFIDENCE) -> float:
    """Nemenyi's critical difference of mean ranks; 0 for one method, which is like itself."""
    if methods < 2:
        return 0.0
    quantile = scipy.stats.studentized_range.ppf(confidence, methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * sets)))


def cliques(ordered: ArrayLike, difference: float) -> tuple[tuple[int, int], ...]:
    """The largest groups of neighbours whose values lie within a difference.

    Args:
        ordered: increasing values, (n,).

    Returns:
        (first, last) places of groups of at least two that are in no larger group.
    """
    values = np.asarray(ordered, dtype=float)
    groups: list[tuple[int, int]] = []
    reached = 0
    for first, value in enumerate(values):
        last = int(np.searchsorted(values, value + difference, side="right")) - 1
        if last > first and last > reached:
            groups.append((first, last))
            reached = last
    return tuple(groups)


def ratios_to_best(values: ArrayLike) -> Array:
    """Each method's value as a multiple of the best on its data set, (sets, methods).

    They are +inf for failures, on a set where all failed, too.

    Args:
        values: positive ones, (sets, methods), failures NaN or inf.
    """
    table = as_failures(values)
    best = table.min(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = table / best
    return as_failures(np.where(table == best, 1.0, ratios) + np.where(np.isinf(best), np.inf, 0))


def profile(ratios: ArrayLike) -> tuple[Array, Array]:
    """A performance profile: on what share of the sets a method is within a multiple of the best.

    Args:
        ratios: of one method, (sets,).

    Returns:
        the multiples at which the share rises, increasing, and the share from each on.
    """
    values = as_failures(ratios)
    steps = np.unique(values[np.isfinite(values)])
    shares = np.array([(values <= step).mean() for step in steps])
    return steps, shares


def probabilities_of_best(values: ArrayLike, confidence: float = CONFIDENCE) -> list[Interval]:
    """How likely each method is the best of all on a random seed.

    Ties share the seed; a seed on which all failed counts for none. The Wilson interval's lower
    bound takes every tie as lost, its upper one as won.

    Args:
        values: (seeds, methods), failures NaN or inf; lower is better.
    """
    table = as_failures(values)
    n, methods = table.shape
    best = table.min(axis=1, keepdims=True, initial=np.inf)
    among_best = (table == best) & np.isfinite(table)
    tied = among_best.sum(axis=1, keepdims=True)
    shares = np.where(among_best, 1 / np.maximum(tied, 1), 0.0)
    intervals = []
    for method in range(methods):
        alone = int((among_best[:, method] & (tied[:, 0] == 1)).sum())
        with_ties = int(among_best[:, method].sum())
        intervals.append(
            Interval(
                estimate=float(shares[:, method].mean()) if n else np.nan,
                standard_deviation=np.nan,
                low=wilson(alone, n, confidence).low,
                high=wilson(with_ties, n, confidence).high,
                n=n,
                method=wilson(0, n, confidence).method,
                seed=None,
            )
        )
    return intervals
