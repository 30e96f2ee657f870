"""One's own table: a CSV (or Parquet) file with one target column; every other column is a numeric input."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hpo_bench.datasets.base import Table, Task
from hpo_bench.datasets.preparation import ordered_table
from hpo_bench.datasets.sources import RemoteFile, Summary
from hpo_bench.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

Role = Literal["inputs", "target"]
LOADER = "csv/1"
MINIMUM_ROWS = 10
MOST_CLASSES = 10  # distinct whole numbers that task=auto still takes for classes
TASKS = ("auto", "regression", "classification")
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "space": r"\s+"}


@dataclass(frozen=True)
class CSV:
    """A text table with a header line, or a Parquet file (``.parquet``, ``.pq``).

    Rows are put into the order of `fixed_order` (keyed by the name, independent of the seed); the last
    rint(rows·test_share) of them are the test set.

    Args:
        name: id of the dataset; seeds derive from it.
        path: the file, relative to the working directory.
        target: the column to predict.
        task: what the target is. ``auto`` takes text, booleans, and at most `MOST_CLASSES` distinct whole numbers
            for classes, anything else for regression.
        test_share: share of the rows held out for the test.
        drop: columns to leave out.
        separator: between the columns of a text table: one of `SEPARATORS`, any single character, or ``auto``: the
            most frequent of comma, semicolon, tab and bar in the header line, or white space where there is none.
    """

    name: str
    path: str | None
    target: str | int | None
    task: Literal["auto", "regression", "classification"] = "auto"
    test_share: float = 0.1
    drop: Sequence[str | int] | str = ()
    separator: str = "auto"

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """Nothing has to be downloaded."""
        return ()

    def summary(self, validation_share: float) -> Summary:
        """Nothing is known before the user's file is read."""
        return Summary(None, None, None, "your file")

    def load(self, validation_share: float) -> Table:
        """Read and check the file; inputs and regression targets are standardised by training and validation rows.

        Raises:
            UserError: no such file or column, text or missing values where numbers are needed, too few rows, a
                target that is constant or does not fit the task, a bad share.
        """
        path = self._checked_path()
        content = _read_bytes(path)
        frame = _parse(path, content, self.separator)
        target, drop = str(self.target), self._dropped()
        inputs, column = _columns(path, frame, target, drop)
        task = _task(column) if self.task == "auto" else self.task
        targets = (
            _classes(path, column) if task == "classification" else _numbers(path, column.to_frame(), "target")[:, 0]
        )
        if (targets == targets[0]).all():
            raise UserError(f"{path}: the target {target!r} is the same in every row, so there is nothing to learn")
        digest = hashlib.sha256(content).hexdigest()
        options = {"sha256": digest, "separator": self.separator, "target": target, "task": task, "drop": sorted(drop)}
        shares = (validation_share, self.test_share)
        return ordered_table(self.name, _numbers(path, inputs, "inputs"), targets, shares, LOADER, options)

    def _checked_path(self) -> Path:
        if self.path is None or self.target is None:
            raise UserError("dataset=csv needs dataset.path=FILE and dataset.target=COLUMN")
        if self.task not in TASKS:
            raise UserError(f"dataset.task={self.task}: {nearest(self.task, TASKS)}")
        if self.separator not in ("auto", *SEPARATORS) and len(self.separator) != 1:
            allowed = f"auto, {', '.join(SEPARATORS)}, or one character"
            raise UserError(f"dataset.separator={self.separator}: allowed: {allowed}")
        return Path(self.path).expanduser()

    def _dropped(self) -> list[str]:
        return [str(name) for name in ([self.drop] if isinstance(self.drop, str) else self.drop)]


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"dataset.path={path}: no such file (working directory {Path.cwd()})") from None
    except OSError as error:
        raise UserError(f"dataset.path={path} cannot be read: {error.strerror or error}") from None


def _parse(path: Path, content: bytes, separator: str) -> pd.DataFrame:
    """All columns and rows, column names as text.

    Raises:
        UserError: not a table, or fewer than `MINIMUM_ROWS` rows.
    """
    import pandas as pd

    try:
        frame = (
            pd.read_parquet(io.BytesIO(content))
            if path.suffix.lower() in (".parquet", ".pq")
            else _parse_text(content, separator)
        )
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save the table as CSV in UTF-8, or as Parquet") from None
    except pd.errors.ParserWarning:
        raise UserError(f"{path}: the rows have more values than the header line has names") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from None
    if len(frame) < MINIMUM_ROWS:
        raise UserError(f"{path} has {len(frame)} rows; at least {MINIMUM_ROWS} are needed")
    return frame.rename(columns=str)


def _parse_text(content: bytes, separator: str) -> pd.DataFrame:
    import pandas as pd

    text = content.decode("utf-8-sig")
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
        return pd.read_csv(
            io.StringIO(text),
            sep=_guess_separator(text) if separator == "auto" else SEPARATORS.get(separator, separator),
            engine="c",
            index_col=False,
            **_exact(pd.__version__),
        )


def _exact(version: str) -> dict[str, Any]:
    """What makes pandas round decimal numbers correctly: from 3.1 on it does by default and deprecates the option."""
    return {} if tuple(map(int, version.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}


def _guess_separator(text: str) -> str:
    header = text.lstrip().split("\n", 1)[0]
    best = max((SEPARATORS[name] for name in ("comma", "semicolon", "tab", "bar")), key=header.count)
    return best if best in header else SEPARATORS["space"]


def _columns(path: Path, frame: pd.DataFrame, target: str, drop: Sequence[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Input columns and target column."""
    names = list(frame.columns)
    if target not in names:
        raise UserError(f"{path} has no column dataset.target={target}: {nearest(target, names)}")
    for name in drop:
        if name not in names:
            raise UserError(f"{path} has no column {name!r} (dataset.drop): {nearest(name, names)}")
    if target in drop:
        raise UserError(f"dataset.drop names the target {target!r}")
    inputs = frame.drop(columns=[target, *drop])
    if inputs.shape[1] == 0:
        raise UserError(f"{path} has no input column left besides the target {target!r}")
    return inputs, frame[target]


def _task(target: pd.Series) -> Task:
    """What `CSV.task` ``auto`` means. Text that is mostly numbers is left to regression, which names what is not."""
    import pandas as pd
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if is_bool_dtype(target):
        return "classification"
    if not is_numeric_dtype(target):
        return "regression" if _as_numbers(target).notna().mean() > 0.5 else "classification"
    values = pd.unique(target.dropna())
    return "classification" if len(values) <= MOST_CLASSES and all(value % 1 == 0 for value in values) else "regression"


def _as_numbers(column: pd.Series) -> pd.Series:
    """The values of a column of text as numbers, missing where they are none."""
    import pandas as pd

    return pd.to_numeric(column.astype(str), errors="coerce")


def _classes(path: Path, target: pd.Series) -> np.ndarray:
    """Class numbers (N,) int64, in the order of the sorted labels.

    Raises:
        UserError: a missing value, or so many different ones that they cannot be classes.
    """
    from pandas.api.types import is_numeric_dtype

    _no_missing(path, target.to_frame(), "target")
    labels = target.to_numpy() if is_numeric_dtype(target) else target.astype(str).to_numpy(dtype=str)
    classes, numbers = np.unique(labels, return_inverse=True)
    if 2 * len(classes) > len(labels):
        raise UserError(
            f"{path}: the target {target.name!r} has {len(classes)} different values in {len(labels)} rows, too many "
            "for classes; choose another dataset.target or dataset.task=regression"
        )
    return numbers.astype(np.int64)


def _numbers(path: Path, frame: pd.DataFrame, role: Role) -> np.ndarray:
    """The columns as finite float64 numbers (N, d).

    Raises:
        UserError: a column of text, a missing or infinite value.
    """
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    text = [str(name) for name in frame if not (is_numeric_dtype(frame[name]) or is_bool_dtype(frame[name]))]
    if text:
        raise UserError(_about_text(path, frame, text, role))
    _no_missing(path, frame, role)
    return np.ascontiguousarray(frame.to_numpy(dtype=np.float64))


def _about_text(path: Path, frame: pd.DataFrame, names: Sequence[str], role: Role) -> str:
    first = frame[names[0]]
    row = int(np.argmax((_as_numbers(first).isna() & first.notna()).to_numpy()))
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    ways = {
        "inputs": f"encode as numbers, or leave out with 'dataset.drop=[{','.join(names[:5])}]'",
        "target": "correct it, or set dataset.task=classification",
    }
    where = f"data row {row + 1} of {names[0]!r} is {str(first.iloc[row])!r}"
    return f"{path}: {role} not numeric: {shown} ({where}); {ways[role]}"


def _no_missing(path: Path, frame: pd.DataFrame, role: Role) -> None:
    from pandas.api.types import is_float_dtype

    missing = frame.isna().to_numpy()
    bad = missing.copy()
    for position, name in enumerate(frame):
        if is_float_dtype(frame[name]):
            bad[:, position] |= np.isinf(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))
    if not bad.any():
        return
    row, column = np.argwhere(bad)[0]
    kind = "missing" if missing[row, column] else "infinite"
    ways = "fill it in or remove the row" + (", or leave columns out with dataset.drop" if role == "inputs" else "")
    raise UserError(
        f"{path}: {kind} value in column {str(frame.columns[column])!r}, data row {row + 1} "
        f"({bad.sum()} missing or infinite in the {role}); {ways}"
    )
