"""Optimisers of the raw hyperparameters, as pairs ``init`` / ``update``: state goes in, state comes
out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hpo_bench.core import checks, tree
from hpo_bench.core.native.elementary import exp

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
    """raw ← raw - lr·hypergradient.

    Args:
        skip_not_finite: see `Adam`.
    """

    lr: float
    skip_not_finite: bool = False

    def __post_init__(self) -> None:
        checks.at_least_zero("lr", self.lr)
        checks.flag("skip_not_finite", self.skip_not_finite)

    def init(self, raw: Values) -> None:
        """Plain descent remembers nothing."""

    def update(self, hypergradients: Values, memory: None) -> tuple[dict[str, Tensor], None]:
        """Steps of -lr times the hypergradient."""
        steps = {name: -self.lr * value for name, value in hypergradients.items()}
        return (
            _without_the_others(hypergradients, steps, None, None)
            if self.skip_not_finite
            else (steps, None)
        )


@dataclass(frozen=True)
class AdamMemory:
    """What Adam carries.

    Args:
        count: updates made, (R, 1) float64: a tensor, so that an update is the same program every
            time.
        first, second: moments by name, shaped like the raw values.
    """

    count: Tensor
    first: dict[str, Tensor]
    second: dict[str, Tensor]


@dataclass(frozen=True)
class Adam:
    """Adam with PyTorch's bias correction (Kingma and Ba 2015); the paper's: lr 0.05, β = (0.9,
    0.999), ε = 1e-8.

    Args:
        skip_not_finite: leave a row as it is, its memory too, where an update would not be finite.
            The paper's code goes on, with hyperparameters that are NaN from then on, and the
            repetition counts as diverged.
    """

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    skip_not_finite: bool = False

    def __post_init__(self) -> None:
        checks.at_least_zero("lr", self.lr)
        checks.betas("betas", self.betas)
        checks.positive("eps", self.eps)
        checks.flag("skip_not_finite", self.skip_not_finite)

    def init(self, raw: Values) -> AdamMemory:
        """All moments start at zero."""
        like = next(iter(raw.values()))
        return AdamMemory(
            like.new_zeros(len(like), 1, dtype=torch.float64),
            {name: torch.zeros_like(value) for name, value in raw.items()},
            {name: torch.zeros_like(value) for name, value in raw.items()},
        )

    def update(
        self, hypergradients: Values, memory: AdamMemory
    ) -> tuple[dict[str, Tensor], AdamMemory]:
        """Steps -lr·m̂ / (√v̂ + ε).

        The bias corrections are computed in float64 and rounded once, as they are where they are
        Python's numbers."""
        beta1, beta2 = self.betas
        count = memory.count + 1
        first = {
            name: torch.lerp(memory.first[name], g, 1 - beta1) for name, g in hypergradients.items()
        }
        second = {
            name: beta2 * memory.second[name] + (1 - beta2) * g * g
            for name, g in hypergradients.items()
        }
        scale = -self.lr / (1 - _power(beta1, count))
        root = (1 - _power(beta2, count)).sqrt()
        steps = {}
        for name in hypergradients:
            deviation = second[name].sqrt() / root.to(second[name]) + self.eps
            steps[name] = scale.to(first[name]) * first[name] / deviation
        after = AdamMemory(count, first, second)
        return (
            _without_the_others(hypergradients, steps, after, memory)
            if self.skip_not_finite
            else (steps, after)
        )


# --- hypergradients that are not finite ---


def finite_rows(hypergradients: Values, steps: Values, new: Any, old: Any) -> Tensor:
    """Which of R rows come out of an update with finite numbers, (R,) bool.

    Args:
        hypergradients, steps: what went in and came out, (R, 1) or (R, P) each.
        new, old: the memory after it and before; what was not finite before is no fault of this
            update.
    """
    rows = len(next(iter(hypergradients.values())))
    usable = _finite([*hypergradients.values(), *steps.values()], rows)
    after, before = (
        [leaf for leaf in tree.leaves(memory) if isinstance(leaf, Tensor)] for memory in (new, old)
    )
    return usable & (_finite(after, rows) | ~_finite(before, rows)) if after and before else usable


def _finite(tensors: Sequence[Tensor], rows: int) -> Tensor:
    """Which rows of all tensors are finite, (R,) bool."""
    return torch.isfinite(torch.cat([tensor.reshape(rows, -1) for tensor in tensors], 1)).all(1)


def _without_the_others(
    hypergradients: Values, steps: Values, new: Any, old: Any
) -> tuple[dict[str, Tensor], Any]:
    """Steps and memory of the rows whose update is finite; the others' are zeros and what was
    remembered before.
    """
    usable = finite_rows(hypergradients, steps, new, old)
    kept = {name: torch.where(usable.unsqueeze(-1), value, 0.0) for name, value in steps.items()}
    return kept, None if old is None else chosen_rows(usable, new, old)


def with_own_numbers(memory: Any, rows: int, device: torch.device) -> Any:
    """A memory in which each row has its own copy (R, 1) of the numbers that the rows share, such
    as a count.
    """

    def own(leaf: Any) -> Any:
        if isinstance(leaf, Tensor | bool) or not isinstance(leaf, int | float):
            return leaf
        return torch.full((rows, 1), float(leaf), dtype=torch.float64, device=device)

    return tree.change(memory, own)


def chosen_rows(chosen: Tensor, new: Any, old: Any) -> Any:
    """A memory with the rows ``chosen`` (R,) of one and the others of another, in the dtypes of
    ``old``.
    """

    def pick(ours: Any, theirs: Any) -> Any:
        if not isinstance(ours, Tensor):
            return ours
        mask = chosen.reshape(-1, *[1] * (ours.ndim - 1))
        return torch.where(mask, ours, theirs).to(theirs.dtype)

    return tree.rebuilt(old, map(pick, tree.leaves(new), tree.leaves(old)))


def _power(base: float, exponents: Tensor) -> Tensor:
    """base^exponents, shaped like the exponents:

    `torch.pow` rounds a number by its place among the rows.
    """
    return exp(exponents * math.log(base)) if base > 0 else torch.zeros_like(exponents)
