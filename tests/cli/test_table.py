"""``hpo-bench table`` as a user calls it."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from hpo_bench.cli.table import table
from hpo_bench.errors import UserError
from tests.make_store import make_run

app = typer.Typer()
app.command()(table)


def call(*arguments: str):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: str) -> str:
    """The one line with which a call is refused."""
    result = call(*arguments)
    assert isinstance(result.exception, UserError), result.exception
    assert "\n" not in str(result.exception)
    assert result.stdout == ""
    return str(result.exception)


@pytest.fixture
def results(tmp_path):
    make_run(tmp_path, "random", "uci_energy", [3.0, 2.0, np.nan])
    make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [0.3, 0.2, 0.4])
    return tmp_path


@pytest.mark.parametrize(
    ("format_", "part"), [("markdown", "| Random |"), ("latex", "\\toprule"), ("csv", "estimate")]
)
def test_prints_the_table_and_tells_what_is_missing_apart(results, format_, part):
    result = call("uci_main", "--results", results, "--format", format_)
    assert result.exit_code == 0, result.exception
    assert part in result.stdout
    assert "make them with: hpo-bench run" in result.stderr
    assert "make them with" not in result.stdout


def test_markdown_is_the_default_and_goes_to_a_file_on_request(results, tmp_path):
    file = tmp_path / "deep" / "table.md"
    result = call("uci_main", "--results", results, "--out", file)
    assert (result.exit_code, result.stdout) == (0, "")
    assert file.read_text() == call("uci_main", "--results", results).stdout


def test_options_reach_the_table(results):
    make_run(results, "random", "uci_wine", [5.0, 6.0])
    make_run(results, "random", "uci_energy", [7.0, 8.0], update_interval=4)

    def read(*options: str) -> pd.DataFrame:
        result = call("uci_main", "--results", results, "--format", "csv", *options)
        assert result.exit_code == 0, result.exception
        return pd.read_csv(io.StringIO(result.stdout))

    assert set(read("--dataset", "uci_wine")["dataset"]) == {"uci_wine"}
    assert set(read("--method", "random")["method"]) == {"random"}
    assert set(read("--stats", "paper")["statistics"]) == {"paper"}
    assert set(read("--seed", "5")["seed"]) == {5}
    assert read("--where", "update_interval=4")["n"].to_list() == [2, 2, 2]
    assert read("--where", "init.momentum=[0, 1]", "--where", "data_order=shuffled")["n"].max() == 3


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["uci_man"], ["no table uci_man", "did you mean uci_main"]),
        (["uci_main", "--format", "latx"], ["--format latx", "did you mean latex"]),
        (["uci_main", "--stats", "papr"], ["--stats papr", "did you mean paper"]),
        (
            ["uci_main", "--dataset", "uci_enrgy"],
            ["--dataset uci_enrgy", "did you mean uci_energy"],
        ),
        (["uci_main", "--method", "randm"], ["randm", "did you mean random"]),
        (["uci_main", "--where", "update_interval"], ["KEY=VALUE"]),
        (["uci_main", "--where", "update_intervl=1"], ["did you mean update_interval"]),
        (["cifar10"], ["cifar10", "hpo-bench run -m"]),
    ],
)
def test_mistakes_are_one_line_with_what_is_allowed(results, arguments, parts):
    line = refused(*arguments, "--results", results)
    for part in parts:
        assert part in line


def test_an_empty_store_names_folder_and_command(tmp_path):
    line = refused("uci_main", "--results", tmp_path / "empty")
    assert str(tmp_path / "empty") in line
    assert "hpo-bench run -m method=random," in line


def test_a_damaged_file_is_named(results):
    file = next((results / "runs").glob("*random*/final.parquet"))
    file.write_bytes(b"PAR1")
    assert str(file) in refused("uci_main", "--results", results)


def test_an_unwritable_file_is_named(results, tmp_path):
    (tmp_path / "file").write_text("")
    assert f"--out {tmp_path / 'file' / 'x.md'}" in refused(
        "uci_main", "--results", results, "--out", tmp_path / "file" / "x.md"
    )
