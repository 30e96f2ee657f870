"""Joining stores: what is compared, and what is copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from hpo_bench.cli import app
from hpo_bench.errors import RunError, UserError
from hpo_bench.store import merge
from hpo_bench.store.runs import read_run
from hpo_bench.store.writer import Block, Writer
from tests.damage import bad
from tests.make_store import make_run


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


def test_a_difference_in_the_curves_alone_is_a_conflict(tmp_path):
    curve = np.array([[3.0, 2.0, 1.0]])
    make_run(tmp_path / "a", "random", ENERGY, curve)
    make_run(tmp_path / "b", "random", ENERGY, curve + np.array([0.0, 0.1, 0.0]))
    with pytest.raises(UserError, match="different numbers for seed 0"):
        merge.plan([tmp_path / "a", tmp_path / "b"], tmp_path / "all")


def test_overlapping_shards_that_agree_are_both_kept(tmp_path):
    """Also where a column holds nulls in one of them only, and so has another type there."""
    make_run(tmp_path / "a", "random", ENERGY, [0.5, 0.4, np.nan])
    make_run(tmp_path / "b", "random", ENERGY, [0.4], first_seed=1)
    make_run(tmp_path / "c", "random", ENERGY, [np.nan], first_seed=2)
    made = merge.plan([tmp_path / name for name in "abc"], tmp_path / "all")
    assert [len(run.seeds) for run in made.copies] == [3, 1, 1]


def test_other_configurations_do_not_conflict(tmp_path):
    make_run(tmp_path / "a", "random", ENERGY, [0.5])
    make_run(tmp_path / "b", "random", ENERGY, [0.6], look_back=7)
    assert len(merge.plan([tmp_path / "a", tmp_path / "b"], tmp_path / "all").copies) == 2


def test_a_run_that_is_being_computed_is_left_alone(tmp_path):
    run = make_run(tmp_path / "a", "random", ENERGY, [0.5])
    with Writer(tmp_path / "all", run.run_id), pytest.raises(RunError, match="another process"):
        merge.copy(run, tmp_path / "all")


ENERGY = "uci_energy"
