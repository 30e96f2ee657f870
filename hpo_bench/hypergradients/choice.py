"""Estimators that choose another one by what it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from hpo_bench.core.estimator import Estimator


@dataclass(frozen=True)
class Costs:
    """What an estimator may choose its way by: the same on every machine, so that the numbers are,
    too.

    Args:
        update_interval: T.
        row_bytes: estimate of one repetition's memory with a number of weight updates kept, bytes.
        per_weight: tuned hyperparameters that have one value per weight.
    """

    update_interval: int
    row_bytes: Callable[[int], int]
    per_weight: tuple[str, ...] = ()


class Chooser(ABC):
    """Base of estimators that are one of several others, whichever costs less for a model and a
    dataset.
    """

    @abstractmethod
    def choose(self, costs: Costs) -> tuple[Estimator, str]:
        """The estimator to use, and in a few words why.

        Raises:
            UserError: none of them can do it.
        """


def chosen(estimator: Estimator, costs: Costs) -> tuple[Estimator, str | None]:
    """The estimator itself, or the one that it chooses and why."""
    return estimator.choose(costs) if isinstance(estimator, Chooser) else (estimator, None)
