"""Implicit differentiation with a truncated Neumann series at the current weights (the paper's
method, eq. 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.update import Step


@dataclass(frozen=True)
class Neumann:
    """dL_V/dλ ≈ -∂L_V/∂w · [Σ_{0≤j<i} (I - ∂u/∂w)^j] · ∂u/∂λ.

    ∂L_V/∂w is taken at the new weights, the Jacobians of u at the weights before the last update,
    on its batch. Costs i - 1 Hessian-vector products, all of one linearisation.

    Args:
        look_back: i, at least 1; may exceed T.

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
        """The last weight update only."""
        return 1

    def terms(self, rows: int) -> Sequence[int]:
        """Terms of the series of each of ``rows`` repetitions."""
        return [self.look_back] * rows

    def __call__(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """-p·∂u/∂raw with p = Σ_j v·(I - ∂u/∂w)^j."""
        step = steps[-1]
        products = step.raw_products_of_series(gradient, self.terms(len(gradient)), tuned)
        if products is not None:
            return of_products(products)
        total = step.series(gradient, self.look_back)
        through_buffer = step.hyperparameters.lr * total
        return {name: -step.raw_product(name, total, through_buffer) for name in tuned}


def of_products(products: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The hypergradients from what `Step.raw_products_of_series` gives."""
    return {name: -product for name, product in products.items()}
