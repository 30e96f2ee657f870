"""Weights as one flat axis: (R, P) for the maths, named views of it for the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the parameters, in the order in which they lie on the flat axis."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of weights of each parameter."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def count(self) -> int:
        """P, the number of weights."""
        return sum(self.sizes)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Split (…, P) into views (…, *shape) by name."""
        lead = flat.shape[:-1]
        parts = flat.split(self.sizes, dim=-1)
        return {
            name: part.view((*lead, *shape))
            for name, shape, part in zip(self.names, self.shapes, parts, strict=True)
        }

    def carried_over(self, values: Tensor, after: Layout, fresh: Tensor) -> Tensor:
        """Values in another layout: those of the parameters that both have, elsewhere fresh ones.

        Args:
            values: (…, P), or (…, 1) where all weights have the same.
            after: the other layout, with P' weights.
            fresh: (…, P'), likewise.

        Returns:
            (…, P').
        """
        made = one_each(fresh, after.count)
        known = self.views(one_each(values, self.count))
        for name, view in after.views(made).items():
            if name in known:
                view.copy_(known[name])
        return made

    def flatten(self, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
        """Join arrays (…, *shape) by name into (…, P)."""
        parts = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            array = parameters[name]
            parts.append(array.reshape(*array.shape[: array.ndim - len(shape)], -1))
        return np.concatenate(parts, axis=-1)

    def arrays(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Split a NumPy array (…, P) into arrays (…, *shape) by name."""
        parts = np.split(flat, np.cumsum(self.sizes)[:-1], axis=-1)
        return {
            name: part.reshape(*flat.shape[:-1], *shape)
            for name, shape, part in zip(self.names, self.shapes, parts, strict=True)
        }


def one_each(values: Tensor, count: int) -> Tensor:
    """A copy of (…, P) or (…, 1) with one value for each of P weights."""
    wide = values.expand(*values.shape[:-1], count)
    return wide.clone(memory_format=torch.contiguous_format)
