"""One's own table: a CSV or Parquet file of numeric inputs and one target column."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hpo_bench.core import checks
from hpo_bench.core.table import Table, Task
from hpo_bench.datasets.preparation import (
    LARGEST,
    Places,
    content_of,
    ordered_table,
    unseen_classes,
)
from hpo_bench.datasets.reading import (
    NAMELESS,
    NUMBER,
    SEPARATORS,
    Reading,
    clean_name,
    counted,
    read_bytes,
    read_table,
)
from hpo_bench.datasets.sources import DatasetSummary, RemoteFile
from hpo_bench.errors import UserError, nearest
from hpo_bench.system.quoting import override

if TYPE_CHECKING:
    import pandas as pd

Role = Literal["inputs", "target"]
Kind = Literal["numbers", "truth", "text", "categories"]
LOADER = "csv/1"
MINIMUM_ROWS = 10
MOST_CLASSES = 10  # distinct whole numbers that task=auto still takes for classes
DIGITS = 300  # of a whole number that is still looked at as one; float64 ends at 308
NAMES_SHOWN = 5  # names or labels in a message
TASKS = ("auto", "regression", "classification")
DECIMALS = {"auto": ".", "point": ".", "comma": ","}
# Cells of text that say that there is no value; those of the second set may be labels of classes
# for nobody either.
MISSING_MARKS = {
    "",
    "NA",
    "N/A",
    "n/a",
    "nan",
    "NaN",
    "-nan",
    "-NaN",
    "null",
    "NULL",
    "None",
    "<NA>",
    "#N/A",
    "#NA",
    "#N/A N/A",
    "1.#IND",
    "-1.#IND",
    "1.#QNAN",
    "-1.#QNAN",
}
NO_LABEL_MARKS = {
    "?",
    "NAN",
    "Nan",
    "Null",
    "N.A.",
    "n.a.",
    "#DIV/0!",
    "#NAME?",
    "#NULL!",
    "#NUM!",
    "#REF!",
    "#VALUE!",
}
DECIMAL_COMMA = re.compile(r"[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
QUANTITY = re.compile(
    r"[-+~(−\s]*[$€£¥₹]?[-+\s]*\.?\d"  # 12.5 EUR, 5%, $3, 2020-01-31, 1e3x
    r"|.*\d[.,]\d"  # EUR 12.5
    r"|(EUR|USD|GBP|CHF|JPY|CNY|INR|kr|Rs)\b\.?\s*\d"
    r"|.*\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?\s+\d",  # January 31, 2020
    re.IGNORECASE,
)


@dataclass(frozen=True)
class CSV:
    """A text table with a header line, or a Parquet file (``.parquet``, ``.pq``).

    Rows are put into the order of `fixed_order` (keyed by the name, independent of the seed); the
    last rint(rows·test_share) of them are the test set.

    Args:
        name: id of the dataset; seeds derive from it.
        path: the file, relative to the working directory.
        target: the column to predict.
        task: what the target is. ``auto`` takes words, truth values, and at most `MOST_CLASSES`
            distinct whole numbers for classes, other numbers for regression; text that might be
            meant as numbers is refused.
        test_share: share of the rows held out for the test.
        drop: columns to leave out.
        separator: between the columns of a text table: one of `SEPARATORS`, any single character,
            or ``auto``: the one of comma, semicolon, tab and bar with which the rows are as wide as
            the header line, or white space.
        decimal: mark before the decimals of numbers: ``point``, ``comma``, or ``auto``: a comma if
            a column cannot be read otherwise.
    """

    name: str
    path: str | None
    target: str | int | None
    task: Literal["auto", "regression", "classification"] = "auto"
    test_share: float = 0.1
    drop: Sequence[str | int] | str | int | None = ()
    separator: str = "auto"
    decimal: str = "auto"

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """The files that have to be downloaded: none."""
        return ()

    def summary(self, validation_share: float) -> DatasetSummary:
        """What is known of the table before the user's file is read: nothing."""
        return DatasetSummary(None, None, None, "your file")

    def load(self, validation_share: float) -> Table:
        """Read and check the file.

        Inputs and regression targets are standardised by the training and validation rows.

        Raises:
            UserError: no such file or column, names that stand twice, text, missing or much too
                large values where numbers are needed, too few rows, a target that is constant, does
                not fit the task or may be meant in two ways, a bad share.
        """
        path = self._checked_path()
        content = read_bytes(path)
        target, drop = clean_name(str(self.target)), self._dropped()
        reading, columns, decimal = self._read(path, content, target, drop)
        inputs, predicted = columns[:-1], columns[-1]
        task = _task(path, predicted) if self.task == "auto" else self.task
        labels: list[str] = []
        if task == "classification":
            targets, labels = _classes(path, predicted)
        else:
            targets = _numbers(path, [predicted], "target")[:, 0]
        values = _numbers(path, inputs, "inputs")
        places = Places(str(path), target, [column.name for column in inputs], "data row")
        shares = (validation_share, self.test_share)
        # The values count, however the file spells them.
        options: dict[str, Any] = {"values": content_of(values, targets, 0), "task": task}
        if predicted.kind == "text" and task == "classification":
            options["labels"] = labels
        table = ordered_table(self.name, values, targets, shares, LOADER, options, places)
        notes = [
            _about_target(predicted, labels),
            *_about_inputs(inputs, values),
            *_about_file(reading, decimal),
        ]
        if unseen := [labels[number] for number in unseen_classes(table)]:
            notes.append(f"in no training row, so never learned: {_shown(unseen)}")
        return replace(table, label=f"{path.name}: {target}", notice="; ".join(notes))

    def _read(
        self, path: Path, content: bytes, target: str, drop: Sequence[str]
    ) -> tuple[Reading, list[Column], str]:
        """Read the file: its columns (the target last), and the decimal mark of its numbers."""
        decimal = DECIMALS[self.decimal]
        reading = read_table(path, content, self.separator, decimal)
        columns = _columns(path, reading, target, drop, decimal)
        # Labels of classes may look like numbers with commas.
        numeric = columns[:-1] if self.task == "classification" else columns
        if self.decimal == "auto" and _has_decimal_commas(path, numeric):
            decimal = ","
            reading = read_table(path, content, self.separator, decimal)
            columns = _columns(path, reading, target, drop, decimal)
        return reading, columns, decimal

    def _checked_path(self) -> Path:
        if self.path is None or self.target is None:
            raise UserError("dataset=csv needs dataset.path=FILE and dataset.target=COLUMN")
        if self.task not in TASKS:
            raise UserError(f"dataset.task={self.task}: {nearest(self.task, TASKS)}")
        if self.decimal not in tuple(DECIMALS):
            raise UserError(f"dataset.decimal={self.decimal}: {nearest(self.decimal, DECIMALS)}")
        is_mark = re.fullmatch(r'[^"\r\n\w]', str(self.separator))
        if self.separator not in ("auto", *SEPARATORS) and not is_mark:
            raise UserError(
                f"dataset.separator={self.separator}: allowed: auto, {', '.join(SEPARATORS)}, "
                "or one character that is no letter, digit or quotation mark"
            )
        return checks.path("dataset.path", self.path)

    def _dropped(self) -> list[str]:
        names = [self.drop] if isinstance(self.drop, str | int) else self.drop or []
        if not isinstance(names, list | tuple):
            raise UserError(
                f"dataset.drop={names}: must be a list of columns, as in dataset.drop=[a,b]"
            )
        return sorted({clean_name(str(name)) for name in names})


@dataclass(frozen=True)
class Column:
    """A column that is used.

    Args:
        kind: what its cells are; ``categories`` are those that a Parquet file marks as such.
        values: (N,) numbers or truth values; cells of text without blanks around them.
        missing: (N,) whether there is no value.
        odd: of text, the first row whose cell is no number.
        decimal: mark before the decimals of numbers in text.
    """

    name: str
    kind: Kind
    values: np.ndarray
    missing: np.ndarray
    odd: int = 0
    decimal: str = "."

    @property
    def words(self) -> np.ndarray:
        """The row numbers of the cells that have a value."""
        return np.flatnonzero(~self.missing)

    def first(self, fits: Callable[[str], Any]) -> int | None:
        """The first row whose text fits."""
        return next((int(row) for row in self.words if fits(self.values[row])), None)

    def where(self, row: int) -> str:
        """Say where a cell is and what it holds, for a message."""
        return f"data row {row + 1} of {self.name!r} is {str(self.values[row])!r}"


def _columns(
    path: Path, reading: Reading, target: str, drop: Sequence[str], decimal: str
) -> list[Column]:
    """Input columns and, last, the target column.

    Raises:
        UserError: no such column, none left, one without a name, or too few rows.
    """
    frame, names = reading.frame, list(reading.frame.columns)
    if target not in names:
        if target in reading.index:
            raise UserError(
                f"{path}: dataset.target={target} is the index of the table; "
                "save it with reset_index()"
            )
        raise UserError(f"{path} has no column dataset.target={target}: {nearest(target, names)}")
    for name in drop:
        if name not in names and name not in reading.index:
            raise UserError(f"{path} has no column {name!r} (dataset.drop): {nearest(name, names)}")
    if target in drop:
        raise UserError(f"dataset.drop names the target {target!r}")
    inputs = [name for name in names if name != target and name not in drop]
    if not inputs:
        raise UserError(f"{path} has no input column left besides the target {target!r}")
    for name in (target, *inputs):
        if NAMELESS.fullmatch(name):
            raise UserError(
                f"{path}: column {names.index(name) + 1} has no name "
                "(row numbers that pandas wrote?); give it one in the header line, "
                f"or leave it out with {_dropping([name])}"
            )
    if len(frame) < MINIMUM_ROWS:
        raise UserError(
            f"{path} has {counted(len(frame), 'row')}; at least {MINIMUM_ROWS} are needed"
        )
    return [_column(name, frame[name], decimal) for name in (*inputs, target)]


def _column(name: str, cells: pd.Series, decimal: str) -> Column:
    import pandas as pd
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    absent = cells.isna().to_numpy(dtype=bool)
    if isinstance(cells.dtype, pd.CategoricalDtype):
        return Column(name, "categories", cells.astype(str).to_numpy(dtype=object), absent)
    if is_bool_dtype(cells) or (is_numeric_dtype(cells) and not is_complex_dtype(cells)):
        kind: Kind = "truth" if is_bool_dtype(cells) else "numbers"
        values = cells.fillna(0) if absent.any() else cells
        return Column(name, kind, values.to_numpy(), absent)
    text = np.array([clean_name(str(cell)) for cell in cells], dtype=object)
    absent = absent | np.array([cell in MISSING_MARKS for cell in text])
    column = Column(name, "text", text, absent, decimal=decimal)
    number = NUMBER if decimal == "." else DECIMAL_COMMA
    odd = column.first(lambda cell: not number.fullmatch(cell))
    if odd is None:
        return replace(column, kind="numbers", values=_converted(column, decimal))
    if column.first(lambda cell: cell.lower() not in ("true", "false")) is None:
        truth = np.array([cell.lower() == "true" for cell in text])
        return replace(column, kind="truth", values=truth)
    return replace(column, odd=odd)


def _converted(column: Column, decimal: str) -> np.ndarray:
    """Read numbers in text, (N,); missing ones become 0."""
    cells = [str(cell).replace(decimal, ".") for cell in column.values]
    texts = [cells[row] for row in column.words]
    # Whole numbers stay whole, so that those too long for float64 can be told.
    whole = all(len(text) <= DIGITS and text.lstrip("+-").isdecimal() for text in texts)
    kind: type = int if whole else float
    numbers = [kind(0)] * len(cells)
    for row in column.words:
        numbers[row] = kind(cells[row])
    return np.array(numbers, dtype=object if whole else np.float64)


def _has_decimal_commas(path: Path, columns: Sequence[Column]) -> bool:
    """Whether columns of text are numbers with decimal commas.

    Raises:
        UserError: the commas may as well separate thousands.
    """

    def numbers(column: Column) -> bool:
        cells = column.values[column.words]
        return 2 * sum(bool(DECIMAL_COMMA.fullmatch(cell)) for cell in cells) > len(cells)

    def comma(cell: str) -> bool:
        return "," in cell and bool(DECIMAL_COMMA.fullmatch(cell))

    candidates = [column for column in columns if column.kind == "text" and numbers(column)]
    candidates = [column for column in candidates if column.first(comma) is not None]
    for column in candidates:
        if column.first(lambda cell: comma(cell) and not THOUSANDS.fullmatch(cell)) is not None:
            return True
    if candidates:
        row = candidates[0].first(comma)
        assert row is not None
        raise UserError(
            f"{path}: {candidates[0].where(row)}, where the comma may separate decimals or "
            "thousands; set dataset.decimal=comma, or write the numbers without commas"
        )
    return False


def _task(path: Path, target: Column) -> Task:
    """The task that ``auto`` of `CSV.task` means for a target.

    Raises:
        UserError: the target is text that may be meant as numbers.
    """
    if target.kind in ("truth", "categories"):
        return "classification"
    if target.kind == "numbers":
        values = np.unique(target.values[target.words])
        few = len(values) <= MOST_CLASSES
        return "classification" if few and all(value % 1 == 0 for value in values) else "regression"
    quantity = target.first(QUANTITY.match)
    if quantity is None:
        return "classification"
    numbers = sum(bool(QUANTITY.match(target.values[row])) for row in target.words)
    row = target.odd if 2 * numbers > len(target.words) else quantity
    raise UserError(_about_text(path, [target], "target", row))


def _classes(path: Path, target: Column) -> tuple[np.ndarray, list[str]]:
    """Class numbers (N,) int64, in the order of the sorted labels, and the labels.

    Raises:
        UserError: a missing value, or so many different ones that they cannot be classes.
    """
    if target.kind == "text":
        target = replace(target, missing=target.missing | _no_labels(target.values))
    _no_missing(path, [target], "target")
    labels = target.values if target.kind == "numbers" else target.values.astype(str)
    classes, numbers = np.unique(labels, return_inverse=True)
    if 2 * len(classes) > len(labels):
        raise UserError(
            f"{path}: the target {target.name!r} has {len(classes)} different values in "
            f"{len(labels)} rows, too many for classes; "
            "choose another dataset.target or dataset.task=regression"
        )
    return numbers.astype(np.int64), [str(label) for label in classes]


def _no_labels(cells: np.ndarray) -> np.ndarray:
    """Which cells of text are marks for missing values, (N,) bool."""
    is_mark = np.array([cell in NO_LABEL_MARKS for cell in cells], dtype=bool)
    words = np.array([any(map(str.isalnum, cell)) for cell in cells], dtype=bool)
    if words.any():  # among words, signs such as - or . say that there is none
        is_mark |= ~words
    return is_mark


def _numbers(path: Path, columns: Sequence[Column], role: Role) -> np.ndarray:
    """Make an array (N, d) of finite float64 numbers of columns.

    Raises:
        UserError: a column of text; a missing, infinite, much too large or too long value.
    """
    text = [column for column in columns if column.kind in ("text", "categories")]
    if text:
        raise UserError(_about_text(path, text, role, text[0].odd))
    _no_missing(path, columns, role)
    for column in columns:
        _representable(path, column, role)
    arrays = [column.values.astype(np.float64) for column in columns]
    return np.ascontiguousarray(np.stack(arrays, axis=1))


def _representable(path: Path, column: Column, role: Role) -> None:
    """Refuse numbers that are too large for float32, or whole with more digits than float64 has."""
    size = np.abs(column.values.astype(np.float64))
    if size.max() >= LARGEST:
        wrong, why = size >= LARGEST, f"is too large (allowed: up to {LARGEST:g} in size)"
    elif column.values.dtype.kind in "iuO" and size.max() >= 2**53:
        wrong = np.array([int(float(number)) != number for number in column.values.tolist()])
        why = "has more digits than a number keeps (allowed: whole numbers up to 2^53)"
    else:
        return
    if wrong.any():
        row = int(np.argmax(wrong))
        ways = "correct it"
        if role == "inputs":
            ways = f"leave the row out, or the column with {_dropping([column.name])}"
        raise UserError(
            f"{path}: column {column.name!r}, data row {row + 1}: {column.values[row]} {why}"
            f"{_more(int(wrong.sum()))}; a key, or a mark for missing values? Then {ways}"
        )


def _more(count: int) -> str:
    return f", and {count - 1} more in this column" if count > 1 else ""


def _about_text(path: Path, columns: Sequence[Column], role: Role, row: int) -> str:
    names = [column.name for column in columns]
    number = "1234.5"
    if columns[0].decimal != ".":
        number = "1234,5 (there are decimal commas in the file)"
    other_way = "set dataset.task=classification if these are classes"
    if role == "inputs":
        other_way = f"leave out with {_dropping(names)}"
    return (
        f"{path}: {role} not numeric: {_shown(names)} ({columns[0].where(row)}); "
        f"write plain numbers such as {number}, or {other_way}"
    )


def _shown(names: Sequence[str]) -> str:
    quoted = [repr(name) if "," in name else name for name in names[:NAMES_SHOWN]]
    others = len(names) - NAMES_SHOWN
    return ", ".join(quoted) + (f" and {others} more" if others > 0 else "")


def _dropping(names: Sequence[str]) -> str:
    """The override that leaves the first of the columns out, as a shell takes it."""
    return override("dataset.drop", list(names[:NAMES_SHOWN]))


def _no_missing(path: Path, columns: Sequence[Column], role: Role) -> None:
    bad = np.stack([column.missing | _infinite(column) for column in columns], axis=1)
    if not bad.any():
        return
    row, number = (int(at) for at in np.argwhere(bad)[0])
    column = columns[number]
    kind = "missing" if column.missing[row] else "infinite"
    cell = column.values[row] if column.kind == "text" and column.values[row] else ""
    mark = f" ({cell})" if cell else ""
    other_way = ", or leave columns out with dataset.drop" if role == "inputs" else ""
    raise UserError(
        f"{path}: {kind} value{mark} in column {column.name!r}, data row {row + 1} "
        f"({bad.sum()} missing or infinite in the {role}); fill it in or remove the row{other_way}"
    )


def _infinite(column: Column) -> np.ndarray:
    if column.values.dtype.kind != "f":
        return np.zeros(len(column.values), bool)
    infinite: np.ndarray = np.isinf(column.values)
    return infinite


def _about_target(target: Column, labels: Sequence[str]) -> str:
    """Say what is predicted, and the numbers of the classes."""
    if not labels:
        return f"regression of {target.name!r}"
    pairs = ", ".join(f"{label}={number}" for number, label in enumerate(labels[:MOST_CLASSES]))
    more = f" and {len(labels) - MOST_CLASSES} more" if len(labels) > MOST_CLASSES else ""
    return f"classification of {target.name!r} into {len(labels)} classes ({pairs}{more})"


def _about_inputs(inputs: Sequence[Column], values: np.ndarray) -> list[str]:
    """Say which columns are inputs, and which of them are odd."""
    names = [column.name for column in inputs]
    parts = [f"{len(names)} input{'s' * (len(names) > 1)}: {_shown(names)}"]
    if truth := [column.name for column in inputs if column.kind == "truth"]:
        parts.append(f"truth values as 0 and 1: {_shown(truth)}")
    if constant := [names[at] for at in np.flatnonzero(values.min(axis=0) == values.max(axis=0))]:
        parts.append(f"always the same, so of no use: {_shown(constant)}")
    return parts


def _about_file(reading: Reading, decimal: str) -> list[str]:
    """Say how the file was read."""
    parts = [f"index left out: {_shown(reading.index)}"] if reading.index else []
    if reading.separator is not None:
        parts.append(f"separator {reading.separator}")
    return parts + ["decimal comma"] * (decimal == ",")
