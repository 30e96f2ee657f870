"""The weight update against torch.optim.SGD, and its derivatives against autograd."""

import pytest
import torch
from torch.autograd.functional import jacobian

from hpo_bench.core.update import Clip, State
from tests.problems import advance, in_force, make_raw, random_quadratic, run_steps


@pytest.mark.parametrize("clip", [None, 0.3, 1e6])
def test_a_row_follows_torch_sgd(clip):
    training, _, weights = random_quadratic()
    raw = make_raw()
    state, _ = run_steps(training, weights, raw, 20, clip)
    hyper = in_force(raw)
    for row in range(len(weights)):
        parameter = torch.nn.Parameter(weights[row].clone())
        optimiser = torch.optim.SGD(
            [parameter],
            hyper["lr"][row].item(),
            hyper["momentum"][row].item(),
            weight_decay=hyper["weight_decay"][row].item(),
        )
        for _ in range(20):
            stacked = weights.clone()
            stacked[row] = parameter.detach()
            parameter.grad = training(stacked).gradient[row].clone()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_([parameter], clip)
            optimiser.step()
        torch.testing.assert_close(state.weights[row], parameter.detach(), rtol=1e-12, atol=1e-13)


def test_clipping_is_per_row_and_its_jacobian_is_autograds():
    gradient = torch.tensor([[3.0, 4.0], [0.03, 0.04]], dtype=torch.float64)
    clip = Clip.of(gradient, 1.0)
    assert torch.linalg.vector_norm(clip.clipped[0]) == pytest.approx(1.0, rel=1e-6)
    torch.testing.assert_close(clip.clipped[1], gradient[1])
    for row in range(2):
        exact = jacobian(lambda g: Clip.of(g[None], 1.0).clipped[0], gradient[row])
        for column in torch.eye(2, dtype=torch.float64):
            product = clip.jacobian_product(column.expand(2, 2))[row]
            torch.testing.assert_close(product, exact @ column, rtol=1e-12, atol=1e-14)


def test_a_zero_gradient_is_clipped_to_zero_with_a_finite_jacobian():
    clip = Clip.of(torch.zeros(1, 3), 0.25)
    assert clip.clipped.abs().sum() == 0
    assert torch.isfinite(clip.jacobian_product(torch.ones(1, 3))).all()


@pytest.mark.parametrize("clip", [None, 0.5])
def test_pullback_is_the_transpose_of_pushforward(clip):
    training, _, weights = random_quadratic()
    _, steps = run_steps(training, weights, make_raw(), 1, clip)
    left, right = torch.randn_like(weights), torch.randn_like(weights)
    pulled = (steps[0].through_gradient(left) * right).sum(-1)
    pushed = (left * steps[0].gradient_tangents(right.unsqueeze(0)).squeeze(0)).sum(-1)
    torch.testing.assert_close(pulled, pushed)


@pytest.mark.parametrize("per_weight", [0, 4])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_derivatives_of_one_update_are_finite_differences(per_weight, clip):
    training, _, weights = random_quadratic()
    raw, buffer = make_raw(per_weight=per_weight), torch.randn(3, 4, dtype=torch.float64)
    covector, epsilon = torch.randn_like(weights), 1e-6

    def update(raw, weights):
        before = State(weights, buffer)
        after, step = advance(before, training(weights), in_force(raw), clip)
        return ((weights - after.weights) * covector).sum(-1), step

    _, step = update(raw, weights)
    pulled = step.update_pullback(covector)
    for index in range(4):
        nudge = torch.zeros_like(weights)
        nudge[:, index] = epsilon
        difference = (update(raw, weights + nudge)[0] - update(raw, weights - nudge)[0]) / (
            2 * epsilon
        )
        torch.testing.assert_close(pulled[:, index], difference, rtol=1e-6, atol=1e-8)
    for name in raw:
        product = step.update_products(covector, [name])[name]
        up, down = ({**raw, name: raw[name] + sign * epsilon} for sign in (1, -1))
        difference = (update(up, weights)[0] - update(down, weights)[0]) / (2 * epsilon)
        torch.testing.assert_close(product.sum(-1), difference, rtol=1e-6, atol=1e-8)
        assert product.shape == raw[name].shape
