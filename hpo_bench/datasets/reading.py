"""Files of one's own as tables: what stands in them, without repairs that nobody asked for.

pandas numbers a column name that stands twice, names columns without a name, takes a column that
has none for row numbers, and fills short rows. Here the header line and the width of every row are
read and checked first; pandas only turns the cells into numbers.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo_bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "space": " "}
SEPARATORS_TRIED = (
    "comma",
    "semicolon",
    "tab",
    "bar",
)  # in this order where several fit equally well
CHARACTERS_TRIED = 1 << 16  # characters from which the separator is found
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# What pandas calls, and writes for, a column without a name.
NAMELESS = re.compile(r"Unnamed: \d+(_level_\d+)?")
PARQUET_MARK = b"PAR1"
OTHER_FILES = {  # by their first bytes
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the table as CSV",
    b"BZh": "compressed (bzip2); unpack it first",
    b"\xfd7zXZ": "compressed (xz); unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unpack it first",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the table as CSV",
}
# Byte-order mark and zero-width blank, which str.strip does not take for blanks.
INVISIBLE = "\ufeff\u200b"


@dataclass(frozen=True)
class Reading:
    """A table as its file has it.

    Args:
        frame: columns of numbers and truth values, and of text where a cell is neither; names are
            stripped of blanks around them. A column without a name is called as `NAMELESS` says.
        separator: what was found between the columns, a name of `SEPARATORS` or a character; None
            for Parquet.
        index: columns that pandas wrote as the index of the table; they are not in ``frame``.
    """

    frame: pd.DataFrame
    separator: str | None
    index: tuple[str, ...] = ()


def read_bytes(path: Path) -> bytes:
    """Read the content of the user's file.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"dataset.path={path}: no such file (working directory {Path.cwd()})"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(f"dataset.path={path} cannot be read: {reason or error}") from None


def read_table(path: Path, content: bytes, separator: str, decimal: str = ".") -> Reading:
    """Read the table that the content of a file is.

    Args:
        path: for messages; ``.parquet`` and ``.pq`` are Parquet, as is what begins like it.
        separator: ``auto``, a name of `SEPARATORS`, or a character.
        decimal: mark before the decimals of numbers in text.

    Raises:
        UserError: it is no table: another kind of file, names that are missing or stand twice, rows
            of another length than the header line.
    """
    if path.suffix.lower() in (".parquet", ".pq") or content.startswith(PARQUET_MARK):
        return _read_parquet(path, content)
    text = _text(path, content)
    mark = _found_separator(text) if separator == "auto" else separator
    return Reading(_read_text(path, text, mark, decimal), mark)


def clean_name(name: str) -> str:
    """Write a column name in one line, without blanks and invisible marks around it."""
    line = " ".join(name.strip(INVISIBLE).split()).strip(INVISIBLE)
    # An accent may be a sign of its own, or part of its letter: most programs write the latter.
    return unicodedata.normalize("NFC", line)


# --- text ---


def _text(path: Path, content: bytes) -> str:
    """Read the file's text, every line ended by a line feed."""
    for begin, what in OTHER_FILES.items():
        if content.startswith(begin):
            raise UserError(f"{path} is {what}")
    advice = "save the table as CSV in UTF-8, or as Parquet"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UserError(f"{path} is not UTF-8 text but seems to be UTF-16; {advice}") from None
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{content[error.start]:02x} in line {line}"
        raise UserError(f"{path} is not UTF-8 text: {byte} (Latin-1?); {advice}") from None
    if "\0" in text:
        raise UserError(f"{path} holds zero bytes, so it is no UTF-8 text (UTF-16?); {advice}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _found_separator(text: str) -> str:
    """Find the separator with which the first rows are as wide as the header line.

    Of several it is the most frequent there, counted outside quotation marks; white space where
    none of them stands in the header line.
    """
    header = re.sub(r'"[^"]*"', "", text.lstrip(f" \n{INVISIBLE}").split("\n", 1)[0])
    begin = text[:CHARACTERS_TRIED]
    whole = len(begin) == len(text)

    def fits(rows: str, mark: str) -> bool:
        widths = [len(row) for _, row in _records(rows, mark)]
        # The last row may be cut off.
        return len(set(widths if whole else widths[:-1])) == 1

    def rank(name: str) -> tuple[bool, int]:
        return fits(begin, SEPARATORS[name]), header.count(SEPARATORS[name])

    there = [name for name in SEPARATORS_TRIED if SEPARATORS[name] in header]
    best = max(there, key=rank, default=None)
    if best is not None and (fits(begin, SEPARATORS[best]) or not fits(_tabbed(begin), "\t")):
        return best
    return "space" if re.search(r"\S\s+\S", header) else best or "comma"


def _records(text: str, mark: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a text that are not blank, and the line in which each ends, from 1."""
    reader = csv.reader(io.StringIO(text), delimiter=mark, skipinitialspace=True)
    for row in reader:
        if row and (len(row) > 1 or row[0].strip()):
            yield reader.line_num, row


def _tabbed(text: str) -> str:
    """Put one tab in the place of the white space between columns."""
    words = re.compile(r'(?:"[^"]*"|[^\s"])+')
    return "\n".join("\t".join(words.findall(line)) for line in text.split("\n"))


def _read_text(path: Path, text: str, separator: str, decimal: str) -> pd.DataFrame:
    import pandas as pd

    mark = SEPARATORS.get(separator, separator)
    if mark == " ":
        text, mark = _tabbed(text), "\t"
    try:
        with _any_length(len(text)):
            names, body, rows = _checked_rows(path, text, mark, separator)
        if rows == 0:
            return pd.DataFrame({name: [] for name in names})
        frame = pd.read_csv(
            io.StringIO(body),
            sep=mark,
            decimal=decimal,
            header=None,
            names=list(range(len(names))),
            index_col=False,
            na_filter=False,
            skipinitialspace=True,
            low_memory=False,
            engine="c",
            **_exact(pd.__version__),
        )
    except UserError:
        raise
    except (csv.Error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as a table: {reason}") from None
    if len(frame) != rows:
        raise UserError(
            f"{path} cannot be read as a table: "
            "a quotation mark is not closed, or stands inside a value"
        )
    table: pd.DataFrame = frame.set_axis(names, axis="columns")
    return table


@contextlib.contextmanager
def _any_length(most: int) -> Iterator[None]:
    """Let Python's csv read cells of up to ``most`` characters; it stops at 131072 otherwise."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, most))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _checked_rows(path: Path, text: str, mark: str, separator: str) -> tuple[list[str], str, int]:
    """Names of the columns, the text below the header line, and how many rows there are in it.

    Raises:
        UserError: no header line, or a row that is not as wide.
    """
    records = _records(text, mark)
    try:
        begin, header = next(records)
    except StopIteration:
        raise UserError(f"{path} is empty: needed are a header line and rows") from None
    names = checked_names(path, header)
    rows = 0
    for line, row in records:
        if len(row) != len(names):
            raise UserError(
                f"{path}: line {line} has {counted(len(row), 'value')}, "
                f"the header line {counted(len(names), 'name')} "
                f"(separator: {separator}; another one: dataset.separator)"
            )
        rows += 1
    lines = text.split("\n", begin)
    body = lines[begin] if len(lines) > begin else ""
    return names, body, rows


def counted(number: int, what: str) -> str:
    """Say how many there are of something: ``1 row``, ``2 rows``."""
    return f"{number} {what}{'s' * (number != 1)}"


def checked_names(path: Path, header: Sequence[str]) -> list[str]:
    """Read the names of the columns in a header line.

    Raises:
        UserError: one stands twice, or the line seems to be the first row of a table without a
            header line.
    """
    names = [clean_name(name) or f"Unnamed: {number}" for number, name in enumerate(header)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if all(NUMBER.fullmatch(name) for name in names) and (twice or not _count_up(names)):
        numbers_shown = ", ".join(names[:5]) + ", …" * (len(names) > 5)
        raise UserError(
            f"{path}: the first line holds numbers ({numbers_shown}) "
            "where the names of the columns are needed"
        )
    if twice:
        numbers = [str(number) for number, name in enumerate(names, 1) if name == twice[0]]
        more = f"; so do {', '.join(map(repr, twice[1:5]))}" if twice[1:] else ""
        raise UserError(
            f"{path}: the column name {twice[0]!r} stands {len(numbers)} times in the header "
            f"(columns {' and '.join(numbers)}){more}; every column needs a name of its own"
        )
    return names


def _count_up(names: Sequence[str]) -> bool:
    """Whether the names are whole numbers that rise by one, as those of tables without names."""
    if not all(name.isdecimal() for name in names):
        return False
    return all(int(after) == int(before) + 1 for before, after in pairwise(names))


def _exact(version: str) -> dict[str, Any]:
    """The options by which pandas rounds decimal numbers correctly."""
    # From 3.1 on it does by default, and deprecates the option.
    if tuple(map(int, version.split(".")[:2])) >= (3, 1):
        return {}
    return {"float_precision": "round_trip"}


# --- Parquet ---


def _read_parquet(path: Path, content: bytes) -> Reading:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(content)).read()
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as a table: {reason}") from None
    names = checked_names(path, table.column_names)
    index = _index_columns(table)
    columns = [number for number, name in enumerate(table.column_names) if name not in index]
    frame = table.select(columns).replace_schema_metadata(None).to_pandas(ignore_metadata=True)
    frame = frame.set_axis([names[number] for number in columns], axis="columns")
    with_name = [name for name in index if not re.fullmatch(r"__index_level_\d+__", name)]
    return Reading(frame, None, tuple(map(clean_name, with_name)))


def _index_columns(table: pa.Table) -> list[str]:
    """The columns that pandas would make the index of the table."""
    try:
        metadata = table.schema.pandas_metadata
    except ValueError:  # not JSON: nothing that pandas wrote
        return []
    index = metadata.get("index_columns") if isinstance(metadata, dict) else None
    if not isinstance(index, list):
        return []
    return [name for name in index if isinstance(name, str)]
