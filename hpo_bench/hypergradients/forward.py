"""Exact hypergradients by forward differentiation: tangents that travel with the training
(Franceschi et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.estimator import Accumulator
from hpo_bench.core.update import Step
from hpo_bench.errors import UserError

KEPT = 2  # memory of the tangents and of their Hessian-vector products, in kept weight updates


@dataclass(frozen=True)
class Tangents:
    """Derivatives with respect to each of the ``tuned`` raw hyperparameters; None where all are
    zero.

    Args:
        tuned: n names.
        weights, buffer: (n, R, P).
    """

    tuned: tuple[str, ...]
    weights: Tensor | None = None
    buffer: Tensor | None = None


@dataclass(frozen=True)
class Forward(Accumulator):
    """dL_V(w_t)/dλ through the last min(i, T) updates, the momentum buffer at the window's start
    being a constant.

    With tangents w' = dw/dλ and m' = dm/dλ, at every weight update of the window:

        m' ← μ·m' + ∂g/∂w·w' + ∂m/∂λ;    w' ← w' - lr·m' - ∂u/∂lr·dlr/dλ

    and at its end dL_V/dλ = ⟨∂L_V/∂w, w'⟩.

    The same numbers as `Unroll` to rounding. Costs one Hessian-vector product a weight update for
    each tuned hyperparameter, and memory that does not depend on the window.

    Args:
        look_back: i, at least 1.

    Raises:
        UserError: a look-back below 1.
    """

    look_back: int
    every_update: bool = False
    second_batch: Literal["validation", "training"] = "validation"
    tunes: tuple[str, ...] = ("lr", "weight_decay", "momentum")

    def __post_init__(self) -> None:
        checks.whole("look_back", self.look_back, 1)

    def window(self, update_interval: int) -> int:
        """min(i, T)."""
        return min(self.look_back, update_interval)

    def kept(self, window: int) -> int:
        """The same for every window."""
        return KEPT

    def begin(self, tuned: Sequence[str]) -> Tangents:
        """Zeros."""
        return Tangents(tuple(tuned))

    def accumulate(self, memory: Tangents, step: Step) -> Tangents:
        """Tangents after one more weight update.

        Raises:
            UserError: a tuned hyperparameter has one value per weight.
        """
        hyper = step.hyperparameters
        for name in memory.tuned:
            if hyper.raw[name].shape[-1] != 1:
                refuse_per_weight(name)
        if memory.weights is None or memory.buffer is None:
            buffer = step.weights.new_zeros(len(memory.tuned), *step.weights.shape)
            weights = torch.zeros_like(buffer)
        else:
            weights = memory.weights
            buffer = torch.addcmul(
                step.gradient_pushforward(weights), hyper.momentum, memory.buffer
            )
        for tangent, name in zip(buffer, memory.tuned, strict=True):
            if name != "lr":
                tangent += step.raw_tangent(name)
        weights = torch.addcmul(weights, hyper.lr, buffer, value=-1)
        if "lr" in memory.tuned:
            weights[memory.tuned.index("lr")] -= step.raw_tangent("lr")
        return replace(memory, weights=weights, buffer=buffer)

    def finish(self, memory: Tangents, gradient: Tensor) -> dict[str, Tensor]:
        """⟨∂L_V/∂w, dw/dλ⟩ for each."""
        assert memory.weights is not None
        products = (memory.weights * gradient).sum(-1, keepdim=True)
        return dict(zip(memory.tuned, products, strict=True))

    def __call__(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """The same from updates that were kept."""
        memory = self.begin(tuned)
        for step in steps:
            memory = self.accumulate(memory, step)
        return self.finish(memory, gradient)


def refuse_per_weight(name: str) -> None:
    """Raise the `UserError` for a hyperparameter that would need a tangent for every weight."""
    raise UserError(
        f"method.per_weight=[{name}]: forward differentiation would need a tangent for every weight's {name}; "
        "use method.estimator.mode=reverse"
    )
