"""Two methods on shared seeds: closed forms, symmetries, and the sequential test."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hpo_bench.analysis.statistics import distributions, pairs

RNG = np.random.default_rng(3)


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


def test_ratio_of_spreads_has_no_unit_and_no_offset():
    values = np.random.default_rng(4).normal(size=50)
    found = pairs.bootstrap_two(7 * values + 3, values, "spread")
    assert found.estimate == pytest.approx(7)
    assert found.low == pytest.approx(7)
    assert found.high == pytest.approx(7)
    assert (
        pairs.bootstrap_two(np.r_[values[:30], [np.inf] * 20], values, "spread").estimate == np.inf
    )
