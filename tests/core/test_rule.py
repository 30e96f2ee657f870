"""Derivatives of every weight update against autograd through it, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpo_bench.core import tree
from hpo_bench.core.hyperparameters import LOG10, LOGIT, Coordinate, Hyperparameters
from hpo_bench.core.pure import PureRule
from hpo_bench.core.rule import Rule, Step
from hpo_bench.core.sgd import COORDINATES, MomentumSGD
from hpo_bench.core.update import Linearisation, Phase, State
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.rules.adam import AdamW
from hpo_bench.rules.rmsprop import RMSprop

ROWS, WEIGHTS = 3, 5


@dataclass(frozen=True)
class PureSGD(PureRule):
    """The paper's rule, as a stranger would write it."""

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES

    def init(self, weights: Tensor) -> Tensor:
        return torch.zeros_like(weights)

    def change(
        self, weights: Tensor, memory: Tensor, gradient: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        memory = hyper["momentum"] * memory + gradient + hyper["weight_decay"] * weights
        return hyper["lr"] * memory, memory


@dataclass(frozen=True)
class PureAdamW(PureRule):
    """AdamW, likewise."""

    coordinates: ClassVar[Mapping[str, Coordinate]] = AdamW.coordinates

    def init(self, weights: Tensor) -> tuple[Tensor, ...]:
        zero = torch.zeros_like(weights)
        return zero, zero, zero[:, :1], zero[:, :1]

    def change(
        self, weights: Tensor, memory: Any, gradient: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Any]:
        first, second, correction1, correction2 = memory
        beta1, beta2 = hyper["beta1"], hyper["beta2"]
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        correction1 = beta1 * correction1 + 1 - beta1
        correction2 = beta2 * correction2 + 1 - beta2
        scale = (second / correction2).sqrt() + 1e-8
        direction = first / correction1 / scale + hyper["weight_decay"] * weights
        return hyper["lr"] * direction, (first, second, correction1, correction2)


RULES: dict[str, Rule] = {
    "sgd": MomentumSGD(),
    "nesterov": MomentumSGD(nesterov=True),
    "dampened": MomentumSGD(dampening=0.3),
    "both": MomentumSGD(nesterov=True, dampening=0.3),
    "adamw": AdamW(),
    "rmsprop": RMSprop(),
    "pure sgd": PureSGD(),
    "pure adamw": PureAdamW(),
}


def loss(weights: Tensor, batch: Tensor) -> Tensor:
    """Of each row, (R,): nowhere quadratic."""
    hidden = torch.tanh(weights @ batch)
    return (hidden**2).mean(-1) + 0.1 * torch.cos(weights).sum(-1)


def linearise(weights: Tensor, batch: Tensor) -> Linearisation:
    """By `torch.func`, second order included."""

    def gradient(values: Tensor) -> Tensor:
        return torch.func.grad(lambda inner: loss(inner, batch).sum())(values)

    def product(vector: Tensor) -> Tensor:
        return torch.func.jvp(gradient, (weights,), (vector,))[1]

    return Linearisation(loss(weights, batch), gradient(weights), product)


def problem(rule: Rule, seed: int) -> tuple[State, dict[str, Tensor], list[Tensor]]:
    """A state with a history, raw hyperparameters, and batches."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=torch.float64)

    raw = {}
    for name, coordinate in rule.coordinates.items():
        if coordinate.space is LOGIT:
            raw[name] = torch.logit(0.05 + 0.9 * uniform(ROWS, 1))
        else:
            raw[name] = -3 + 2.5 * uniform(ROWS, 1)
    batches = [2 * uniform(WEIGHTS, 4) - 1 for _ in range(8)]
    state = State(uniform(ROWS, WEIGHTS), rule.init(uniform(ROWS, WEIGHTS)))
    hyper = Hyperparameters.of(raw, rule.coordinates)
    for batch in batches[:3]:
        state, _ = rule.advance(state, linearise(state.weights, batch), hyper, None)
    return State(state.weights, tree.change(state.buffer, Tensor.detach)), raw, batches[3:]


def steps_and_end(
    rule: Rule, state: State, raw: Mapping[str, Tensor], batches: list[Tensor], clip: float | None
) -> tuple[list[Step], State]:
    hyper, steps = Hyperparameters.of(raw, rule.coordinates), []
    for batch in batches:
        state, step = rule.advance(state, linearise(state.weights, batch), hyper, clip)
        assert step is not None
        steps.append(step)
    return steps, state


def by_autograd(
    rule: Rule, state: State, raw: Mapping[str, Tensor], batches: list[Tensor], clip: float | None
) -> tuple[dict[str, Tensor], Tensor]:
    """d(sum of second losses)/d raw through all updates, and the second gradient."""
    leaves = {name: value.clone().requires_grad_() for name, value in raw.items()}
    with torch.enable_grad():
        _, end = steps_and_end(rule, state, leaves, batches[:-1], clip)
        total = loss(end.weights, batches[-1]).sum()
        found = torch.autograd.grad(total, [*leaves.values(), end.weights])
    return dict(zip(leaves, found[:-1], strict=True)), found[-1]


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("name", RULES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_reverse_and_forward_mode_are_what_autograd_says(
    name: str, clip: float | None, seed: int
) -> None:
    rule = RULES[name]
    state, raw, batches = problem(rule, seed)
    expected, gradient = by_autograd(rule, state, raw, batches, clip)
    with torch.no_grad():
        steps, _ = steps_and_end(rule, state, raw, batches[:-1], clip)
        count, names = len(steps), tuple(raw)
        for estimator in (Unroll(count), Forward(count), Forward(None)):
            found = estimator.estimate(steps, gradient, names)
            for hyperparameter in names:
                torch.testing.assert_close(
                    found[hyperparameter], expected[hyperparameter], rtol=1e-10, atol=1e-13
                )


@pytest.mark.parametrize("name", RULES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_a_series_is_that_of_the_updates_jacobian(name: str, seed: int) -> None:
    rule = RULES[name]
    state, raw, batches = problem(rule, seed)
    hyper, batch, row = Hyperparameters.of(raw, rule.coordinates), batches[0], seed % ROWS

    def end(weights: Tensor) -> Tensor:
        moved, _ = rule.advance(
            State(weights, state.buffer), linearise(weights, batch), hyper, None
        )
        return moved.weights

    jacobian = torch.autograd.functional.jacobian(end, state.weights)[row, :, row]  # I - ∂u/∂w
    with torch.no_grad():
        steps, _ = steps_and_end(rule, state, raw, [batch], None)
        covector = torch.randn(ROWS, WEIGHTS, dtype=torch.float64)
        found = steps[0].series(covector, 4)[row]
    term = total = covector[row]
    for _ in range(3):
        term = term @ jacobian
        total = total + term
    torch.testing.assert_close(found, total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("written", "pure"), [("sgd", "pure sgd"), ("adamw", "pure adamw")])
def test_the_generic_way_gives_the_numbers_of_the_written_one(written: str, pure: str) -> None:
    state, raw, batches = problem(RULES[written], 5)
    other, _, _ = problem(RULES[pure], 5)
    names = tuple(raw)
    with torch.no_grad():
        first, end = steps_and_end(RULES[written], state, raw, batches, 0.3)
        second, same = steps_and_end(RULES[pure], other, raw, batches, 0.3)
        torch.testing.assert_close(end.weights, same.weights, rtol=1e-12, atol=1e-14)
        gradient = torch.ones_like(end.weights)
        for estimator in (
            Neumann(5, shorten=False),
            Neumann(5, shorten=True),
            Unroll(5),
            Forward(5),
        ):
            one = estimator.estimate(first, gradient, names)
            two = estimator.estimate(second, gradient, names)
            for name in names:
                torch.testing.assert_close(one[name], two[name], rtol=1e-10, atol=1e-13)


def test_adamw_is_that_of_torch() -> None:
    random = np.random.default_rng(3)
    start = torch.tensor(random.normal(size=(1, WEIGHTS)))
    batches = [torch.tensor(random.normal(size=(WEIGHTS, 4))) for _ in range(100)]
    natural = {"lr": 0.02, "weight_decay": 0.05, "beta1": 0.83, "beta2": 0.97}
    rule = AdamW()
    raw = {
        name: torch.full((1, 1), rule.coordinates[name].space.raw(value), dtype=torch.float64)
        for name, value in natural.items()
    }
    with torch.no_grad():
        _, end = steps_and_end(rule, State(start, rule.init(start)), raw, batches, None)
    theirs = start.clone().requires_grad_()
    optimiser = torch.optim.AdamW(
        [theirs], lr=0.02, weight_decay=0.05, betas=(0.83, 0.97), eps=1e-8
    )
    for batch in batches:
        optimiser.zero_grad()
        loss(theirs, batch).sum().backward()
        optimiser.step()
    torch.testing.assert_close(end.weights, theirs.detach(), rtol=1e-9, atol=1e-12)


def test_rmsprop_is_that_of_torch() -> None:
    random = np.random.default_rng(4)
    start = torch.tensor(random.normal(size=(1, WEIGHTS)))
    batches = [torch.tensor(random.normal(size=(WEIGHTS, 4))) for _ in range(100)]
    natural = {"lr": 0.02, "weight_decay": 0.05, "alpha": 0.95}
    rule = RMSprop()
    raw = {
        name: torch.full((1, 1), rule.coordinates[name].space.raw(value), dtype=torch.float64)
        for name, value in natural.items()
    }
    with torch.no_grad():
        _, end = steps_and_end(rule, State(start, rule.init(start)), raw, batches, None)
    theirs = start.clone().requires_grad_()
    optimiser = torch.optim.RMSprop([theirs], lr=0.02, weight_decay=0.05, alpha=0.95, eps=1e-8)
    for batch in batches:
        optimiser.zero_grad()
        loss(theirs, batch).sum().backward()
        optimiser.step()
    torch.testing.assert_close(end.weights, theirs.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"nesterov": True}])
def test_sgd_is_that_of_torch(options: dict[str, bool]) -> None:
    random = np.random.default_rng(6)
    start = torch.tensor(random.normal(size=(1, WEIGHTS)))
    batches = [torch.tensor(random.normal(size=(WEIGHTS, 4))) for _ in range(100)]
    rule = MomentumSGD(**options)
    natural = {"lr": 0.02, "weight_decay": 0.05, "momentum": 0.8}
    raw = {
        name: torch.full((1, 1), rule.coordinates[name].space.raw(value), dtype=torch.float64)
        for name, value in natural.items()
    }
    with torch.no_grad():
        _, end = steps_and_end(rule, State(start, rule.init(start)), raw, batches, None)
    theirs = start.clone().requires_grad_()
    optimiser = torch.optim.SGD([theirs], lr=0.02, weight_decay=0.05, momentum=0.8, **options)
    for batch in batches:
        optimiser.zero_grad()
        loss(theirs, batch).sum().backward()
        optimiser.step()
    torch.testing.assert_close(end.weights, theirs.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_a_value_for_each_weight_has_a_derivative_for_each(name: str) -> None:
    rule = RULES[name]
    state, raw, batches = problem(rule, 11)
    wide = {**raw, "lr": raw["lr"].repeat(1, WEIGHTS)}
    expected, gradient = by_autograd(rule, state, wide, batches, None)
    with torch.no_grad():
        steps, _ = steps_and_end(rule, state, wide, batches[:-1], None)
        found = Unroll(len(steps)).estimate(steps, gradient, tuple(wide))
    assert found["lr"].shape == (ROWS, WEIGHTS)
    for hyperparameter, value in found.items():
        torch.testing.assert_close(value, expected[hyperparameter], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["adamw", "pure adamw"])
def test_a_decay_rate_for_each_weight_widens_what_is_carried(name: str) -> None:
    """Bias corrections are (R, 1) before the first update, and (R, P) after it."""
    rule = RULES[name]
    state, raw, batches = problem(rule, 12)
    state = State(state.weights, rule.init(state.weights))
    wide = {**raw, "beta1": raw["beta1"].repeat(1, WEIGHTS)}
    expected, gradient = by_autograd(rule, state, wide, batches, None)
    with torch.no_grad():
        steps, _ = steps_and_end(rule, state, wide, batches[:-1], None)
        found = Unroll(len(steps)).estimate(steps, gradient, tuple(wide))
        single = Unroll(1).estimate(steps[:1], gradient, tuple(wide))
    assert single["beta1"].shape == (ROWS, WEIGHTS)
    for hyperparameter, value in found.items():
        torch.testing.assert_close(value, expected[hyperparameter], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("name", RULES)
def test_weight_decay_on_some_weights_alone_is_in_all_derivatives(
    name: str, clip: float | None
) -> None:
    rule, names = RULES[name], tuple(RULES[name].coordinates)
    state, raw, batches = problem(rule, 13)
    where = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)

    def updated(raw: Mapping[str, Tensor]) -> tuple[State, list[Step]]:
        hyper = Hyperparameters.of(raw, rule.coordinates).on(where, "weight_decay")
        now, steps = state, []
        for batch in batches[:-1]:
            now, step = rule.advance(now, linearise(now.weights, batch), hyper, clip)
            assert step is not None
            steps.append(step)
        return now, steps

    leaves = {name: value.clone().requires_grad_() for name, value in raw.items()}
    end, _ = updated(leaves)
    total = loss(end.weights, batches[-1]).sum()
    *expected, gradient = torch.autograd.grad(total, [*leaves.values(), end.weights])
    with torch.no_grad():
        _, steps = updated(raw)
        for estimator in (Unroll(len(steps)), Forward(len(steps))):
            found = estimator.estimate(steps, gradient, names)
            for hyperparameter, value in zip(names, expected, strict=True):
                torch.testing.assert_close(found[hyperparameter], value, rtol=1e-10, atol=1e-13)


def test_where_the_second_moment_is_zero_nothing_is_divided_by_it() -> None:
    rule = AdamW()
    state, raw, _ = problem(rule, 2)
    still = State(torch.zeros(ROWS, WEIGHTS).double(), rule.init(state.weights))
    dead = torch.zeros(WEIGHTS, 4).double()  # no gradient but the cosine's, which is 0 at 0
    with torch.no_grad():
        steps, _ = steps_and_end(rule, still, raw, [dead], None)
        gradient = torch.ones(ROWS, WEIGHTS).double()
        for estimator in (Neumann(5), Unroll(1), Forward(1)):
            found = estimator.estimate(steps, gradient, tuple(raw))
            assert all(bool(value.isfinite().all()) for value in found.values())


def carried(rule: Rule, seed: int, discount: float, count: int) -> dict[str, Tensor]:
    """Hypergradients by tangents that were carried over ``count`` updates."""
    state, raw, batches = problem(rule, seed)
    estimator, names = Forward(discount=discount), tuple(raw)
    hyper = Hyperparameters.of(raw, rule.coordinates)
    memory: Phase = estimator.begin(names, state)
    for batch in batches[:count]:
        state, step = rule.advance(state, linearise(state.weights, batch), hyper, None)
        assert step is not None
        memory = estimator.accumulate(memory, step, names)
    gradient = torch.ones_like(state.weights)
    return estimator.finish(memory, gradient, names)


@pytest.mark.parametrize("name", RULES)
def test_discount_0_is_a_look_back_of_1_and_discount_1_the_whole_training(name: str) -> None:
    rule = RULES[name]
    state, raw, batches = problem(rule, 8)
    with torch.no_grad():
        steps, end = steps_and_end(rule, state, raw, batches[:4], None)
        gradient = torch.ones_like(end.weights)
        last = Unroll(1).estimate(steps[-1:], gradient, tuple(raw))
        whole = Unroll(4).estimate(steps, gradient, tuple(raw))
        for found, expected in ((carried(rule, 8, 0, 4), last), (carried(rule, 8, 1, 4), whole)):
            for hyperparameter, value in found.items():
                torch.testing.assert_close(value, expected[hyperparameter], rtol=1e-10, atol=1e-13)


def test_spaces_are_inverse_to_each_other() -> None:
    for space, natural in ((LOG10, 0.003), (LOGIT, 0.97)):
        raw = torch.tensor(space.raw(natural), dtype=torch.float64)
        assert float(space.natural(raw)) == pytest.approx(natural, rel=1e-14)
        assert float(space.complement(raw)) == pytest.approx(1 - natural, rel=1e-12)
