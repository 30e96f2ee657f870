"""Statistics against closed forms, SciPy and brute force."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hpo_bench.analysis.statistics import best_of_groups, bootstrap, distributions, pairs
from hpo_bench.analysis.statistics.interval import as_failures, label, survival_median

RNG = np.random.default_rng(3)
VALUES = RNG.lognormal(size=40)
RUNS = st.lists(
    st.one_of(st.sampled_from([math.nan, math.inf, 1.0]), st.floats(0.01, 100)),
    min_size=3,
    max_size=7,
)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- bootstrap ---


def test_bootstrap_mean_has_the_standard_error():
    values = np.log(VALUES)
    interval = bootstrap.bootstrap(values, "mean", resamples=20000)
    error = values.std() / math.sqrt(len(values))
    assert interval.estimate == pytest.approx(values.mean(), abs=5 * error / math.sqrt(20000))
    assert interval.standard_deviation == pytest.approx(error, rel=0.03)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_bootstrap_median_has_the_exact_distribution_of_resampled_medians():
    values = np.array([1.0, 2.0, 4.0])
    medians = [np.median(values[list(chosen)]) for chosen in itertools.product(range(3), repeat=3)]
    interval = bootstrap.bootstrap(values, "median", resamples=40000)
    assert interval.estimate == pytest.approx(np.mean(medians), abs=0.02)
    assert interval.standard_deviation == pytest.approx(np.std(medians), abs=0.02)


def test_bootstrap_is_decided_by_its_seed_and_says_so():
    first, again, other = (bootstrap.bootstrap(VALUES, "median", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.estimate != other.estimate
    assert (first.n, first.seed, first.method) == (40, 1, "bootstrap percentile 95 %")


def test_bootstrap_median_with_few_failures_stays_finite():
    failed = np.append(VALUES, [np.nan, np.inf])
    interval = bootstrap.bootstrap(failed, "median")
    assert np.isfinite(
        [interval.estimate, interval.standard_deviation, interval.low, interval.high]
    ).all()
    assert interval.n == 42
    assert interval.estimate > bootstrap.bootstrap(VALUES, "median").estimate


def test_bootstrap_median_with_many_failures_gives_the_runs_own_median_and_an_infinite_sd():
    interval = bootstrap.bootstrap([1.0, 2.0, 3.0, np.nan], "median")
    assert (interval.estimate, interval.standard_deviation, interval.high) == (2.5, np.inf, np.inf)


def test_bootstrap_of_failures_alone_of_one_and_of_no_value():
    failed = bootstrap.bootstrap([np.nan] * 4, "median")
    assert (failed.estimate, failed.low, failed.n) == (np.inf, np.inf, 4)
    one = bootstrap.bootstrap([2.0], "median")
    assert (one.estimate, one.n) == (2.0, 1)
    assert np.isnan([one.standard_deviation, one.low, one.high]).all()
    none = bootstrap.bootstrap([], "mean")
    assert np.isnan(none.estimate)
    assert none.n == 0


@pytest.mark.parametrize("statistic", ["mean", "median"])
@pytest.mark.parametrize("runs", [2, 7, 8])
def test_bootstrap_curve_is_the_bootstrap_of_every_step_with_the_same_resamples(statistic, runs):
    matrix = RNG.lognormal(size=(runs, 40))
    matrix[0, 30:] = np.inf
    matrix[1, 20:] = np.nan  # a shorter run
    matrix[:, 39] = np.nan
    estimate, deviation = bootstrap.bootstrap_curve(matrix, statistic, resamples=200, seed=5)
    indices = np.random.default_rng(5).integers(runs, size=(200, runs))
    function = {"mean": np.mean, "median": np.median}[statistic]
    for step in range(40):
        resamples = [matrix[chosen, step] for chosen in indices]
        resamples = [values[~np.isnan(values)] for values in resamples]
        expected = np.array([function(values) for values in resamples if values.size])
        there = matrix[~np.isnan(matrix[:, step]), step]
        if there.size == 0:
            assert np.isnan([estimate[step], deviation[step]]).all()
        elif np.isinf(expected).any():
            assert (estimate[step], deviation[step]) == (
                function(there),
                np.inf if there.size > 1 else np.nan,
            ) or (
                there.size == 1 and np.isnan(deviation[step]) and estimate[step] == function(there)
            )
        else:
            assert estimate[step] == pytest.approx(expected.mean(), rel=1e-12)
            wanted = expected.std(ddof=1) if there.size > 1 else np.nan
            assert deviation[step] == pytest.approx(wanted, rel=1e-9, abs=1e-12, nan_ok=True)


def test_bootstrap_curve_agrees_with_bootstrap_of_one_step():
    estimate, deviation = bootstrap.bootstrap_curve(VALUES[:, None], "median", resamples=20000)
    alone = bootstrap.bootstrap(VALUES, "median", resamples=20000, seed=9)
    assert estimate[0] == pytest.approx(alone.estimate, abs=0.05 * alone.standard_deviation)
    assert deviation[0] == pytest.approx(alone.standard_deviation, rel=0.05)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (3, 0)])
def test_bootstrap_curve_without_enough_runs_has_no_sd(shape):
    estimate, deviation = bootstrap.bootstrap_curve(np.ones(shape), "median")
    assert_array_equal(estimate, np.full(shape[1], 1.0 if shape[0] else np.nan))
    assert np.isnan(deviation).all()


# --- distributions ---


def test_survival_median_counts_failures_as_infinite():
    assert survival_median([3.0, 1.0, np.nan]) == 3.0
    assert survival_median([1.0, np.nan]) == np.inf
    assert np.isnan(survival_median([]))
    assert_array_equal(survival_median([[1.0, np.nan], [2.0, 5.0], [3.0, np.inf]]), [2.0, np.inf])


def test_quantile_band_is_made_of_order_statistics_and_leaves_missing_values_out():
    matrix = np.array([[1.0, 1.0], [2.0, np.nan], [3.0, np.inf], [4.0, np.nan]])
    low, high = bootstrap.quantile_band(matrix, 0.25, 0.75)
    assert_array_equal(low, [1.0, 1.0])
    assert_array_equal(high, [3.0, np.inf])
    columns = RNG.normal(size=(9, 5))
    assert_allclose(
        bootstrap.quantile_band(columns, 0.1, 0.9),
        np.quantile(columns, [0.1, 0.9], 0, method="inverted_cdf"),
    )
    assert np.isnan(bootstrap.quantile_band(np.full((3, 2), np.nan))).all()
    assert np.isnan(bootstrap.quantile_band(np.empty((0, 2)))).all()


def test_ecdf_counts_values_and_ends_at_the_share_that_did_not_fail():
    x, p, low, high = distributions.ecdf([2.0, 1.0, 2.0, 5.0, np.nan, np.inf])
    assert_array_equal(x, [1.0, 2.0, 5.0])
    assert_allclose(p, [1 / 6, 3 / 6, 4 / 6])
    assert (low < p).all()
    assert (p < high).all()


def test_ecdf_without_failures_is_scipys_and_its_band_is_defined_everywhere():
    x, p, low, high = distributions.ecdf(VALUES)
    expected = scipy.stats.ecdf(VALUES).cdf
    assert_array_equal(x, expected.quantiles)
    assert_allclose(p, expected.probabilities)
    assert p[-1] == high[-1] == 1
    assert not np.isnan([low, high]).any()
    assert ((low >= 0) & (low <= p) & (p <= high) & (high <= 1)).all()


def test_ecdf_band_covers_the_true_distribution():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        x, _, low, high = distributions.ecdf(rng.uniform(size=50))
        at = np.searchsorted(x, 0.3, side="right") - 1
        covered += low[at] <= 0.3 <= high[at]
    assert 0.9 <= covered / 300 <= 0.99


def test_ecdf_of_one_value_and_of_failures_alone():
    x, p, low, high = distributions.ecdf([3.0])
    assert (x, p, high) == (3.0, 1.0, 1.0)
    assert 0 < low < 1
    assert all(part.size == 0 for part in distributions.ecdf([np.nan, np.inf]))


@given(values=RUNS)
def test_weighted_ecdf_with_equal_weights_is_the_ecdf(values):
    x, p = distributions.weighted_ecdf(values, np.full(len(values), 1 / len(values)))
    expected = distributions.ecdf(values)
    assert_array_equal(x, expected[0])
    assert_allclose(p, expected[1])


def test_weighted_quantile():
    assert distributions.weighted_quantile([1.0, 2.0, 3.0], [0.2, 0.3, 0.5]) == 2.0
    assert distributions.weighted_quantile([1.0, np.nan], [0.4, 0.6]) == np.inf
    assert distributions.weighted_quantile([3.0, 1.0], [0.5, 0.5], 0.6) == 3.0


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1)])
def test_wilson_is_the_closed_form(k, n):
    z, rate = scipy.stats.norm.ppf(0.975), k / n
    centre, half = rate + z**2 / (2 * n), z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    interval = distributions.wilson(k, n)
    assert interval.estimate == rate
    assert interval.low == pytest.approx((centre - half) / (1 + z**2 / n), abs=1e-12)
    assert interval.high == pytest.approx((centre + half) / (1 + z**2 / n), abs=1e-12)


def test_wilson_of_nothing_is_nan():
    assert np.isnan(distributions.wilson(0, 0).estimate)


# --- best of a group ---


def all_groups(validation, test, size):
    """Test value of the winner of every group and, for ties, of every equally good winner with its
    share.
    """
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
    assert best_of_groups.best_of_groups_expectation(validation, test, size) == pytest.approx(
        expectation, rel=1e-9
    )


def test_best_of_groups_expectation_is_infinite_only_where_a_whole_group_can_fail():
    assert (
        best_of_groups.best_of_groups_expectation(
            [1.0, 2.0, np.nan, np.nan], [1.0, 2.0, np.nan, np.nan]
        )
        < np.inf
    )
    assert (
        best_of_groups.best_of_groups_expectation(
            [1.0, np.nan, np.nan, np.nan], [1.0, np.nan, np.nan, np.nan]
        )
        == np.inf
    )


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
    exact = best_of_groups.best_of_groups_expectation(validation, test)
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
    found = best_of_groups.expected_best_of_k(values, ks)
    failures = as_failures(values)
    for k, value in zip(ks, found, strict=True):
        assert value == pytest.approx(
            np.mean([min(g) for g in itertools.combinations(failures, k)]), rel=1e-9
        )
    assert (found[1:] <= found[:-1] * (1 + 1e-9)).all()


def test_expected_best_of_k_by_validation_and_beyond_the_runs():
    values, by = [5.0, 1.0, 3.0], [0.1, 0.2, 0.3]
    assert_allclose(
        best_of_groups.expected_best_of_k(values, [1, 2, 3], by), [3.0, (5 + 5 + 1) / 3, 5.0]
    )
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"size={k}"):
            best_of_groups.expected_best_of_k(values, [k])


def test_expected_best_of_k_of_many_runs_does_not_overflow():
    found = best_of_groups.expected_best_of_k(np.arange(1, 3001), [1, 1500, 3000])
    assert_allclose(found, [3001 / 2, 3001 / 1501, 1])


# --- comparisons ---


def test_paired_comparison_counts_wins_ties_and_failures():
    result = pairs.paired_comparison([1.0, 2.0, np.nan, 4.0], [2.0, 2.0, np.inf, 3.0])
    assert result.n == 4
    assert result.probability.estimate == (1 + 2 / 2) / 4
    assert result.probability.low == distributions.wilson(1, 4).low
    assert result.probability.high == distributions.wilson(3, 4).high


def test_paired_comparison_is_antisymmetric():
    a, b = RNG.lognormal(size=30), RNG.lognormal(size=30)
    a[3] = b[7] = np.nan
    forth, back = pairs.paired_comparison(a, b), pairs.paired_comparison(b, a)
    assert forth.probability.estimate == pytest.approx(1 - back.probability.estimate)
    assert forth.probability.low == pytest.approx(1 - back.probability.high)
    assert forth.difference.estimate == -back.difference.estimate
    assert forth.p_value == pytest.approx(back.p_value)


def test_pairing_removes_what_the_seeds_share():
    shared = RNG.normal(size=60) * 100
    a, b = shared, shared + 1 + 0.1 * RNG.normal(size=60)
    result = pairs.paired_comparison(a, b)
    assert result.probability.estimate == 1
    assert -2 < result.difference.low < result.difference.high < 0
    assert result.p_value == pytest.approx(scipy.stats.wilcoxon(a - b, zero_method="zsplit").pvalue)
    assert result.p_value < 1e-6
    unpaired = pairs.bootstrap_two(a, b, paired=False)
    assert unpaired.low < 0 < unpaired.high


def test_paired_comparison_of_equal_of_failed_of_one_and_of_no_runs():
    equal = pairs.paired_comparison([1.0, 2.0], [1.0, 2.0])
    assert (equal.probability.estimate, equal.difference.estimate, equal.p_value) == (0.5, 0.0, 1.0)
    failed = pairs.paired_comparison([np.nan] * 3, [np.nan] * 3)
    assert (failed.probability.estimate, failed.difference.estimate, failed.p_value) == (
        0.5,
        0.0,
        1.0,
    )
    worse = pairs.paired_comparison([np.nan] * 3, [1.0] * 3)
    assert (worse.probability.estimate, worse.difference.estimate) == (0.0, np.inf)
    one = pairs.paired_comparison([1.0], [3.0])
    assert (one.n, one.difference.estimate) == (1, -2.0)
    assert np.isnan(one.difference.low)
    none = pairs.paired_comparison([], [])
    assert none.n == 0
    assert np.isnan([none.probability.estimate, none.difference.estimate, none.p_value]).all()
    with pytest.raises(ValueError, match="3 with 2"):
        pairs.paired_comparison([1.0, 2.0, 3.0], [1.0, 2.0])


def test_ratio_of_medians():
    values = RNG.lognormal(size=50)
    ratio = pairs.bootstrap_two(3 * values, values, "ratio")
    assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx((3, 3, 3))
    assert pairs.bootstrap_two([np.nan] * 3, [np.nan] * 3, "ratio").estimate == 1
    unequal = pairs.bootstrap_two(values, values[:10], "ratio", paired=False)
    assert unequal.n == 10
    assert unequal.low < unequal.estimate < unequal.high


def test_holm_is_the_step_down_procedure():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    assert_allclose(pairs.holm(p), [0.03, 0.06, np.nan, 0.06, 0.02])
    assert_allclose(pairs.holm([0.6, 0.9]), [1.0, 1.0])
    assert pairs.holm([]).size == 0


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_as_the_sequential_test_does(p):
    adjusted = pairs.holm(p)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for step, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[place] * (len(p) - step) > level:
                break
            rejected.add(place)
        assert rejected == set(np.flatnonzero(adjusted <= level))


def test_label_names_mode_counts_interval_and_seed():
    text = label("paper", 180, 200, 7, "95 % percentile")
    for part in ("paper", "diverged runs dropped", "180/200", "95 % percentile", "seed 7", "1000"):
        assert part in text
    assert "seed" not in label("default", 1, 1, seed=None)


def test_medians_of_few_lie_wider_than_those_of_many():
    values = np.random.default_rng(3).lognormal(size=400)
    few, many = (bootstrap.medians_of(values, size) for size in (9, 100))
    assert few.low < many.low < many.estimate == np.median(values) < many.high < few.high
    assert np.isnan(bootstrap.medians_of([1.0], 9).low)
    assert bootstrap.medians_of([1.0, 1.0, np.nan, np.nan, np.nan], 9).high == np.inf


def test_ratio_of_spreads_has_no_unit_and_no_offset():
    values = np.random.default_rng(4).normal(size=50)
    found = pairs.bootstrap_two(7 * values + 3, values, "spread")
    assert found.estimate == pytest.approx(7)
    assert found.low == pytest.approx(7)
    assert found.high == pytest.approx(7)
    assert (
        pairs.bootstrap_two(np.r_[values[:30], [np.inf] * 20], values, "spread").estimate == np.inf
    )
