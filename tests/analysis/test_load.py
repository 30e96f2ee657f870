"""Loading stores: what is found, what is joined, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from hpo_bench.analysis import frames
from hpo_bench.analysis.selection import NAMED, SHARES, comparable, find
from hpo_bench.errors import UserError
from hpo_bench.store.runs import FINAL_COLUMNS, read_table, runs_folder
from tests.make_store import make_run


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- find ---


def test_find_filters_by_dataset_method_and_settings(tmp_path):
    energy = make_run(tmp_path, "random", "uci_energy", [1.0])
    ours = make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [1.0], update_interval=2)
    kin8nm = make_run(tmp_path, "random", "uci_kin8nm", [1.0])

    def found(**conditions):
        return {run.run_id for run in find(tmp_path, **conditions)}

    assert found() == {energy.run_id, ours.run_id, kin8nm.run_id}
    assert found(datasets=["uci_energy"]) == {energy.run_id, ours.run_id}
    assert found(methods=["random"], datasets=["uci_kin8nm"]) == {kin8nm.run_id}
    assert found(where={"update_interval": 2}) == {ours.run_id}
    assert found(where={"init.momentum": [0, 1], "update_interval": 10}) == {
        energy.run_id,
        kin8nm.run_id,
    }


def test_find_orders_by_dataset_and_the_methods_order(tmp_path):
    for method in ("ours_wd_lr_m", "random", "baydin"):
        make_run(tmp_path, method, "uci_energy", [1.0])
    assert [run.method for run in find(tmp_path)] == ["random", "baydin", "ours_wd_lr_m"]


def test_find_passes_over_runs_that_are_not_complete(tmp_path):
    make_run(tmp_path, "random", "uci_energy", [1.0])
    failed = make_run(tmp_path, "baydin", "uci_energy", [1.0])
    content = json.loads((failed.path / "run.json").read_text())
    (failed.path / "run.json").write_text(json.dumps({**content, "status": "failed"}))
    (runs_folder(tmp_path) / "half" / "blocks").mkdir(parents=True)
    assert [run.method for run in find(tmp_path)] == ["random"]


def test_an_empty_store_names_the_folder_and_the_command(tmp_path):
    with pytest.raises(UserError) as error:
        find(tmp_path / "nothing")
    text = one_line(error)
    assert str(tmp_path / "nothing" / "runs") in text
    assert "hpo-bench run" in text
    with pytest.raises(UserError, match="hpo-bench run method=random"):
        find(tmp_path, command="hpo-bench run method=random")


def test_find_names_the_nearest_of_what_is_stored(tmp_path):
    make_run(tmp_path, "random", "uci_energy", [1.0])
    for conditions, near in (
        ({"datasets": ["uci_enrgy"]}, "uci_energy"),
        ({"methods": ["randm"]}, "did you mean random"),
        ({"where": {"update_intervl": 10}}, "did you mean update_interval"),
        ({"where": {"update_interval": 3}}, "stored: 10"),
    ):
        with pytest.raises(UserError) as error:
            find(tmp_path, **conditions)
        assert near in one_line(error)


def test_a_damaged_run_json_is_named(tmp_path):
    run = make_run(tmp_path, "random", "uci_energy", [1.0])
    (run.path / "run.json").write_text("{")
    with pytest.raises(UserError) as error:
        find(tmp_path)
    assert str(run.path / "run.json") in one_line(error)


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


# --- comparable ---


def test_comparable_keeps_the_settings_that_most_methods_share_and_names_the_rest(tmp_path):
    kept = [
        make_run(tmp_path, method, "uci_energy", [1.0, 2.0])
        for method in ("random", "ours_wd_lr", "ours_wd_lr_m")
    ]
    make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [1.0] * 9, update_interval=2)
    make_run(tmp_path, "random", "uci_energy", [1.0] * 50, config={"init.momentum": [0.6, 0.6]})
    make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [1.0] * 9, look_back=1)
    selection = comparable(find(tmp_path))
    assert {run.run_id for run in selection.runs} == {run.run_id for run in kept}
    notes = "\n".join(selection.notes)
    assert len(selection.notes) == 3
    for part in (
        "50 repetitions",
        "init.momentum=[0.6, 0.6] (kept: [0, 1])",
        "update_interval=2",
        "look_back=1",
    ):
        assert part in notes


def test_comparable_keeps_a_method_that_has_other_settings_only_and_says_so(tmp_path):
    make_run(tmp_path, "random", "uci_energy", [1.0])
    make_run(tmp_path, "baydin", "uci_energy", [1.0], config={"hyper.lr": 0.001})
    long = make_run(tmp_path, "diff_through_opt", "uci_energy", [1.0], update_interval=200)
    selection = comparable(find(tmp_path))
    assert long.run_id in {run.run_id for run in selection.runs}
    assert len(selection.notes) == 1
    assert "diff_through_opt: settings unlike" in selection.notes[0]
    assert "update_interval=200 (others: 10)" in selection.notes[0]


def test_comparable_keeps_all_shards_and_prefers_more_repetitions(tmp_path):
    shards = [
        make_run(tmp_path, "random", "uci_energy", [1.0, 2.0], first_seed=seed) for seed in (0, 2)
    ]
    make_run(tmp_path, "random", "uci_energy", [1.0, 2.0, 3.0], config={"batch_size": 7})
    selection = comparable(find(tmp_path))
    assert {run.run_id for run in selection.runs} == {run.run_id for run in shards}
    assert "batch_size=7" in selection.notes[0]


def test_comparable_prefers_the_usual_validation_part_to_a_larger_one_with_more_repetitions(
    tmp_path,
):
    for method in ("random", "lorraine"):
        make_run(tmp_path, method, "uci_energy", [1.0])
        make_run(tmp_path, method, "uci_energy", [1.0] * 9, config={"validation_share": SHARES[-1]})
    selection = comparable(find(tmp_path))
    assert {len(run.seeds) for run in selection.runs} == {1}
    assert "validation_share=0.5" in selection.notes[0]


def test_comparable_prefers_the_usual_hyperparameter_optimiser(tmp_path):
    for method in ("random", "lorraine"):
        make_run(tmp_path, method, "uci_energy", [1.0])
    usual = make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [1.0])
    make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [1.0] * 9, config={"hyper.lr": 0.5})
    selection = comparable(find(tmp_path))
    assert usual.run_id in {run.run_id for run in selection.runs}
    assert selection.notes == (
        "uci_energy, ours_wd_lr_m: left out 9 repetitions with hyper.lr=0.5 (kept: 0.05)",
    )


def test_a_grid_that_is_left_out_takes_few_lines(tmp_path):
    make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [1.0] * 9)
    for look_back in (1, 2, 3, 4, 6, 7):
        make_run(
            tmp_path, "ours_wd_lr_m", "uci_energy", [1.0, 2.0], config={"look_back": look_back}
        )
    notes = comparable(find(tmp_path)).notes
    assert len(notes) == NAMED + 1
    assert notes[-1] == "uci_energy, ours_wd_lr_m: left out 8 repetitions of 4 other configurations"
