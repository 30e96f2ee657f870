"""The best of a group against enumeration of all groups."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hpo_bench.analysis.statistics import best_of_groups, distributions
from hpo_bench.analysis.statistics.interval import as_failures

RNG = np.random.default_rng(3)
RUNS = st.lists(
    st.one_of(st.sampled_from([math.nan, math.inf, 1.0]), st.floats(0.01, 100)),
    min_size=3,
    max_size=7,
)


def expectation_of_groups(validation, test, size=3):
    """Expected test value of a group's winner, exactly; +inf where a whole group can fail."""
    weights = best_of_groups.best_of_groups_weights(validation, size)
    can_win = weights > 0
    return float(np.sum(as_failures(test)[can_win] * weights[can_win]))


def expected_best_of_k(values, ks, by=None):
    """Expected value of the best of k runs, chosen by ``by``, for each k."""
    choice = values if by is None else by
    return np.array([expectation_of_groups(choice, values, k) for k in ks])


def all_groups(validation, test, size):
    """Each winner of every group: its index, its test value, and its share where some tie."""
    key = as_failures(validation)
    for group in itertools.combinations(range(len(key)), size):
        best = min(key[list(group)])
        winners = [run for run in group if key[run] == best]
        for run in winners:
            yield run, as_failures(test)[run], 1 / len(winners)


@given(validation=RUNS, size=st.integers(1, 3), data=st.data())
@settings(max_examples=60)
def test_best_of_groups_weights_are_those_of_enumeration(validation, size, data):
    test = data.draw(
        st.lists(st.floats(0.1, 10), min_size=len(validation), max_size=len(validation))
    )
    groups = math.comb(len(validation), size)
    weights, expectation = np.zeros(len(validation)), 0.0
    for run, value, share in all_groups(validation, test, size):
        weights[run] += share / groups
        expectation += value * share / groups
    assert_allclose(best_of_groups.best_of_groups_weights(validation, size), weights, atol=1e-12)
    assert expectation_of_groups(validation, test, size) == pytest.approx(expectation, rel=1e-9)


def test_best_of_groups_expectation_is_infinite_only_where_a_whole_group_can_fail():
    two_failed, three_failed = [1.0, 2.0, np.nan, np.nan], [1.0, np.nan, np.nan, np.nan]
    assert expectation_of_groups(two_failed, two_failed) < np.inf
    assert expectation_of_groups(three_failed, three_failed) == np.inf


def test_best_of_groups_needs_a_whole_group():
    with pytest.raises(ValueError, match="size=3"):
        best_of_groups.best_of_groups_weights([1.0, 2.0])
    assert np.isnan(best_of_groups.best_of_groups_bootstrap([1.0, 2.0], [1.0, 2.0]).estimate)
    assert best_of_groups.best_of_groups_random([1.0, 2.0], [1.0, 2.0]).size == 0


def test_random_groups_are_a_partition_won_by_the_lowest_validation():
    validation, test = RNG.permutation(20).astype(float), RNG.normal(size=20)
    winners = best_of_groups.random_group_winners(validation, seed=4)
    groups = np.random.default_rng(4).permutation(20)[:18].reshape(6, 3)
    assert_array_equal(winners, [min(group, key=lambda run: validation[run]) for group in groups])
    assert_array_equal(
        best_of_groups.best_of_groups_random(validation, test, seed=4), test[winners]
    )
    assert not np.array_equal(winners, best_of_groups.random_group_winners(validation, seed=5))


def test_a_diverged_run_loses_its_group_but_wins_it_with_the_papers_statistics():
    validation, test = [np.nan, 2.0, 3.0], [np.nan, 20.0, 30.0]
    assert_array_equal(best_of_groups.best_of_groups_random(validation, test), [20.0])
    assert_array_equal(best_of_groups.best_of_groups_random(validation, test, paper=True), [np.nan])
    assert_array_equal(best_of_groups.best_of_groups_random([np.nan] * 3, [np.nan] * 3), [np.inf])


def test_mean_over_random_groupings_approaches_the_exact_expectation():
    validation, test = RNG.normal(size=9), RNG.normal(size=9) + 3
    means = [
        best_of_groups.best_of_groups_random(validation, test, seed=seed).mean()
        for seed in range(4000)
    ]
    exact = expectation_of_groups(validation, test)
    assert np.mean(means) == pytest.approx(exact, abs=4 * np.std(means) / math.sqrt(4000))


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_best_of_groups_bootstrap_is_that_of_recomputed_weights(statistic):
    validation, test = RNG.normal(size=8), RNG.lognormal(size=8)
    validation[3] = test[3] = np.nan
    interval = best_of_groups.best_of_groups_bootstrap(
        validation, test, 3, statistic, resamples=300, seed=2
    )
    found = []
    for chosen in np.random.default_rng(2).integers(8, size=(300, 8)):
        weights = best_of_groups.best_of_groups_weights(validation[chosen], 3)
        values = as_failures(test[chosen])
        if statistic == "median":
            found.append(distributions.weighted_quantile(values, weights))
        else:
            ok = np.isfinite(values) & (weights > 0)
            found.append(values[ok] @ weights[ok] / weights[ok].sum())
    assert interval.estimate == pytest.approx(np.mean(found), rel=1e-9)
    assert interval.standard_deviation == pytest.approx(np.std(found, ddof=1), rel=1e-9)
    assert interval.n == 8


@given(values=RUNS)
@settings(max_examples=40)
def test_expected_best_of_k_is_that_of_enumeration(values):
    ks = range(1, len(values) + 1)
    found = expected_best_of_k(values, ks)
    failures = as_failures(values)
    for k, value in zip(ks, found, strict=True):
        assert value == pytest.approx(
            np.mean([min(g) for g in itertools.combinations(failures, k)]), rel=1e-9
        )
    assert (found[1:] <= found[:-1] * (1 + 1e-9)).all()


def test_expected_best_of_k_by_validation_and_beyond_the_runs():
    values, by = [5.0, 1.0, 3.0], [0.1, 0.2, 0.3]
    assert_allclose(expected_best_of_k(values, [1, 2, 3], by), [3.0, (5 + 5 + 1) / 3, 5.0])
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"size={k}"):
            expected_best_of_k(values, [k])


def test_expected_best_of_k_of_many_runs_does_not_overflow():
    found = expected_best_of_k(np.arange(1, 3001), [1, 1500, 3000])
    assert_allclose(found, [3001 / 2, 3001 / 1501, 1])
