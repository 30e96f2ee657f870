"""What estimates hypergradients, as the training loop calls it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from hpo_bench.core.update import Step


class Estimator(Protocol):
    """Estimates dL_V/d raw at the newest weights from the last weight updates.

    Attributes:
        every_update: called after every weight update instead of after every T of them.
        second_batch: where the batch of its second gradient comes from: the validation rows, or a
            stream of its own over the rows that train the weights (then ``data_for_weights=train``
            makes it a validation batch).
        tunes: names of the hyperparameters that it can tune.
    """

    @property
    def every_update(self) -> bool: ...
    @property
    def second_batch(self) -> Literal["validation", "training"]: ...
    @property
    def tunes(self) -> tuple[str, ...]: ...

    def window(self, update_interval: int) -> int:
        """How many of the last weight updates it differentiates (never across a hyperparameter
        update).
        """
        ...

    def __call__(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """Estimate the hypergradients.

        Args:
            steps: the last `window` weight updates, oldest first.
            gradient: of the loss on the second batch at the weights after the last of them, (R, P),
                not clipped.
            tuned: names wanted.

        Returns:
            Raw-space hypergradient of each, (R, 1), or (R, P) for a hyperparameter with one value
            per weight.
        """
        ...


class Accumulator(ABC):
    """Base of estimators that take up the window's updates one by one, so that none has to be kept.

    To be derived from beside satisfying `Estimator`, whose call they answer for updates that were
    kept all the same."""

    @abstractmethod
    def begin(self, tuned: Sequence[str]) -> Any:
        """Memory at the start of a window."""

    @abstractmethod
    def accumulate(self, memory: Any, step: Step) -> Any:
        """Memory after one more weight update."""

    @abstractmethod
    def finish(self, memory: Any, gradient: Tensor) -> dict[str, Tensor]:
        """The hypergradients at the end of the window; see `Estimator.__call__`."""

    @abstractmethod
    def kept(self, window: int) -> int:
        """Memory at its largest, in kept weight updates."""


@dataclass(frozen=True)
class Keep(Accumulator):
    """Keeps the updates themselves for an estimator that is called with all of them."""

    estimator: Estimator

    def begin(self, tuned: Sequence[str]) -> tuple[Sequence[str], tuple[Step, ...]]:
        """What is tuned, and no updates."""
        return tuned, ()

    def accumulate(
        self, memory: tuple[Sequence[str], tuple[Step, ...]], step: Step
    ) -> tuple[Sequence[str], tuple[Step, ...]]:
        """One update more."""
        return memory[0], (*memory[1], step)

    def finish(
        self, memory: tuple[Sequence[str], tuple[Step, ...]], gradient: Tensor
    ) -> dict[str, Tensor]:
        """Call the estimator."""
        return self.estimator(memory[1], gradient, memory[0])

    def kept(self, window: int) -> int:
        """All of them."""
        return window


def accumulator(estimator: Estimator) -> Accumulator:
    """How the loop drives an estimator."""
    return estimator if isinstance(estimator, Accumulator) else Keep(estimator)
