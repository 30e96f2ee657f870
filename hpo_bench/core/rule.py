"""A weight update u(λ, w): the one notion of it, and its derivatives.

A rule takes (w, memory) to (w - u, memory'), given the gradient g of the training loss, clipped:

    (u, memory') = f(w, memory, g, λ),    g = clip(∇L_T(w)),    w' = w - u

Everything that estimates hypergradients asks a `Step` for three things alone, none of which knows
the rule: u's derivatives with the memory held constant (a Neumann series), covectors pulled back
through the whole update (reverse mode), tangents pushed forward through it (forward mode).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from hpo_bench.core.hyperparameters import Coordinate, Hyperparameters
from hpo_bench.core.update import Clip, Linearisation, Operands, Phase, State


class Rule(Protocol):
    """How weights are updated from gradients.

    Attributes:
        coordinates: its hyperparameters by name, in the order in which they are shown.
        differentiable: whether `advance` gives the `Step` that hypergradients need.
    """

    @property
    def coordinates(self) -> Mapping[str, Coordinate]: ...
    @property
    def differentiable(self) -> bool: ...

    def init(self, weights: Tensor) -> Any:
        """`State.buffer` before the first update of ``weights`` (R, P)."""
        ...

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, Step | None]:
        """Make one weight update; `State.carried` stays as it is."""
        ...

    def evaluated(self, state: State) -> Tensor:
        """The weights (R, P) whose validation and test losses count: the trained ones, or an
        average of them.
        """
        ...

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """What the curves show as hyperparameters: those given, or what the rule puts in their
        place.
        """
        ...


@runtime_checkable
class Fusable(Rule, Protocol):
    """A rule that kernels may know, so that a model can make many updates in one call."""

    def operands(self, hyperparameters: Hyperparameters) -> Operands | None:
        """How a kernel makes the update that `advance` makes without clipping, bit by bit.

        None where none can: for variants of the rule, or for a value for each weight where kernels
        take one for all.
        """
        ...

    def made(
        self,
        before: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        after: State,
    ) -> Step:
        """The `Step` of an update that a kernel made."""
        ...


@dataclass(frozen=True)
class Pulled:
    """Covectors of what enters an update, from those of what leaves it: a product with fᵀ.

    Args:
        gradient: of g, (R, P).
        weights: of w where it enters f by itself, not by way of g, (R, P).
        memory: of the memory before the update.
        raw: derivative of the product with respect to raw hyperparameters, (R, 1) or (R, P) each.
    """

    gradient: Tensor
    weights: Tensor
    memory: Any
    raw: Mapping[str, Tensor]


@dataclass(frozen=True)
class Step(ABC):
    """One weight update that was made, kept so that it can be differentiated.

    Args:
        weights: before the update, (R, P).
        memory: what the rule carried before it, `State.buffer`.
        linearisation: of the training loss there.
        clip: how its gradient was clipped, or None.
        hyperparameters: in force.
    """

    weights: Tensor
    memory: Any
    linearisation: Linearisation
    clip: Clip | None
    hyperparameters: Hyperparameters

    shortens: ClassVar[bool] = False
    """Whether a Neumann series needs its terms shortened (`hpo_bench.hypergradients.neumann`)."""

    @abstractmethod
    def pulled(self, update: Tensor, memory: Any, names: Sequence[str]) -> Pulled:
        """Pull covectors of u and memory' back to everything that enters f.

        Args:
            update: of u, (R, P).
            memory: of memory', in its structure; None for zero.
            names: of the hyperparameters whose derivatives are wanted.
        """

    @abstractmethod
    def push(self, tangents: Phase | None, names: Sequence[str]) -> Phase:
        """Tangents of (w', memory') from those of (w, memory), one for each raw hyperparameter.

        Args:
            tangents: (n, R, P); None for zero.
            names: n hyperparameters.
        """

    @abstractmethod
    def covector(self, weights: Tensor) -> Phase:
        """The covector of (w', memory') that is ``weights`` (R, P) on the weights, else zero."""

    def through_gradient(self, covector: Tensor) -> Tensor:
        """a·∂g/∂w: (R, P) -> (R, P). Costs one Hessian-vector product."""
        through = covector if self.clip is None else self.clip.jacobian_product(covector)
        return self.linearisation.hessian_product(through)

    def gradient_tangents(self, vectors: Tensor) -> Tensor:
        """∂g/∂w·v for each v: (n, R, P) -> (n, R, P). Costs n Hessian-vector products."""
        through = self.linearisation.products(vectors)
        return through if self.clip is None else self.clip.jacobian_product(through)

    def update_pullback(self, covector: Tensor) -> Tensor:
        """a·∂u/∂w, the memory being a constant: (R, P) -> (R, P)."""
        pulled = self.pulled(covector, None, ())
        return self.through_gradient(pulled.gradient) + pulled.weights

    def update_products(self, covector: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """⟨a, ∂u/∂raw⟩ for each hyperparameter, the memory being a constant: (R, 1) or (R, P)."""
        return dict(self.pulled(covector, None, names).raw)

    def pull(
        self, covector: Phase, names: Sequence[str], *, further: bool
    ) -> tuple[dict[str, Tensor], Phase | None]:
        """What the covector of (w', memory') says of the raw hyperparameters, and of (w, memory).

        Args:
            further: whether the second is wanted; it costs one Hessian-vector product.
        """
        pulled = self.pulled(-covector.weights, covector.memory, names)
        if not further:
            return dict(pulled.raw), None
        back = self.through_gradient(pulled.gradient) + pulled.weights
        return dict(pulled.raw), Phase(covector.weights + back, pulled.memory)

    def series(self, covector: Tensor, terms: int, longest: Tensor | None = None) -> Tensor:
        """Σ_{0≤j<terms} a·(I - ∂u/∂w)^j, the memory being a constant: (R, P).

        Costs terms - 1 Hessian-vector products.

        Args:
            longest: the norm (R, 1) to which longer terms are shortened; None for none.
        """
        term = total = covector
        for _ in range(terms - 1):
            term = self.next_term(term, longest)
            total = total + term
        return total

    def next_term(self, term: Tensor, longest: Tensor | None = None) -> Tensor:
        """The term that follows in `series`."""
        following = term - self.update_pullback(term)
        if longest is None:
            return following
        norm = torch.linalg.vector_norm(following, dim=-1, keepdim=True)
        return following * torch.where(norm > longest, longest / norm, torch.ones_like(norm))

    def products_of_series(
        self,
        covector: Tensor,
        terms: Sequence[int],
        names: Sequence[str],
        longest: Tensor | None = None,
    ) -> dict[str, Tensor] | None:
        """`update_products` of the `series` of ``covector``, row r's of ``terms[r]`` terms.

        None unless there is a faster way to them.
        """
        return None


def raw_product(product: Tensor, name: str, hyperparameters: Hyperparameters) -> Tensor:
    """Sum over the weights (R, P) -> (R, 1) unless each has its own, times d natural / d raw."""
    slope = hyperparameters.slope(name)
    if slope.shape[-1] == 1:
        return product.sum(-1, keepdim=True) * slope
    products = product * slope
    is_shared = hyperparameters.raw[name].shape[-1] == 1
    return products.sum(-1, keepdim=True) if is_shared else products
