"""Adam whose learning rate follows its own hypergradient (Baydin et al. 2018, Chandra et al.
2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.hyperparameters import Coordinate, Hyperparameters
from hpo_bench.core.sgd import COORDINATES
from hpo_bench.core.update import Linearisation, State
from hpo_bench.rules.base import clipped_gradient, column, row_dot


@dataclass(frozen=True)
class DirectedMoments:
    """What hypergradient Adam carries.

    Args:
        first, second: moving averages of the gradient and its square, (R, P).
        power1, power2: β₁ᵗ and β₂ᵗ after t updates, (R, 1).
        direction: u of the last update, (R, P).
        moved: how far the learning rate has moved from the drawn one, (R, 1).
    """

    first: Tensor
    second: Tensor
    power1: Tensor
    power2: Tensor
    direction: Tensor
    moved: Tensor


@dataclass(frozen=True)
class HypergradientAdam:
    """With g = ∇L(w) + wd·w, and u the direction of the update before:

        lr ← lr + κ·⟨g, u⟩;   m ← β₁m + (1-β₁)g;   v ← β₂v + (1-β₂)g²
        u ← m̂ / (√v̂ + ε);   w ← w - lr·u

    -⟨g, u⟩ is the derivative of the training loss with respect to the learning rate through the
    last update. The momentum is β₁, and the learning rate begins with the drawn one. A schedule
    multiplies the learning rate. An update costs one gradient. The rule keeps three buffers of the
    weights' size.

    Args:
        hypergradient_lr: κ; its authors take 1e-7 for small networks.
        beta2, eps: those of Adam.
    """

    hypergradient_lr: float = 1e-7
    beta2: float = 0.999
    eps: float = 1e-8

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES
    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.at_least_zero("hypergradient_lr", self.hypergradient_lr)
        checks.decay("beta2", self.beta2)
        checks.positive("eps", self.eps)

    def init(self, weights: Tensor) -> DirectedMoments:
        """Moments at zero, and the learning rate where it was drawn."""
        zero, one = torch.zeros_like(weights), column(weights, 1.0)
        return DirectedMoments(zero, zero, one, one, zero, column(weights, 0.0))

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, None]:
        """One update of all rows."""
        before: DirectedMoments = state.buffer
        beta1 = hyperparameters["momentum"]
        gradient = clipped_gradient(linearisation, clip_norm)
        gradient = gradient + hyperparameters["weight_decay"] * state.weights

        moved = before.moved + self.hypergradient_lr * row_dot(gradient, before.direction)
        first = beta1 * before.first + (1 - beta1) * gradient
        second = self.beta2 * before.second + (1 - self.beta2) * gradient * gradient
        power1, power2 = before.power1 * beta1, before.power2 * self.beta2
        direction = first / (1 - power1) / ((second / (1 - power2)).sqrt() + self.eps)

        after = DirectedMoments(first, second, power1, power2, direction, moved)
        weights = state.weights - self._lr(after, hyperparameters) * direction
        return State(weights, after, state.carried), None

    def _lr(self, moments: DirectedMoments, hyperparameters: Hyperparameters) -> Tensor:
        """The learning rate (R, 1), with the schedule's factor."""
        return hyperparameters["lr"] + hyperparameters.factor * moments.moved

    def evaluated(self, state: State) -> Tensor:
        """The trained weights themselves, (R, P)."""
        return state.weights

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The learning rate is that of the last update, or the drawn one before the first."""
        shown = {**hyperparameters.natural, "lr": self._lr(state.buffer, hyperparameters)}
        return replace(hyperparameters, natural=shown)
