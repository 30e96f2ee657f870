"""A rule is one function: its derivatives follow by `torch.func`.

Who adds a differentiable weight update writes `PureRule.change` and nothing else. The function sees
the gradient as given, so that differentiating it costs no pass through the model; the Hessian
enters beside it, by a model's own product (`hpo_bench.core.rule.Step`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hpo_bench.core import tree
from hpo_bench.core.hyperparameters import Coordinate, Hyperparameters
from hpo_bench.core.rule import Pulled, Step, raw_product
from hpo_bench.core.update import Clip, Linearisation, Phase, State

Natural = Mapping[str, Tensor]


class PureRule(ABC):
    """Base of rules that are given by a pure, differentiable function."""

    coordinates: ClassVar[Mapping[str, Coordinate]]
    differentiable: ClassVar[bool] = True

    @abstractmethod
    def init(self, weights: Tensor) -> Any:
        """What the rule carries before the first update of ``weights`` (R, P).

        A tensor (R, P) or (R, 1), or tuples or dataclasses of such.
        """

    @abstractmethod
    def change(
        self, weights: Tensor, memory: Any, gradient: Tensor, hyper: Natural
    ) -> tuple[Tensor, Any]:
        """f: the update u (R, P), to be subtracted from the weights, and memory'.

        Args:
            memory: in the structure of `init`.
            gradient: of the training loss, clipped, (R, P).
            hyper: natural values, (R, 1) or (R, P) each.
        """

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, Step]:
        """Make one weight update."""
        clip = None if clip_norm is None else Clip.of(linearisation.gradient, clip_norm)
        gradient = linearisation.gradient if clip is None else clip.clipped
        natural = hyperparameters.natural
        update, memory = self.change(state.weights, state.buffer, gradient, natural)
        step = PureStep(
            state.weights, state.buffer, linearisation, clip, hyperparameters, self, gradient
        )
        return State(state.weights - update, memory, state.carried), step

    def evaluated(self, state: State) -> Tensor:
        """The trained weights themselves, (R, P)."""
        return state.weights

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The hyperparameters as they were given."""
        return hyperparameters


@dataclass(frozen=True)
class PureStep(Step):
    """An update of a `PureRule`.

    Args:
        rule: whose update it is.
        gradient: clipped, (R, P).
    """

    rule: PureRule
    gradient: Tensor

    def covector(self, weights: Tensor) -> Phase:
        """Zero on the memory."""
        return Phase(weights, tree.change(self.memory, torch.zeros_like))

    def pulled(self, update: Tensor, memory: Any, names: Sequence[str]) -> Pulled:
        """Pull back by `torch.func.vjp` of the pure function."""
        template, hyper = self.memory, self.hyperparameters
        leaves = tuple(tree.leaves(template))
        with torch.enable_grad():
            (_, after), back, *_ = torch.func.vjp(
                self._function, self.weights, leaves, self.gradient, hyper.natural
            )
            if memory is None:
                covectors = tuple(torch.zeros_like(leaf) for leaf in after)
            else:  # the first update widens memory (R, 1) where a hyperparameter is (R, P)
                given = zip(tree.leaves(memory), after, strict=True)
                covectors = tuple(covector.expand_as(leaf) for covector, leaf in given)
            weights, inner, gradient, slopes = back((update, covectors))
        raw = {name: raw_product(slopes[name], name, hyper) for name in names}
        return Pulled(gradient, weights, tree.rebuilt(template, inner), raw)

    def push(self, tangents: Phase | None, names: Sequence[str]) -> Phase:
        """By `torch.func.jvp`, one hyperparameter after the other."""
        template = self.memory
        if tangents is None:
            weights = self.weights.new_zeros(len(names), *self.weights.shape)
            gradients = torch.zeros_like(weights)
            memories = [torch.zeros_like(leaf).expand(len(names), *leaf.shape)
                        for leaf in tree.leaves(template)]  # fmt: skip
        else:
            weights, memories = tangents.weights, tree.leaves(tangents.memory)
            gradients = self.gradient_tangents(weights)
        hyper, leaves = self.hyperparameters, tuple(tree.leaves(template))
        primals = (self.weights, leaves, self.gradient, hyper.natural)
        updates, pushed = [], []
        for at, name in enumerate(names):
            natural = {other: torch.zeros_like(value) for other, value in hyper.natural.items()}
            natural[name] = hyper.slope(name)
            inner = tuple(memory[at] for memory in memories)
            along = (weights[at], inner, gradients[at], natural)
            _, (update, memory), *_ = torch.func.jvp(self._function, primals, along)
            updates.append(update)
            pushed.append(memory)
        stacked = [torch.stack(parts) for parts in zip(*pushed, strict=True)]
        return Phase(weights - torch.stack(updates), tree.rebuilt(template, stacked))

    def _function(
        self, weights: Tensor, leaves: tuple[Tensor, ...], gradient: Tensor, natural: Natural
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """f on the memory's tensors, which is what `torch.func` knows."""
        memory = tree.rebuilt(self.memory, leaves)
        update, after = self.rule.change(weights, memory, gradient, natural)
        return update, tuple(tree.leaves(after))
