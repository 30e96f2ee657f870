"""Ranks, critical differences and profiles, computed another way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from hpo_bench.analysis.statistics import ranks
from hpo_bench.analysis.statistics.ranks import (
    cliques,
    critical_difference,
    probabilities_of_best,
    profile,
    ranking,
    ratios_to_best,
)

INF = np.inf


def test_ranks_share_ties_and_failures_are_last():
    result = ranking([[3.0, 1.0, 1.0, np.nan], [INF, 2.0, 1.0, INF]])
    np.testing.assert_allclose(result.ranks, [[3, 1.5, 1.5, 4], [3.5, 2, 1, 3.5]])
    np.testing.assert_allclose(result.means, [3.25, 1.75, 1.25, 3.75])


@pytest.mark.parametrize(("methods", "quantile"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_demsar_s_table(methods, quantile):
    expected = quantile * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) == pytest.approx(expected, rel=1e-3)


def test_friedman_by_its_formula():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 5)) + np.arange(5)
    sets, methods = values.shape
    means = np.array([[1 + (row < value).sum() for value in row] for row in values]).mean(axis=0)
    statistic = 12 * sets / (methods * (methods + 1)) * ((means - (methods + 1) / 2) ** 2).sum()
    expected = scipy.stats.chi2.sf(statistic, methods - 1)
    assert ranking(values).p_value == pytest.approx(expected)


def test_without_enough_to_compare_there_is_no_p_value():
    assert np.isnan(ranking([[1.0, 2.0, 3.0]]).p_value)
    assert np.isnan(ranking([[1.0, 2.0], [1.0, 2.0]]).p_value)
    assert np.isnan(ranking(np.full((4, 3), INF)).p_value)
    assert ranking([[1.0]]).critical_difference == 0


def test_cliques_are_the_largest_groups_by_trying_all():
    rng = np.random.default_rng(1)
    for _ in range(50):
        values = np.sort(rng.uniform(0, 5, size=7))
        within = {
            (first, last)
            for first in range(7)
            for last in range(first + 1, 7)
            if values[last] - values[first] <= 1.2
        }
        largest = {
            (first, last)
            for first, last in within
            if not any((a, b) != (first, last) and a <= first and last <= b for a, b in within)
        }
        assert set(cliques(values, 1.2)) == largest


def test_ratios_and_profiles_by_hand():
    ratios = ratios_to_best([[2.0, 1.0, INF], [INF, INF, INF], [3.0, 3.0, 6.0]])
    np.testing.assert_allclose(ratios, [[2, 1, INF], [INF, INF, INF], [1, 1, 2]])
    steps, shares = profile(ratios[:, 0])
    np.testing.assert_allclose(steps, [1, 2])
    np.testing.assert_allclose(shares, [1 / 3, 2 / 3])
    assert len(profile(np.array([INF, INF]))[0]) == 0


def test_the_probability_of_being_best_shares_ties_and_counts_no_seed_where_all_failed():
    table = [[1.0, 2.0, 3.0], [2.0, 2.0, 3.0], [np.nan, INF, np.nan], [3.0, 2.0, 1.0]]
    found = probabilities_of_best(table)
    np.testing.assert_allclose([one.estimate for one in found], [1.5 / 4, 0.5 / 4, 1 / 4])
    assert all(one.low <= one.estimate <= one.high and one.n == 4 for one in found)
    low = scipy.stats.binomtest(1, 4).proportion_ci(method="wilson").low
    high = scipy.stats.binomtest(2, 4).proportion_ci(method="wilson").high
    assert found[0].low == pytest.approx(low)
    assert found[0].high == pytest.approx(high)
    assert ranks.probabilities_of_best(np.empty((0, 2)))[0].n == 0
