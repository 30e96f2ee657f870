"""Distribution functions and shares against SciPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hpo_bench.analysis.statistics import distributions

RNG = np.random.default_rng(3)
VALUES = RNG.lognormal(size=40)
RUNS = st.lists(
    st.one_of(st.sampled_from([math.nan, math.inf, 1.0]), st.floats(0.01, 100)),
    min_size=3,
    max_size=7,
)


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
