"""The UCI regression sets of the paper: one text table and one published row order each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpo_bench.core.table import Table
from hpo_bench.datasets.preparation import fingerprint, make_table, split
from hpo_bench.datasets.sources import DatasetSummary, RemoteFile, fetch
from hpo_bench.errors import UserError

LOADER = "uci/1"


@dataclass(frozen=True)
class UCI:
    """A table of numbers separated by white space whose last kept column is the target.

    Args:
        name: id of the dataset, and its folder in the cache and on a mirror.
        data: the table, one row a line.
        order: row numbers of ``data`` from 0, one a line. It reorders by indexing and need not be a
            permutation: in three sets it names one of several identical rows again and again.
        inputs: input columns that must be left after ``drop``.
        training_and_validation, test: rows of each part, in this order; they sum to the rows of
            ``data``.
        drop: columns of ``data`` to leave out, from 0 (Naval's second target).
    """

    name: str
    data: RemoteFile
    order: RemoteFile
    inputs: int
    training_and_validation: int
    test: int
    drop: Sequence[int] = ()

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """What has to be downloaded."""
        return (self.data, self.order)

    def summary(self, validation_share: float) -> DatasetSummary:
        """What the dataset holds, without reading it."""
        parts = (*split(self.training_and_validation, validation_share), self.test)
        return DatasetSummary(sum(parts), self.inputs, parts, self.data.origin)

    def load(self, validation_share: float) -> Table:
        """Load, downloading on first use; standardised by the training and validation rows.

        Raises:
            UserError: no such share, files missing and offline, damaged, or not what was promised
                above.
        """
        training, validation = split(self.training_and_validation, validation_share)
        rows = training + validation + self.test
        data, order = fetch(self.name, self.data), fetch(self.name, self.order)
        table = _ordered(data, order, rows, self.inputs + 1, self.drop)
        parts = (training, validation, self.test)
        content = {
            "files": [file.sha256 for file in self.files],
            "drop": list(self.drop),
            "parts": parts,
        }
        digest = fingerprint(LOADER, content)
        return make_table(self.name, table[:, :-1], table[:, -1], parts, digest)


def _ordered(data: Path, order: Path, rows: int, columns: int, drop: Sequence[int]) -> np.ndarray:
    """The columns that are not dropped, (rows, columns) float64 in the published order."""
    table = _read_table(data, rows, columns + len(drop))
    columns_left = [column for column in range(table.shape[1]) if column not in drop]
    return np.ascontiguousarray(table[_read_order(order, rows)][:, columns_left])


def _read_table(path: Path, rows: int, columns: int) -> np.ndarray:
    try:
        table = np.loadtxt(path, dtype=np.float64, ndmin=2, encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{path} is not a table of numbers: {str(error).splitlines()[0]}") from None
    if table.shape != (rows, columns):
        raise UserError(
            f"{path} has {table.shape[0]} rows x {table.shape[1]} columns, "
            f"expected {rows} x {columns}"
        )
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, column = bad[0]
        values = f"value{'s' * (len(bad) > 1)}"
        raise UserError(
            f"{path}: {table[row, column]} in row {row + 1}, column {column + 1} (from 1) "
            f"is not a finite number ({len(bad)} such {values} in the file)"
        )
    return table


def _read_order(path: Path, rows: int) -> np.ndarray:
    try:
        order = np.loadtxt(path, dtype=np.int64, ndmin=2, encoding="utf-8")
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a list of row numbers: {reason}") from None
    if order.shape != (rows, 1):
        raise UserError(
            f"{path} has {order.shape[0]} lines of {order.shape[1]} numbers, expected {rows} of 1"
        )
    outside = order[(order < 0) | (order >= rows)]
    if len(outside):
        raise UserError(f"{path} names row {outside[0]}, allowed: 0 to {rows - 1}")
    return order[:, 0]
