"""Two small sets that come with scikit-learn: everything can be tried without a download."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hpo_bench.core.table import Table
from hpo_bench.datasets.preparation import holdout, ordered_table, split
from hpo_bench.datasets.sources import DatasetSummary, RemoteFile

LOADER = "bundled/1"


@dataclass(frozen=True)
class Bundled:
    """``diabetes`` or ``digits``.

    The first is a regression of 442 x 10 numbers, the second a classification of 1797 images of
    8 x 8 pixels. Rows are put into the order of `fixed_order`; the last rint(rows·test_share) of
    them are the test set.

    Args:
        name: which of the two.
        rows, inputs: its size.
        test_share: share of the rows held out for the test.
    """

    name: Literal["diabetes", "digits"]
    rows: int
    inputs: int
    test_share: float

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """The files that have to be downloaded: none."""
        return ()

    def summary(self, validation_share: float) -> DatasetSummary:
        """What the dataset holds, without reading it."""
        test = holdout(self.rows, self.test_share)
        parts = (*split(self.rows - test, validation_share), test)
        return DatasetSummary(self.rows, self.inputs, parts, "scikit-learn")

    def load(self, validation_share: float) -> Table:
        """Load; inputs and regression targets are standardised by the training and validation rows.

        Raises:
            UserError: a share outside (0, 1) or one that leaves a part empty.
        """
        inputs, targets = {"diabetes": _diabetes, "digits": _digits}[self.name]()
        # Another version of scikit-learn may bring other rows.
        digest = hashlib.sha256(inputs.tobytes() + targets.tobytes()).hexdigest()
        shares = (validation_share, self.test_share)
        return ordered_table(self.name, inputs, targets, shares, LOADER, {"sha256": digest})


def _diabetes() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_diabetes

    inputs, targets = load_diabetes(return_X_y=True, scaled=False)
    return inputs, targets


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    inputs, targets = load_digits(return_X_y=True)
    return inputs, targets.astype(np.int64)
