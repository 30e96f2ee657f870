"""Nested values (dataclasses, mappings, sequences) as lists of their tensors and numbers, and
back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def change(value: T, leaf: Callable[[Any], Any]) -> T:
    """The same structure with ``leaf`` applied to each of its tensors, numbers and texts;

    None stays.
    """
    result: T = _change(value, leaf)
    return result


def _change(value: Any, leaf: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(
            **{item.name: _change(getattr(value, item.name), leaf) for item in fields(value)}
        )
    if isinstance(value, Mapping):
        return {name: _change(item, leaf) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_change(item, leaf) for item in value)
    return leaf(value)


def leaves(value: Any) -> list[Any]:
    """Tensors, numbers and texts of a structure, in its order."""
    found: list[Any] = []
    _change(value, found.append)
    return found


def rebuilt(template: T, values: Iterable[Any]) -> T:
    """A structure like ``template`` with other leaves, in the order of `leaves`.

    Raises:
        ValueError: too few or too many.
    """
    following: Iterator[Any] = iter(values)

    def take(_: Any) -> Any:
        try:
            return next(following)
        except StopIteration:
            raise ValueError("too few leaves") from None

    made = change(template, take)
    if next(following, following) is not following:
        raise ValueError("too many leaves")
    return made


def take_rows(value: T, rows: Tensor) -> T:
    """The repetitions ``rows`` (n,) int64 of a structure whose tensors all have them as their first
    axis.
    """
    return change(
        value, lambda leaf: leaf.index_select(0, rows) if isinstance(leaf, torch.Tensor) else leaf
    )
