"""Rows with look-backs of their own: bitwise the plain estimators, row by row."""

from __future__ import annotations

import pytest
import torch

from hpo_bench.hypergradients.dot_product import DotProduct
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.rows import groupable, grouped
from hpo_bench.hypergradients.unroll import Unroll
from tests.problems import ALL, make_raw, random_quadratic, run_steps


@pytest.mark.parametrize("kind", [Neumann, Unroll])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("per_weight", [0, 4])
def test_each_row_is_that_of_its_own_look_back(
    kind: type, clip: float | None, per_weight: int
) -> None:
    training, validation, weights = random_quadratic(rows=6)
    look_backs = (3, 1, 7, 2, 3, 20)
    state, steps = run_steps(training, weights, make_raw(6, per_weight), 20, clip)
    gradient = validation(state.weights).gradient
    together = grouped([kind(look_back) for look_back in look_backs])
    found = together.estimate(steps[-together.window(20) :], gradient, ALL)
    for row, look_back in enumerate(look_backs):
        alone = kind(look_back)
        expected = alone.estimate(steps[-alone.window(20) :], gradient, ALL)
        for name in ALL:
            assert torch.equal(found[name][row], expected[name][row]), (name, look_back)


def test_a_diverged_row_leaves_the_others_alone() -> None:
    training, validation, weights = random_quadratic(rows=3)
    state, steps = run_steps(training, weights, make_raw(3), 5)
    gradient = validation(state.weights).gradient.clone()
    together = grouped([Neumann(look_back) for look_back in (1, 4, 2)])
    before = together.estimate(steps[-1:], gradient, ALL)
    gradient[0] = torch.nan
    after = together.estimate(steps[-1:], gradient, ALL)
    for name in ALL:
        assert torch.equal(before[name][1:], after[name][1:])
        assert after[name][0].isnan().all()


def test_equal_look_backs_are_the_plain_estimator() -> None:
    assert grouped([Neumann(3), Neumann(3)]) == Neumann(3)
    assert not groupable(DotProduct())
    assert not groupable(None)
    assert grouped([Unroll(2), Unroll(9)]).window(5) == 5
