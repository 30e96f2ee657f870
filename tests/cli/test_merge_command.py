"""``hpo-bench merge``: every repetition once, conflicts refused before anything is copied, damage
named.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hpo_bench.cli import app
from hpo_bench.errors import UserError
from hpo_bench.store import merge as merging
from hpo_bench.store.runs import Run, read_run, read_table, scan
from hpo_bench.store.writer import Writer
from tests.damage import bad
from tests.make_store import make_run

ENERGY = "uci_energy"


def ids(results: Path) -> list[str]:
    return [run.run_id for run in scan(results)]


def call(*arguments: object) -> list[str]:
    """Lines on standard output of ``hpo-bench merge``."""
    result = CliRunner().invoke(app, ["merge", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def files(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.path.iterdir()}


def test_runs_of_two_machines_are_joined_byte_by_byte(tmp_path):
    one = make_run(tmp_path / "a", "random", ENERGY, [0.5, np.nan, 0.3])
    two = make_run(tmp_path / "b", "random", ENERGY, [0.7, 0.2], first_seed=3)
    three = make_run(tmp_path / "b", "lorraine", ENERGY, [0.7])
    (line,) = call(tmp_path / "a", tmp_path / "b", "--results", tmp_path / "all")
    assert line.startswith("copied 3 runs (6 repetitions)")
    assert ids(tmp_path / "all") == sorted(run.run_id for run in (one, two, three))
    for run in (one, two, three):
        copied = read_run(tmp_path / "all" / "runs" / run.run_id)
        assert copied is not None
        assert files(copied) == files(run)


def test_merging_again_copies_nothing(tmp_path):
    run = make_run(tmp_path / "a", "random", ENERGY, [0.5, 0.4])
    make_run(tmp_path / "b", "random", ENERGY, [0.5, 0.4], seconds=99.0)
    call(tmp_path / "a", "--results", tmp_path / "all")
    before = files(read_run(tmp_path / "all" / "runs" / run.run_id))
    for _ in range(2):
        (line,) = call(tmp_path / "a", tmp_path / "b", "--results", tmp_path / "all")
        assert line.startswith("copied 0 runs (0 repetitions)")
        assert "2 identical" in line
    assert files(read_run(tmp_path / "all" / "runs" / run.run_id)) == before


@pytest.mark.parametrize("change", [1e-15, np.nan])
@pytest.mark.parametrize("where", ["two sources", "destination"])
def test_a_repetition_with_other_numbers_is_refused_before_anything_is_copied(
    tmp_path, where, change
):
    make_run(tmp_path / "a", "random", ENERGY, [0.5, 0.4, 0.3])
    make_run(tmp_path / "b", "lorraine", ENERGY, [0.5])
    other = make_run(tmp_path / "b", "random", ENERGY, [0.5, 0.4 + change], suffix="-shard")
    if where == "destination":
        call(tmp_path / "a", "--results", tmp_path / "all")
    before = ids(tmp_path / "all")
    with pytest.raises(UserError) as caught:
        call(tmp_path / "a", tmp_path / "b", "--results", tmp_path / "all")
    assert str(other.path) in str(caught.value)
    assert "for seed 1;" in str(caught.value)
    assert ids(tmp_path / "all") == before


def test_damaged_and_incomplete_runs_are_named_and_the_others_copied(tmp_path):
    good = make_run(tmp_path / "a", "lorraine", ENERGY, [0.5])
    cut, empty, odd = (
        make_run(tmp_path / "a", "random", ENERGY, [0.5], suffix=f"-{n}") for n in range(3)
    )
    (cut.path / "curves.parquet").write_bytes((cut.path / "curves.parquet").read_bytes()[:-20])
    (empty.path / "run.json").write_text("")
    document = json.loads((odd.path / "run.json").read_text())
    (odd.path / "run.json").write_text(json.dumps(document | {"seeds": [0, 1]}))
    with Writer(tmp_path / "a", "unfinished") as writer:
        (writer.path / "blocks").mkdir()
    result = CliRunner().invoke(
        app, ["merge", str(tmp_path / "a"), "--results", str(tmp_path / "all")]
    )
    assert result.exit_code == 2
    assert ids(tmp_path / "all") == [good.run_id]
    for name in (cut.run_id, empty.run_id, odd.run_id, "unfinished"):
        assert sum(name in line for line in result.stderr.splitlines()) == 1
    assert "1 failed or unfinished, 3 damaged" in result.stdout


def test_an_interrupted_copy_is_no_run_and_is_made_again(tmp_path, monkeypatch):
    run = make_run(tmp_path / "a", "random", ENERGY, [0.5])
    real = shutil.copyfile

    def interrupted(source, target):
        if Path(source).name == "run.json":
            raise KeyboardInterrupt
        return real(source, target)

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merging.copy(run, tmp_path / "all")
    assert ids(tmp_path / "all") == []
    monkeypatch.undo()
    call(tmp_path / "a", "--results", tmp_path / "all")
    assert files(read_run(tmp_path / "all" / "runs" / run.run_id)) == files(run)


def test_a_failed_run_is_replaced_by_a_complete_one(tmp_path):
    run = make_run(tmp_path / "a", "random", ENERGY, [0.5])
    with Writer(tmp_path / "all", run.run_id) as writer:
        writer.fail([0], {"config": run.config, "config_hash": run.config_hash}, "out of memory")
    call(tmp_path / "a", "--results", tmp_path / "all")
    (merged,) = scan(tmp_path / "all")
    assert merged.status == "complete"
    assert read_table(merged, "final").test_metric.tolist() == [0.5]


def test_what_is_no_store_or_is_the_destination_is_one_line(tmp_path):
    make_run(tmp_path / "a", "random", ENERGY, [0.5])
    for arguments, text in (
        ((tmp_path / "none", "--results", tmp_path / "all"), "no store of results there"),
        ((tmp_path / "a", "--results", tmp_path / "a"), "is the destination itself"),
    ):
        with pytest.raises(UserError, match=text) as caught:
            call(*arguments)
        assert "\n" not in str(caught.value)


ENERGY = "uci_energy"


def test_another_run_under_a_name_that_is_taken_is_named(tmp_path: Path) -> None:
    results = tmp_path / "results"
    make_run(results, "baydin", ENERGY, [0.5, 0.4, 0.3])
    other = make_run(tmp_path / "other", "lorraine", ENERGY, [0.5])
    taken = bad(results).name
    shutil.move(other.path, other.path.with_name(taken))
    done = CliRunner().invoke(app, ["merge", str(tmp_path / "other"), "--results", str(results)])
    assert done.exit_code == 2
    assert "another run has this name" in done.stderr
    assert read_run(bad(results)).method == "baydin"
