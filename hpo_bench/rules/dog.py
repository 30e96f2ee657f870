"""DoG (Ivgi, Hinder and Carmon 2023):

SGD with the distance travelled over the gradients met as lr.
"""

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
from hpo_bench.rules.base import clipped_gradient, column, row_dot, row_norm, showing


@dataclass(frozen=True)
class Travelled:
    """What DoG carries.

    Args:
        initial: weights before the first update, (R, P).
        average: weighted average of the weights after each update, (R, P).
        distance: r̄, the largest distance from ``initial`` so far, (R, 1).
        squares: G, the sum of the squared norms of the gradients, (R, 1).
        count: t, updates made, (R, 1).
    """

    initial: Tensor
    average: Tensor
    distance: Tensor
    squares: Tensor
    count: Tensor


@dataclass(frozen=True)
class DoG:
    """With g = ∇L(w) + wd·w, r̄ the largest distance from the start, and x̄ the weights that count:

        G ← G + ‖g‖²;   w ← w - r̄/√G·g;   x̄ ← x̄ + (1+γ)/(t+γ)·(w - x̄)

    The library is ``dog-optimizer``, with its ``PolynomialDecayAverager`` for x̄. Of the
    hyperparameters only the weight decay is used: it regularises, which no step size replaces. A
    schedule multiplies r̄/√G. An update costs one gradient. The rule keeps two buffers of the
    weights' size.

    Args:
        first_distance: r̄ before the first update, divided by 1 + ‖w₀‖. The authors advise 1e-4
            instead where a model has batch normalisation.
        eps: G before the first update.
        gamma: γ, how fast the average forgets the beginning.
    """

    first_distance: float = 1e-6
    eps: float = 1e-8
    gamma: float = 8.0

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES
    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.positive("first_distance", self.first_distance)
        checks.positive("eps", self.eps)
        checks.at_least_zero("gamma", self.gamma)

    def init(self, weights: Tensor) -> Travelled:
        """The average is the start, nothing is travelled."""
        distance = self.first_distance * (1 + row_norm(weights))
        return Travelled(
            weights, weights, distance, column(weights, self.eps), column(weights, 0.0)
        )

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, None]:
        """One update of all rows."""
        before: Travelled = state.buffer
        gradient = clipped_gradient(linearisation, clip_norm)
        gradient = gradient + hyperparameters["weight_decay"] * state.weights

        distance = torch.maximum(before.distance, row_norm(state.weights - before.initial))
        squares = before.squares + row_dot(gradient, gradient)
        weights = state.weights - hyperparameters.factor * distance / squares.sqrt() * gradient

        count = before.count + 1
        share = (1 + self.gamma) / (count + self.gamma)
        average = before.average + share * (weights - before.average)
        after = Travelled(before.initial, average, distance, squares, count)
        return State(weights, after, state.carried), None

    def evaluated(self, state: State) -> Tensor:
        """The average x̄ of the weights, (R, P)."""
        average: Tensor = state.buffer.average
        return average

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The learning rate is that of the last update, 0 before the first; the momentum is 0."""
        met: Travelled = state.buffer
        lr = hyperparameters.factor * met.distance / met.squares.sqrt()
        return showing(hyperparameters, torch.where(met.count > 0, lr, 0.0), 0.0)
