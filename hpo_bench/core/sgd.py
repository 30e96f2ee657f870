"""The paper's weight update: SGD with momentum and weight decay (paper §2, eq. 1).

    g_w = g + wd·w;    m' = μ·m + (1 - τ)·g_w;    u = lr·m',    or lr·(g_w + μ·m') by Nesterov

in PyTorch's form, with dampening τ. Its derivatives are written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.hyperparameters import LOG10, LOGIT, Coordinate, Hyperparameters
from hpo_bench.core.rule import Pulled, Step, raw_product
from hpo_bench.core.update import Clip, Linearisation, Operands, Phase, State

COORDINATES: Mapping[str, Coordinate] = MappingProxyType(
    {
        "lr": Coordinate(LOG10, (-6.0, -1.0), default=1e-2),
        "weight_decay": Coordinate(LOG10, (-7.0, -2.0), default=1e-4),
        "momentum": Coordinate(LOGIT, (0.0, 1.0), default=0.9),
    }
)


@dataclass(frozen=True)
class MomentumSGD:
    """SGD with momentum and weight decay.

    DIFFERENCE: with dampening, PyTorch takes the first gradient whole; here the buffer starts at
    zero, so that every update is the same function, which can be differentiated.

    Args:
        nesterov: look ahead along the momentum.
        dampening: τ, at least 0 and below 1.

    Raises:
        UserError: a dampening that is none.
    """

    nesterov: bool = False
    dampening: float = 0.0

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES
    differentiable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.flag("nesterov", self.nesterov)
        checks.decay("dampening", self.dampening)

    @property
    def plain(self) -> bool:
        """Whether it is the paper's: neither Nesterov's nor dampened."""
        return not self.nesterov and self.dampening == 0

    def init(self, weights: Tensor) -> Tensor:
        """A buffer of zeros."""
        return torch.zeros_like(weights)

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, SGDStep]:
        """Make one weight update."""
        clip = None if clip_norm is None else Clip.of(linearisation.gradient, clip_norm)
        gradient = linearisation.gradient if clip is None else clip.clipped
        lr, momentum = hyperparameters["lr"], hyperparameters["momentum"]
        decayed = torch.addcmul(gradient, hyperparameters["weight_decay"], state.weights)
        if self.plain:
            buffer = direction = decayed.addcmul_(momentum, state.buffer)
        else:
            buffer = torch.addcmul((1 - self.dampening) * decayed, momentum, state.buffer)
            direction = torch.addcmul(decayed, momentum, buffer) if self.nesterov else buffer
        weights = torch.addcmul(state.weights, lr, direction, value=-1)
        step = SGDStep(
            state.weights,
            state.buffer,
            linearisation,
            clip,
            hyperparameters,
            buffer,
            direction,
            self,
        )
        return State(weights, buffer, state.carried), step

    def evaluated(self, state: State) -> Tensor:
        """The trained weights themselves, (R, P)."""
        return state.weights

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The hyperparameters as they were given."""
        return hyperparameters

    def operands(self, hyperparameters: Hyperparameters) -> Operands | None:
        """Of the plain rule alone."""
        names = ("lr", "weight_decay", "momentum")
        found = Operands("sgd", tuple(hyperparameters[name] for name in names))
        return found if self.plain else None

    def made(
        self,
        before: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        after: State,
    ) -> SGDStep:
        """The plain rule's."""
        buffer = after.buffer
        return SGDStep(
            before.weights, before.buffer, linearisation, None, hyperparameters, buffer, buffer
        )


@dataclass(frozen=True)
class SGDStep(Step):
    """An update of `MomentumSGD`.

    Args:
        new_buffer: m' after it.
        direction: what lr multiplies: u = lr·direction.
        rule: whose update it is.
    """

    new_buffer: Tensor
    direction: Tensor
    rule: MomentumSGD = field(default_factory=MomentumSGD)

    def covector(self, weights: Tensor) -> Phase:
        """Zero on the buffer."""
        return Phase(weights, torch.zeros_like(weights))

    def pulled(self, update: Tensor, memory: Any, names: Sequence[str]) -> Pulled:
        """With d̄ = lr·ū:  m̄' += d̄;  ḡ_w = (1 - τ)·m̄';  Nesterov: m̄' += μ·d̄, ḡ_w += d̄."""
        hyper, rule = self.hyperparameters, self.rule
        direction = hyper["lr"] * update
        buffer = hyper["momentum"] * direction if rule.nesterov else direction
        if memory is not None:
            buffer = memory + buffer
        gradient = buffer if rule.dampening == 0 else (1 - rule.dampening) * buffer
        if rule.nesterov:
            gradient = gradient + direction
        raw = {}
        for name in names:
            if name == "lr":
                product = update * self.direction
            elif name == "weight_decay":
                product = gradient * self.weights
            else:
                product = buffer * self.memory
                if rule.nesterov:
                    product = product + direction * self.new_buffer
            raw[name] = raw_product(product, name, hyper)
        inner = None if memory is None else hyper["momentum"] * buffer
        return Pulled(gradient, hyper["weight_decay"] * gradient, inner, raw)

    def push(self, tangents: Phase | None, names: Sequence[str]) -> Phase:
        """The recurrences of `MomentumSGD`, differentiated."""
        hyper, rule = self.hyperparameters, self.rule
        if tangents is None:
            decayed = self.weights.new_zeros(len(names), *self.weights.shape)
            tangents = Phase(torch.zeros_like(decayed), torch.zeros_like(decayed))
        else:
            through = self.gradient_tangents(tangents.weights)
            decayed = torch.addcmul(through, hyper["weight_decay"], tangents.weights)

        scaled = decayed if rule.dampening == 0 else (1 - rule.dampening) * decayed
        buffer = torch.addcmul(scaled, hyper["momentum"], tangents.memory)
        self._add(buffer, names, "weight_decay", self.weights, 1 - rule.dampening)
        self._add(buffer, names, "momentum", self.memory)
        direction = buffer
        if rule.nesterov:
            self._add(decayed, names, "weight_decay", self.weights)
            direction = torch.addcmul(decayed, hyper["momentum"], buffer)
            self._add(direction, names, "momentum", self.new_buffer)

        weights = torch.addcmul(tangents.weights, hyper["lr"], direction, value=-1)
        self._add(weights, names, "lr", self.direction, -1)
        return Phase(weights, buffer)

    def _add(
        self,
        tangents: Tensor,
        names: Sequence[str],
        name: str,
        factor: Tensor,
        times: float = 1,
    ) -> None:
        """Add to the tangent of one hyperparameter what that multiplies, if it is among them."""
        if name in names:
            slope = self.hyperparameters.slope(name)
            tangents[names.index(name)].add_(slope * factor, alpha=times)

    def series(self, covector: Tensor, terms: int, longest: Tensor | None = None) -> Tensor:
        """By the linearisation's own way, where it has one for this rule."""
        shortcut = self.linearisation.series
        if shortcut is None or self.clip is not None or longest is not None or not self.rule.plain:
            return super().series(covector, terms, longest)
        hyper = self.hyperparameters
        return shortcut(covector, hyper["lr"], hyper["weight_decay"], terms)

    def products_of_series(
        self,
        covector: Tensor,
        terms: Sequence[int],
        names: Sequence[str],
        longest: Tensor | None = None,
    ) -> dict[str, Tensor] | None:
        """By the linearisation's own way, where it has one for this rule."""
        shortcut, hyper = self.linearisation.products_of_series, self.hyperparameters
        if shortcut is None or self.clip is not None or longest is not None or not self.rule.plain:
            return None
        factors = {"lr": self.new_buffer, "weight_decay": self.weights, "momentum": self.memory}
        asked = [factors[name] for name in names]
        products = shortcut(covector, hyper["lr"], hyper["weight_decay"], terms, asked)
        return None if products is None else raw_products(products, names, hyper)


def raw_products(
    products: Tensor, names: Sequence[str], hyperparameters: Hyperparameters
) -> dict[str, Tensor]:
    """`SGDStep.products_of_series` from the inner products (n, R, 1) of the series with what each
    hyperparameter multiplies: m' (lr), w (weight decay), m (momentum).
    """
    through_buffer = hyperparameters["lr"] * products
    found = {}
    for at, name in enumerate(names):
        chosen = products if name == "lr" else through_buffer
        found[name] = chosen[at] * hyperparameters.slope(name)
    return found
