"""What an experiment asks of a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hpo_bench import checks
from hpo_bench.core import memory
from hpo_bench.settings import Settings
from hpo_bench.store import Block

if TYPE_CHECKING:
    from hpo_bench.experiment import Trainer


class Search(Protocol):
    """Trains many times for each repetition and keeps what validates best (``method.search`` in a method's yaml).

    Attributes:
        published: the paper's budget by argument, so that artefacts can say what was scaled down; decides nothing.
    """

    published: Mapping[str, Any]

    def check(self, settings: Settings) -> None:
        """Refuse settings that the search cannot work with.

        Raises:
            UserError: one line that names key, value and what is allowed; or what has to be installed.
        """
        ...

    def weight_updates(self, settings: Settings) -> int:
        """Weight updates of one repetition, all its trials together."""
        ...

    def side_by_side(self, settings: Settings) -> int:
        """Trials of one repetition that can be trained at once."""
        ...

    def block(self, trainer: Trainer, seeds: Sequence[int], on_progress: Callable[[int], None]) -> Block:
        """Search for some repetitions, from their checkpoint if there is one.

        Args:
            on_progress: told weight updates of one repetition; adds up to `weight_updates`.
        """
        ...


def chunk_of(search: Search, trainer: Trainer, repetitions: int) -> memory.Chunk:
    """Repetitions of a block: as many as keep its rows within what is trained at once.

    A search of one trial at a time is divided like plain trainings; one of many trials divides them itself, so that its
    blocks come one after the other.
    """
    trials = search.side_by_side(trainer.settings)
    inner = trainer.rows_at_once(repetitions * trials)
    if trials == 1:
        return inner
    rows = min(repetitions, max(1, inner.rows // trials))
    return memory.Chunk(rows, 1, inner.bytes, f"{trials} trials each; {inner.reason}")


def check_whole(values: Mapping[str, int], low: int = 1) -> None:
    """Check arguments of a search as keys ``method.search.NAME``."""
    for name, value in values.items():
        checks.whole(f"method.search.{name}", value, low)
