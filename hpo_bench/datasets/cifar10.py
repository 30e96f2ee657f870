"""CIFAR-10: 32 x 32 colour images in ten classes, read from the published archive."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpo_bench.core.table import Table
from hpo_bench.datasets.images import checked_labels, image_table, made_up, parts_of
from hpo_bench.datasets.sources import DatasetSummary, RemoteFile, cached_path, fetch
from hpo_bench.errors import UserError, nearest

LOADER = "cifar10/1"
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
MEMBER_BYTES = 64 << 20  # no member that is read is larger
# Of red, green and blue, for pixels within [0, 1].
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.247, 0.243, 0.261)
PIXEL_SCALES = {"unit": 255.0, "paper": 1.0}  # what pixels are divided by before MEAN and STD apply


@dataclass(frozen=True)
class CIFAR10:
    """Images (3, 32, 32) in the published order.

    The last rows of the training batches are for validation.

    Args:
        name: id of the dataset; seeds derive from it.
        archive: the Python version of the set, a tar archive with pickles.
        small: an ``.npz`` with the first of the training and of the test images.
        training_and_validation, test: rows of the archive.
        small_rows: rows of ``small``: training and validation, test.
        subset: use only the rows of ``small``: from the archive where that is in the cache, else
            from ``small``.
        pixel_scale: ``unit`` brings pixels into [0, 1] before they are standardised with `MEAN` and
            `STD`. DIFFERENCE: the paper's code applied those constants to pixels from 0 to 255, so
            that inputs are about 255 times as large and far from centred; ``paper`` does the same
            (`tests/datasets/test_cifar10.py` holds both).
    """

    name: str
    archive: RemoteFile
    small: RemoteFile
    training_and_validation: int
    test: int
    small_rows: Sequence[int]
    subset: bool = False
    pixel_scale: str = "unit"

    def __post_init__(self) -> None:
        if self.pixel_scale not in PIXEL_SCALES:
            raise UserError(
                f"dataset.pixel_scale={self.pixel_scale}: {nearest(self.pixel_scale, PIXEL_SCALES)}"
            )
        if not isinstance(self.subset, bool):
            raise UserError(f"dataset.subset={self.subset}: must be true or false")

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """What has to be downloaded."""
        return (self.small if self.subset else self.archive,)

    @property
    def _rows(self) -> tuple[int, int]:
        if not self.subset:
            return self.training_and_validation, self.test
        training_and_validation, test = self.small_rows
        return training_and_validation, test

    def summary(self, validation_share: float) -> DatasetSummary:
        """What the dataset holds, without reading it."""
        parts = parts_of(*self._rows, validation_share)
        return DatasetSummary(sum(parts), PIXELS, parts, self.files[0].origin)

    def made_up(self, validation_share: float) -> Table:
        """A table of the same size without the images, where they are not to be had."""
        return made_up(self.name, SHAPE, parts_of(*self._rows, validation_share))

    def load(self, validation_share: float) -> Table:
        """Load, downloading on first use: images (N, 3, 32, 32) uint8, a few seconds.

        Raises:
            UserError: no such share, files missing and offline, damaged, or not what was promised
                above.
        """
        parts = parts_of(*self._rows, validation_share)
        images, labels = self._small() if self.subset else self._whole()
        divisor = PIXEL_SCALES[self.pixel_scale]
        centre, scale = (divisor * np.array(values).reshape(3, 1, 1) for values in (MEAN, STD))
        digest = hashlib.sha256(labels.tobytes())
        digest.update(np.ascontiguousarray(images).data)
        content = {
            "sha256": digest.hexdigest(),
            "centre": centre.ravel().tolist(),
            "scale": scale.ravel().tolist(),
        }
        return image_table(self.name, images, labels, parts, (centre, scale), LOADER, content)

    def _whole(self) -> tuple[np.ndarray, np.ndarray]:
        path = fetch(self.name, self.archive)
        return _joined(path, read_archive(path), (self.training_and_validation, self.test))

    def _small(self) -> tuple[np.ndarray, np.ndarray]:
        if not cached_path(self.name, self.archive).is_file():
            path = fetch(self.name, self.small)
            return _joined(path, read_npz(path), self._rows)
        images, labels = self._whole()
        first, test = self._rows
        begin = self.training_and_validation  # of the test images
        rows = np.r_[0:first, begin : begin + test]
        return images[rows], labels[rows]


Batch = tuple[np.ndarray, np.ndarray]
"""Images (N, 3072) or (N, 3, 32, 32) uint8 and labels (N,)."""


def _joined(path: Path, batches: tuple[Batch, Batch], rows: tuple[int, int]) -> Batch:
    """Images and labels, those for training and validation first, checked."""
    for (images, labels), expected in zip(batches, rows, strict=True):
        if (len(images), len(labels)) != (expected, expected):
            raise UserError(
                f"{path} holds {len(images)} images and {len(labels)} labels, "
                f"expected {expected} of each"
            )
    images = np.concatenate([images.reshape(-1, *SHAPE) for images, _ in batches])
    return images, checked_labels(path, np.concatenate([labels for _, labels in batches]))


def read_npz(path: Path) -> tuple[Batch, Batch]:
    """Read training and test images of an ``.npz``.

    It holds ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``.

    Raises:
        UserError: not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            training = content["train_images"], content["train_labels"]
            test = content["test_images"], content["test_labels"]
    except Exception as error:
        # Whatever numpy, zipfile and lzma make of a file that is not what it should be.
        raise UserError(f"{path} cannot be read: {error}") from None
    for images, _ in (training, test):
        if images.dtype != np.uint8 or images.shape[1:] != SHAPE:
            raise UserError(
                f"{path} holds images {images.shape} of {images.dtype}, "
                "expected (N, 3, 32, 32) of uint8"
            )
    return training, test


def read_archive(path: Path) -> tuple[Batch, Batch]:
    """Read training and test images of the published archive.

    Nothing is unpacked to disk, and no foreign code is run.

    Raises:
        UserError: cut off or damaged, or without one of the batches.
    """
    try:
        members = _members(path)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read as a tar archive: {error}") from None
    absent = [name for name in (*TRAINING, TEST) if name not in members]
    if absent:
        raise UserError(f"{path} has no {absent[0]}: it is damaged, or another archive")
    batches = {name: _read_batch(f"{path}: {name}", content) for name, content in members.items()}
    images, labels = zip(*(batches[name] for name in TRAINING), strict=True)
    return (np.concatenate(images), np.concatenate(labels)), batches[TEST]


def _members(path: Path) -> dict[str, bytes]:
    """The contents of the batches in an archive, by their names without folders."""
    names = {*TRAINING, TEST}
    contents: dict[str, bytes] = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name in names and member.isfile() and member.size <= MEMBER_BYTES:
                content = archive.extractfile(member)
                assert content is not None
                contents[name] = content.read()
            if len(contents) == len(names):
                break
    return contents


# What pickles may name. The module of the last depends on NumPy's version.
ALLOWED_CLASSES = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
}


class _Arrays(pickle.Unpickler):
    """Reads pickles that hold nothing but NumPy arrays and what Python itself brings."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED_CLASSES:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")
        return ALLOWED_CLASSES[module, name]


def _read_batch(what: str, content: bytes) -> Batch:
    try:
        batch = _Arrays(io.BytesIO(content), encoding="latin1").load()  # written by Python 2
        images, labels = batch["data"], np.array(batch["labels"])
    except Exception as error:  # whatever a damaged pickle makes of it
        raise UserError(f"{what} cannot be read: {error}") from None
    are_bytes = isinstance(images, np.ndarray) and images.dtype == np.uint8
    if (
        not are_bytes
        or images.shape[1:] != (PIXELS,)
        or labels.ndim != 1
        or labels.dtype.kind != "i"
    ):
        raise UserError(f"{what} does not hold images of {PIXELS} bytes and their labels")
    return images, labels
