"""``hpo-bench report`` as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hpo_bench import figures
from hpo_bench.cli.report import report
from hpo_bench.errors import RunError, UserError
from tests.make_store import make_run

app = typer.Typer()
app.command()(report)


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object, kind: type[Exception] = UserError) -> str:
    """The one line with which a call fails."""
    result = call(*arguments)
    assert isinstance(result.exception, kind), result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(figures, "names", lambda: ["fig02", "fig09", "fig12"])
    folder = tmp_path / "results"
    make_run(folder, "random", "uci_energy", [3.0, 2.0, 4.0])
    make_run(folder, "ours_wd_lr_m", "uci_energy", [0.3, 0.2, 0.4])
    return folder


def test_the_page_is_written_beside_the_runs_and_figures_are_told_as_they_are_drawn(
    results: Path,
) -> None:
    result = call("--results", results)
    assert result.exit_code == 0, result.exception
    assert (
        result.stdout == f"wrote {results / 'report.html'}: 2 of 3 figures, 1 tables of results\n"
    )
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
        "fig02",
        "fig09",
        "fig12",
    ]
    assert (results / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_options_reach_the_page(results: Path, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "page.html"
    assert (
        call("--results", results, "--out", file, "--stats", "paper", "--seed", "7").exit_code == 0
    )
    text = file.read_text(encoding="utf-8")
    assert "statistics: paper (diverged runs dropped)" in text
    assert "--stats paper --seed 7" in text


def test_an_unknown_kind_of_statistics_names_the_nearest(results: Path) -> None:
    assert "did you mean paper" in refused("--results", results, "--stats", "papr")


def test_an_empty_store_names_folder_and_command(tmp_path: Path) -> None:
    line = refused("--results", tmp_path / "empty")
    assert str(tmp_path / "empty") in line
    assert "hpo-bench run" in line
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("name", ["run.json", "final.parquet"])
def test_a_damaged_run_is_named(results: Path, name: str) -> None:
    file = next((results / "runs").glob(f"*random*/{name}"))
    file.write_bytes(b"PAR1")
    assert str(file) in refused("--results", results)
    assert not (results / "report.html").exists()


def test_damaged_curves_are_told_on_the_page_and_in_the_end(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "names", lambda: ["fig08", "fig09"])
    file = next((results / "runs").glob("*random*/curves.parquet"))
    file.write_bytes(b"PAR1")
    line = refused("--results", results, kind=RunError)
    assert "complete but for fig08" in line
    assert str(file) in line
    assert str(file) in (results / "report.html").read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_drawn(
    results: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "page.html"):
        result = call("--results", results, "--out", out)
        assert isinstance(result.exception, UserError)
        assert f"--out {out}: " in str(result.exception)
        assert result.stderr == ""


def test_the_program_prints_errors_of_the_command_as_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hpo_bench", "report", "--results", str(tmp_path / "empty")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no complete runs in ")
    assert done.stderr.count("\n") == 1
