"""Streams of batches: every repetition draws its own order, all of them as one gather.

A stream is a function of the update's number: batch s of a repetition follows from its seed, the
dataset, the stream's name and the number of rows, so a training can be taken up at any update
without a stored position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hpo_bench.core.model import Batch, Model, Split, TakesPlaces
from hpo_bench.core.seeds import as_signed, permutation, random_bits


@dataclass(frozen=True)
class Rows:
    """Some rows of a dataset on the device.

    Args:
        inputs: (N, …).
        targets: (N, …).
        split: which part of the dataset they are.
    """

    inputs: Tensor
    targets: Tensor
    split: Split

    def __len__(self) -> int:
        return self.targets.shape[0]

    def batch(self, model: Model) -> Batch:
        """All rows, shared by the repetitions."""
        return model.batch(self.inputs, self.targets, shared=True, split=self.split)


def smallest_batch(rows: int, batch_size: int | None) -> int:
    """Rows of the last, or only, batch of a pass over some rows."""
    size = min(batch_size or rows, rows)
    return rows - (-(-rows // size) - 1) * size


class Batches(Protocol):
    """Where a training takes its batches from."""

    def batch(self, number: int) -> Batch:
        """Batch for weight update ``number``, counted from 0."""
        ...


class Stream:
    """Consecutive slices of ``batch_size`` rows (the last of a pass shorter), reshuffled by
    repetition at each pass.

    Args:
        rows: to draw from.
        model: says in which form it wants its batches.
        batch_size: None for all rows at once, in their own order.
        shuffled: False takes the rows in their order, the same for every repetition.
        name: of the stream; repetitions differ by ``seeds``.
    """

    def __init__(
        self,
        rows: Rows,
        model: Model,
        batch_size: int | None,
        *,
        shuffled: bool,
        dataset: str,
        name: str,
        seeds: Sequence[int],
    ) -> None:
        self.rows, self.model, self.dataset, self.name, self.seeds = (
            rows,
            model,
            dataset,
            name,
            tuple(seeds),
        )
        self.size = min(batch_size or len(rows), len(rows))
        self.per_pass = -(-len(rows) // self.size)
        self.shuffled = shuffled and self.per_pass > 1
        self._fixed: dict[int, Batch] = {}
        self._order: tuple[int, Tensor] | None = None

    def batch(self, number: int) -> Batch:
        """Batch for weight update ``number``, counted from 0."""
        index = number % self.per_pass
        if self.shuffled:
            return self.gathered(self.places(number), first=index == 0)
        if index not in self._fixed:
            part = slice(index * self.size, (index + 1) * self.size)
            self._fixed[index] = self._make(
                self.rows.inputs[part], self.rows.targets[part], True, index == 0
            )
        return self._fixed[index]

    def places(self, number: int) -> Tensor:
        """Of a shuffled stream: which of the rows make up batch ``number``, (R, B) int64."""
        passes, index = divmod(number, self.per_pass)
        return self._permutations(passes)[:, index * self.size : (index + 1) * self.size]

    def gathered(self, places: Tensor, *, first: bool) -> Batch:
        """The batch of the rows ``places`` (R, B)."""
        if isinstance(self.model, TakesPlaces):
            return self.model.batch_at(
                self.rows.inputs, self.rows.targets, places, split=self.rows.split, first=first
            )
        inputs, targets = (
            _take(values, places) for values in (self.rows.inputs, self.rows.targets)
        )
        return self._make(inputs, targets, False, first)

    def kind(self, number: int) -> tuple[int, ...]:
        """Equal for batches that one program can use: alike in size and place in a pass, as far as
        that matters.
        """
        index = number % self.per_pass
        size = min(self.size, len(self.rows) - index * self.size)
        return (size, int(index == 0 and self.model.carries_state))

    def _make(self, inputs: Tensor, targets: Tensor, shared: bool, first: bool) -> Batch:
        return self.model.batch(inputs, targets, shared=shared, split=self.rows.split, first=first)

    def _permutations(self, passes: int) -> Tensor:
        """Orders of one pass, (R, N), kept until the next."""
        if self._order is None or self._order[0] != passes:
            self._order = passes, self._orders(passes)
        return self._order[1]

    def _orders(self, passes: int) -> Tensor:
        """As `permutation` says; a GPU sorts the random numbers itself, which are 2⁶⁴ apart from
        chance ties.
        """
        device, count = self.rows.inputs.device, len(self.rows)
        if device.type != "cuda":
            orders = [
                permutation(seed, self.dataset, self.name, count, passes) for seed in self.seeds
            ]
            return torch.from_numpy(np.stack(orders)).to(device)
        bits = [random_bits(seed, self.dataset, self.name, count, passes) for seed in self.seeds]
        signed = torch.from_numpy(as_signed(np.stack(bits)))
        return signed.pin_memory().to(device, non_blocking=True).argsort(-1)


def _take(values: Tensor, chosen: Tensor) -> Tensor:
    """values[chosen] for row numbers (R, B): whole rows are copied, at twice the speed of general
    indexing.
    """
    result: Tensor = values.index_select(0, chosen.flatten()).unflatten(0, chosen.shape)
    return result
