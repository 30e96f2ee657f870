"""Hypergradients of "the ultimate optimizer" (Chandra et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

from hpo_bench.hypergradients.unroll import Unroll


@dataclass(frozen=True)
class Ultimate(Unroll):
    """The derivative of another training batch's loss through the last weight update alone.

    It is called after every update. Costs one gradient and no Hessian-vector product.

    Args:
        look_back: 1; the field is that of `Unroll`.
    """

    look_back: int = 1

    every_update = True
    second_batch = "training"
