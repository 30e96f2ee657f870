"""What a weight update starts from: the state of a training, and its loss to second order.

The only derivative that depends on the model is the product of the loss's Hessian with a vector,
which a model's `Linearisation` provides: Neumann series, unrolled (reverse) and tangent (forward)
differentiation are all short recurrences around it (`hpo_bench.core.rule`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """What a training carries from one weight update to the next.

    Args:
        weights: (R, P).
        buffer: momentum buffer, (R, P), or whatever else the `Rule` carries, rows first.
        carried: what the model carries besides (batch-norm statistics, LSTM states), rows first;
            opaque to the loop.
    """

    weights: Tensor
    buffer: Any
    carried: Mapping[str, Any] = field(default_factory=dict)


ProductsOfSeries = Callable[
    [Tensor, Tensor, Tensor, Sequence[int], Sequence[Tensor]], Tensor | None
]


@dataclass(frozen=True)
class Operands:
    """A weight update as a compiled kernel takes it.

    Args:
        kernel: the name by which kernels know the rule.
        hyperparameters: natural values in the kernel's order, (R, 1) or (R, P) each.
        eps: what is added to a denominator; 0 where the rule has none.
    """

    kernel: str
    hyperparameters: tuple[Tensor, ...]
    eps: float = 0.0


ProductsOfRule = Callable[[Operands, Any, Tensor, Sequence[int], Tensor | None], Tensor]


@dataclass(frozen=True)
class Linearisation:
    """A training loss at some weights, to second order.

    Args:
        loss: (R,).
        gradient: (R, P).
        hessian_product: v (R, P) -> H·v (R, P), H the (symmetric) Hessian of each row's loss; may
            be called repeatedly.
        carried: the model's carried state after the forward pass.
        hessian_products: the same for several vectors, (n, R, P) -> (n, R, P), if that costs less
            than n products.
        series: (vector (R, P), lr, weight decay, terms) -> (R, P), what `SGDStep.series` says, bit
            by bit, if there is a faster way to it.
        products_of_series: (vector (R, P), lr, weight decay, terms of each row, n vectors (R, P))
            -> (n, R, 1), inner products of what `series` says with other vectors, to rounding, if
            there is a faster way to them; None where there is none for these hyperparameters or
            this many terms.
        products_of_rule: (operands, memory, vector (R, P), terms of each row, longest) -> what the
            kernel of the rule finds for `Step.products_of_series`, to rounding, if there is one for
            other rules than SGD. The memory is that before the update.
    """

    loss: Tensor
    gradient: Tensor
    hessian_product: Callable[[Tensor], Tensor]
    carried: Mapping[str, Any] = field(default_factory=dict)
    hessian_products: Callable[[Tensor], Tensor] | None = None
    series: Callable[[Tensor, Tensor, Tensor, int], Tensor] | None = None
    products_of_series: ProductsOfSeries | None = None
    products_of_rule: ProductsOfRule | None = None

    def products(self, vectors: Tensor) -> Tensor:
        """H·v for each v of (n, R, P)."""
        if self.hessian_products is not None:
            return self.hessian_products(vectors)
        return torch.stack([self.hessian_product(vector) for vector in vectors])


def _row_norm(vector: Tensor) -> Tensor:
    result: Tensor = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return result


@dataclass(frozen=True)
class Clip:
    """Clipping of one gradient to a norm, per repetition: factor max_norm / (norm + 1e-6) where
    that is below 1.

    Its Jacobian C = c·I - (c / (norm + 1e-6) / norm)·g·gᵀ is symmetric.
    """

    gradient: Tensor
    factor: Tensor
    inner: Tensor

    EPSILON = 1e-6

    @staticmethod
    def of(gradient: Tensor, max_norm: float) -> Clip:
        """Clip ``gradient`` (R, P) to ``max_norm``."""
        norm = _row_norm(gradient)
        factor = max_norm / (norm + Clip.EPSILON)
        active = factor < 1
        inner = torch.where(active, factor / (norm + Clip.EPSILON) / norm, torch.zeros_like(norm))
        return Clip(gradient, torch.where(active, factor, torch.ones_like(factor)), inner)

    @property
    def clipped(self) -> Tensor:
        """The clipped gradient (R, P)."""
        return self.gradient * self.factor

    def jacobian_product(self, vector: Tensor) -> Tensor:
        """The product C·v with the Jacobian, (R, P)."""
        return (
            self.factor * vector
            - self.inner * (self.gradient * vector).sum(-1, keepdim=True) * self.gradient
        )


@dataclass(frozen=True)
class Phase:
    """Weights and what the rule carries beside them: a covector or tangents of both.

    Args:
        weights: (R, P), or (n, R, P) for n tangents.
        memory: tensors in the structure of `State.buffer`, shaped likewise.
    """

    weights: Tensor
    memory: Any
