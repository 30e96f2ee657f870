"""Fashion-MNIST: 28 x 28 grey images of clothes in ten classes, in four idx files."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpo_bench.core.table import Table
from hpo_bench.datasets.images import checked_labels, image_table, made_up, parts_of
from hpo_bench.datasets.preparation import moments
from hpo_bench.datasets.sources import DatasetSummary, RemoteFile, fetch
from hpo_bench.errors import UserError

LOADER = "fashion_mnist/1"
BYTES = 0x08  # idx's code for unsigned bytes


@dataclass(frozen=True)
class FashionMNIST:
    """Images as rows of pixels, in the published order.

    The last rows of the training files are for validation. Each of the pixels is standardised by
    its mean and unbiased std over training and validation rows; one that is constant there becomes
    0.

    Args:
        name: id of the dataset; seeds derive from it.
        training_images, training_labels, test_images, test_labels: the four files.
        training_and_validation, test: rows that they hold.
        image: height and width in pixels.
    """

    name: str
    training_images: RemoteFile
    training_labels: RemoteFile
    test_images: RemoteFile
    test_labels: RemoteFile
    training_and_validation: int
    test: int
    image: Sequence[int] = (28, 28)

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """What has to be downloaded."""
        return (self.training_images, self.training_labels, self.test_images, self.test_labels)

    def summary(self, validation_share: float) -> DatasetSummary:
        """What the dataset holds, without reading it."""
        parts = parts_of(self.training_and_validation, self.test, validation_share)
        return DatasetSummary(sum(parts), math.prod(self.image), parts, self.training_images.origin)

    def made_up(self, validation_share: float) -> Table:
        """A table of the same size without the images, where they are not to be had."""
        parts = parts_of(self.training_and_validation, self.test, validation_share)
        return made_up(self.name, (math.prod(self.image),), parts)

    def load(self, validation_share: float) -> Table:
        """Load, downloading on first use: images (N, pixels) uint8, about a second.

        Raises:
            UserError: no such share, files missing and offline, damaged, or not what was promised
                above.
        """
        training_rows = self.training_and_validation
        parts = parts_of(training_rows, self.test, validation_share)
        training_images = self._images(self.training_images, training_rows)
        images = np.concatenate([training_images, self._images(self.test_images, self.test)])
        training_labels = self._labels(self.training_labels, training_rows)
        labels = np.concatenate([training_labels, self._labels(self.test_labels, self.test)])
        scaling = moments(images, training_rows)
        content = {"files": [file.sha256 for file in self.files]}
        return image_table(self.name, images, labels, parts, scaling, LOADER, content)

    def _images(self, file: RemoteFile, rows: int) -> np.ndarray:
        return read_idx(fetch(self.name, file), (rows, *self.image)).reshape(rows, -1)

    def _labels(self, file: RemoteFile, rows: int) -> np.ndarray:
        path = fetch(self.name, file)
        return checked_labels(path, read_idx(path, (rows,)))


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read the bytes of a gzip-compressed idx file, as a read-only array.

    Such a file has two zero bytes, the type of the entries, the number of dimensions, each of them
    in four bytes (the highest first), then the entries.

    Raises:
        UserError: not such a file, or of another shape.
    """
    content = _unpacked(path)
    if len(content) < 4 or content[:3] != bytes((0, 0, BYTES)):
        raise UserError(f"{path} is not an idx file of bytes")
    begin = 4 + 4 * content[3]
    sizes = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, begin, 4))
    if sizes != shape:
        raise UserError(f"{path} holds {_times(sizes)} bytes, expected {_times(shape)}")
    if len(content) - begin != math.prod(shape):
        raise UserError(f"{path} is cut off: {len(content) - begin} bytes of {math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _unpacked(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be decompressed: {error}") from None
