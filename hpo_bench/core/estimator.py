"""What estimates hypergradients, as the training loop calls it.

Once every T weight updates:  begin;  accumulate each of the last `window` updates;  finish.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from hpo_bench.core.rule import Step
from hpo_bench.core.update import State


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


class Estimator(ABC):
    """Estimates dL_V/d raw at the newest weights from the last weight updates.

    To be derived from by a frozen dataclass, which needs `window` and `estimate` alone where it
    looks at updates that were kept. One that takes the updates up one by one has a memory of its
    own instead, with `begin`, `accumulate`, `finish` and `kept`.

    Attributes:
        every_update: called after every weight update instead of after every T of them.
        second_batch: where the batch of its second gradient comes from: the validation rows, or a
            stream of its own over the rows that train the weights (then
            ``data_for_weights=train`` makes it a validation batch).
        tunes: names of the hyperparameters that it can tune; None for all that a rule has.
        is_carried: whether its memory outlives a hyperparameter update.
    """

    every_update: bool = False
    second_batch: Literal["validation", "training"] = "validation"
    tunes: tuple[str, ...] | None = None

    @property
    def is_carried(self) -> bool:
        """Whether its memory outlives a hyperparameter update."""
        return False

    @abstractmethod
    def window(self, update_interval: int) -> int:
        """How many of the last weight updates before a hyperparameter update it differentiates."""

    @abstractmethod
    def estimate(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """The hypergradients from updates that were kept.

        Args:
            steps: the last `window` weight updates, oldest first.
            gradient: of the loss on the second batch at the weights after the last of them, (R, P),
                not clipped.
            tuned: names wanted.

        Returns:
            Raw-space hypergradient of each, (R, 1), or (R, P) for one with a value per weight.
        """

    def begin(self, tuned: Sequence[str], state: State) -> Any:
        """Memory at the start of a window: no updates."""
        return ()

    def accumulate(self, memory: Any, step: Step, tuned: Sequence[str]) -> Any:
        """Memory after one more weight update: that is kept, too."""
        return (*memory, step)

    def finish(self, memory: Any, gradient: Tensor, tuned: Sequence[str]) -> dict[str, Tensor]:
        """The hypergradients at the end of the window; see `estimate`."""
        return self.estimate(memory, gradient, tuned)

    def kept(self, window: int) -> int:
        """Memory at its largest, in kept weight updates."""
        return window

    def chosen(self, costs: Costs) -> tuple[Estimator, str | None]:
        """The estimator itself, or the one that it stands for at these costs and why.

        Raises:
            UserError: none can do it.
        """
        return self, None

    def with_look_backs(self, look_backs: Sequence[int]) -> Estimator | None:
        """The estimator of rows with look-back distances of their own; None if there is none."""
        return None
