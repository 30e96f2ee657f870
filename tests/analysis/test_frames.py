"""Rows of runs as tables: what is read, what is joined, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from hpo_bench.analysis import frames
from hpo_bench.errors import UserError
from hpo_bench.store.runs import FINAL_COLUMNS, read_table
from tests.make_store import make_run


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- finals ---


def test_finals_are_the_stored_rows_with_the_runs_identity(tmp_path):
    run = make_run(
        tmp_path, "ours_wd_lr_m", "uci_kin8nm", [3.0, np.nan, 1.0], first_seed=7, look_back=3
    )
    frame = frames.finals([run])
    stored = read_table(run, "final")
    pd.testing.assert_frame_equal(frame[list(FINAL_COLUMNS)], stored[list(FINAL_COLUMNS)])
    row = frame.iloc[0]
    assert (row["run_id"], row["config_hash"]) == (run.run_id, run.config_hash)
    assert (row["method"], row["label"], row["dataset"]) == (
        "ours_wd_lr_m",
        "Ours (WD+LR+M)",
        "uci_kin8nm",
    )
    assert (
        row["metric_scale"],
        row["look_back"],
        row["update_interval"],
        row["weight_updates"],
    ) == (1000, 3, 10, 40)
    assert_array_equal(frame["seed"], [7, 8, 9])


def test_finals_of_no_runs_are_an_empty_frame_with_the_same_columns(tmp_path):
    frame = frames.finals([make_run(tmp_path, "random", "uci_energy", [1.0])])
    assert set(frames.finals([]).columns) == set(frame.columns)


def test_failure_aware_turns_what_failed_into_infinity(tmp_path):
    run = make_run(tmp_path, "random", "uci_energy", [3.0, np.nan, np.inf, 1.0])
    assert_array_equal(frames.failure_aware(frames.finals([run])), [3, np.inf, np.inf, 1])
    assert_array_equal(frames.failure_aware(frames.finals([run]), "train_loss")[[1]], [np.inf])


def test_a_run_without_any_divergence_joins_one_with(tmp_path):
    runs = [
        make_run(tmp_path, "random", "uci_energy", [1.0, 2.0]),
        make_run(tmp_path, "random", "uci_energy", [np.nan, np.nan], first_seed=2),
    ]
    frame = frames.finals(runs)
    assert_array_equal(frame["status"], ["ok", "ok", "diverged", "diverged"])
    assert_array_equal(frame["diverged_at"].isna(), [True, True, False, False])
    assert_array_equal(frame["seed"], [0, 1, 2, 3])


def test_shards_that_overlap_are_joined_once(tmp_path):
    values = np.array([4.0, 3.0, np.nan, 1.0])
    shards = [
        make_run(tmp_path, "random", "uci_energy", values[:3]),
        make_run(tmp_path, "random", "uci_energy", values[1:], first_seed=1, seconds=9.0),
    ]
    frame = frames.finals(shards)
    assert_array_equal(frame["seed"], [0, 1, 2, 3])
    assert_array_equal(frames.failure_aware(frame), [4, 3, np.inf, 1])
    curves = frames.curves(shards, ["test_metric"])
    _, seeds, matrix = frames.matrix(curves, "test_metric", frame)
    assert_array_equal(seeds, [0, 1, 2, 3])
    assert_array_equal(matrix[:, -1], [4, 3, np.inf, 1])


@pytest.mark.parametrize("read", [frames.finals, lambda runs: frames.curves(runs, ["test_metric"])])
def test_shards_that_disagree_are_refused(tmp_path, read):
    shards = [
        make_run(tmp_path, "random", "uci_energy", [1.0, 2.0]),
        make_run(tmp_path, "random", "uci_energy", [2.5, 3.0], first_seed=1),
    ]
    with pytest.raises(UserError) as error:
        read(shards)
    text = one_line(error)
    assert all(run.run_id in text for run in shards)
    assert "seed 1" in text


def test_the_same_seed_of_other_settings_is_another_repetition(tmp_path):
    runs = [
        make_run(tmp_path, "random", "uci_energy", [1.0]),
        make_run(tmp_path, "random", "uci_energy", [2.0], update_interval=5),
    ]
    assert len(frames.finals(runs)) == 2


@pytest.mark.parametrize("table", ["final", "curves"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "column"])
def test_a_damaged_table_is_named(tmp_path, table, damage):
    run = make_run(tmp_path, "random", "uci_energy", [1.0, 2.0])
    file = run.path / f"{table}.parquet"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "missing":
        file.unlink()
    else:
        pd.read_parquet(file).drop(columns="test_metric").to_parquet(file)
    with pytest.raises(UserError) as error:
        frames.finals([run]) if table == "final" else frames.curves([run], ["test_metric"])
    text = one_line(error)
    assert str(run.path) in text
    if damage == "column":
        assert "test_metric" in text


# --- curves ---


def test_curves_are_the_stored_rows(tmp_path):
    runs = [make_run(tmp_path, method, "uci_energy", [3.0, 1.0]) for method in ("random", "baydin")]
    frame = frames.curves(runs, ["test_metric", "lr"])
    stored = pd.concat([read_table(run, "curves") for run in runs], ignore_index=True)
    columns = ["seed", "step", "test_metric", "lr"]
    pd.testing.assert_frame_equal(frame[columns], stored[columns])
    assert_array_equal(frame["method"], ["random"] * 10 + ["baydin"] * 10)


def test_curves_are_thinned_but_for_the_last_step_of_each_repetition(tmp_path):
    values = np.ones((2, 8))
    values[1, 6:] = np.nan
    run = make_run(
        tmp_path, "random", "uci_energy", values
    )  # steps 0, 10, … 70; the second up to 50
    frame = frames.curves([run], ["test_metric"], every=20)
    assert_array_equal(frame.loc[frame["seed"] == 0, "step"], [0, 20, 40, 60, 70])
    assert_array_equal(frame.loc[frame["seed"] == 1, "step"], [0, 20, 40, 50])


def test_curves_of_no_runs():
    frame = frames.curves([], ["test_metric"])
    assert frame.empty
    steps, seeds, matrix = frames.matrix(frame, "test_metric")
    assert (steps.size, seeds.size, matrix.shape) == (0, 0, (0, 0))


def test_matrix_aligns_runs_of_unequal_length(tmp_path):
    short = make_run(tmp_path, "random", "uci_energy", np.arange(6.0).reshape(2, 3))
    long = make_run(tmp_path, "random", "uci_energy", 10 + np.arange(5.0)[None], first_seed=2)
    steps, seeds, matrix = frames.matrix(
        frames.curves([long, short], ["test_metric"]), "test_metric"
    )
    assert_array_equal(steps, [0, 10, 20, 30, 40])
    assert_array_equal(seeds, [0, 1, 2])
    nothing = np.nan
    expected = [[0, 1, 2, nothing, nothing], [3, 4, 5, nothing, nothing], [10, 11, 12, 13, 14]]
    assert_array_equal(matrix, expected)


def test_matrix_tells_divergence_from_shortness(tmp_path):
    values = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, np.nan]])
    run = make_run(tmp_path, "random", "uci_energy", values)
    frame, finals = frames.curves([run], ["test_metric"]), frames.finals([run])
    assert_array_equal(frames.matrix(frame, "test_metric")[2], values)
    assert_array_equal(
        frames.matrix(frame, "test_metric", finals)[2], [[1, 2, 3], [4, np.inf, np.inf]]
    )


def test_matrix_fails_from_the_step_of_divergence_on_whatever_was_recorded_after_it(tmp_path):
    run = make_run(tmp_path, "random", "uci_energy", np.array([[1.0, 2.0, 3.0]]))
    finals = frames.finals([run]).assign(status="diverged", diverged_at=10.0)
    assert_array_equal(
        frames.matrix(frames.curves([run], ["test_metric"]), "test_metric", finals)[2],
        [[1, np.inf, np.inf]],
    )


def test_matrix_has_a_row_for_repetitions_that_diverged_before_the_first_row(tmp_path):
    run = make_run(tmp_path, "random", "uci_energy", np.array([[1.0, 2.0], [np.nan, np.nan]]))
    _, seeds, matrix = frames.matrix(
        frames.curves([run], ["test_metric"]), "test_metric", frames.finals([run])
    )
    assert_array_equal(seeds, [0, 1])
    assert_array_equal(matrix, [[1, 2], [np.inf, np.inf]])


def test_matrix_refuses_a_mix_of_configurations(tmp_path):
    runs = [make_run(tmp_path, method, "uci_energy", [1.0]) for method in ("random", "baydin")]
    with pytest.raises(ValueError, match="one configuration"):
        frames.matrix(frames.curves(runs, ["test_metric"]), "test_metric")
