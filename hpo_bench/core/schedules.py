"""Schedules: what the learning rate is multiplied by at each weight update.

A schedule is a function of the update's number and of the training's length alone. So a training
can be taken up at any update without a stored position, and all repetitions share one table of
factors.

The three here are those of ``torch.optim.lr_scheduler`` (``LinearLR``, ``CosineAnnealingLR``, and
one after the other).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hpo_bench.core import checks


class Schedule(Protocol):
    """Says by how much the learning rate is multiplied."""

    def factor(self, number: int, updates: int) -> float:
        """The factor of weight update ``number``, counted from 0, in a training of ``updates``."""
        ...


@dataclass(frozen=True)
class Constant:
    """The factor is 1 throughout: the same as no schedule."""

    def factor(self, number: int, updates: int) -> float:
        """Always 1: the rate stays."""
        return 1.0


@dataclass(frozen=True)
class Linear:
    """The factor rises in equal steps to 1, and then falls in equal steps to ``final``.

    Args:
        warmup: share of the weight updates that the rise takes; 0 begins with 1.
        final: what the factor would be right after the last weight update.

    Raises:
        UserError: a share or a factor outside of [0, 1].
    """

    warmup: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check(self.warmup, self.final)

    def factor(self, number: int, updates: int) -> float:
        """The factor of weight update ``number``, counted from 0, in a training of ``updates``."""
        rise, fallen = _progress(number, updates, self.warmup)
        return rise * (1 - (1 - self.final) * fallen)


@dataclass(frozen=True)
class WarmupCosine:
    """The factor rises in equal steps to 1, and then falls along half a cosine to ``final``.

    Args:
        warmup: share of the weight updates that the rise takes; 0 begins with 1.
        final: what the factor would be right after the last weight update.

    Raises:
        UserError: a share or a factor outside of [0, 1].
    """

    warmup: float = 0.05
    final: float = 0.0

    def __post_init__(self) -> None:
        _check(self.warmup, self.final)

    def factor(self, number: int, updates: int) -> float:
        """The factor of weight update ``number``, counted from 0, in a training of ``updates``."""
        rise, fallen = _progress(number, updates, self.warmup)
        return rise * (self.final + (1 - self.final) * (1 + math.cos(math.pi * fallen)) / 2)


def _check(warmup: float, final: float) -> None:
    checks.number_within("warmup", warmup, 0, 1, closed=(True, True))
    checks.number_within("final", final, 0, 1, closed=(True, True))


def _progress(number: int, updates: int, warmup: float) -> tuple[float, float]:
    """How much of the rise and of the fall is done at a weight update, each in [0, 1].

    The first update of the rise has the share that each of its steps has, not 0: it would be an
    update that does nothing.
    """
    rising = round(warmup * updates)
    if number < rising:
        return (number + 1) / rising, 0.0
    return 1.0, (number - rising) / max(updates - rising, 1)


@dataclass(frozen=True)
class Factors:
    """The factors of some consecutive weight updates, on the device.

    They are read from a tensor, so that a captured program can be replayed with those of another
    interval.

    Args:
        values: one for each weight update, (updates,).
        first: number of the weight update that the first of them belongs to.
    """

    values: Tensor
    first: int = 0

    def at(self, number: int) -> Tensor:
        """The factor of weight update ``number``, a tensor without dimensions."""
        return self.values[number - self.first]


def factors(schedule: Schedule, updates: int, like: Tensor) -> Factors:
    """The factors of a whole training, computed in float64 and rounded once.

    The state after the last weight update is shown with that update's factor, since no update
    follows it.

    Args:
        schedule: says what they are.
        updates: length of the training.
        like: gives dtype and device.
    """
    values = [schedule.factor(number, updates) for number in range(updates)]
    return Factors(torch.tensor([*values, values[-1]], dtype=like.dtype, device=like.device))
