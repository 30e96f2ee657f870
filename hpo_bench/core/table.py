"""What a dataset is once loaded: arrays whose rows are ordered training, validation, test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

Task = Literal["regression", "classification", "language"]


@dataclass(frozen=True)
class Table:
    """A dataset of rows.

    Args:
        name: the dataset's id; seeds derive from it.
        task: what the targets are.
        inputs: (N, …); training rows first, then validation, then test. Floating-point numbers,
            standardised by the training and validation rows; or numbers still to be standardised
            (see ``centre``); or int64 tokens.
        targets: (N, 1) float64, standardised likewise (regression), (N,) int64 class numbers
            (classification), or (N, …) int64 tokens, the next of those in ``inputs`` (language; a
            row is a time step of parallel sequences).
        training, validation, test: how many rows each part has; they sum to N.
        outputs: width of the model's last layer: 1, the number of classes, or that of words.
        target_scale: standard deviation that a standardised target is multiplied by to be in its
            own unit again (1 without standardised targets); a squared error is multiplied by its
            square.
        fingerprint: SHA-256 over everything that decides these numbers (files, options).
        content: SHA-256 over the rows' values, their order and which of them are for the test,
            whatever share is held out for validation; None where the source's settings name its
            files by checksum.
        centre, scale: float64, broadcast against one row of ``inputs`` where these are kept in
            their small type (uint8 images): (inputs - centre) / scale is computed in float64 when
            they are moved to the device (`hpo_bench.running.inputs.inputs_on`). Both None for
            inputs that are used as they are.
        label: its name in figures and tables where the configuration says ``auto``; None for the
            dataset's id.
        notice: what was inferred from the data and is to be said before training, one line; None
            for nothing.
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
    centre: np.ndarray | None = None
    scale: np.ndarray | None = None
    content: str | None = None
    label: str | None = None
    notice: str | None = None


class Source(Protocol):
    """Something a dataset yaml's ``source._target_`` names: loads the dataset, downloading its
    files if need be.
    """

    def load(self, validation_share: float) -> Table:
        """Load with the given share of the training-and-validation rows held out for validation.

        Raises:
            hpo_bench.errors.UserError: files missing and offline, wrong checksum, bad content.
        """
        ...
