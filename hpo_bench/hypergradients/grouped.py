"""Rows with look-back distances of their own in one program: the cells of a T × i grid with equal
T.

Row r's numbers are bitwise those of the plain estimator with row r's look-back: a longer series or
recursion is computed for all rows, and each row takes its own part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from hpo_bench.core.estimator import Estimator
from hpo_bench.core.update import Step
from hpo_bench.hypergradients.neumann import Neumann, of_products
from hpo_bench.hypergradients.unroll import Unroll


@dataclass(frozen=True)
class _Grouped:
    """``look_backs``: i of each row, (R,)."""

    look_backs: tuple[int, ...]
    every_update: bool = False
    second_batch: Literal["validation", "training"] = "validation"
    tunes: tuple[str, ...] = ("lr", "weight_decay", "momentum")

    def _column(self, like: Tensor) -> Tensor:
        return _column(self.look_backs, like.device)


@lru_cache
def _column(look_backs: tuple[int, ...], device: torch.device) -> Tensor:
    """(R, 1), moved to the device once: a graph of the program may not wait for the host."""
    return torch.tensor(look_backs, device=device).unsqueeze(-1)


@dataclass(frozen=True)
class NeumannRows(_Grouped):
    """`Neumann` with partial sums of one series: row r stops at its own look-back."""

    def window(self, update_interval: int) -> int:
        """The last weight update only."""
        return 1

    def terms(self, rows: int) -> Sequence[int]:
        """Terms of the series of each of the ``rows`` repetitions."""
        return self.look_backs

    def __call__(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """As `Neumann`; costs as much as the largest look-back for every row."""
        step, look_backs = steps[-1], self._column(gradient)
        products = step.raw_products_of_series(gradient, self.terms(len(gradient)), tuned)
        if products is not None:
            return of_products(products)
        term = total = gradient
        for terms in range(1, max(self.look_backs)):
            term = term - step.update_pullback(term)
            total = torch.where(look_backs > terms, total + term, total)
        through_buffer = step.hyperparameters.lr * total
        return {name: -step.raw_product(name, total, through_buffer) for name in tuned}


@dataclass(frozen=True)
class UnrollRows(_Grouped):
    """`Unroll` with partial sums of one reverse recursion: row r stops at its own look-back."""

    def window(self, update_interval: int) -> int:
        """The largest look-back, at most T."""
        return min(max(self.look_backs), update_interval)

    def __call__(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """As `Unroll`; costs as much as the largest look-back for every row."""
        weights, buffer = gradient, torch.zeros_like(gradient)
        shares: list[dict[str, Tensor]] = []
        for step in reversed(steps):
            buffer = buffer - step.hyperparameters.lr * weights
            shares.append({name: step.raw_product(name, -weights, buffer) for name in tuned})
            if step is not steps[0]:
                weights = weights + step.gradient_pullback(buffer)
                buffer = step.hyperparameters.momentum * buffer
        return {name: self._own_sums([share[name] for share in shares]) for name in tuned}

    def _own_sums(self, shares: Sequence[Tensor]) -> Tensor:
        """Row r's sum over its own window, added up in the order in which `Unroll` adds: order
        decides the last bit.
        """
        look_backs = self._column(shares[0]).clamp(max=len(shares))
        sums = torch.empty_like(shares[0])
        for depth, total in enumerate(accumulate(shares), start=1):
            sums = torch.where(look_backs == depth, total, sums)
        return sums


ROWS: Mapping[type, Callable[[tuple[int, ...]], Estimator]] = {
    Neumann: NeumannRows,
    Unroll: UnrollRows,
}


def groupable(estimator: Any) -> bool:
    """Whether rows with different look-backs of this estimator can share a program."""
    return type(estimator) in ROWS


def grouped(estimators: Sequence[Any]) -> Estimator:
    """One estimator for rows whose own estimators, all of one `groupable` kind, are given; the
    common one if equal.
    """
    if len(set(estimators)) == 1:
        return estimators[0]
    return ROWS[type(estimators[0])](tuple(estimator.look_back for estimator in estimators))
