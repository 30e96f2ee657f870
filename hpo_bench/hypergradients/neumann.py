"""The paper's hypergradient: implicit differentiation by a truncated Neumann series (eq. 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.estimator import Estimator
from hpo_bench.core.rule import Step
from hpo_bench.errors import UserError
from hpo_bench.hypergradients.rows import column

MOST_TERMS = 100_000  # a kernel makes them in one call, which nothing interrupts


@dataclass(frozen=True)
class Neumann(Estimator):
    """dL_V/dλ ≈ -∂L_V/∂w · [Σ_{0≤j<i} (I - ∂u/∂w)^j] · ∂u/∂λ.

    ∂L_V/∂w is taken at the new weights, the Jacobians of u at the weights before the last update,
    on its batch. Costs i - 1 Hessian-vector products, all of one linearisation.

    Args:
        look_back: i, from 1 to 100 000; may exceed T.
        shorten: shorten each term, per repetition, to the norm of ∂L_V/∂w. None leaves it to the
            weight update's rule: AdamW needs it, SGD does not.

    Raises:
        UserError: no such look-back.
    """

    look_back: int
    shorten: bool | None = None

    def __post_init__(self) -> None:
        checks.whole("look_back", self.look_back, 1)
        if self.look_back > MOST_TERMS:
            raise UserError(
                f"look_back={self.look_back}: a Neumann series has at most {MOST_TERMS} terms"
            )
        if self.shorten is not None:
            checks.flag("shorten", self.shorten)

    def window(self, update_interval: int) -> int:
        """The last weight update only."""
        return 1

    def terms(self, rows: int) -> Sequence[int]:
        """Terms of the series of each of ``rows`` repetitions."""
        return [self.look_back] * rows

    def estimate(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """-p·∂u/∂raw with p = Σ_j v·(I - ∂u/∂w)^j."""
        step = steps[-1]
        longest = self.longest(step, gradient)
        products = step.products_of_series(gradient, self.terms(len(gradient)), tuned, longest)
        if products is None:
            products = step.update_products(self.series(step, gradient, longest), tuned)
        return of_products(products)

    def longest(self, step: Step, gradient: Tensor) -> Tensor | None:
        """The norm (R, 1) to which terms are shortened; None where they are not."""
        shorten = step.shortens if self.shorten is None else self.shorten
        return torch.linalg.vector_norm(gradient, dim=-1, keepdim=True) if shorten else None

    def series(self, step: Step, gradient: Tensor, longest: Tensor | None) -> Tensor:
        """The series p, (R, P)."""
        return step.series(gradient, self.look_back, longest)

    def with_look_backs(self, look_backs: Sequence[int]) -> NeumannRows:
        """Partial sums of one series."""
        return NeumannRows(max(look_backs), self.shorten, tuple(look_backs))


@dataclass(frozen=True)
class NeumannRows(Neumann):
    """`Neumann` with a look-back of each row's own: costs as much as the largest for every row.

    Row r's numbers are bitwise those of the plain estimator with its look-back.

    Args:
        look_backs: i of each row, (R,).
    """

    look_backs: tuple[int, ...] = ()

    def terms(self, rows: int) -> Sequence[int]:
        """The look-back of each row."""
        return self.look_backs

    def series(self, step: Step, gradient: Tensor, longest: Tensor | None) -> Tensor:
        """Row r stops at its own look-back."""
        look_backs = column(self.look_backs, gradient.device)
        term = total = gradient
        for terms in range(1, self.look_back):
            term = step.next_term(term, longest)
            total = torch.where(look_backs > terms, total + term, total)
        return total


def of_products(products: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The hypergradients from `Step.update_products` of the series."""
    return {name: -product for name, product in products.items()}
