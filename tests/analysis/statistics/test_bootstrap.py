"""Bootstrap intervals and curves against SciPy, closed forms and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hpo_bench.analysis.statistics import bootstrap

RNG = np.random.default_rng(3)
VALUES = RNG.lognormal(size=40)


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


def test_medians_of_few_lie_wider_than_those_of_many():
    values = np.random.default_rng(3).lognormal(size=400)
    few, many = (bootstrap.medians_of(values, size) for size in (9, 100))
    assert few.low < many.low < many.estimate == np.median(values) < many.high < few.high
    assert np.isnan(bootstrap.medians_of([1.0], 9).low)
    assert bootstrap.medians_of([1.0, 1.0, np.nan, np.nan, np.nan], 9).high == np.inf
