"""Schedule-free SGD and AdamW (Defazio et al. 2024): an average of the weights in place of a
learning-rate schedule.

Gradients are taken at y, steps are made by z, and x, the average of all z so far, is what counts
(library: ``schedulefree``):

    z ← z - lr·d(y);   x ← (1-c)·x + c·z;   y = (1-β)·z + β·x,   β being the momentum

with c = lr_max² / Σ lr_max², which is 1/t while the learning rate stays.

DIFFERENCE: the library keeps y and z and recovers x from them, dividing by β. Here x is kept (one
more buffer of the weights' size), so that small β lose no digits; tests hold the two equal."""

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


@dataclass(frozen=True)
class Averages:
    """What schedule-free training carries besides y, the weights of the `State`.

    Args:
        base: z, (R, P).
        average: x, (R, P).
        largest_lr: so far, (R, 1) or (R, P).
        total: Σ largest_lr², likewise.
    """

    base: Tensor
    average: Tensor
    largest_lr: Tensor
    total: Tensor

    @staticmethod
    def of(weights: Tensor) -> Averages:
        """Before the first update."""
        zero = column(weights, 0.0)
        return Averages(weights, weights, zero, zero)

    def move(self, direction: Tensor, hyperparameters: Hyperparameters) -> tuple[Tensor, Averages]:
        """y and the averages after a step of z along ``direction`` (R, P)."""
        lr, beta = hyperparameters["lr"], hyperparameters["momentum"]
        largest = torch.maximum(self.largest_lr, lr)
        total = self.total + largest * largest
        share = torch.where(total > 0, largest * largest / total, 0.0)
        base = self.base - lr * direction
        average = self.average + share * (base - self.average)
        return base + beta * (average - base), Averages(base, average, largest, total)


@dataclass(frozen=True)
class ScheduleFreeSGD:
    """d(y) = ∇L(y) + wd·y. Costs one gradient an update and two buffers of the weights' size."""

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES
    differentiable: ClassVar[bool] = False

    def init(self, weights: Tensor) -> Averages:
        """x = y = z."""
        return Averages.of(weights)

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, None]:
        """One update of all rows."""
        gradient = clipped_gradient(linearisation, clip_norm)
        direction = gradient + hyperparameters["weight_decay"] * state.weights
        weights, after = state.buffer.move(direction, hyperparameters)
        return State(weights, after, state.carried), None

    def evaluated(self, state: State) -> Tensor:
        """The average x of the weights, (R, P)."""
        result: Tensor = state.buffer.average
        return result

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The hyperparameters as they were given."""
        return hyperparameters


@dataclass(frozen=True)
class ScaledAverages:
    """What schedule-free AdamW carries:

    `Averages`, the moving average of g² (R, P), and β₂ᵗ (R, 1).
    """

    averages: Averages
    second: Tensor
    power2: Tensor


@dataclass(frozen=True)
class ScheduleFreeAdamW:
    """d(y) = ∇L(y) / (√v̂ + ε) + wd·y. Costs one gradient an update and three buffers of the
    weights' size.

    Args:
        beta2, eps: the library's defaults.
    """

    beta2: float = 0.999
    eps: float = 1e-8

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES
    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.decay("beta2", self.beta2)
        checks.positive("eps", self.eps)

    def init(self, weights: Tensor) -> ScaledAverages:
        """x = y = z, v = 0."""
        return ScaledAverages(Averages.of(weights), torch.zeros_like(weights), column(weights, 1.0))

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, None]:
        """One update of all rows."""
        before: ScaledAverages = state.buffer
        gradient = clipped_gradient(linearisation, clip_norm)
        second = self.beta2 * before.second + (1 - self.beta2) * gradient * gradient
        power2 = before.power2 * self.beta2
        scaled = gradient / ((second / (1 - power2)).sqrt() + self.eps)
        direction = scaled + hyperparameters["weight_decay"] * state.weights
        weights, averages = before.averages.move(direction, hyperparameters)
        return State(weights, ScaledAverages(averages, second, power2), state.carried), None

    def evaluated(self, state: State) -> Tensor:
        """The average x of the weights, (R, P)."""
        result: Tensor = state.buffer.averages.average
        return result

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The hyperparameters as they were given."""
        return hyperparameters
