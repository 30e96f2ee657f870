"""Searches in the middle, on disk: a killed one goes on to the same numbers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpo_bench.running import checkpoint
from hpo_bench.search.ledger import Ledger
from hpo_bench.search.rows import SearchRows

if TYPE_CHECKING:
    from hpo_bench.running.trainer import Trainer

Progress = Callable[[int], None]
Contents = Callable[[], Mapping[str, np.ndarray]]


class Journal:
    """The checkpoint of one block of searches, and what is told of its progress.

    Args:
        total: weight updates of one repetition.
    """

    def __init__(
        self,
        trainer: Trainer,
        seeds: Sequence[int],
        ledger: Ledger,
        on_progress: Progress,
        total: int,
    ) -> None:
        self.ledger, self.seeds = ledger, tuple(seeds)
        self._told, self._total, self._on_progress = 0, total, on_progress
        self._path = None if trainer.checkpoints is None else trainer.checkpoints.path(seeds)
        self._every = 0.0 if trainer.checkpoints is None else trainer.checkpoints.every
        self._last = time.monotonic()
        self._before: Contents | None = None

    @contextlib.contextmanager
    def stretch(self) -> Iterator[Callable[[], None]]:
        """What lies between two calls of `reached`: stopped in the middle, it is begun again from
        the last of them.

        Yields:
            What to call often: it raises where the search is asked to stop.
        """
        try:
            yield lambda: self._on_progress(0)
        except BaseException:
            if self._before is not None:
                self._save(self._before())
            raise

    def reached(self, share: float, contents: Contents) -> None:
        """A decision, or a point from which to go on: tell of it, and write the checkpoint if it is
        time, or the end.

        Args:
            share: of the search that is done.
            contents: what to go on from, beside the ledger.
        """
        self._before = contents
        done = round(self._total * share)
        try:
            if done > self._told:
                before, self._told = self._told, done
                self._on_progress(done - before)
        except (
            BaseException
        ):  # asked to stop, or another block failed: whatever it is, it goes on its way
            self._save(contents())
            raise
        if time.monotonic() - self._last >= self._every:
            self._save(contents())

    def _save(self, contents: Mapping[str, np.ndarray]) -> None:
        if self._path is None:
            return
        arrays = {f"ledger/{name}": array for name, array in self.ledger.contents().items()}
        arrays |= {"seeds": np.array(self.seeds), "told": np.array(self._told), **contents}
        checkpoint.save_or_warn(self._path, arrays)
        self._last = time.monotonic()

    def load(self) -> dict[str, np.ndarray] | None:
        """What was saved, with the ledger brought there; None to begin at the beginning."""
        arrays = None if self._path is None else checkpoint.read(self._path)
        if arrays is None or tuple(arrays.get("seeds", ())) != self.seeds:
            return None
        own = {
            name.removeprefix("ledger/"): array
            for name, array in arrays.items()
            if name.startswith("ledger/")
        }
        try:
            self.ledger.restore(own)
            self._told = int(arrays["told"])
        except KeyError:
            return None
        if self._told:
            self._on_progress(self._told)
        return arrays


def packed(rows: SearchRows, prefix: str = "rows") -> dict[str, np.ndarray]:
    """Rows as arrays by name, which `unpacked` reads."""
    numbers = {"repetition": rows.repetition, "trial": rows.trial, "diverged_at": rows.diverged_at}
    named = {f"{prefix}-{name}": array for name, array in numbers.items()}
    return {**named, **checkpoint.packed(rows.snapshot, prefix)}


def unpacked(
    template: SearchRows, arrays: Mapping[str, np.ndarray], prefix: str = "rows"
) -> SearchRows:
    """The rows that were `packed`.

    Args:
        template: the same trials at any moment.
    """
    snapshot = checkpoint.unpacked(template.snapshot, arrays, prefix)
    return SearchRows(
        arrays[f"{prefix}-repetition"],
        arrays[f"{prefix}-trial"],
        template.seeds,
        snapshot,
        arrays[f"{prefix}-diverged_at"],
    )
