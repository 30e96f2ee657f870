"""Reading stored runs: what is damaged, or not the run's own, is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from hpo_bench.analysis import frames, selection
from hpo_bench.cli import app
from hpo_bench.errors import StoreError
from hpo_bench.running.execute import execute
from hpo_bench.store import files, runs
from hpo_bench.store.runs import Run, read_run, read_table
from tests.damage import OF_OTHERS, bad, edit, with_table
from tests.problems import make_settings


@pytest.fixture
def run(tmp_path):
    return execute(make_settings(tmp_path, save_weights=True, chunk=1)).run


def test_an_empty_store_has_no_runs(tmp_path):
    assert list(runs.scan(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "complete"}', "\x00\x01"])
def test_a_damaged_run_json_is_named(run, tmp_path, content):
    (run.path / "run.json").write_text(content)
    with pytest.raises(StoreError, match=r"run\.json is damaged .*move .* aside") as caught:
        list(runs.scan(tmp_path))
    assert "\n" not in str(caught.value)
    problems = []
    assert list(runs.scan(tmp_path, problems.append)) == []
    assert len(problems) == 1


@pytest.mark.parametrize("keep", [0, 3, 100, -10])
def test_a_truncated_table_is_named(run, keep):
    file = run.path / "final.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(StoreError, match=r"final\.parquet is damaged") as caught:
        runs.read_table(run, "final")
    assert "\n" not in str(caught.value)


def test_a_missing_table_and_a_missing_column_are_named(run):
    files.write_table(run.path / "final.parquet", pa.table({"seed": [0, 1, 2]}))
    with pytest.raises(StoreError, match="lacks the column status"):
        runs.read_table(run, "final")
    with pytest.raises(StoreError, match=r"(?s)lacks|damaged|column"):
        runs.read_table(run, "final", ["seed", "test_metric"])
    (run.path / "final.parquet").unlink()
    with pytest.raises(StoreError, match=r"final\.parquet is missing"):
        runs.read_table(run, "final")


@pytest.mark.parametrize("change", OF_OTHERS)
def test_a_table_that_is_not_the_runs_own_is_damage(results: Path, change: str) -> None:
    OF_OTHERS[change](bad(results))
    run = read_run(bad(results))
    assert run is not None
    with pytest.raises(StoreError, match=r"damaged \((of configuration|holds|lacks)"):
        read_table(run, "curves" if change == "no curves" else "final", ["test_metric"])


def test_a_run_that_names_a_seed_twice_or_none_is_damage(results: Path) -> None:
    for seeds in ([0, 0, 1], []):
        edit(bad(results), seeds=seeds)
        with pytest.raises(StoreError, match="seeds must name each repetition once"):
            read_run(bad(results))


def test_a_table_that_another_program_wrote_says_no_configuration(results: Path) -> None:
    with_table(bad(results), "final", lambda table: table.replace_schema_metadata(None))
    assert len(frames.finals(selection.find(results))) == 9


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
