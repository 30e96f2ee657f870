"""Mechanic (Cutkosky, Defazio and Mehta 2023) over SGD: it learns the scale of SGD's whole way."""

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
from hpo_bench.rules.base import clipped_gradient, row_dot, row_norm, showing


@dataclass(frozen=True)
class Tuner:
    """One learner of the scale for each of n decays β; its scale is their sum.

    Args:
        largest: the largest |h| so far, forgotten by β, (R, n).
        squares: the sum of h², likewise, (R, n).
        reward: what following the scale has gained, at least 0, likewise, (R, n).
        scale: s, (R, n).
        betas: the decays, (R, n): on the device, so that an update waits for nothing from the host.
    """

    largest: Tensor
    squares: Tensor
    reward: Tensor
    scale: Tensor
    betas: Tensor

    @property
    def total(self) -> Tensor:
        """The sum of all scales, (R, 1)."""
        return self.scale.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Way:
    """What Mechanic carries.

    Args:
        initial: weights before the first update, (R, P).
        way: Δ, the sum of SGD's updates, (R, P).
        buffer: of SGD's momentum, (R, P).
        tuner: of the scale.
    """

    initial: Tensor
    way: Tensor
    buffer: Tensor
    tuner: Tuner


@dataclass(frozen=True)
class Mechanic:
    """With u = -lr·b the update of SGD with momentum at w, b its buffer, and s the tuner's scales:

        h = ⟨Δ, g + λ·Σs·‖g‖/‖w+u‖·(w+u)⟩;   Δ ← Δ + u
        m ← max(β·m, |h|);   v ← β²·v + h²;   r ← (β·r - s·h)₊
        s ← (m·s₀/n + r) / (√v + ε);   w ← w₀ + Σs·Δ

    g is the gradient alone; the weight decay acts in SGD. Of the hyperparameters only the weight
    decay is used, and a schedule multiplies SGD's learning rate. An update costs one gradient. The
    rule keeps three buffers of the weights' size.

    DIFFERENCE: the library ``mechanic-pytorch`` recomputes Δ as (w - w₀) / Σs unless it is told to
    store it. Here Δ is always stored, so that the small first steps lose no digits in float32; a
    test holds it equal to the library's ``store_delta=True``.

    Args:
        lr, momentum: of SGD. Mechanic's scale makes up for the former.
        decay: λ, which draws the scale back.
        betas: of the n learners.
        first_scale: s₀.
        eps: added where something is divided by.
    """

    lr: float = 1.0
    momentum: float = 0.9
    decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
    first_scale: float = 1e-8
    eps: float = 1e-8

    FIRST_LARGEST = 1e-6

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES
    differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.positive("lr", self.lr)
        checks.decay("momentum", self.momentum)
        checks.at_least_zero("decay", self.decay)
        checks.decays("betas", self.betas)
        checks.positive("first_scale", self.first_scale)
        checks.positive("eps", self.eps)

    def init(self, weights: Tensor) -> Way:
        """No way yet, and a scale of zero."""
        zero = torch.zeros_like(weights)
        betas = weights.new_tensor(self.betas).repeat(len(weights), 1)
        none = torch.zeros_like(betas)
        tuner = Tuner(torch.full_like(betas, self.FIRST_LARGEST), none, none, none, betas)
        return Way(weights, zero, zero, tuner)

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, None]:
        """One update of all rows."""
        before: Way = state.buffer
        gradient = clipped_gradient(linearisation, clip_norm)
        decayed = gradient + hyperparameters["weight_decay"] * state.weights
        buffer = self.momentum * before.buffer + decayed
        update = -self.lr * hyperparameters.factor * buffer

        drawn_back = self._drawn_back(gradient, state.weights + update, before.tuner.total)
        tuner = self._tuned(before.tuner, row_dot(before.way, gradient + drawn_back))
        way = before.way + update
        weights = before.initial + tuner.total * way
        return State(weights, Way(before.initial, way, buffer, tuner), state.carried), None

    def _drawn_back(self, gradient: Tensor, point: Tensor, scale: Tensor) -> Tensor:
        """The direction (R, P) of ``point``, with λ·Σs of the gradient's length."""
        return self.decay * scale * row_norm(gradient) / (row_norm(point) + self.eps) * point

    def _tuned(self, before: Tuner, product: Tensor) -> Tuner:
        """The tuner after it was told h (R, 1)."""
        betas = before.betas
        largest = torch.maximum(betas * before.largest, product.abs())
        squares = betas * betas * before.squares + product * product
        reward = (betas * before.reward - before.scale * product).clamp(min=0)
        wealth = largest * self.first_scale / len(self.betas) + reward
        return Tuner(largest, squares, reward, wealth / (squares.sqrt() + self.eps), betas)

    def evaluated(self, state: State) -> Tensor:
        """The trained weights themselves, (R, P)."""
        return state.weights

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The learning rate is the scale times SGD's; the momentum is SGD's."""
        lr = state.buffer.tuner.total * self.lr * hyperparameters.factor
        return showing(hyperparameters, lr, self.momentum)
