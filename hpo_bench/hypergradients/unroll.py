"""Exact hypergradients by reverse differentiation through the last updates (Diff-through-Opt)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.estimator import Estimator
from hpo_bench.core.rule import Step
from hpo_bench.hypergradients.rows import column

Shares = dict[str, Tensor]


@dataclass(frozen=True)
class Unroll(Estimator):
    """dL_V(w_t)/dλ through the last min(i, T) updates.

        dL_V/dλ = Σ_s c_s·∂(w, m)_s/∂λ;
        c_t = (∂L_V/∂w, 0),    c_{s-1} = c_s·∂(w, m)_s/∂(w, m)_{s-1}

    What the rule carries (a momentum buffer) is a constant at the window's start. A covector of
    weights and memory goes backwards over the steps of the window; each gives its share of dλ.

    Costs one Hessian-vector product for every step but the first, and memory for `window`
    linearisations.

    Args:
        look_back: i, at least 1.

    Raises:
        UserError: a look-back below 1.
    """

    look_back: int

    def __post_init__(self) -> None:
        checks.whole("look_back", self.look_back, 1)

    def window(self, update_interval: int) -> int:
        """The last min(i, T) weight updates."""
        return min(self.look_back, update_interval)

    def estimate(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """The sum of all shares.

        They are added up newest first: the order of a sum over a stack would depend on R.
        """
        covector = steps[-1].covector(gradient)
        shares: list[Shares] = []
        for step in reversed(steps):
            share, further = step.pull(covector, tuned, further=step is not steps[0])
            shares.append(share)
            covector = further or covector
        return {name: self.total([share[name] for share in shares]) for name in tuned}

    def total(self, shares: Sequence[Tensor]) -> Tensor:
        """The sum over the window of one hyperparameter's shares, newest first."""
        *_, total = accumulate(shares)
        return total

    def with_look_backs(self, look_backs: Sequence[int]) -> UnrollRows:
        """Partial sums of one recursion."""
        return UnrollRows(max(look_backs), tuple(look_backs))


@dataclass(frozen=True)
class UnrollRows(Unroll):
    """`Unroll` with a look-back of each row's own: costs as much as the largest for every row.

    Row r's numbers are bitwise those of the plain estimator with its look-back.

    Args:
        look_backs: i of each row, (R,).
    """

    look_backs: tuple[int, ...] = ()

    def total(self, shares: Sequence[Tensor]) -> Tensor:
        """Row r's sum over its own window."""
        depths = column(self.look_backs, shares[0].device).clamp(max=len(shares))
        totals = torch.empty_like(shares[0])
        for depth, total in enumerate(accumulate(shares), start=1):
            totals = torch.where(depths == depth, total, totals)
        return totals
