"""Optimisers of the raw hyperparameters, as pairs ``init`` / ``update``: state goes in, state comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hpo_bench import checks
from hpo_bench.core import tree
from hpo_bench.native.elementary import exp

Values = Mapping[str, Tensor]


class Optimiser(Protocol):
    """Turns hypergradients into steps, per element."""

    def init(self, raw: Values) -> Any:
        """Memory before the first update of ``raw`` (each value (R, 1) or (R, P))."""
        ...

    def update(self, hypergradients: Values, memory: Any) -> tuple[dict[str, Tensor], Any]:
        """Steps to add to the raw values, and the new memory."""
        ...


@dataclass(frozen=True)
class SGD:
    """raw ← raw - lr·hypergradient."""

    lr: float

    def __post_init__(self) -> None:
        checks.at_least_zero("lr", self.lr)

    def init(self, raw: Values) -> None:
        """No memory."""

    def update(self, hypergradients: Values, memory: None) -> tuple[dict[str, Tensor], None]:
        """Steps -lr·hypergradient."""
        return {name: -self.lr * value for name, value in hypergradients.items()}, None


@dataclass(frozen=True)
class AdamMemory:
    """What Adam carries.

    Args:
        count: updates made, (R, 1) float64: a tensor, so that an update is the same program every time.
        first, second: moments by name, shaped like the raw values.
    """

    count: Tensor
    first: dict[str, Tensor]
    second: dict[str, Tensor]


@dataclass(frozen=True)
class Adam:
    """Adam with PyTorch's bias correction (Kingma and Ba 2015); the paper's: lr 0.05, β = (0.9, 0.999), ε = 1e-8."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        checks.at_least_zero("lr", self.lr)
        checks.betas("betas", self.betas)
        checks.positive("eps", self.eps)

    def init(self, raw: Values) -> AdamMemory:
        """Moments at zero."""
        like = next(iter(raw.values()))
        return AdamMemory(
            like.new_zeros(len(like), 1, dtype=torch.float64),
            {name: torch.zeros_like(value) for name, value in raw.items()},
            {name: torch.zeros_like(value) for name, value in raw.items()},
        )

    def update(self, hypergradients: Values, memory: AdamMemory) -> tuple[dict[str, Tensor], AdamMemory]:
        """Steps -lr·m̂ / (√v̂ + ε).

        The bias corrections are computed in float64 and rounded once, as they are where they are Python's numbers.
        """
        beta1, beta2 = self.betas
        count = memory.count + 1
        first = {name: torch.lerp(memory.first[name], g, 1 - beta1) for name, g in hypergradients.items()}
        second = {name: beta2 * memory.second[name] + (1 - beta2) * g * g for name, g in hypergradients.items()}
        scale = -self.lr / (1 - _power(beta1, count))
        root = (1 - _power(beta2, count)).sqrt()
        steps = {}
        for name in hypergradients:
            deviation = second[name].sqrt() / root.to(second[name]) + self.eps
            steps[name] = scale.to(first[name]) * first[name] / deviation
        return steps, AdamMemory(count, first, second)


# --- hypergradients that are not finite ---


def finite_rows(results: Any, memory: Any, rows: int) -> Tensor:
    """Which of R rows came out of an update with finite numbers, (R,) bool.

    Args:
        results: hypergradients, steps and the new memory.
        memory: the one before, whose own infinities are no fault.
    """
    fine = _finite(results, rows)
    return fine if bool(fine.all()) else fine | ~_finite(memory, rows)


def _finite(values: Any, rows: int) -> Tensor:
    """Which rows of all tensors of a structure are finite, (R,) bool."""
    leaves = [leaf.reshape(rows, -1) for leaf in tree.leaves(values) if isinstance(leaf, Tensor)]
    return torch.isfinite(torch.cat(leaves, 1)).all(1) if leaves else torch.ones(rows, dtype=torch.bool)


def with_own_numbers(memory: Any, rows: int, device: torch.device) -> Any:
    """A memory in which each row has its own copy (R, 1) of the numbers that the rows share, such as a count."""

    def own(leaf: Any) -> Any:
        if isinstance(leaf, Tensor | bool) or not isinstance(leaf, int | float):
            return leaf
        return torch.full((rows, 1), float(leaf), dtype=torch.float64, device=device)

    return tree.change(memory, own)


def chosen_rows(chosen: Tensor, new: Any, old: Any) -> Any:
    """A memory with the rows ``chosen`` (R,) of one and the others of another, in the dtypes of ``old``."""

    def pick(ours: Any, theirs: Any) -> Any:
        if not isinstance(ours, Tensor):
            return ours
        mask = chosen.reshape(-1, *[1] * (ours.ndim - 1))
        return torch.where(mask, ours, theirs).to(theirs.dtype)

    return tree.rebuilt(old, map(pick, tree.leaves(new), tree.leaves(old)))


def _power(base: float, exponents: Tensor) -> Tensor:
    """base^exponents, shaped like the exponents: `torch.pow` rounds a number by its place among the rows."""
    return exp(exponents * math.log(base)) if base > 0 else torch.zeros_like(exponents)
