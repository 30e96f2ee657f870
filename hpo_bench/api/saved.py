"""What a `hpo_bench.OnePass` is saved as: lists of tensors, which ``torch.load`` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from hpo_bench.core import tree
from hpo_bench.core.layout import Layout

T = TypeVar("T")


@dataclass(frozen=True)
class Saved:
    """A tuner's state as it was read.

    Args:
        layout: of the parameters that were trained.
        raw: hyperparameters, (R, 1) or (R, P) each.
        buffer: what the rule carries.
        memory: of the hyperparameter optimiser.
        updates: weight updates made.
        count: of these, since the last hyperparameter update.
        skipped: (R,) int64.
        resting: what belongs to parameters that were not trained, by their names.
        carried: what the estimator carries on; None where it carries nothing.
    """

    layout: Layout
    raw: Mapping[str, Tensor]
    buffer: Any
    memory: Any
    updates: int
    count: int
    skipped: Tensor
    resting: dict[str, list[Tensor]]
    carried: Any


def copied(value: Any) -> list[Any]:
    """Copies of the leaves of a structure, to be saved."""
    return [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in tree.leaves(value)]


def restored(template: T, leaves: Sequence[Any], key: str, width: int | None = None) -> T:
    """A structure like ``template`` with the saved leaves.

    Args:
        width: of the last axis of those that may be wider than the template's.

    Raises:
        ValueError: too few, too many, or of other shapes.
    """

    def leaf(own: Any, given: Any) -> Any:
        if not isinstance(given, Tensor):
            return given
        if not isinstance(own, Tensor):
            return given.detach().clone()
        wider = None if width is None else (*own.shape[:-1], width)
        return like(given, own, tuple(given.shape) if given.shape == wider else None, key)

    pairs = zip(tree.leaves(template), leaves, strict=True)
    return tree.rebuilt(template, [leaf(own, given) for own, given in pairs])


def like(value: Tensor, own: Tensor, shape: tuple[int, ...] | None, key: str) -> Tensor:
    """A copy of a saved tensor in the precision and the place of one's own.

    Args:
        shape: that it must have; None for that of ``own``.

    Raises:
        ValueError: another shape.
    """
    needed = tuple(own.shape) if shape is None else shape
    if tuple(value.shape) != needed:
        raise ValueError(f"{key} has shape {tuple(value.shape)}, needed {needed}")
    return value.detach().clone().to(own)


def counts(value: Any, rows: int) -> Tensor:
    """A whole number for each row, (R,) int64, from one for each or for all."""
    return torch.as_tensor(value).expand(rows).cpu().clone()
