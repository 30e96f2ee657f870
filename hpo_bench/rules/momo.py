"""MoMo (Schaipp et al. 2024): SGD with momentum and a Polyak step size from a model of the loss."""

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
from hpo_bench.rules.base import clipped_gradient, column, row_dot, showing


@dataclass(frozen=True)
class LossModel:
    """What MoMo carries: averages that make up a model of the loss around any weights.

    Args:
        gradient: d, moving average of the gradients g, (R, P).
        loss: f̄, that of the losses, (R, 1).
        product: γ, that of ⟨g, w⟩, (R, 1).
        begun: whether there was an update, 0 or 1, (R, 1): the averages begin with the first
            values.
        step_size: τ of the last update, (R, 1).
    """

    gradient: Tensor
    loss: Tensor
    product: Tensor
    begun: Tensor
    step_size: Tensor

    def with_one_more(
        self, gradient: Tensor, loss: Tensor, weights: Tensor, beta: float
    ) -> LossModel:
        """The averages after one more gradient (R, P) and loss (R,) at ``weights`` (R, P)."""
        kept = beta * self.begun
        return LossModel(
            kept * self.gradient + (1 - kept) * gradient,
            kept * self.loss + (1 - kept) * loss.unsqueeze(-1),
            kept * self.product + (1 - kept) * row_dot(gradient, weights),
            torch.ones_like(self.begun),
            self.step_size,
        )


@dataclass(frozen=True)
class MoMo:
    """With the averages d of the gradients g, f̄ of the losses and γ of ⟨g, w⟩, a lower bound f* of
    the loss, and c = 1 + lr·wd:

        τ = min(lr, (c·(f̄ - f* - γ) + ⟨d, w⟩)₊ / ‖d‖²);   w ← (w - τ·d) / c

    The library is ``momo-opt``, without its bias correction and its estimate of f*. Of the
    hyperparameters only the weight decay is used. A schedule multiplies lr. A row whose d is zero
    stays where it is, but for the decay. An update costs one gradient. The rule keeps one buffer of
    the weights' size.

    Args:
        lr: the largest step size; the authors advise 1.
        beta: of the averages.
        lower_bound: f*; 0 holds for a mean of squares and for a cross entropy.
    """

    lr: float = 1.0
    beta: float = 0.9
    lower_bound: float = 0.0

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES
    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.positive("lr", self.lr)
        checks.decay("beta", self.beta)
        checks.number("lower_bound", self.lower_bound)

    def init(self, weights: Tensor) -> LossModel:
        """The averages of no gradients yet."""
        zero = column(weights, 0.0)
        return LossModel(torch.zeros_like(weights), zero, zero, zero, zero)

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, None]:
        """One update of all rows."""
        weights, gradient = state.weights, clipped_gradient(linearisation, clip_norm)
        model: LossModel = state.buffer
        model = model.with_one_more(gradient, linearisation.loss, weights, self.beta)

        lr = column(weights, self.lr) * hyperparameters.factor
        shrinking = 1 + lr * hyperparameters["weight_decay"]
        gap = shrinking * (model.loss - self.lower_bound - model.product)
        gap = gap + row_dot(model.gradient, weights)
        square = row_dot(model.gradient, model.gradient)
        polyak = gap.clamp(min=0) / square
        step_size = torch.where(square == 0, 0.0, torch.minimum(lr, polyak))

        new = (weights - step_size * model.gradient) / shrinking
        after = LossModel(model.gradient, model.loss, model.product, model.begun, step_size)
        return State(new, after, state.carried), None

    def evaluated(self, state: State) -> Tensor:
        """The trained weights themselves, (R, P)."""
        return state.weights

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The learning rate is τ of the last update, 0 before the first; the momentum is β."""
        return showing(hyperparameters, state.buffer.step_size, self.beta)
