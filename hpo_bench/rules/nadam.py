"""Adam with Nesterov's momentum (Dozat 2016) and decoupled weight decay: `torch.optim.NAdam`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.hyperparameters import Coordinate, Hyperparameters
from hpo_bench.core.sgd import COORDINATES
from hpo_bench.core.update import Linearisation, State
from hpo_bench.rules.base import clipped_gradient, column

WARMING = 0.96  # Dozat's: by its powers the momentum rises from half of β₁ to β₁


@dataclass(frozen=True)
class NesterovMoments:
    """What NAdam carries.

    Args:
        first, second: moving averages of the gradient and its square, (R, P).
        power2: β₂ᵗ after t updates, (R, 1): a product, because a power rounds by its place in a
            vector.
        warming: 0.96^(t·ψ), (R, 1), likewise.
        momenta: the product of all momenta so far, (R, 1).
    """

    first: Tensor
    second: Tensor
    power2: Tensor
    warming: Tensor
    momenta: Tensor


@dataclass(frozen=True)
class NAdamW:
    """With μₜ = β₁·(1 - ½·0.96^(tψ)), Mₜ = μ₁ ⋯ μₜ, β₁ being the momentum, and m, v the moments of
    Adam:

        w ← w - lr·wd·w - lr·((1-μₜ)/(1-Mₜ)·g + μₜ₊₁/(1-Mₜ₊₁)·m) / (√v̂ + ε)

    An update costs one gradient. The rule keeps two buffers of the weights' size.

    Args:
        beta2, eps: those of PyTorch by default.
        momentum_decay: ψ.
    """

    beta2: float = 0.999
    eps: float = 1e-8
    momentum_decay: float = 4e-3

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES
    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.decay("beta2", self.beta2)
        checks.positive("eps", self.eps)
        checks.at_least_zero("momentum_decay", self.momentum_decay)

    def init(self, weights: Tensor) -> NesterovMoments:
        """All moments start at zero."""
        zero, one = torch.zeros_like(weights), column(weights, 1.0)
        return NesterovMoments(zero, zero, one, one, one)

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, None]:
        """One update of all rows."""
        before: NesterovMoments = state.buffer
        gradient = clipped_gradient(linearisation, clip_norm)
        lr, beta1 = hyperparameters["lr"], hyperparameters["momentum"]

        step = WARMING**self.momentum_decay
        warming = before.warming * step
        momentum = beta1 * (1 - 0.5 * warming)
        following = beta1 * (1 - 0.5 * warming * step)
        momenta = before.momenta * momentum

        after = NesterovMoments(
            beta1 * before.first + (1 - beta1) * gradient,
            self.beta2 * before.second + (1 - self.beta2) * gradient * gradient,
            before.power2 * self.beta2,
            warming,
            momenta,
        )
        root = (after.second / (1 - after.power2)).sqrt() + self.eps
        of_gradient = lr * (1 - momentum) / (1 - momenta)
        of_average = lr * following / (1 - momenta * following)
        kept = state.weights * (1 - lr * hyperparameters["weight_decay"])
        weights = kept - (of_gradient * gradient + of_average * after.first) / root
        return State(weights, after, state.carried), None

    def evaluated(self, state: State) -> Tensor:
        """The trained weights themselves, (R, P)."""
        return state.weights

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The hyperparameters as they were given."""
        return hyperparameters
