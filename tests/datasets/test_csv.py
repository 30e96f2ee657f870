"""One's own table: what is read, and that every mistake in it is named in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo_bench.core.table import Table
from hpo_bench.datasets.csv import CSV, MINIMUM_ROWS, MOST_CLASSES
from hpo_bench.datasets.preparation import fixed_order, standardise
from hpo_bench.errors import UserError

ROWS = 40
Load = Callable[..., Table]


def frame(**columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "a": rng.normal(size=ROWS),
            "b": rng.normal(size=ROWS),
            "y": rng.normal(size=ROWS),
            **columns,
        }
    )


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a table and load it."""

    def load(
        table: pd.DataFrame | str | bytes,
        *,
        file: str = "table.csv",
        share: float = 0.2,
        **options: Any,
    ) -> Table:
        path = tmp_path / file
        if isinstance(table, pd.DataFrame):
            table.to_csv(path, index=False)
        else:
            path.write_bytes(table.encode() if isinstance(table, str) else table)
        return CSV(**{"name": "csv", "path": str(path), "target": "y", **options}).load(share)

    return load


def complains(load: Load, *table: Any, about: str, **options: Any) -> str:
    with pytest.raises(UserError, match=about) as error:
        load(*table, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_the_table_is_read_in_the_fixed_order_and_standardised(load: Load) -> None:
    table = frame()
    loaded = load(table)
    assert (loaded.training, loaded.validation, loaded.test) == (29, 7, 4)
    assert (loaded.name, loaded.task, loaded.outputs) == ("csv", "regression", 1)
    order = fixed_order("csv", ROWS)
    np.testing.assert_array_equal(
        loaded.inputs, standardise(table[["a", "b"]].to_numpy()[order], 36)[0]
    )
    np.testing.assert_array_equal(
        loaded.targets, standardise(table[["y"]].to_numpy()[order], 36)[0]
    )
    assert loaded.target_scale == pytest.approx(table["y"].to_numpy()[order][:36].std(ddof=1))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
def test_the_separator_is_found(load: Load, separator: str) -> None:
    text = frame().to_csv(index=False, sep=separator)
    loaded, plain = load(text), load(frame())
    np.testing.assert_array_equal(loaded.inputs, plain.inputs)
    np.testing.assert_array_equal(loaded.targets, plain.targets)


@pytest.mark.parametrize(
    ("name", "separator"), [("semicolon", ";"), (";", ";"), ("tab", "\t"), ("space", " ")]
)
def test_the_separator_can_be_given(load: Load, name: str, separator: str) -> None:
    text = frame().rename(columns={"a": "a,a,a,a"}).to_csv(index=False, sep=separator)
    assert load(text, separator=name).inputs.shape == (ROWS, 2)


@pytest.mark.parametrize("file", ["table.parquet", "table.PQ"])
def test_parquet_gives_the_same_numbers(load: Load, tmp_path: Path, file: str) -> None:
    frame().to_parquet(tmp_path / "p")
    loaded, plain = load((tmp_path / "p").read_bytes(), file=file), load(frame())
    np.testing.assert_array_equal(loaded.inputs, plain.inputs)
    np.testing.assert_array_equal(loaded.targets, plain.targets)


def test_byte_order_marks_and_windows_line_ends_are_read(load: Load) -> None:
    text = "\ufeff" + frame()[["y", "a", "b"]].to_csv(index=False, lineterminator="\r\n")
    np.testing.assert_array_equal(load(text).inputs, load(frame()).inputs)


def test_numbers_are_rounded_correctly(load: Load) -> None:
    values = np.random.default_rng(1).uniform(-1e-3, 1e3, ROWS) / 3
    order = fixed_order("csv", ROWS)
    loaded = load(frame(a=values))
    np.testing.assert_array_equal(
        loaded.inputs[:, 0], standardise(values[order, None], 36)[0][:, 0]
    )


def test_dropped_columns_do_not_matter(load: Load) -> None:
    extra = frame(when=["monday"] * ROWS, key=np.nan)
    for drop in (["when", "key"], ("key", "when")):
        np.testing.assert_array_equal(load(extra, drop=drop).inputs, load(frame()).inputs)
    np.testing.assert_array_equal(
        load(frame(when="monday"), drop="when").inputs, load(frame()).inputs
    )


def test_a_column_that_is_called_by_a_number_is_found(load: Load) -> None:
    table = frame().rename(columns={"y": "3", "a": "1"})
    assert load(table, target=3, drop=[1]).inputs.shape == (ROWS, 1)


@pytest.mark.parametrize(
    ("target", "task", "outputs"),
    [
        (np.arange(ROWS) % MOST_CLASSES, "classification", MOST_CLASSES),
        (np.arange(ROWS) % (MOST_CLASSES + 1), "regression", 1),
        (np.arange(ROWS) % 3 - 1.0, "classification", 3),
        (np.arange(ROWS) % 3 / 2, "regression", 1),
        (np.arange(ROWS) % 2 == 0, "classification", 2),
        ([["no", "yes", "perhaps"][row % 3] for row in range(ROWS)], "classification", 3),
    ],
)
def test_auto_tells_classes_from_numbers(load: Load, target: Any, task: str, outputs: int) -> None:
    loaded = load(frame(y=target))
    assert (loaded.task, loaded.outputs) == (task, outputs)


def test_classes_are_numbered_in_the_order_of_their_labels(load: Load) -> None:
    labels = np.array([10, 9, -3, 100])[np.arange(ROWS) % 4]
    order = fixed_order("csv", ROWS)
    expected = np.searchsorted([-3, 9, 10, 100], labels)[order]
    loaded = load(frame(y=labels))
    assert loaded.targets.dtype == np.int64
    np.testing.assert_array_equal(loaded.targets, expected)
    words = np.array(["c", "b", "a", "d"])[np.arange(ROWS) % 4]
    np.testing.assert_array_equal(load(frame(y=words)).targets, expected)


def test_the_task_can_be_given(load: Load) -> None:
    whole = frame(y=np.arange(ROWS) % 3)
    assert load(whole, task="regression").task == "regression"
    many = frame(y=np.arange(ROWS) % (MOST_CLASSES + 5))
    assert load(many, task="classification").outputs == MOST_CLASSES + 5


def test_the_fingerprint_follows_what_decides_the_numbers(load: Load) -> None:
    plain = load(frame())
    assert load(frame(), file="other.csv").fingerprint == plain.fingerprint
    others = [
        load(frame(a=1.0)),
        load(frame(), share=0.5),
        load(frame(), test_share=0.2),
        load(frame(), target="a"),
        load(frame(), drop=["a"]),
    ]
    assert len({plain.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert len({plain.content, *(other.content for other in others)}) == 5
    assert load(frame(), share=0.5).content == plain.content


def test_the_fingerprint_does_not_follow_the_spelling(load: Load, tmp_path: Path) -> None:
    plain = load(frame())
    text = frame().to_csv(index=False)
    frame().to_parquet(tmp_path / "t.parquet")
    spelt = [
        load(text.replace("\n", "\r\n")),
        load(frame().to_csv(index=False, sep=";"), separator="semicolon"),
        load(frame(), task="regression"),
        load(frame().assign(extra="words"), drop=["extra"]),
        CSV("csv", str(tmp_path / "t.parquet"), "y").load(0.2),
    ]
    assert {(other.fingerprint, other.content) for other in spelt} == {
        (plain.fingerprint, plain.content)
    }


def test_path_and_target_are_needed(tmp_path: Path) -> None:
    for path, target in ((None, None), ("x.csv", None), (None, "y")):
        with pytest.raises(
            UserError, match=r"^dataset=csv needs dataset\.path=FILE and dataset\.target=COLUMN$"
        ):
            CSV("csv", path, target).load(0.2)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"dataset\.path=nowhere/x\.csv: no such file \(working directory"
    ):
        CSV("csv", "nowhere/x.csv", "y").load(0.2)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        CSV("csv", str(tmp_path), "y").load(0.2)


def test_a_path_may_start_at_the_home_folder(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    frame().to_csv(tmp_path / "home.csv", index=False)
    np.testing.assert_array_equal(
        CSV("csv", "~/home.csv", "y").load(0.2).inputs, load(frame()).inputs
    )


def test_a_misspelt_column_is_named_with_the_nearest(load: Load) -> None:
    table = frame().rename(columns={"a": "price", "b": "weight"})
    assert "did you mean price" in complains(
        load, table, target="prize", about=r"no column dataset\.target=prize"
    )
    assert "did you mean weight" in complains(
        load, table, drop=["wight"], about="no column 'wight'"
    )


def test_columns_that_leave_nothing_are_refused(load: Load) -> None:
    complains(load, frame(), drop=["y"], about="drop names the target 'y'")
    complains(load, frame(), drop=["a", "b"], about="no input column left besides the target 'y'")


@pytest.mark.parametrize(
    ("value", "kind"), [(np.nan, "missing"), (np.inf, "infinite"), (-np.inf, "infinite")]
)
def test_values_that_are_not_finite_are_located_and_counted(
    load: Load, value: float, kind: str
) -> None:
    table = frame()
    table.loc[[6, 11], "b"] = value
    about = rf"{kind} value in column 'b', data row 7 \(2 missing or infinite in the inputs\)"
    assert "dataset.drop" in complains(load, table, about=about)
    table = frame()
    table.loc[[6, 11], "y"] = value
    complains(
        load,
        table,
        about=rf"{kind} value in column 'y', data row 7 \(2 missing or infinite in the target\)",
    )


def test_a_missing_label_is_located(load: Load) -> None:
    labels = ["u", "v", None, "u"] * (ROWS // 4)
    complains(load, frame(y=labels), about="missing value in column 'y', data row 3 .10 missing")


def test_missing_values_of_nullable_columns_are_located(load: Load, tmp_path: Path) -> None:
    table = frame(a=pd.array([1, None] * (ROWS // 2), dtype="Int64"))
    table.to_parquet(tmp_path / "p")
    complains(
        load,
        (tmp_path / "p").read_bytes(),
        file="t.parquet",
        about="missing value in column 'a', data row 2 .20",
    )


def test_text_in_an_input_is_located_and_can_be_dropped(load: Load) -> None:
    mostly = ["1.5"] * ROWS
    mostly[4] = "?"
    table = frame(b=mostly, colour=["red"] * ROWS)
    text = complains(
        load, table, about=r"inputs not numeric: b, colour \(data row 5 of 'b' is '\?'\)"
    )
    assert "dataset.drop=[b,colour]" in text
    assert load(table, drop=["b", "colour"]).inputs.shape == (ROWS, 1)


def test_many_columns_of_text_are_counted(load: Load) -> None:
    table = frame(**{f"t{number}": "x" for number in range(8)})
    complains(load, table, about="t0, t1, t2, t3, t4 and 3 more")


def test_a_target_of_numbers_with_one_word_is_not_taken_for_classes(load: Load) -> None:
    target = [str(value) for value in frame()["y"]]
    target[4] = "?"
    assert "task=classification" in complains(
        load, frame(y=target), about=r"target not numeric: y \(data row 5 of 'y' is '\?'\)"
    )


@pytest.mark.parametrize("target", [1.0, 3, "word"])
def test_a_constant_target_is_refused(load: Load, target: Any) -> None:
    complains(load, frame(y=target), about="target 'y' is the same in every row that is trained on")


def test_too_many_classes_are_refused(load: Load) -> None:
    complains(
        load,
        frame(y=[f"name {row}" for row in range(ROWS)]),
        about="40 different values in 40 rows, too many",
    )
    complains(
        load, frame(), task="classification", about="40 different values in 40 rows, too many"
    )


def test_too_few_rows_are_refused(load: Load) -> None:
    complains(
        load, frame()[: MINIMUM_ROWS - 1], about=f"has 9 rows; at least {MINIMUM_ROWS} are needed"
    )
    assert len(load(frame()[:MINIMUM_ROWS]).inputs) == MINIMUM_ROWS


@pytest.mark.parametrize(
    ("table", "file", "about"),
    [
        ("", "t.csv", "is empty: needed are a header line and rows"),
        (b"\xff\xfe\x00\x01", "t.csv", "is not UTF-8 text"),
        (b"no parquet", "t.parquet", "cannot be read as a table"),
        ("a,b,y\n" + "1,2,3,4\n" * ROWS, "t.csv", "line 2 has 4 values, the header line 3 names"),
        (
            "a,b,y\n" + "1,2,3\n" * 20 + "1,2,3,4\n",
            "t.csv",
            "line 22 has 4 values, the header line 3 names",
        ),
    ],
)
def test_files_that_are_no_tables_are_named(load: Load, table: Any, file: str, about: str) -> None:
    assert file in complains(load, table, file=file, about=about)


@pytest.mark.parametrize(
    ("options", "about"),
    [
        ({"task": "clasification"}, r"dataset\.task=clasification: did you mean classification"),
        ({"separator": "comma,"}, r"dataset\.separator=comma,: allowed: auto, comma"),
        ({"separator": '"'}, r'dataset\.separator=": allowed: auto, comma'),
        ({"separator": 1}, r"dataset\.separator=1: allowed: auto, comma"),
        ({"drop": {"a": 1}}, r"dataset\.drop=\{'a': 1\}: must be a list of columns"),
        ({"drop": 1.5}, r"dataset\.drop=1\.5: must be a list of columns"),
        ({"decimal": ["comma"]}, r"dataset\.decimal=\['comma'\]: "),
        ({"decimal": "coma"}, r"dataset\.decimal=coma: did you mean comma"),
        ({"test_share": 0}, r"dataset\.test_share=0 is not allowed"),
        ({"test_share": 0.99}, r"dataset\.test_share=0\.99 leaves fewer than two"),
        ({"share": 1}, "validation_share=1 is not allowed"),
        ({"share": 0.001}, r"validation_share=0\.001 leaves no validation row of 36"),
    ],
)
def test_options_that_are_not_allowed_are_named(
    load: Load, options: dict[str, Any], about: str
) -> None:
    complains(load, frame(), about=about, **options)


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="needs a user whose files can be closed to him"
)
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n")
    path.chmod(0)
    with pytest.raises(UserError, match="Permission denied"):
        CSV("csv", str(path), "y").load(0.2)


# --- nothing is inferred in silence ---


def text_rows(*cells: Callable[[int], object], header: str, separator: str = ",") -> str:
    """A table of `ROWS` rows, each cell made of its row's number."""
    lines = [separator.join(str(cell(row)) for cell in cells) for row in range(ROWS)]
    return "\n".join([header, *lines, ""])


def wave(row: int) -> float:
    return round(float(np.sin(1.7 * row)) * 3 + 0.123, 3)


def with_comma(row: int) -> str:
    return str(wave(row)).replace(".", ",")


def test_a_target_that_stands_twice_is_refused(load: Load) -> None:
    table = text_rows(wave, wave, wave, wave, header="a,b,y,y")
    complains(
        load, table, about="the column name 'y' stands 2 times in the header .columns 3 and 4"
    )


@pytest.mark.parametrize(
    ("header", "number", "name"), [(",a,y", 1, "Unnamed: 0"), ("a,,y", 2, "Unnamed: 1")]
)
def test_a_column_without_a_name_is_no_input_but_can_be_left_out(
    load: Load, header: str, number: int, name: str
) -> None:
    table = text_rows(lambda row: row, wave, wave, header=header)
    complains(load, table, about=f"column {number} has no name")
    assert load(table, drop=[name]).inputs.shape == (ROWS, 1)
    again = table.replace(
        header, header.replace(",,", f",{name},") if header[0] != "," else f"{name}{header}"
    )
    complains(load, again, about=f"column {number} has no name")  # as pandas writes what it read


def test_decimal_commas_are_read_and_said(load: Load) -> None:
    commas = text_rows(with_comma, lambda row: row, with_comma, header="a;b;grade", separator=";")
    loaded = load(commas, target="grade")
    plain = load(commas.replace(",", "."), target="grade", file="plain.csv")
    np.testing.assert_array_equal(loaded.inputs, plain.inputs)
    np.testing.assert_array_equal(loaded.targets, plain.targets)
    assert (loaded.task, loaded.target_scale) == ("regression", plain.target_scale)
    assert loaded.notice is not None
    assert loaded.notice.endswith("separator semicolon; decimal comma")
    assert load(commas, target="grade", decimal="comma").fingerprint == loaded.fingerprint
    complains(
        load,
        commas,
        target="grade",
        decimal="point",
        about=r"not numeric: grade .data row 1 of 'grade' is '0,123'",
    )


def test_a_comma_that_may_separate_thousands_is_refused(load: Load) -> None:
    table = text_rows(lambda row: row, lambda row: f"1,{100 + row}", header="a;y", separator=";")
    complains(
        load, table, about=r"data row 1 of 'y' is '1,100', where .* set dataset\.decimal=comma"
    )
    known = load(table, decimal="comma")
    assert known.target_scale == pytest.approx(load(table.replace(",", ".")).target_scale)


def test_points_beside_decimal_commas_are_refused(load: Load) -> None:
    table = text_rows(wave, with_comma, header="a;y", separator=";")
    complains(load, table, about=r"not numeric: a .*'0\.123'.* decimal commas in the file")


@pytest.mark.parametrize(
    "cell",
    [
        "{}.5 EUR",
        "EUR {}.5",
        "EUR {}",
        "${}",
        "{}%",
        "1,23{}.5",
        "{}e3x",
        "2020-01-0{}",
        "{}.1.2020",
        "Jan {}, 2020",
        "1{} kg",
        "~{}",
        "1 00{}",
        "{}:30",
        "€ {}",
    ],
)
def test_text_that_may_be_meant_as_numbers_is_no_class(load: Load, cell: str) -> None:
    table = text_rows(wave, lambda row: f'"{cell.format(row % 3 + 1)}"', header="a,y")
    complains(
        load,
        table,
        about=r"target not numeric: y \(data row 1 of 'y' is '.*'\); .*"
        r" dataset\.task=classification",
    )
    assert load(table, task="classification").outputs == 3
    table = text_rows(lambda row: f'"{cell.format(row % 3 + 1)}"', wave, header="a,y")
    complains(load, table, about=r"inputs not numeric: a \(data row 1 of 'a' is ")


@pytest.mark.parametrize(
    "labels", ["u v", "yes no", ">50K <=50K", "class1 class2", "A+ B-", "+ -", "none some"]
)
def test_words_are_classes_and_their_numbers_are_said(load: Load, labels: str) -> None:
    names = labels.split()
    loaded = load(text_rows(wave, lambda row: names[row % 2], header="a,y"))
    first, second = sorted(names)
    assert loaded.task == "classification"
    assert loaded.notice is not None
    assert loaded.notice.startswith(
        f"classification of 'y' into 2 classes ({first}=0, {second}=1); 1 input: a"
    )


@pytest.mark.parametrize(("odd", "row"), [("n/a", 3), ("?", 3), ("NA", 3), ("", 3), ("unknown", 3)])
@pytest.mark.parametrize("value", [wave, lambda row: row % 4])
def test_numbers_with_a_few_words_are_never_classes(
    load: Load, odd: str, row: int, value: Any
) -> None:
    table = text_rows(wave, lambda at: odd if at == row - 1 else value(at), header="a,y")
    text = complains(load, table, about="data row 3")
    assert "'y'" in text


def test_words_with_a_few_numbers_are_refused(load: Load) -> None:
    table = text_rows(wave, lambda row: "7" if row == 4 else "uv"[row % 2], header="a,y")
    complains(load, table, about="data row 5 of 'y' is '7'")


@pytest.mark.parametrize("odd", ["?", "#DIV/0!", "NA", "None", "Nan", "-", ".", "--"])
def test_marks_for_missing_values_are_no_class(load: Load, odd: str) -> None:
    table = text_rows(wave, lambda row: odd if row == 4 else "uv"[row % 2], header="a,y")
    complains(load, table, about=rf"missing value \({re.escape(odd)}\) in column 'y', data row 5")


def test_blanks_around_labels_make_no_other_class(load: Load) -> None:
    assert (
        load(text_rows(wave, lambda row: ["yes", " yes", "no "][row % 3], header="a,y")).outputs
        == 2
    )


def test_labels_that_look_alike_are_one_class_in_one_line(load: Load) -> None:
    loaded = load(
        text_rows(wave, lambda row: ['"é\r\nb"', "e\u0301 b", "é  b", "no"][row % 4], header="a,y")
    )
    assert loaded.outputs == 2
    assert loaded.notice is not None
    assert "(no=0, é b=1)" in loaded.notice


def test_the_fingerprint_follows_the_labels(load: Load) -> None:
    tables = [
        text_rows(wave, lambda row, n=names: n[row % 2], header="a,y")
        for names in ("uv", "uw", "vu")
    ]  # type: ignore[misc]
    assert len({load(table).fingerprint for table in tables}) == 3


def test_truth_values_are_zero_and_one(load: Load) -> None:
    loaded = load(text_rows(lambda row: ["true", "FALSE"][row % 2], wave, wave, header="t,a,y"))
    assert loaded.notice is not None
    assert "truth values as 0 and 1: t" in loaded.notice
    assert set(np.sign(loaded.inputs[:, 0])) == {-1, 1}


def test_what_is_of_no_use_is_said(load: Load) -> None:
    loaded = load(frame(c=7.0))
    assert loaded.notice is not None
    assert "always the same, so of no use: c" in loaded.notice
    last = fixed_order("csv", ROWS)[-1]
    labels = ["w" if row == last else "uv"[row % 2] for row in range(ROWS)]
    notice = load(frame(y=labels)).notice
    assert notice is not None
    assert "in no training row, so never learned: w" in notice


@pytest.mark.parametrize(
    "value", ["-1.797e308", "1e300", "-3.4028235e38", "3.4028234663852886e+38"]
)
def test_marks_for_missing_values_in_numbers_are_located(load: Load, value: str) -> None:
    table = text_rows(
        wave, lambda row: value if row in (3, 9, 20) else wave(row), wave, header="a,b,y"
    )
    text = complains(
        load, table, about=r"column 'b', data row 4: .* is too large \(allowed: up to 3\.4e\+38"
    )
    assert "and 2 more in this column" in text
    assert "dataset.drop=[b]" in text
    table = text_rows(
        wave, wave, lambda row: value if row in (3, 9, 20) else wave(row), header="a,b,y"
    )
    complains(load, table, about="column 'y', data row 4: .* is too large")


@pytest.mark.parametrize("value", ["9.96921e36", "-1e20", "1e30"])
@pytest.mark.parametrize("column", ["a", "y"])
def test_a_mark_beside_which_the_other_values_are_the_same_is_located(
    load: Load, value: str, column: str
) -> None:
    at = int(fixed_order("csv", ROWS)[0])
    table = frame()
    table.loc[at, column] = float(value)
    complains(
        load,
        table,
        about=rf"column '{column}', data row {at + 1}: .* the other values are the same beside it",
    )


def test_large_numbers_that_can_be_told_apart_are_read(load: Load) -> None:
    load(frame(a=10.0 ** np.linspace(-8, 8, ROWS), b=1.7e18 + 1e9 * np.arange(ROWS)))


@pytest.mark.parametrize("digits", [309, 5000])
def test_whole_numbers_of_any_length_are_located(load: Load, digits: int) -> None:
    long = text_rows(lambda row: "9" * digits if row == 6 else row, wave, header="a,y")
    complains(load, long, about=r"infinite value in column 'a', data row 7 \(1 ")


@pytest.mark.parametrize("metadata", ["{nonsense", "null", '{"index_columns": 3}'])
def test_parquet_with_odd_metadata_is_read(load: Load, tmp_path: Path, metadata: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame()).replace_schema_metadata({"pandas": metadata})
    pq.write_table(table, tmp_path / "odd.parquet")
    assert CSV("csv", str(tmp_path / "odd.parquet"), "y").load(0.2).inputs.shape == (ROWS, 2)


def test_a_test_row_out_of_all_proportion_is_located(load: Load) -> None:
    row = int(fixed_order("csv", ROWS)[-1])
    for column in ("b", "y"):
        table = frame()
        table.loc[row, column] = 1e30
        complains(
            load,
            table,
            about=rf"column '{column}', data row {row + 1}: lies .* standard deviations",
        )


def test_whole_numbers_that_cannot_be_kept_are_located(load: Load) -> None:
    complains(
        load,
        frame(b=2**53 + 1 + np.arange(ROWS)),
        about="column 'b', data row 1: 9007199254740993 has more digits",
    )
    long = text_rows(wave, lambda row: 10**20 + 1 + row, wave, header="a,key,y")
    complains(load, long, about="column 'key', data row 1: 100000000000000000001 has more digits")
    stamps = frame(b=1_700_000_000_000_000_000 + 10**9 * np.arange(ROWS))
    assert np.ptp(load(stamps).inputs[:, 1]) > 3


def test_the_smallest_numbers_are_standardised_as_others(load: Load) -> None:
    small, plain = load(frame(a=frame()["a"] * 1e-200)), load(frame())
    np.testing.assert_allclose(small.inputs, plain.inputs, rtol=1e-9)


def test_a_target_that_only_the_test_varies_is_refused(load: Load) -> None:
    last = fixed_order("csv", ROWS)[-1]
    for low, high in ((1.5, 2.5), ("u", "v")):
        target = [high if row == last else low for row in range(ROWS)]
        complains(load, frame(y=target), about="'y' is the same in every row that is trained on")


def test_names_are_found_without_the_blanks_around_them(load: Load) -> None:
    for header in ("a, b, y", "a,\u00a0b\u00a0,y ", '"a" ,"b"," y"', "\ufeffa,\ufeffb,y"):
        table = text_rows(wave, wave, wave, header=header)
        assert load(table, drop=["b"]).inputs.shape == (ROWS, 1)
        assert load(table, target=" y", drop=[" b "]).inputs.shape == (ROWS, 1)


def test_capitals_are_the_least_of_differences(load: Load) -> None:
    table = text_rows(wave, wave, header="A,PRICE")
    assert "did you mean PRICE" in complains(load, table, target="price", about="no column")
    assert "did you mean A?" in complains(
        load, table, target="PRICE", drop="a", about="no column 'a'"
    )


def test_delimiters_are_counted_outside_quotation_marks(load: Load) -> None:
    table = text_rows(
        with_comma, with_comma, with_comma, header='"Temp, out";"Load, base";y', separator=";"
    )
    loaded = load(table)
    assert loaded.notice is not None
    assert (
        "2 inputs: 'Temp, out', 'Load, base'; separator semicolon; decimal comma" in loaded.notice
    )


def test_the_label_names_file_and_target(load: Load) -> None:
    assert load(frame(), file="house.csv").label == "house.csv: y"


def test_a_column_that_is_dropped_twice_is_the_same_run(load: Load) -> None:
    table = frame(c=1.5)
    assert load(frame(), drop=None).fingerprint == load(frame()).fingerprint
    assert load(table, drop=["c", "c "]).fingerprint == load(table, drop="c").fingerprint


def test_parquet_values_that_are_no_numbers_are_located(load: Load, tmp_path: Path) -> None:
    odd = {
        "b": ([True, None] * (ROWS // 2), "missing value in column 'b', data row 2"),
        "y": (
            pd.date_range("2020-01-01", periods=ROWS),
            "target not numeric: y .data row 1 of 'y' is '2020-01-01",
        ),
        "a": ([[1, 2]] * ROWS, "inputs not numeric: a"),
    }
    for name, (values, about) in odd.items():
        frame(**{name: values}).to_parquet(tmp_path / "p")
        complains(load, (tmp_path / "p").read_bytes(), file="t.parquet", about=about)
    frame(y=pd.timedelta_range("1 day", periods=ROWS)).to_parquet(tmp_path / "p")
    complains(load, (tmp_path / "p").read_bytes(), file="t.parquet", about="target not numeric: y")


def test_parquet_decimals_and_categories_are_read(load: Load, tmp_path: Path) -> None:
    exact = [Decimal(f"{value:.3f}") for value in frame()["y"]]
    frame(y=exact).to_parquet(tmp_path / "p")
    assert load((tmp_path / "p").read_bytes(), file="t.parquet").task == "regression"
    frame(y=pd.Categorical(["10", "9"] * (ROWS // 2))).to_parquet(tmp_path / "p")
    assert load((tmp_path / "p").read_bytes(), file="t.parquet").outputs == 2


@pytest.mark.parametrize("path", ["a\0b", "~no_such_user/x.csv", 3])
def test_odd_paths_are_named(path: Any) -> None:
    with pytest.raises(UserError, match=r"^dataset\.path="):
        CSV("csv", path, "y").load(0.2)
