"""The weight update u(λ, w) and its derivatives, written out: no estimator needs autograd through
it.

SGD with momentum and weight decay in PyTorch's form (paper §2, eq. 1):

    g = clip(∇L_T(w)) + wd·w;    m' = μ·m + g;    w' = w - u,   u = lr·m'

The only derivative that depends on the model is the product of the loss's Hessian with a vector,
which a model's `Linearisation` provides: Neumann series, unrolled (reverse) and tangent (forward)
differentiation are all short recurrences around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hpo_bench.core.hyperparameters import Hyperparameters


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
        series: (vector (R, P), lr, weight decay, terms) -> (R, P), what `Step.series` says, bit by
            bit, if there is a faster way to it.
        products_of_series: (vector (R, P), lr, weight decay, terms of each row, n vectors (R, P))
            -> (n, R, 1), inner products of what `series` says with other vectors, to rounding, if
            there is a faster way to them; None where there is none for these hyperparameters or
            this many terms.
    """

    loss: Tensor
    gradient: Tensor
    hessian_product: Callable[[Tensor], Tensor]
    carried: Mapping[str, Any] = field(default_factory=dict)
    hessian_products: Callable[[Tensor], Tensor] | None = None
    series: Callable[[Tensor, Tensor, Tensor, int], Tensor] | None = None
    products_of_series: ProductsOfSeries | None = None

    def products(self, vectors: Tensor) -> Tensor:
        """H·v for each v of (n, R, P)."""
        if self.hessian_products is not None:
            return self.hessian_products(vectors)
        return torch.stack([self.hessian_product(vector) for vector in vectors])


def _row_norm(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector, dim=-1, keepdim=True)


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
        """C·v (R, P)."""
        return (
            self.factor * vector
            - self.inner * (self.gradient * vector).sum(-1, keepdim=True) * self.gradient
        )


@dataclass(frozen=True)
class Step:
    """One weight update that was made, kept so that it can be differentiated.

    Args:
        weights, buffer: before the update.
        new_buffer: m' after it.
        linearisation: of the training loss at ``weights``.
        clip: how its gradient was clipped, or None.
        hyperparameters: in force.
    """

    weights: Tensor
    buffer: Tensor
    new_buffer: Tensor
    linearisation: Linearisation
    clip: Clip | None
    hyperparameters: Hyperparameters

    def gradient_pullback(self, covector: Tensor) -> Tensor:
        """a·∂g/∂w with g = clip(∇L_T(w)) + wd·w: (R, P) -> (R, P).

        Costs one Hessian-vector product.
        """
        through = covector if self.clip is None else self.clip.jacobian_product(covector)
        return (
            self.linearisation.hessian_product(through)
            + self.hyperparameters.weight_decay * covector
        )

    def gradient_pushforward(self, vectors: Tensor) -> Tensor:
        """∂g/∂w·v for each v: (n, R, P) -> (n, R, P). Costs n Hessian-vector products."""
        through = self.linearisation.products(vectors)
        if self.clip is not None:
            through = self.clip.jacobian_product(through)
        return torch.addcmul(through, self.hyperparameters.weight_decay, vectors)

    def update_pullback(self, covector: Tensor) -> Tensor:
        """a·∂u/∂w, the buffer being a constant: (R, P) -> (R, P)."""
        return self.gradient_pullback(self.hyperparameters.lr * covector)

    def series(self, covector: Tensor, terms: int) -> Tensor:
        """Σ_{0≤j<terms} a·(I - ∂u/∂w)^j, the buffer being a constant: (R, P).

        Costs terms - 1 products.
        """
        if self.clip is None and self.linearisation.series is not None:
            return self.linearisation.series(
                covector, self.hyperparameters.lr, self.hyperparameters.weight_decay, terms
            )
        term = total = covector
        for _ in range(terms - 1):
            term = term - self.update_pullback(term)
            total = total + term
        return total

    def raw_products_of_series(
        self, covector: Tensor, terms: Sequence[int], names: Sequence[str]
    ) -> dict[str, Tensor] | None:
        """`raw_product` of each name for the covectors p and lr·p with p = `series`, row r's of
        ``terms[r]`` terms.

        None unless the linearisation knows a way to it that does without p.
        """
        shortcut, hyper = self.linearisation.products_of_series, self.hyperparameters
        if shortcut is None or self.clip is not None:
            return None
        products = shortcut(
            covector, hyper.lr, hyper.weight_decay, terms, [self._factor(name) for name in names]
        )
        return None if products is None else raw_products(products, names, hyper)

    def raw_product(self, name: str, weights_covector: Tensor, buffer_covector: Tensor) -> Tensor:
        """Derivative with respect to raw ``name`` of ⟨weights_covector, u⟩ (lr) or
        ⟨buffer_covector, m'⟩ (the others).

        Returns: (R, 1), or (R, P) for a hyperparameter with one value per weight.
        """
        product = (weights_covector if name == "lr" else buffer_covector) * self._factor(name)
        slope = self.hyperparameters.slope(name)
        if slope.shape[-1] == 1:
            product = product.sum(-1, keepdim=True)
        return product * slope

    def raw_tangent(self, name: str) -> Tensor:
        """Derivative with respect to raw ``name`` of u (lr) or of m' (the others), w and m being
        constants: (R, P).
        """
        return self.hyperparameters.slope(name) * self._factor(name)

    def _factor(self, name: str) -> Tensor:
        """What the hyperparameter multiplies in the update, (R, P)."""
        return {"lr": self.new_buffer, "weight_decay": self.weights, "momentum": self.buffer}[name]


def raw_products(
    products: Tensor, names: Sequence[str], hyperparameters: Hyperparameters
) -> dict[str, Tensor]:
    """What `Step.raw_products_of_series` says, from the inner products (n, R, 1) of p with each
    name's factor.
    """
    through_buffer = hyperparameters.lr * products
    chosen = (products if name == "lr" else through_buffer for name in names)
    own = enumerate(zip(names, chosen, strict=True))
    return {name: values[at] * hyperparameters.slope(name) for at, (name, values) in own}


def advance(
    state: State,
    linearisation: Linearisation,
    hyperparameters: Hyperparameters,
    clip_norm: float | None,
) -> tuple[State, Step]:
    """Make one weight update, without dampening or Nesterov (PyTorch's SGD);

    `State.carried` stays as it is.
    """
    clip = None if clip_norm is None else Clip.of(linearisation.gradient, clip_norm)
    gradient = linearisation.gradient if clip is None else clip.clipped
    decayed = torch.addcmul(gradient, hyperparameters.weight_decay, state.weights)
    buffer = decayed.addcmul_(hyperparameters.momentum, state.buffer)
    weights = torch.addcmul(state.weights, hyperparameters.lr, buffer, value=-1)
    step = Step(state.weights, state.buffer, buffer, linearisation, clip, hyperparameters)
    return State(weights, buffer, state.carried), step
