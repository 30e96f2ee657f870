"""Steps that every table of rows goes through: order, split, standardisation, fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from hpo_bench.core.table import Table, Task
from hpo_bench.errors import UserError

BLOCK = 1 << 21  # numbers that are converted to float64 at a time
# Numbers from here on do not fit into float32: marks for missing values, as -1.797e308 or
# -3.403e38.
LARGEST = 3.4e38
# Standard deviations: the square of what lies farther off does not fit into float32.
FARTHEST = 1e18
MARGIN = 1e6  # by which squared errors may differ from the variance of the target
FILLED = 1e6  # marks for missing values, as 1e20 or -99999999, are larger than this
TINY = 1e-150  # a standard deviation below lost digits when its square was taken


@dataclass(frozen=True)
class Places:
    """How messages call the rows and columns of a source.

    Args:
        source: the file or setting that the rows come from.
        target: name of what is predicted, if it has one.
        columns: names of the input columns; counted from 1 where there are none.
        row: what a row is called.
        first: number of the first row.
    """

    source: str
    target: str = ""
    columns: Sequence[str] = ()
    row: str = "row"
    first: int = 1

    def column(self, number: int) -> str:
        """Call an input column, counted from 0."""
        return f"column {self.columns[number]!r}" if self.columns else f"column {number + 1}"

    def at(self, row: int) -> str:
        """Call a row of the source, counted from 0."""
        return f"{self.row} {row + self.first}"


def fixed_order(name: str, rows: int) -> np.ndarray:
    """The order (rows,) in which a dataset without a published one is read.

    It is the same for every seed and machine: row numbers sorted by the raw 64-bit output of
    NumPy's Philox, keyed by the first 16 bytes of SHA-256 of ``hpo-bench/order/NAME``. NumPy
    promises the raw stream for ever, which it does not for ``permutation``.
    """
    key = int.from_bytes(hashlib.sha256(f"hpo-bench/order/{name}".encode()).digest()[:16], "big")
    return np.argsort(np.random.Philox(key=key).random_raw(rows), kind="stable")


def split(rows: int, validation_share: float) -> tuple[int, int]:
    """Cut training and validation rows into rint(rows·(1 - share)) for training, and the rest.

    Returns:
        How many rows are for training and for validation.

    Raises:
        UserError: the share is not strictly between 0 and 1, or one part would be empty.
    """
    if not _is_share(validation_share):
        raise UserError(
            f"validation_share={validation_share} is not allowed: "
            "it must lie strictly between 0 and 1"
        )
    training = int(np.rint(rows * (1 - validation_share)))
    if not 0 < training < rows:
        part = "training" if training == 0 else "validation"
        raise UserError(
            f"validation_share={validation_share} leaves no {part} row of {rows}; "
            f"allowed: about {1 / rows:.2g} to {1 - 1 / rows:.6g}"
        )
    return training, rows - training


def holdout(rows: int, test_share: float) -> int:
    """How many rows are for the test: rint(rows·share).

    Raises:
        UserError: the share is not strictly between 0 and 1, or leaves no test row or fewer than
            two others.
    """
    if not _is_share(test_share):
        raise UserError(
            f"dataset.test_share={test_share} is not allowed: it must lie strictly between 0 and 1"
        )
    test = int(np.rint(rows * test_share))
    if not 0 < test <= rows - 2:
        what = "no test row" if test == 0 else "fewer than two training and validation rows"
        raise UserError(
            f"dataset.test_share={test_share} leaves {what} of {rows}; "
            f"allowed: about {1 / rows:.2g} to {1 - 2 / rows:.6g}"
        )
    return test


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < 1


def standardise(values: np.ndarray, fitted: int) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale the columns of ``values`` (N, d) by mean and unbiased std.

    DIFFERENCE: the released code standardises in float32 and keeps the scale 1 where a computed std
    is exactly 0. Here all is float64, and a column is constant if its max is its min: the float64
    std of Naval's constant column 11 is not 0 (`tests/datasets/test_uci.py` and
    `test_preparation.py` hold both).

    Args:
        fitted: how many of the first rows mean and std are of.

    Returns:
        The standardised values (N, d) and the scale of each column (d,), both float64.
    """
    fitted_rows = values[:fitted]
    constant = fitted_rows.max(axis=0) == fitted_rows.min(axis=0)
    spread = fitted_rows.std(axis=0, ddof=1)
    tiny = ~constant & (spread < TINY)
    if tiny.any():
        largest = np.abs(fitted_rows[:, tiny]).max(axis=0)
        spread[tiny] = (fitted_rows[:, tiny] / largest).std(axis=0, ddof=1) * largest
    scale = np.where(constant, 1.0, spread)
    centre = np.where(constant, fitted_rows[0], fitted_rows.mean(axis=0))
    return (values - centre) / scale, scale


def moments(
    values: np.ndarray, fitted: int, shared: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased std of the entries of rows, without a float64 copy of them all.

    Args:
        values: (N, …) uint8 or floating-point. Of uint8, both follow from sums of integers: only
            the last operations round.
        fitted: how many of the first rows mean and std are of.
        shared: axes of one row (0 is its first) whose entries have one mean and std in common, as
            the pixels of an image's channel.

    Returns:
        Centre and scale, float64, broadcastable against one row; the scale of what is constant is
        1.
    """
    axes = (0, *(axis + 1 for axis in shared))
    fitted_rows = values[:fitted]
    of_kind = _integer_moments if values.dtype == np.uint8 else _float_moments
    centre, scale = of_kind(fitted_rows, axes)
    least = fitted_rows.min(axis=axes, keepdims=True)[0]
    constant = fitted_rows.max(axis=axes, keepdims=True)[0] == least
    tiny = ~constant & (scale < TINY)
    if tiny.any():
        # The squares of such deviations are lost: those of the values over the largest are not.
        largest = np.where(tiny, np.abs(fitted_rows).max(axis=axes, keepdims=True)[0], 1.0)
        scale = np.where(tiny, _float_moments(fitted_rows / largest, axes)[1] * largest, scale)
    return np.where(constant, least, centre), np.where(constant, 1.0, scale)


def _integer_moments(rows: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    total: Any = 0
    squares: Any = 0
    for block in _blocks(rows):  # whose sums are below 2**53, so exact in float64
        exact = block.astype(np.float64)
        total = total + exact.sum(axis=axes, keepdims=True)[0]
        squares = squares + np.square(exact, out=exact).sum(axis=axes, keepdims=True)[0]
    count = int(np.prod([rows.shape[axis] for axis in axes]))
    # Python's integers have any number of digits.
    total = total.astype(np.int64).astype(object)
    squares = squares.astype(np.int64).astype(object)
    variance = (count * squares - total * total) / (count * (count - 1))
    return (total / count).astype(np.float64), np.sqrt(variance.astype(np.float64))


def _float_moments(rows: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    count = int(np.prod([rows.shape[axis] for axis in axes]))
    total: Any = 0
    for block in _blocks(rows):
        total = total + block.sum(axis=axes, keepdims=True, dtype=np.float64)[0]
    centre = total / count
    squares: Any = 0
    for block in _blocks(rows):
        squares = squares + np.square(block - centre).sum(axis=axes, keepdims=True)[0]
    return np.asarray(centre), np.sqrt(squares / (count - 1))


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in blocks of about `BLOCK` numbers."""
    rows = max(1, BLOCK * len(values) // max(values.size, 1))
    return (values[at : at + rows] for at in range(0, len(values), rows))


def unseen_classes(table: Table) -> list[int]:
    """The classes that none of the training rows has, so that they cannot be learned."""
    if table.task != "classification":
        return []
    unseen = np.setdiff1d(table.targets, table.targets[: table.training])
    return [int(number) for number in unseen]


def check_varies(targets: np.ndarray, places: Places) -> None:
    """Refuse a target that is the same in all rows that it is learned from (N,).

    Raises:
        UserError: it is.
    """
    if (targets == targets[0]).all():
        name = f" {places.target!r}" if places.target else ""
        row = places.row.rpartition(" ")[2]
        raise UserError(
            f"{places.source}: the target{name} is the same in every {row} that is trained on, "
            "so there is nothing to learn; choose another target"
        )


def check_standardised(values: np.ndarray, cell: Callable[[int, int], str]) -> None:
    """Refuse rows (N, d) that lie so far from the others that their squares overflow.

    Args:
        values: standardised.
        cell: how a message calls the cell in a row and a column.

    Raises:
        UserError: names the first of these cells.
    """
    far = ~(np.abs(values) < FARTHEST)
    if not far.any():
        return
    row, column = (int(at) for at in np.argwhere(far)[0])
    raise UserError(
        f"{cell(row, column)}: lies {abs(values[row, column]):.3g} standard deviations from the "
        f"mean of the training and validation rows (allowed: up to {FARTHEST:g}); "
        "correct it, or leave it out"
    )


def check_told_apart(
    values: np.ndarray, standardised: np.ndarray, cell: Callable[[int, int], str]
) -> None:
    """Refuse a column in which one value is so large that the others become the same in float32.

    Args:
        values, standardised: (N, d), the rows that the columns were standardised by.
        cell: how a message calls the cell in a row and a column.

    Raises:
        UserError: names the value that is farthest from the mean.
    """
    for column in np.flatnonzero(np.abs(values).max(axis=0) >= FILLED):
        different = len(np.unique(standardised[:, column].astype(np.float32)))
        if different > 3 or different == len(
            np.unique(values[:, column])
        ):  # 3: the others, and two marks
            continue
        row = int(np.abs(standardised[:, column]).argmax())
        raise UserError(
            f"{cell(row, int(column))}: {values[row, column]:g} is so large that the other values "
            "are the same beside it (a mark for missing values?); correct it, or leave it out"
        )


def check_table(table: Table, precision: str) -> None:
    """Refuse a table that would show only in the middle of a training what is wrong with it.

    Args:
        precision: of the training, ``float32`` or ``float64``.

    Raises:
        UserError: not a `Table`, parts that are empty or do not sum to its rows, numbers that are
            not finite in this precision, class numbers that the model has no output for, a scale
            whose square is lost.
    """
    if not isinstance(table, Table):
        raise UserError(
            f"dataset.source: load gave a {type(table).__name__}, "
            "needed is a hpo_bench.core.table.Table"
        )
    parts = {"training": table.training, "validation": table.validation, "test": table.test}
    for name, rows in parts.items():
        if rows < 1:
            raise UserError(
                f"dataset {table.name}: it has {rows} {name} rows; at least 1 is needed"
            )
    lengths = (len(table.inputs), len(table.targets), sum(parts.values()))
    if len(set(lengths)) > 1:
        raise UserError(
            f"dataset {table.name}: {lengths[0]} inputs, {lengths[1]} targets and {lengths[2]} "
            "rows of training, validation and test; the three must be equal"
        )
    limit = np.finfo(precision)
    for what, values in (("inputs", table.inputs), ("targets", table.targets)):
        if values.dtype.kind == "f" and not np.abs(values).max(initial=0) <= limit.max:
            at = np.argwhere(~(np.abs(values) <= limit.max))[0]
            raise UserError(
                f"dataset {table.name}: {values[tuple(at)]} in the {what}, row {at[0]} (from 0) "
                "of training, validation and test in this order, "
                f"is not a finite number in precision={precision}"
            )
    if table.task == "classification":
        low, high = table.targets.min(), table.targets.max()
        if not 0 <= low <= high < table.outputs:
            raise UserError(
                f"dataset {table.name}: classes from {low} to {high}; "
                f"allowed: 0 to {table.outputs - 1}"
            )
    least, most = math.sqrt(float(limit.tiny) * MARGIN), math.sqrt(float(limit.max) / MARGIN)
    if not least <= table.target_scale <= most:
        other_way = ", or set precision=float64" if precision == "float32" else ""
        raise UserError(
            f"dataset {table.name}: the target's standard deviation {table.target_scale:.3g} "
            f"is out of proportion, since errors are squared; with precision={precision} "
            f"allowed: {least:.1g} to {most:.1g}; scale the target{other_way}"
        )


def make_table(
    name: str,
    inputs: np.ndarray,
    targets: np.ndarray,
    parts: tuple[int, int, int],
    fingerprint: str,
    *,
    places: Places | None = None,
    order: np.ndarray | None = None,
) -> Table:
    """Standardise rows that are in their final order: training, validation, test.

    Args:
        inputs: (N, d) float64.
        targets: (N,) float64 for regression, (N,) int64 class numbers from 0 for classification.
        parts: training, validation and test rows.
        places: how messages call rows and columns.
        order: row of the source that each row was; as they are unless given.

    Raises:
        UserError: a target that is constant where it is learned from, a value that is out of all
            proportion.
    """
    training, validation, test = parts
    fitted = training + validation
    places = places or Places(f"dataset {name}")
    inputs = _standardised(inputs, fitted, partial(_cell, places, order))[0]
    check_varies(targets[: training if training > 1 else fitted], places)  # one row never varies
    if targets.dtype == np.int64:
        outputs, target_scale = int(targets.max()) + 1, 1.0
    else:
        of_target = replace(places, columns=[places.target or "target"])
        targets, scale = _standardised(targets[:, None], fitted, partial(_cell, of_target, order))
        outputs, target_scale = 1, float(scale[0])
    task: Task = "classification" if targets.dtype == np.int64 else "regression"
    return Table(
        name, task, inputs, targets, training, validation, test, outputs, target_scale, fingerprint
    )


def _standardised(
    values: np.ndarray, fitted: int, cell: Callable[[int, int], str]
) -> tuple[np.ndarray, np.ndarray]:
    """Standardise as `standardise` does, and refuse values that are out of all proportion."""
    standardised, scale = standardise(values, fitted)
    check_standardised(standardised, cell)
    check_told_apart(values[:fitted], standardised[:fitted], cell)
    return standardised, scale


def _cell(places: Places, order: np.ndarray | None, row: int, column: int) -> str:
    source_row = row if order is None else int(order[row])
    return f"{places.source}: {places.column(column)}, {places.at(source_row)}"


def ordered_table(
    name: str,
    inputs: np.ndarray,
    targets: np.ndarray,
    shares: tuple[float, float],
    loader: str,
    content: Mapping[str, Any],
    places: Places | None = None,
) -> Table:
    """Make a table of rows without a published order.

    They are put into the order of `fixed_order`; the last are for the test, and `make_table` does
    the rest.

    Args:
        inputs, targets: as in `make_table`.
        shares: validation share (of the rows that are not for the test) and test share.
        loader, content: what decides the numbers, for the `fingerprint`.
        places: how messages call rows and columns.
    """
    validation_share, test_share = shares
    test = holdout(len(inputs), test_share)
    parts = (*split(len(inputs) - test, validation_share), test)
    order = fixed_order(name, len(inputs))
    digest = fingerprint(loader, {**content, "name": name, "parts": parts})
    inputs, targets = inputs[order], targets[order]
    table = make_table(name, inputs, targets, parts, digest, places=places, order=order)
    return replace(table, content=content_of(inputs, targets, test))


def content_of(inputs: np.ndarray, targets: np.ndarray, test: int, options: str = "") -> str:
    """Digest (SHA-256, hex) the values of a table's rows, before they are standardised.

    Args:
        inputs, targets: rows in their order.
        test: how many of the last rows are for the test.
        options: what else decides how they are standardised.
    """
    digest = hashlib.sha256(f"{test} {options}".encode())
    for array in (inputs, targets):
        digest.update(f"{array.dtype} {array.shape}".encode())
        values = array + 0.0 if array.dtype.kind == "f" else array  # -0 is 0
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def fingerprint(loader: str, content: Mapping[str, Any]) -> str:
    """Digest (SHA-256, hex) a loader's name and version and all that decides a table's numbers.

    Args:
        loader: name and version, as ``csv/1``.
        content: the rest, as plain values.
    """
    text = json.dumps({"loader": loader, **content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
