"""A model that takes one repetition after another where the batch of one is already more than the
cache holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpo_bench.core.model import CACHE_BYTES, Batch, Split
from hpo_bench.core.update import Linearisation
from hpo_bench.models.autograd import AutogradModel


class RowByRow:
    """``inner`` for all rows at once while a row's activations are small, else row by row; same
    numbers to rounding.

    For convolutions on a CPU, where R repetitions at once are one convolution in R groups. Measured
    for ResNet-18 with 100 images (one core, float32): a gradient of 2 or 4 repetitions at once
    costs 1.2 to 1.5 times as much as one after the other, a Hessian-vector product 1.1 to 1.3
    times; with an eighth of the width and 20 images, 4 at once take three quarters of the time.
    Which way is taken depends on the model and the batch, never on R."""

    def __init__(self, inner: AutogradModel) -> None:
        self.inner, self.layout, self.carries_state = inner, inner.layout, inner.carries_state

    def initial_weights(self, random: np.random.Generator) -> np.ndarray:
        return self.inner.initial_weights(random)

    def initial_carried(self, rows: int) -> Mapping[str, Any]:
        return self.inner.initial_carried(rows)

    def batch(
        self, inputs: Tensor, targets: Tensor, *, shared: bool, split: Split, first: bool = True
    ) -> Batch:
        return self.inner.batch(inputs, targets, shared=shared, split=split, first=first)

    def _apart(self, weights: Tensor, batch: Batch) -> bool:
        return len(weights) > 1 and self.inner.working_set(batch.count) > CACHE_BYTES

    def linearise(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any], second_order: bool
    ) -> Linearisation:
        if not self._apart(weights, batch):
            return self.inner.linearise(weights, batch, carried, second_order)
        parts = [self.inner.linearise(*row, second_order) for row in _rows(weights, batch, carried)]

        def hessian_product(vector: Tensor) -> Tensor:
            return torch.cat(
                [
                    part.hessian_product(own)
                    for part, own in zip(parts, vector.split(1), strict=True)
                ]
            )

        return Linearisation(
            torch.cat([part.loss for part in parts]),
            torch.cat([part.gradient for part in parts]),
            hessian_product,
            _joined([part.carried for part in parts]),
        )

    def loss(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        if not self._apart(weights, batch):
            return self.inner.loss(weights, batch, carried)
        losses, after = zip(*_each(self.inner.loss, weights, batch, carried), strict=True)
        return torch.cat(losses), _joined(after)

    def carry(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._apart(weights, batch):
            return self.inner.carry(weights, batch, carried)
        return _joined(_each(self.inner.carry, weights, batch, carried))

    def settled(
        self, weights: Tensor, batches: Sequence[Batch], carried: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if not self._apart(weights, batches[0]):
            return self.inner.settled(weights, batches, carried)
        rows = [
            (
                weights[row : row + 1],
                {name: value[row : row + 1] for name, value in carried.items()},
            )
            for row in range(len(weights))
        ]
        return _joined([self.inner.settled(own, batches, state) for own, state in rows])

    def evaluate(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        if not self._apart(weights, batch):
            return self.inner.evaluate(weights, batch, carried)
        losses, metrics = zip(*_each(self.inner.evaluate, weights, batch, carried), strict=True)
        return torch.cat(losses), torch.cat(metrics)

    def row_bytes(self, batch_rows: int, window: int) -> int:
        return self.inner.row_bytes(batch_rows, window)

    def evaluation_bytes(self, rows: int) -> int:
        return self.inner.evaluation_bytes(rows)

    def working_set(self, batch_rows: int) -> int:
        return self.inner.working_set(batch_rows)


def _rows(
    weights: Tensor, batch: Batch, carried: Mapping[str, Any]
) -> list[tuple[Tensor, Batch, dict[str, Any]]]:
    """Arguments of each row alone."""
    found = []
    for row in range(len(weights)):
        pick = slice(row, row + 1)
        own = (
            batch
            if batch.shared
            else replace(batch, inputs=batch.inputs[pick], targets=batch.targets[pick])
        )
        found.append((weights[pick], own, {name: value[pick] for name, value in carried.items()}))
    return found


def _each(
    function: Callable[..., Any], weights: Tensor, batch: Batch, carried: Mapping[str, Any]
) -> list[Any]:
    return [function(*row) for row in _rows(weights, batch, carried)]


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
