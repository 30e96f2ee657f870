"""Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`.

    m' = β₁·m + (1 - β₁)·g;    v' = β₂·v + (1 - β₂)·g²;    c' = β·c + (1 - β) for each of the two
    m̂ = m'/c₁';    s = √(v'/c₂') + ε;    u = lr·(m̂/s + wd·w)

The bias corrections c = 1 - βᵗ are carried, so that β may change during the training. Its
derivatives are written out; 1 - β is taken in raw space, where nothing cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, ones_like, zeros_like

from hpo_bench.core import checks, tree
from hpo_bench.core.hyperparameters import LOGIT, Coordinate, Hyperparameters
from hpo_bench.core.native.elementary import sqrt
from hpo_bench.core.rule import Pulled, Step, raw_product
from hpo_bench.core.sgd import COORDINATES as OF_SGD
from hpo_bench.core.update import Linearisation, Operands, Phase, State
from hpo_bench.rules.base import clip_of, column

COORDINATES: Mapping[str, Coordinate] = MappingProxyType(
    {
        "lr": replace(OF_SGD["lr"], default=1e-3),
        "weight_decay": replace(OF_SGD["weight_decay"], default=1e-2),
        "beta1": Coordinate(LOGIT, (0.0, 1.0), drawn_as="momentum", default=0.9),
        "beta2": Coordinate(LOGIT, (0.999, 0.999), default=0.999),
    }
)


@dataclass(frozen=True)
class Moments:
    """What Adam carries.

    Args:
        first, second: moving averages m of the gradient and v of its square, (R, P).
        correction1, correction2: 1 - β₁ᵗ and 1 - β₂ᵗ after t updates, (R, 1) or (R, P).
    """

    first: Tensor
    second: Tensor
    correction1: Tensor
    correction2: Tensor


@dataclass(frozen=True)
class AdamW:
    """Costs one gradient an update and two buffers of the weights' size.

    β₂ starts at 0.999 unless ``init.beta2`` says otherwise, and is not tuned unless asked for.

    Args:
        eps: PyTorch's default.

    Raises:
        UserError: an eps that is not above 0.
    """

    eps: float = 1e-8

    coordinates: ClassVar[Mapping[str, Coordinate]] = COORDINATES
    differentiable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.positive("eps", self.eps)

    def init(self, weights: Tensor) -> Moments:
        """Moments at zero, nothing to correct yet."""
        zero = column(weights, 0.0)
        return Moments(zeros_like(weights), zeros_like(weights), zero, zero)

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, AdamStep]:
        """One update of all rows."""
        before: Moments = state.buffer
        clip = clip_of(linearisation, clip_norm)
        gradient = linearisation.gradient if clip is None else clip.clipped
        beta1, beta2 = hyperparameters["beta1"], hyperparameters["beta2"]
        rest1, rest2 = hyperparameters.complement("beta1"), hyperparameters.complement("beta2")
        after = Moments(
            torch.addcmul(rest1 * gradient, beta1, before.first),
            torch.addcmul(rest2 * gradient * gradient, beta2, before.second),
            torch.addcmul(rest1, beta1, before.correction1),
            torch.addcmul(rest2, beta2, before.correction2),
        )
        step = AdamStep(
            state.weights, before, linearisation, clip, hyperparameters, gradient, after, self
        )
        weights = torch.addcmul(state.weights, hyperparameters["lr"], step.direction, value=-1)
        return State(weights, after, state.carried), step

    def evaluated(self, state: State) -> Tensor:
        """The trained weights themselves, (R, P)."""
        return state.weights

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The hyperparameters as they were given."""
        return hyperparameters

    def operands(self, hyperparameters: Hyperparameters) -> Operands | None:
        """With one β₁ and one β₂ for all weights of a row."""
        if any(hyperparameters[name].shape[-1] != 1 for name in ("beta1", "beta2")):
            return None
        values = [hyperparameters["lr"], hyperparameters["weight_decay"]]
        for name in ("beta1", "beta2"):
            values += [hyperparameters[name], hyperparameters.complement(name)]
        return Operands("adamw", tuple(values), self.eps)

    def made(
        self,
        before: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        after: State,
    ) -> AdamStep:
        """Without clipping."""
        gradient = linearisation.gradient
        return AdamStep(
            before.weights,
            before.buffer,
            linearisation,
            None,
            hyperparameters,
            gradient,
            after.buffer,
            self,
        )


@dataclass(frozen=True)
class AdamStep(Step):
    """An update of `AdamW`.

    Args:
        gradient: g, clipped, (R, P).
        after: the moments after it.
        rule: whose update it is.
    """

    gradient: Tensor
    after: Moments
    rule: AdamW

    # |∂u/∂g| reaches 1e3 to 5e3 where the second moment is small; a series with such terms drives
    # the weight decay up.
    shortens: ClassVar[bool] = True

    def covector(self, weights: Tensor) -> Phase:
        """Zero on the moments."""
        return Phase(weights, tree.change(self.memory, zeros_like))

    @cached_property
    def mean(self) -> Tensor:
        """m̂, (R, P)."""
        return self.after.first / self.after.correction1

    @cached_property
    def root(self) -> Tensor:
        """√(v'/c₂'), (R, P)."""
        return sqrt(self.after.second / self.after.correction2)

    @cached_property
    def scale(self) -> Tensor:
        """s, (R, P)."""
        return self.root + self.rule.eps

    @cached_property
    def direction(self) -> Tensor:
        """What lr multiplies: u = lr·direction, (R, P)."""
        decay = self.hyperparameters["weight_decay"]
        return torch.addcmul(self.mean / self.scale, decay, self.weights)

    @cached_property
    def sensitivity(self) -> Tensor:
        """d = ∂u/∂g with the moments before the update held constant, (R, P): it is diagonal."""
        return self.pulled(ones_like(self.weights), None, ()).gradient

    @cached_property
    def decay(self) -> Tensor:
        """∂u/∂w where w enters u by itself: lr·wd, (R, 1) or (R, P)."""
        return self.hyperparameters["lr"] * self.hyperparameters["weight_decay"]

    def update_pullback(self, covector: Tensor) -> Tensor:
        """H(d∘a) + lr·wd·a, which is a product or two for each term of a series."""
        return self.through_gradient(self.sensitivity * covector) + self.decay * covector

    def products_of_series(
        self,
        covector: Tensor,
        terms: Sequence[int],
        names: Sequence[str],
        longest: Tensor | None = None,
    ) -> dict[str, Tensor] | None:
        """By the linearisation's own way, where it has one and no weight has values of its own."""
        shortcut, hyper = self.linearisation.products_of_rule, self.hyperparameters
        operands = self.rule.operands(hyper)
        per_weight = any(hyper[name].shape[-1] != 1 for name in names)
        if shortcut is None or operands is None or self.clip is not None or per_weight:
            return None
        sums = shortcut(operands, self.memory, covector, terms, longest)
        lr, decay, moment1, bias1, moment2, bias2 = sums.split(1, -1)
        found = {
            "lr": lr,
            "weight_decay": decay,
            "beta1": moment1 + bias1 * (self.memory.correction1 - 1),
            "beta2": moment2 + bias2 * (self.memory.correction2 - 1),
        }
        return {name: found[name] * hyper.slope(name) for name in names}

    def _inverse_root(self) -> Tensor:
        """1/√(v'/c₂'), and 0 where that is 0: weights of dead units, whose gradient is 0."""
        return torch.where(self.root > 0, 1 / self.root, zeros_like(self.root))

    def pulled(self, update: Tensor, memory: Any, names: Sequence[str]) -> Pulled:
        """Backwards through the lines of the module, each covector by its bar."""
        hyper, before, after = self.hyperparameters, self.memory, self.after
        along = hyper["lr"] * update
        mean_bar = along / self.scale
        square_bar = -0.5 * mean_bar * self.mean / self.scale * self._inverse_root()
        first_bar, second_bar = mean_bar / after.correction1, square_bar / after.correction2
        correction1_bar = _like(-first_bar * self.mean, after.correction1)
        correction2_bar = _like(-second_bar * self.root * self.root, after.correction2)
        if memory is not None:
            first_bar, second_bar = first_bar + memory.first, second_bar + memory.second
            correction1_bar = correction1_bar + memory.correction1
            correction2_bar = correction2_bar + memory.correction2
        rest1, rest2 = hyper.complement("beta1"), hyper.complement("beta2")
        gradient = torch.addcmul(rest1 * first_bar, 2 * rest2 * second_bar, self.gradient)
        raw = {}
        for name in names:
            if name == "lr":
                raw[name] = raw_product(update * self.direction, name, hyper)
            elif name == "weight_decay":
                raw[name] = raw_product(along * self.weights, name, hyper)
            elif name == "beta1":
                product = first_bar * (before.first - self.gradient)
                own = correction1_bar * (before.correction1 - 1)
                raw[name] = raw_product(product, name, hyper) + raw_product(own, name, hyper)
            else:
                product = second_bar * (before.second - self.gradient * self.gradient)
                own = correction2_bar * (before.correction2 - 1)
                raw[name] = raw_product(product, name, hyper) + raw_product(own, name, hyper)
        inner = None
        if memory is not None:
            inner = Moments(
                hyper["beta1"] * first_bar,
                hyper["beta2"] * second_bar,
                hyper["beta1"] * correction1_bar,
                hyper["beta2"] * correction2_bar,
            )
        return Pulled(gradient, hyper["weight_decay"] * along, inner, raw)

    def push(self, tangents: Phase | None, names: Sequence[str]) -> Phase:
        """Forwards through the lines of the module, each tangent by its dot."""
        hyper, before, after = self.hyperparameters, self.memory, self.after
        beta1, beta2 = hyper["beta1"], hyper["beta2"]
        if tangents is None:
            weights = self.weights.new_zeros(len(names), *self.weights.shape)
            first, second = zeros_like(weights), zeros_like(weights)
            correction1 = before.correction1.new_zeros(len(names), *before.correction1.shape)
            correction2 = before.correction2.new_zeros(len(names), *before.correction2.shape)
        else:
            weights, memory = tangents.weights, tangents.memory
            gradients = self.gradient_tangents(weights)
            rest1, rest2 = hyper.complement("beta1"), hyper.complement("beta2")
            first = torch.addcmul(rest1 * gradients, beta1, memory.first)
            second = torch.addcmul(2 * rest2 * self.gradient * gradients, beta2, memory.second)
            correction1, correction2 = beta1 * memory.correction1, beta2 * memory.correction2
        if "beta1" in names:
            at, slope = names.index("beta1"), hyper.slope("beta1")
            first[at] += slope * (before.first - self.gradient)
            correction1[at] += slope * (before.correction1 - 1)
        if "beta2" in names:
            at, slope = names.index("beta2"), hyper.slope("beta2")
            second[at] += slope * (before.second - self.gradient * self.gradient)
            correction2[at] += slope * (before.correction2 - 1)

        means = (first - self.mean * correction1) / after.correction1
        squares = (second - self.root * self.root * correction2) / after.correction2
        scales = 0.5 * squares * self._inverse_root()
        directions = (means - self.mean / self.scale * scales) / self.scale
        directions = torch.addcmul(directions, hyper["weight_decay"], weights)
        if "weight_decay" in names:
            directions[names.index("weight_decay")] += hyper.slope("weight_decay") * self.weights
        weights = torch.addcmul(weights, hyper["lr"], directions, value=-1)
        if "lr" in names:
            weights[names.index("lr")] -= hyper.slope("lr") * self.direction
        return Phase(weights, Moments(first, second, correction1, correction2))


def _like(values: Tensor, correction: Tensor) -> Tensor:
    """Sum over the weights where all of a row have one bias correction."""
    return values.sum(-1, keepdim=True) if correction.shape[-1] == 1 else values
