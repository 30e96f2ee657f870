"""Laws that tie the estimators to each other, to finite differences, to autograd and to the closed
form.
"""

import math

import pytest
import torch

from hpo_bench.hypergradients.dot_product import DotProduct
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from tests.problems import ALL, final_loss, in_force, make_raw, random_quadratic, run_steps


def gradients(estimator, training, validation, weights, raw, count, clip=None, buffer=None):
    state, steps = run_steps(training, weights, raw, count, clip, buffer)
    return estimator.estimate(
        steps[-estimator.window(count) :], validation(state.weights).gradient, ALL
    )


@pytest.mark.parametrize("per_weight", [0, 4])
@pytest.mark.parametrize("clip", [None, 0.4])
def test_one_neumann_term_is_one_unrolled_step(per_weight, clip):
    training, validation, weights = random_quadratic()
    raw, buffer = make_raw(per_weight=per_weight), torch.randn(3, 4, dtype=torch.float64)
    pair = [
        gradients(e, training, validation, weights, raw, 3, clip, buffer)
        for e in (Neumann(1), Unroll(1))
    ]
    for name in ALL:
        torch.testing.assert_close(pair[0][name], pair[1][name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_unrolling_is_finite_differences(count, clip):
    training, validation, weights = random_quadratic()
    raw, buffer, epsilon = make_raw(), torch.randn(3, 4, dtype=torch.float64), 1e-5
    exact = gradients(Unroll(count), training, validation, weights, raw, count, clip, buffer)
    for name in ALL:
        up, down = (
            final_loss(
                training,
                validation,
                weights,
                {**raw, name: raw[name] + sign * epsilon},
                count,
                clip,
                buffer,
            )
            for sign in (1, -1)
        )
        torch.testing.assert_close(
            exact[name][:, 0], (up - down) / (2 * epsilon), rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("estimator", [Neumann(4), Unroll(4)])
def test_per_weight_learning_rates_that_agree_sum_to_the_shared_one(estimator):
    training, validation, weights = random_quadratic()
    shared = make_raw()
    own = {**shared, "lr": shared["lr"].repeat(1, 4)}
    one = gradients(estimator, training, validation, weights, shared, 5)
    many = gradients(estimator, training, validation, weights, own, 5)
    assert many["lr"].shape == (3, 4)
    torch.testing.assert_close(many["lr"].sum(-1, keepdim=True), one["lr"])
    for name in ("weight_decay", "momentum"):
        torch.testing.assert_close(many[name], one[name])


def test_a_long_neumann_series_at_a_fixed_point_is_the_implicit_gradient():
    """Converged without momentum, dw*/dλ = -(∂u/∂w)⁻¹ ∂u/∂λ: for weight decay -(A + λI)⁻¹ w*, for
    the others 0.
    """
    training, validation, weights = random_quadratic()
    raw = {**make_raw(), "momentum": torch.full((3, 1), -math.inf, dtype=torch.float64)}
    hyper = in_force(raw)
    state, steps = run_steps(training, weights, raw, 4000)
    fixed = state.weights
    identity = torch.eye(4, dtype=torch.float64)
    hessian = torch.stack(
        [steps[-1].linearisation.hessian_product(column.expand(3, 4)) for column in identity], -1
    )
    regularised = hessian + hyper["weight_decay"].unsqueeze(-1) * identity
    response = -torch.linalg.solve(regularised, fixed)
    v = validation(fixed).gradient
    expected = (v * response).sum(-1, keepdim=True) * hyper.slope("weight_decay")
    estimate = Neumann(4000).estimate(steps[-1:], v, ALL)
    torch.testing.assert_close(estimate["weight_decay"], expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        estimate["lr"], torch.zeros(3, 1, dtype=torch.float64), rtol=0, atol=1e-9
    )
    assert (estimate["momentum"] == 0).all()


def test_a_window_is_never_longer_than_the_interval():
    assert Unroll(5).window(3) == 3
    assert Unroll(5).window(10) == 5
    assert Neumann(8).window(3) == 1


def test_the_dot_product_ignores_weight_decay_and_clipping():
    training, validation, weights = random_quadratic()
    raw = make_raw()
    state, steps = run_steps(training, weights, raw, 1, clip=1e-3)
    second = validation(state.weights).gradient
    expected = -(second * training(weights).gradient).sum(-1, keepdim=True)
    torch.testing.assert_close(DotProduct().estimate(steps, second, ("lr",))["lr"], expected)


@pytest.mark.parametrize("estimator", [Neumann(5), Unroll(5), DotProduct()])
def test_a_row_of_nan_stays_alone(estimator):
    training, validation, weights = random_quadratic()
    raw = make_raw()
    clean = gradients(estimator, training, validation, weights, raw, 5)
    spoilt = weights.clone()
    spoilt[1] = torch.nan
    dirty = gradients(estimator, training, validation, spoilt, raw, 5)
    for name, value in clean.items():
        assert torch.equal(dirty[name][[0, 2]], value[[0, 2]])
        assert torch.isnan(dirty[name][1]).all()
