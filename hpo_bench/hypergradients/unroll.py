"""Exact hypergradients by reverse differentiation through the last weight updates
(Diff-through-Opt).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.update import Step


@dataclass(frozen=True)
class Unroll:
    """dL_V(w_t)/dλ through the last min(i, T) updates, the momentum buffer at the window's start
    being a constant.

    With covectors a of the weights and b of the buffer, backwards over the steps of the window:

        b ← b - lr·a;   dλ += -a·∂u/∂lr, b·∂m'/∂wd, b·∂m'/∂μ;   a ← a + b·∂g/∂w;   b ← μ·b

    Costs one Hessian-vector product for every step but the first, and memory for `window`
    linearisations.

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

    def __call__(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """Sum over the window of each step's share, newest first (the order of a sum over a stack
        depends on R).
        """
        weights, buffer = gradient, torch.zeros_like(gradient)
        total: dict[str, Tensor] = {}
        for step in reversed(steps):
            buffer = buffer - step.hyperparameters.lr * weights
            for name in tuned:
                share = step.raw_product(name, -weights, buffer)
                total[name] = total[name] + share if name in total else share
            if step is not steps[0]:
                weights = weights + step.gradient_pullback(buffer)
                buffer = step.hyperparameters.momentum * buffer
        return total
