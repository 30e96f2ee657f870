"""Rows with look-back distances of their own in one program: cells of a T × i grid with equal T."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hpo_bench.core.estimator import Estimator


@lru_cache
def column(look_backs: tuple[int, ...], device: torch.device) -> Tensor:
    """(R, 1), moved to the device once: a graph of the program may not wait for the host."""
    return torch.tensor(look_backs, device=device).unsqueeze(-1)


def groupable(estimator: Any) -> bool:
    """Whether rows with different look-backs of this estimator can share a program."""
    return isinstance(estimator, Estimator) and estimator.with_look_backs((1,)) is not None


def grouped(estimators: Sequence[Estimator | None]) -> Estimator | None:
    """One estimator for rows whose own are given, all of one `groupable` kind.

    The common one if they are equal.
    """
    first = estimators[0]
    if first is None or len(set(estimators)) == 1:
        return first
    look_backs = [estimator.look_back for estimator in estimators]  # type: ignore[union-attr]
    together = first.with_look_backs(look_backs)
    assert together is not None
    return together
