"""Hypergradient descent on the learning rate (Baydin et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hpo_bench.core.estimator import Estimator
from hpo_bench.core.rule import Step


@dataclass(frozen=True)
class DotProduct(Estimator):
    """-⟨∇L(w_t; second batch), ∇L_T(w_{t-1}; batch)⟩, applied to log10 lr without a chain-rule
    factor (paper §3).

    Both gradients are of the loss alone: neither weight decay nor clipping enters. Costs one
    gradient."""

    every_update = True
    second_batch = "training"
    tunes = ("lr",)

    def window(self, update_interval: int) -> int:
        """The last weight update only."""
        return 1

    def estimate(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """The negative dot product, (R, 1), or elementwise (R, P) for per-weight learning rates."""
        step = steps[-1]
        product = gradient * step.linearisation.gradient
        if step.hyperparameters["lr"].shape[-1] == 1:
            product = product.sum(-1, keepdim=True)
        return {"lr": -product}
