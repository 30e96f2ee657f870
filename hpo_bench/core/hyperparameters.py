"""Hyperparameters of the weight update in raw space, where they are optimised, and in natural
space, where they act.

lr = 10^x, weight decay = 10^y, momentum = 1 / (1 + e^-z) (paper §2, appendix B). A hyperparameter
is a tensor (R, 1), or (R, P) where every weight has its own; broadcasting makes both the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from hpo_bench.core.native.elementary import exp


@dataclass(frozen=True)
class Space:
    """One coordinate change: natural = f(raw), and its derivative as a function of the natural
    value.
    """

    natural: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def _power_of_ten(raw: Tensor) -> Tensor:
    """10^raw by way of exp: `torch.pow` rounds a number by its place in the vector, and rows would
    differ by theirs.

    In float64 whatever the precision: raw·ln 10 would lose a digit of float32.
    """
    return exp(raw.double() * math.log(10.0)).to(raw.dtype)


def _power_slope(natural: Tensor) -> Tensor:
    return natural * math.log(10.0)


def _sigmoid(raw: Tensor) -> Tensor:
    """By way of exp, for the same reason."""
    return (1 / (1 + exp(-raw.double()))).to(raw.dtype)


def _sigmoid_slope(natural: Tensor) -> Tensor:
    return natural * (1 - natural)


SPACES: Mapping[str, Space] = {
    "lr": Space(_power_of_ten, _power_slope),
    "weight_decay": Space(_power_of_ten, _power_slope),
    "momentum": Space(_sigmoid, _sigmoid_slope),
}


@dataclass(frozen=True)
class Hyperparameters:
    """Values in force during some weight updates, by name, each (R, 1) or (R, P).

    Args:
        raw: in the coordinates in which they are optimised.
        natural: as they act; the learning rate is that of ``raw`` multiplied by ``factor``.
        factor: what a schedule multiplies learning rates by, a tensor without dimensions; 1 without
            one. Rules that find their own step size multiply that by it.
    """

    raw: Mapping[str, Tensor]
    natural: Mapping[str, Tensor]
    factor: Tensor | float = 1.0

    @staticmethod
    def of(raw: Mapping[str, Tensor]) -> Hyperparameters:
        """Compute the natural values of raw ones."""
        return Hyperparameters(
            raw, {name: SPACES[name].natural(value) for name, value in raw.items()}
        )

    def scheduled(self, factor: Tensor | float) -> Hyperparameters:
        """The same with the learning rate multiplied by the ``factor`` of a schedule."""
        natural = {**self.natural, "lr": self.lr * factor}
        return replace(self, natural=natural, factor=factor)

    @property
    def lr(self) -> Tensor:
        """Learning rate."""
        return self.natural["lr"]

    @property
    def weight_decay(self) -> Tensor:
        """Weight decay (the coefficient of w added to the gradient)."""
        return self.natural["weight_decay"]

    @property
    def momentum(self) -> Tensor:
        """Momentum coefficient μ."""
        return self.natural["momentum"]

    def slope(self, name: str) -> Tensor:
        """d natural / d raw, shaped like the hyperparameter."""
        return SPACES[name].slope(self.natural[name])
