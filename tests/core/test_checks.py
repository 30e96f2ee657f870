"""Checks of single settings that become names and paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo_bench.core import checks
from hpo_bench.errors import UserError
from hpo_bench.settings import conditions

GOOD = ["uci_energy", "Mein Datensatz 2", "größe", "a.b-c_d", "x=y", "(1)", "it's"]
BAD = [
    "../../outside",
    "projects/house",
    "..",
    ".",
    ".hidden",
    "-rf",
    " a",
    "a ",
    "a.",
    "a\\b",
    "c:d",
    "a*",
    "a?",
    'a"b',
    "a<b",
    "a|b",
    "a\0b",
    "a\nb",
    "\x1b[31m",
    "a\u200bb\u202e",
    "x" * 81,
    "ü" * 41,
    "a\udcff",
    "",
]


@pytest.mark.parametrize("name", GOOD)
def test_names_that_are_one_part_of_a_path(name: str) -> None:
    assert checks.name("dataset.name", name) == name


@pytest.mark.parametrize("name", BAD)
def test_names_that_would_lead_elsewhere_or_nowhere(name: str) -> None:
    with pytest.raises(UserError, match=r"^dataset\.name=") as caught:
        checks.name("dataset.name", name)
    assert str(caught.value).isprintable()


def test_a_number_where_text_is_meant_tells_how_to_write_it() -> None:
    with pytest.raises(UserError, match=r"""write it as 'dataset\.name="2024"'"""):
        checks.name("dataset.name", 2024)


def test_paths_know_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "table.csv").touch()
    assert checks.path("results_dir", "~/res") == tmp_path / "res"
    assert checks.file("init.file", "~/table.csv") == tmp_path / "table.csv"
    assert checks.folder("--config-dir", Path("~")) == tmp_path


@pytest.mark.parametrize("value", ["a\0b", "~nobody-of-this-name/x"])
def test_paths_that_cannot_be(value: str) -> None:
    with pytest.raises(UserError):
        checks.path("results_dir", value)


def test_a_file_whose_name_is_too_long_is_not_there() -> None:
    with pytest.raises(UserError, match="no such file"):
        checks.file("init.file", "x" * 5000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=10", 10),
        ("a=5e-1", 0.5),
        ("a=.5", 0.5),
        ("a=+1", 1),
        ("a=1_000", 1000),
        ("a=null", None),
        ("a=[0, 1]", [0, 1]),
        ("a=[lr,momentum]", ["lr", "momentum"]),
        ("a=True", True),
        ("a=data(1).csv", "data(1).csv"),
        ("a='10'", "10"),
        ("a=x y", "x y"),
    ],
)
def test_conditions_are_read_as_run_reads_them(text: str, value: object) -> None:
    key, found = conditions.condition(text)
    assert (key, found, type(found)) == ("a", value, type(value))


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 10**20, float("nan"), float("inf"), True, "1", None]
)
def test_what_is_no_number_or_none_that_fits(value: object) -> None:
    with pytest.raises(UserError, match=r"^lr"):
        checks.number("lr", value)
