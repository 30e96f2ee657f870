"""Prodigy (Mishchenko and Defazio 2023):

Adam that estimates its step size from the distance travelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.hyperparameters import Coordinate, Hyperparameters
from hpo_bench.core.sgd import COORDINATES
from hpo_bench.core.update import Linearisation, State
from hpo_bench.rules.base import clipped_gradient, column, showing


@dataclass(frozen=True)
class DistanceEstimate:
    """What Prodigy carries.

    Args:
        first, second: Adam's moments of d·g, (R, P).
        sum: s, moving sum of the gradients, (R, P).
        initial: weights before the first update, (R, P).
        step_size: d, (R, 1).
        numerator: of the estimate of d, (R, 1).
    """

    first: Tensor
    second: Tensor
    sum: Tensor
    initial: Tensor
    step_size: Tensor
    numerator: Tensor


@dataclass(frozen=True)
class Prodigy:
    """With d the step size so far, β₃ = √β₂, decoupled weight decay and the defaults of the library
    ``prodigyopt``:

        r ← β₃r + f·d²/d₀·⟨g, w₀ - w⟩;   s ← β₃s + f·d²/d₀·g
        m ← β₁m + (1-β₁)d·g;   v ← β₂v + (1-β₂)d²g²
        w ← w - f·d·wd·w - f·d·m / (√v + d'ε),   d' = max(d, r / ‖s‖₁)

    where f is the factor of the schedule, 1 without one.

    A row whose gradients were all zero so far stays where it is. Of the hyperparameters only the
    weight decay is used: it regularises, which no estimate of a step size replaces. Costs one
    gradient an update and four buffers of the weights' size.

    Args:
        betas, eps: of Adam.
        first_step_size: d₀.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    first_step_size: float = 1e-6

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES
    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.betas("betas", self.betas)
        checks.positive("eps", self.eps)
        checks.positive("first_step_size", self.first_step_size)

    def init(self, weights: Tensor) -> DistanceEstimate:
        """d = d₀, all else zero."""
        zero = torch.zeros_like(weights)
        return DistanceEstimate(
            zero, zero, zero, weights, column(weights, self.first_step_size), column(weights, 0.0)
        )

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, None]:
        """One update of all rows."""
        before: DistanceEstimate = state.buffer
        weights, gradient = state.weights, clipped_gradient(linearisation, clip_norm)
        lr = before.step_size * hyperparameters.factor
        after, moved = self._estimate(before, gradient, weights, lr)
        root = after.second.sqrt() + after.step_size * self.eps
        new = weights * (1 - lr * hyperparameters["weight_decay"]) - lr * (after.first / root)
        return State(torch.where(moved, new, weights), after, state.carried), None

    def _estimate(
        self, before: DistanceEstimate, gradient: Tensor, weights: Tensor, lr: Tensor
    ) -> tuple[DistanceEstimate, Tensor]:
        """Moments and step size with one gradient more, and which rows have had one that is not
        zero, (R, 1).
        """
        (beta1, beta2), beta3, d = self.betas, math.sqrt(self.betas[1]), before.step_size
        weight = d / self.first_step_size * lr
        travelled = (gradient * (before.initial - weights)).sum(-1, keepdim=True)
        numerator = beta3 * before.numerator + weight * travelled
        total = beta3 * before.sum + weight * gradient
        norm = total.abs().sum(-1, keepdim=True)
        moved = norm != 0
        after = replace(
            before,
            first=beta1 * before.first + (1 - beta1) * (d * gradient),
            second=beta2 * before.second + (1 - beta2) * (d * gradient) * (d * gradient),
            sum=total,
            step_size=torch.where(moved, torch.maximum(d, numerator / norm), d),
            numerator=torch.where(moved, numerator, before.numerator),
        )
        return after, moved

    def evaluated(self, state: State) -> Tensor:
        """The trained weights themselves, (R, P)."""
        return state.weights

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The learning rate is the step size d times the schedule's factor; the momentum is β₁."""
        lr = state.buffer.step_size * hyperparameters.factor
        return showing(hyperparameters, lr, self.betas[0])
