"""Files as tables: a law for what is written and read back, and no repair that nobody asked for."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo_bench.datasets.reading import SEPARATORS, clean_name, read_table
from hpo_bench.errors import UserError

PATH = Path("table.csv")
MARKS = {name: mark for name, mark in SEPARATORS.items() if name != "space"}
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6
).map(clean_name)
WRITTEN = (
    st.sampled_from(["a, b", 'say "hi"', "x;y", "p|q", "Temp (°C)", "t\tu", "two words"]) | NAMES
)
NUMBERS = st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9, allow_nan=False)
QUOTINGS = (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[float]]]:
    """Names that differ and are no numbers, and rows of numbers."""
    names = draw(st.lists(WRITTEN.filter(clean_name), min_size=2, max_size=5, unique_by=clean_name))
    return [*names, "target column"], draw(
        st.lists(
            st.lists(NUMBERS, min_size=len(names) + 1, max_size=len(names) + 1),
            min_size=1,
            max_size=6,
        )
    )


def written(names: list[str], rows: list[list[float]], mark: str, quoting: int, ends: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=mark, quoting=quoting, lineterminator=ends)  # type: ignore[arg-type]
    writer.writerow(names)
    writer.writerows([[repr(value) for value in row] for row in rows])
    return text.getvalue().encode()


@settings(deadline=None)
@given(
    tables(),
    st.sampled_from(sorted(MARKS)),
    st.sampled_from(QUOTINGS),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_what_is_written_is_read(
    table: tuple[list[str], list[list[float]]], separator: str, quoting: int, ends: str, mark: bool
) -> None:
    names, rows = table
    content = b"\xef\xbb\xbf" * mark + written(names, rows, MARKS[separator], quoting, ends)
    found = read_table(PATH, content, separator).frame
    assert list(found.columns) == [clean_name(name) for name in names]
    np.testing.assert_array_equal(found.to_numpy(dtype=float), np.array(rows, dtype=float))


@settings(deadline=None)
@given(tables(), st.sampled_from(sorted(MARKS)))
def test_the_separator_is_found_outside_quotation_marks(
    table: tuple[list[str], list[list[float]]], separator: str
) -> None:
    names, rows = table
    content = written(names, rows, MARKS[separator], csv.QUOTE_ALL, "\n")
    reading = read_table(PATH, content, "auto")
    assert reading.separator == separator
    assert list(reading.frame.columns) == [clean_name(name) for name in names]


@settings(deadline=None)
@given(tables(), st.sampled_from(["semicolon", "tab", "bar", "comma"]))
def test_decimal_commas_are_read_as_decimal_points(
    table: tuple[list[str], list[list[float]]], separator: str
) -> None:
    names, rows = table
    content = written(names, rows, MARKS[separator], csv.QUOTE_ALL, "\n")
    header, body = content.split(b"\n", 1)
    commas = header + b"\n" + body.replace(b".", b",")
    if separator == "comma":
        commas = (
            header + b"\n" + b'","'.join(part.replace(b".", b",") for part in body.split(b'","'))
        )
    plain, found = (
        read_table(PATH, content, separator).frame,
        read_table(PATH, commas, separator, ",").frame,
    )
    pd.testing.assert_frame_equal(plain, found)


def complaint(content: str | bytes, separator: str = "auto") -> str:
    with pytest.raises(UserError) as error:
        read_table(PATH, content if isinstance(content, bytes) else content.encode(), separator)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("table.csv")
    return text


ROWS = "1.5,2,3\n" * 12


@pytest.mark.parametrize(
    ("header", "about"),
    [
        ("a,y,y", "the column name 'y' stands 2 times in the header (columns 2 and 3)"),
        ("a, a ,y", "the column name 'a' stands 2 times in the header (columns 1 and 2)"),
        ("a,a\u00a0,y", "the column name 'a' stands 2 times in the header (columns 1 and 2)"),
        ("e\u0301,\u00e9,y", "stands 2 times in the header (columns 1 and 2)"),
        ("a,a,a", "the column name 'a' stands 3 times in the header (columns 1 and 2 and 3)"),
        (",,y", "table.csv"),
        (
            "0.5,2,3",
            "the first line holds numbers (0.5, 2, 3) where the names of the columns are needed",
        ),
        ("5,5,3", "the first line holds numbers (5, 5, 3)"),
    ],
)
def test_a_header_that_pandas_would_repair_is_refused(header: str, about: str) -> None:
    if header == ",,y":  # told apart by their places; refused as soon as they are used
        assert list(read_table(PATH, f"{header}\n{ROWS}".encode(), "auto").frame) == [
            "Unnamed: 0",
            "Unnamed: 1",
            "y",
        ]
        return
    assert about in complaint(f"{header}\n{ROWS}")


def test_columns_that_are_counted_are_named() -> None:
    assert list(read_table(PATH, f"0,1,2\n{ROWS}".encode(), "auto").frame) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"a,y\n{ROWS}", "line 2 has 3 values, the header line 2 names"),  # pandas: an index
        (f"a,b,c,y\n{ROWS}", "line 2 has 3 values, the header line 4 names"),  # pandas: filled up
        (f"a,b,y\n{ROWS}1,2\n{ROWS}", "line 14 has 2 values"),
        (f"a,b,y\n{ROWS}1,2,3,\n", "line 14 has 4 values"),
        (f"a,b,y\n{ROWS}# a comment\n{ROWS}", "line 14 has 1 value,"),
        (f"# made by hand\na,b,y\n{ROWS}", "line 2 has 1 value"),
        (f'a,"b\nc",y\n{ROWS}1\n', "line 15 has 1 value"),
    ],
)
def test_rows_that_are_not_as_wide_as_the_header_line_are_located(content: str, line: str) -> None:
    assert line in complaint(content)


@pytest.mark.parametrize(
    ("content", "about"),
    [
        ("", "is empty"),
        ("\n \n\n", "is empty"),
        ("a,größe,y\n".encode("latin-1"), "is not UTF-8 text: byte 0xf6 in line 1"),
        ("a,b,y\n".encode("utf-16"), "UTF-16"),
        ("a,b,y\n".encode("utf-16-le"), "zero bytes"),
        (b"\x1f\x8b\x08\x00", "is compressed (gzip)"),
        (b"PK\x03\x04rest", "a zip archive or an Excel workbook"),
        (b"PAR1 cut off", "cannot be read as a table"),
        (f'a,b,y\n{ROWS}1,2,"3\n', "cannot be read as a table"),
        (f'a,b,y\n{ROWS}""\n', "cannot be read as a table"),
    ],
)
def test_files_that_are_no_tables_are_told_in_one_line(content: str | bytes, about: str) -> None:
    assert about in complaint(content)


def test_white_space_separates_outside_quotation_marks() -> None:
    frame = read_table(PATH, b'  "Temp out"   load\ty\n 1.5  2 3\n4 5   6\n', "auto").frame
    assert list(frame) == ["Temp out", "load", "y"]
    assert frame.to_numpy().tolist() == [[1.5, 2, 3], [4, 5, 6]]


def test_cells_may_be_long() -> None:
    long = "x" * 200_000
    frame = read_table(PATH, f"note,y\n{long},1\n".encode(), "comma").frame
    assert frame["note"][0] == long


def test_old_line_ends_are_read() -> None:
    assert len(read_table(PATH, b"a,y\r1,2\r3,4\r", "auto").frame) == 2


def test_the_body_decides_where_the_header_line_alone_does_not() -> None:
    assert list(read_table(PATH, b"Temp, out;y\n1.5;2\n3;4\n", "auto").frame) == ["Temp, out", "y"]


# --- Parquet ---


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def test_parquet_names_that_stand_twice_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["y", "y"])
    assert "the column name 'y' stands 2 times" in complaint(parquet(table))


def test_parquet_is_known_without_its_suffix_and_an_index_is_no_column() -> None:
    frame = pd.DataFrame({"a": [1.5, 2.5], "y": [5, 6]})
    for name, shown in (("key", ("key",)), (None, ())):
        indexed = frame.set_index(pd.Index(["u", "v"], name=name))
        reading = read_table(PATH, parquet(pa.Table.from_pandas(indexed)), "auto")
        assert list(reading.frame) == ["a", "y"]
        assert reading.index == shown
