"""RMSprop (Tieleman and Hinton 2012), as `torch.optim.RMSprop`: a rule that is one function.

    g_w = g + wd·w;    v' = α·v + (1 - α)·g_w²;    u = lr·g_w / (√v' + ε)

Its derivatives follow by `torch.func` (`hpo_bench.core.pure`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.hyperparameters import LOGIT, Coordinate
from hpo_bench.core.pure import Natural, PureRule
from hpo_bench.core.sgd import COORDINATES as OF_SGD


@dataclass(frozen=True)
class RMSprop(PureRule):
    """Costs one gradient an update and one buffer of the weights' size.

    Args:
        eps: PyTorch's default.

    Raises:
        UserError: an eps that is not above 0.
    """

    eps: float = 1e-8

    coordinates: ClassVar[Mapping[str, Coordinate]] = MappingProxyType(
        {
            "lr": OF_SGD["lr"],
            "weight_decay": OF_SGD["weight_decay"],
            "alpha": Coordinate(LOGIT, (0.99, 0.99), default=0.99),
        }
    )

    def __post_init__(self) -> None:
        checks.positive("eps", self.eps)

    def init(self, weights: Tensor) -> Tensor:
        """The moving average v, zero."""
        return torch.zeros_like(weights)

    def change(
        self, weights: Tensor, memory: Tensor, gradient: Tensor, hyper: Natural
    ) -> tuple[Tensor, Tensor]:
        """The update u and the average v'."""
        decayed = gradient + hyper["weight_decay"] * weights
        square = hyper["alpha"] * memory + (1 - hyper["alpha"]) * decayed * decayed
        # The root of 0 has no derivative: weights whose gradient was always 0 stay where they are.
        is_moved = square > 0
        root = torch.where(is_moved, square, torch.ones_like(square)).sqrt()
        direction = torch.where(is_moved, decayed / (root + self.eps), torch.zeros_like(decayed))
        return hyper["lr"] * direction, square
