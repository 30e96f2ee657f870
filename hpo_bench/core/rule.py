"""A weight update rule, and the paper's: SGD with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.update import Linearisation, State, Step, advance


class Rule(Protocol):
    """How weights are updated from gradients.

    Hypergradients need the `Step` that only `MomentumSGD` gives.
    """

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


@dataclass(frozen=True)
class MomentumSGD:
    """SGD with momentum and weight decay: `advance`."""

    def init(self, weights: Tensor) -> Tensor:
        """A buffer of zeros."""
        return torch.zeros_like(weights)

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, Step | None]:
        """See `advance`."""
        return advance(state, linearisation, hyperparameters, clip_norm)

    def evaluated(self, state: State) -> Tensor:
        """The trained weights."""
        return state.weights

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Those given."""
        return hyperparameters
