"""Hyperparameters of a weight update in raw space, where they are optimised, and in natural space.

A `hpo_bench.core.rule.Rule` says which it has and in which coordinates: lr = 10^x and weight decay
= 10^y, momentum = 1 / (1 + e^-z) (paper §2, appendix B). A hyperparameter is a tensor (R, 1), or
(R, P) where every weight has its own; broadcasting makes both the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from hpo_bench.core.native.elementary import exp


@dataclass(frozen=True)
class Space:
    """One coordinate change: natural = f(raw).

    Args:
        name: for messages.
        natural: f.
        slope: f', as a function of the natural value.
        raw: f's inverse, of one number.
        complement: 1 - f(raw) without the digits that the subtraction loses near 1.
    """

    name: str
    natural: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    raw: Callable[[float], float]
    complement: Callable[[Tensor], Tensor]

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """What the natural values lie between: those of the raw values -∞ and ∞."""
        ends = torch.tensor([-math.inf, math.inf], dtype=torch.float64)
        low, high = self.natural(ends).tolist()
        return low, high


def _power_of_ten(raw: Tensor) -> Tensor:
    """10^raw by way of exp: `torch.pow` rounds a number by its place, and rows differ by theirs.

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


def _logit(natural: float) -> float:
    """The raw value; infinite at 0 and 1."""
    if natural in (0.0, 1.0):
        return math.copysign(math.inf, natural - 0.5)
    return math.log(natural) - math.log(1 - natural)


def _log10(natural: float) -> float:
    """The raw value; infinite at 0."""
    return math.log10(natural) if natural else -math.inf


LOG10 = Space("log10", _power_of_ten, _power_slope, _log10, lambda raw: 1 - _power_of_ten(raw))
LOGIT = Space("logit", _sigmoid, _sigmoid_slope, _logit, lambda raw: _sigmoid(-raw))


@dataclass(frozen=True)
class Coordinate:
    """How one hyperparameter of a rule is optimised, and where it starts.

    Args:
        space: raw and natural values.
        start: (low, high) of the uniform draw of its start: of raw values in `LOG10`, of natural
            ones in `LOGIT`. One that is a point is not tuned unless that is asked for.
        drawn_as: whose random number its start takes; its own name unless given. Methods whose
            rules differ are paired by it.
        default: the natural value from which `hpo_bench.OnePass` starts; None where it has to be
            given.
    """

    space: Space
    start: tuple[float, float]
    drawn_as: str | None = None
    default: float | None = None


@dataclass(frozen=True)
class Hyperparameters:
    """Values in force during some weight updates, by name, each (R, 1) or (R, P).

    Args:
        raw: in the coordinates in which they are optimised.
        natural: as they act; the learning rate is that of ``raw`` multiplied by ``factor``. Where
            one acts on some weights alone (`on`), it is (R, P) though its raw value is (R, 1).
        coordinates: of each.
        factor: what a schedule multiplies learning rates by, a tensor without dimensions; 1 without
            one. Rules that find their own step size multiply that by it.
    """

    raw: Mapping[str, Tensor]
    natural: Mapping[str, Tensor]
    coordinates: Mapping[str, Coordinate]
    factor: Tensor | float = 1.0

    @staticmethod
    def of(raw: Mapping[str, Tensor], coordinates: Mapping[str, Coordinate]) -> Hyperparameters:
        """Compute the natural values of raw ones."""
        natural = {name: coordinates[name].space.natural(value) for name, value in raw.items()}
        return Hyperparameters(raw, natural, coordinates)

    def __getitem__(self, name: str) -> Tensor:
        """The natural value of one hyperparameter."""
        return self.natural[name]

    def scheduled(self, factor: Tensor | float) -> Hyperparameters:
        """The same with the learning rate multiplied by the ``factor`` of a schedule."""
        natural = {**self.natural, "lr": self["lr"] * factor}
        return replace(self, natural=natural, factor=factor)

    def on(self, weights: Tensor, name: str) -> Hyperparameters:
        """The same with ``name`` acting on some weights alone: on the others it is 0, and so is its
        slope.

        Args:
            weights: (P,), 1 where it acts and 0 elsewhere.
        """
        return replace(self, natural={**self.natural, name: self[name] * weights})

    def slope(self, name: str) -> Tensor:
        """Derivative of the natural value with respect to the raw one, in its shape."""
        return self.coordinates[name].space.slope(self.natural[name])

    def complement(self, name: str) -> Tensor:
        """One minus the natural value, exact where that is close to 1."""
        return self._complements[name]

    @cached_property
    def _complements(self) -> dict[str, Tensor]:
        """Computed once for the many updates that share the values, and not where no rule asks."""
        return {
            name: self.coordinates[name].space.complement(value) for name, value in self.raw.items()
        }
