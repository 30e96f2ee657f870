"""What a dataset is once loaded: standardised arrays in float64, rows ordered training, validation, test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Task = Literal["regression", "classification"]


@dataclass(frozen=True)
class Table:
    """A dataset of rows.

    Args:
        name: the dataset's id; seeds derive from it.
        task: what the targets are.
        inputs: (N, …) float64, standardised by the training and validation rows; training rows first, then
            validation, then test.
        targets: (N, 1) float64, standardised likewise (regression) or (N,) int64 class numbers (classification).
        training, validation, test: how many rows each part has; they sum to N.
        outputs: width of the model's last layer: 1, or the number of classes.
        target_scale: standard deviation that a standardised target is multiplied by to be in its own unit again
            (1 for classification); a squared error is multiplied by its square.
        fingerprint: SHA-256 over everything that decides these numbers (files, options).
    """

    name: str
    task: Task
    inputs: np.ndarray
    targets: np.ndarray
    training: int
    validation: int
    test: int
    outputs: int
    target_scale: float
    fingerprint: str


class Source(Protocol):
    """Something a dataset yaml's ``source._target_`` names: loads the dataset, downloading its files if need be."""

    def load(self, validation_share: float) -> Table:
        """Load with the given share of the training-and-validation rows held out for validation.

        Raises:
            hpo_bench.errors.UserError: files missing and offline, wrong checksum, bad content.
        """
        ...
