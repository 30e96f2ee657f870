"""Stores with a run that cannot be read: it is named and left out, and the rest is made.

Nobody is told to delete results.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from hpo_bench.analysis import frames, selection
from hpo_bench.cli import app
from hpo_bench.errors import StoreError, UserError
from hpo_bench.store import index
from hpo_bench.system import notices
from tests.damage import OF_OTHERS, bad, edit

ENERGY = "uci_energy"


DAMAGES = {
    "newer": lambda folder: edit(folder, format=2),
    "a list": lambda folder: (folder / "run.json").write_text("[]"),
    "no config": lambda folder: edit(folder, config=None),
    "status": lambda folder: edit(folder, status=["complete"]),
    "seeds": lambda folder: edit(folder, seeds=[None]),
    "seconds": lambda folder: edit(folder, seconds="long"),
    "not UTF-8": lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe"),
    "a folder": lambda folder: ((folder / "run.json").unlink(), (folder / "run.json").mkdir()),
    "empty table": lambda folder: (folder / "final.parquet").write_bytes(b""),
    "cut table": lambda folder: (folder / "curves.parquet").write_bytes(
        (folder / "curves.parquet").read_bytes()[:-9]
    ),
    "no table": lambda folder: (folder / "final.parquet").unlink(),
    "table a folder": lambda folder: (
        (folder / "final.parquet").unlink(),
        (folder / "final.parquet").mkdir(),
    ),
}
COMMANDS = {
    "status": ["status"],
    "table": ["table", "uci_main"],
    "plot": ["plot", "fig09", "--dataset", ENERGY, "--format", "png"],
    "export": ["export"],
    "merge": ["merge", "results"],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_reader_names_it_and_makes_the_rest(
    results: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    DAMAGES[damage](bad(results))
    commands = (
        COMMANDS
        if damage in ("newer", "cut table")
        else {name: COMMANDS[name] for name in ("status", "export")}
    )
    for name, arguments in commands.items():
        where = ["--results", "all" if name == "merge" else "results"]
        done = CliRunner().invoke(app, [*arguments, *where], catch_exceptions=False)
        assert done.exit_code == 2, (name, done.output)
        naming = [line for line in done.stderr.splitlines() if bad(results).name in line]
        assert len(naming) == 1, (name, done.stderr)
        assert "delete" not in naming[0]
        assert done.stdout.strip(), name
    assert Path("exported/finals.csv").is_file()
    assert set(pd.read_csv("exported/finals.csv")["method"]) == {"random", "ours_wd_lr_m"}
    if "merge" in commands:
        assert len(index.read(Path("all/runs")).entries) == 2


def test_a_damaged_run_is_neither_compared_nor_exported_by_name(results: Path) -> None:
    DAMAGES["cut table"](bad(results))
    other = next(path.name for path in (results / "runs").glob("*-random-*"))
    for command in (["compare", other], ["export"]):
        with pytest.raises(StoreError, match=r"curves\.parquet is damaged"):
            CliRunner().invoke(
                app,
                [*command, bad(results).name, "--results", str(results)],
                catch_exceptions=False,
            )


def test_in_python_damage_is_an_error_unless_runs_may_be_left_out(results: Path) -> None:
    edit(bad(results), format=7)
    with pytest.raises(StoreError, match="format 7, which a newer hpo-bench wrote"):
        selection.find(results)
    with notices.leaving_out() as left_out:
        assert len(selection.find(results)) == 2
    assert left_out.folders == {bad(results)}


def test_damage_inside_a_table_is_found_where_it_is_read(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = selection.find(results)
    file = bad(results) / "final.parquet"
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"final\.parquet is damaged"):
        frames.finals(runs)
    with notices.leaving_out():
        found = notices.started_again(lambda: frames.finals(selection.find(results)))
    assert set(found["method"]) == {"random", "ours_wd_lr_m"}
    assert capsys.readouterr().err.count("left out") == 1


@pytest.mark.parametrize("change", ["other seeds", "no rows"])
def test_what_is_found_late_is_left_out_of_everything(
    results: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    OF_OTHERS[change](bad(results))
    for arguments in (
        ["table", "summary"],
        ["report"],
        ["plot", "fig09", "--dataset", ENERGY, "--format", "png"],
    ):
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 2, (arguments, done.output)
        assert done.stderr.count("left out") == 1
        assert done.stdout.strip()
    other = next(path.name for path in (results / "runs").glob("*-random-*"))
    with pytest.raises(StoreError, match="damaged"):
        CliRunner().invoke(app, ["compare", other, bad(results).name], catch_exceptions=False)
