"""Stores with a run that cannot be read: named, left out, and the rest is made; nobody is told to
delete results.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from hpo_bench.analysis import frames, selection
from hpo_bench.cli import app
from hpo_bench.errors import StoreError, UserError
from hpo_bench.store import documents, index, merge
from hpo_bench.store.runs import Run, read_arrow, read_run, read_table
from hpo_bench.store.writer import Block, Writer
from hpo_bench.system import notices
from tests.make_store import make_run

ENERGY = "uci_energy"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for method in ("random", "baydin", "ours_wd_lr_m"):
        make_run(tmp_path / "results", method, ENERGY, [0.5, 0.4, 0.3])
    return tmp_path / "results"


def bad(results: Path) -> Path:
    """Folder of the run that is damaged."""
    (found,) = (results / "runs").glob("*baydin*")
    return found


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


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


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def with_table(folder: Path, name: str, change: Any) -> None:
    file = folder / f"{name}.parquet"
    pq.write_table(change(pq.read_table(file, partitioning=None)), file)


OF_OTHERS = {
    "swapped": lambda folder: swap(
        folder / "final.parquet", next(folder.parent.glob("*-random-*/final.parquet"))
    ),
    "other seeds": lambda folder: edit(folder, seeds=[0, 1, 7]),
    "fewer seeds": lambda folder: edit(folder, seeds=[0, 1]),
    "a seed twice": lambda folder: with_table(
        folder, "final", lambda table: pa.concat_tables([table, table.slice(0, 1)])
    ),
    "no rows": lambda folder: with_table(folder, "final", lambda table: table.slice(0, 0)),
    "no curves": lambda folder: with_table(folder, "curves", lambda table: table.slice(0, 0)),
}


@pytest.mark.parametrize("change", OF_OTHERS)
def test_a_table_that_is_not_the_runs_own_is_damage(results: Path, change: str) -> None:
    OF_OTHERS[change](bad(results))
    run = read_run(bad(results))
    assert run is not None
    with pytest.raises(StoreError, match=r"damaged \((of configuration|holds|lacks)"):
        read_table(run, "curves" if change == "no curves" else "final", ["test_metric"])


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


def test_a_run_that_names_a_seed_twice_or_none_is_damage(results: Path) -> None:
    for seeds in ([0, 0, 1], []):
        edit(bad(results), seeds=seeds)
        with pytest.raises(StoreError, match="seeds must name each repetition once"):
            read_run(bad(results))


def test_a_table_that_another_program_wrote_says_no_configuration(results: Path) -> None:
    with_table(bad(results), "final", lambda table: table.replace_schema_metadata(None))
    assert len(frames.finals(selection.find(results))) == 9


def test_what_cannot_be_read_is_not_unfinished(results: Path) -> None:
    file = bad(results) / "run.json"
    file.unlink()
    file.symlink_to(file.name)
    listing = index.read(results / "runs")
    assert listing.unfinished == ()
    assert "cannot read" in listing.damaged[bad(results).name]


# --- what other programs make of the files ---


def rewritten(run: Run, change: Any) -> Run:
    """The run, its final values passed through pandas."""
    file = run.path / "final.parquet"
    change(pd.read_parquet(file)).to_parquet(file)
    return run


CHANGES = {
    "text column": lambda frame: frame.assign(note="mine"),
    "seed as index": lambda frame: frame.set_index("seed"),
    "nullable": lambda frame: frame.convert_dtypes(),
    "categories": lambda frame: frame.assign(status=frame["status"].astype("category")),
    "unnamed index": lambda frame: frame.set_axis(["a", "b", "c"]),
    "dates": lambda frame: frame.assign(when=pd.Timestamp("2020-01-01")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_odd_columns_are_read(results: Path, change: str, tmp_path: Path) -> None:
    whole = read_table(selection.find(results, methods=["baydin"])[0], "final")
    run = rewritten(selection.find(results, methods=["baydin"])[0], CHANGES[change])
    frame = frames.finals(selection.find(results))
    own = frame[frame["method"] == "baydin"]
    np.testing.assert_array_equal(own["test_metric"].to_numpy(float), whole["test_metric"])
    assert read_table(run, "final")["seed"].tolist() == [0, 1, 2]
    done = CliRunner().invoke(app, ["merge", str(results), "--results", str(tmp_path / "all")])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.assign(seed=["a", "b", "c"]),
        lambda frame: frame.assign(test_metric=["a", "b", "c"]),
        lambda frame: frame.assign(seed=[0, None, 2]),
        lambda frame: frame.assign(status=[1, 2, 3]),
        lambda frame: frame.drop(columns="status"),
    ],
)
def test_wrong_types_are_named(results: Path, change: Any) -> None:
    run = rewritten(selection.find(results, methods=["baydin"])[0], change)
    with pytest.raises(
        StoreError, match=r"final\.parquet (is damaged \(column|lacks the column).* aside"
    ):
        read_table(run, "final")


@pytest.mark.parametrize(
    "line", ['[2,1,1,1,1,"a","complete","d","m",null,"h",null]', "[1,2]", "{}", "7", "[[]]"]
)
def test_odd_lines_of_an_index_are_passed_over(results: Path, line: str) -> None:
    before = index.read(results / "runs")
    with (results / "runs" / index.FILE).open("a") as file:
        file.write(f"{line}\n")
    assert index.read(results / "runs") == before


# --- versions ---


def test_what_is_of_a_later_format_is_refused_and_kept(results: Path) -> None:
    with Writer(results, "begun") as writer:
        table = pq.read_table(bad(results) / "final.parquet")
        curves = pq.read_table(bad(results) / "curves.parquet")
        writer.write_block(Block((0, 1, 2), {"final": table, "curves": curves}))
        assert writer.finished_seeds() == {0, 1, 2}
        file = next(writer.blocks.glob("*/block.json"))
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))
        with pytest.raises(StoreError, match="newer hpo-bench"):
            writer.finished_seeds()
        assert file.exists()
    for wrong in (True, "1", 0, None, 1.5):
        with pytest.raises(ValueError, match="format must be"):
            documents.parsed(json.dumps({"format": wrong}))


def test_blocks_that_overlap_are_joined_once(results: Path) -> None:
    """As two processes leave them that computed one run where there are no locks."""
    (run,) = selection.find(results, methods=["baydin"])
    final, curves = (pq.read_table(run.path / f"{name}.parquet") for name in ("final", "curves"))

    def block(*seeds: int) -> Block:
        tables = {"final": final, "curves": curves}
        kept = {
            name: table.filter(np.isin(table["seed"].to_numpy(), seeds))
            for name, table in tables.items()
        }
        return Block(seeds, kept, {"w": np.array(seeds, float)})

    with Writer(results, "twice") as writer:
        for seeds in ((0, 1), (1, 2), (0, 1, 2)):
            writer.write_block(block(*seeds))
        done = writer.commit((0, 1, 2), json.loads((run.path / "run.json").read_text()))
    assert read_table(done, "final").equals(final.to_pandas())
    assert read_table(done, "curves").equals(curves.to_pandas())
    with np.load(done.path / "final_weights.npz") as weights:
        assert weights["w"].tolist() == [0, 1, 2]


def test_damaged_blocks_are_computed_again_and_unreadable_ones_kept(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = selection.find(results, methods=["baydin"])
    tables = {name: pq.read_table(run.path / f"{name}.parquet") for name in ("final", "curves")}
    with Writer(results, "begun") as writer:
        writer.write_block(Block((0, 1, 2), tables))
        folder = next(writer.blocks.iterdir())

        def refuse(*_: object) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(documents, "read", refuse)
            with pytest.raises(StoreError, match=r"cannot read .*Input/output error"):
                writer.finished_seeds()
        assert folder.is_dir()
        (folder / "curves.parquet").write_bytes(b"PAR1")
        assert writer.finished_seeds() == set()
        assert not folder.exists()


# --- merge ---


def test_a_renamed_run_is_the_run_that_it_was(results: Path, tmp_path: Path) -> None:
    assert (
        CliRunner()
        .invoke(app, ["merge", str(results), "--results", str(tmp_path / "all")])
        .exit_code
        == 0
    )
    bad(results).rename(results / "runs" / "x")
    made = merge.plan([results], tmp_path / "all")
    assert made.copies == []
    assert len(made.identical) == 3


def test_another_run_under_a_name_that_is_taken_is_named(results: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "lorraine", ENERGY, [0.5])
    taken = bad(results).name
    shutil.move(other.path, other.path.with_name(taken))
    done = CliRunner().invoke(app, ["merge", str(tmp_path / "other"), "--results", str(results)])
    assert done.exit_code == 2
    assert "another run has this name" in done.stderr
    assert read_run(bad(results)).method == "baydin"


def test_merging_keeps_finished_blocks_until_the_run_is_copied(
    results: Path, tmp_path: Path
) -> None:
    run = read_run(bad(results))
    with Writer(tmp_path / "all", run.run_id) as writer:
        tables = {name: pa.table({"seed": [0]}) for name in ("final", "curves")}
        writer.write_block(Block((0,), tables))
    merge.copy(run, tmp_path / "all")
    assert sorted(path.name for path in (tmp_path / "all" / "runs" / run.run_id).iterdir()) == [
        "curves.parquet",
        "final.parquet",
        "run.json",
    ]


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(results: Path) -> None:
    runs = results / "runs"
    for file in (bad(results) / "run.json", runs / index.FILE):
        file.unlink()
        os.mkfifo(file)
    (runs / ".ipynb_checkpoints").mkdir()
    listing = index.read(runs)
    assert (len(listing.entries), listing.unfinished) == (2, ())
    assert "not a regular file" in listing.damaged[bad(results).name]
    with pytest.raises(StoreError, match="not a regular file"):
        read_run(bad(results))


def test_a_block_of_another_run_is_no_block_of_this_one(results: Path, tmp_path: Path) -> None:
    runs = selection.find(results)
    tables = {name: read_arrow(runs[0], name) for name in ("final", "curves")}
    with Writer(tmp_path, "one") as writer:
        writer.write_block(Block((0, 1, 2), tables))
        assert writer.finished_seeds() == {0, 1, 2}
    shutil.copytree(tmp_path / "runs" / "one", tmp_path / "runs" / "other")
    with Writer(tmp_path, "other") as writer:
        assert writer.finished_seeds() == set()
