"""What the sets of images share.

Rows stay as published and of uint8, and are standardised on their way to the device: a quarter of
the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpo_bench.core.table import Table
from hpo_bench.datasets.preparation import fingerprint, split
from hpo_bench.errors import UserError

CLASSES = 10


def image_table(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    parts: tuple[int, int, int],
    moments: tuple[np.ndarray, np.ndarray],
    loader: str,
    content: Mapping[str, Any],
) -> Table:
    """Make a classification table of images in their final order: training, validation, test.

    Args:
        images: (N, …) uint8.
        labels: (N,) int64, from 0 to `CLASSES` - 1.
        parts: training, validation and test rows.
        moments: centre and scale of a row, float64.
        loader, content: what decides the numbers, for the `fingerprint`.
    """
    digest = fingerprint(loader, {**content, "parts": parts})
    return Table(name, "classification", images, labels, *parts, CLASSES, 1.0, digest, *moments)


def made_up(name: str, shape: tuple[int, ...], parts: tuple[int, int, int]) -> Table:
    """A table as large as a set of images, with nothing in it, to measure speed and memory with.

    Args:
        shape: of an image.
        parts: training, validation and test rows.
    """
    images = np.zeros((sum(parts), *shape), np.float32)  # takes no memory until it is written
    labels = np.arange(len(images)) % CLASSES
    digest = fingerprint("made up", {"shape": shape, "parts": parts})
    return Table(name, "classification", images, labels, *parts, CLASSES, 1.0, digest)


def parts_of(rows: int, test: int, validation_share: float) -> tuple[int, int, int]:
    """How many rows are for training, for validation and for the test.

    Args:
        rows: for training and validation together.
    """
    return (*split(rows, validation_share), test)


def checked_labels(path: Path, labels: np.ndarray) -> np.ndarray:
    """The labels (N,) as int64.

    Raises:
        UserError: one that is no class.
    """
    wrong = labels[(labels < 0) | (labels >= CLASSES)]
    if len(wrong):
        raise UserError(f"{path}: {wrong[0]} is no class, allowed: 0 to {CLASSES - 1}")
    return labels.astype(np.int64)
