"""Selecting runs: what a store has, and what may stand side by side."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hpo_bench.analysis.paper import LARGER_VALIDATION_SHARES
from hpo_bench.analysis.selection import LINES_OF_LEFT_OUT, comparable, find, over_setting
from hpo_bench.errors import UserError
from hpo_bench.store.runs import runs_folder
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


@pytest.mark.parametrize("other", [400, 4000])
def test_of_two_that_differ_in_what_they_recorded_the_finer_one_stays(tmp_path, other):
    for every in (other, 10):
        config = {"record_every": every}
        make_run(tmp_path, "random", "uci_energy", [1.0], config=config, suffix=f"at-{every}")
    (kept,) = comparable(find(tmp_path)).runs
    assert kept.config["record_every"] == 10


def test_comparable_prefers_the_usual_validation_part_to_a_larger_one_with_more_repetitions(
    tmp_path,
):
    for method in ("random", "lorraine"):
        make_run(tmp_path, method, "uci_energy", [1.0])
        make_run(
            tmp_path,
            method,
            "uci_energy",
            [1.0] * 9,
            config={"validation_share": LARGER_VALIDATION_SHARES[-1]},
        )
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
    assert len(notes) == LINES_OF_LEFT_OUT + 1
    assert notes[-1] == "uci_energy, ours_wd_lr_m: left out 8 repetitions of 4 other configurations"


# --- variants of one method ---


def test_of_a_grid_over_a_methods_own_setting_the_usual_value_stands_for_the_method(tmp_path):
    for discount in (0, 0.9, 0.95, 0.98, 1):
        make_run(
            tmp_path,
            "ours_discounted",
            "uci_energy",
            [1.0] * (9 if discount == 1 else 3),
            config={"method.estimator.discount": discount},
        )
    chosen = comparable(find(tmp_path))
    (run,) = chosen.runs
    assert run.config["method"]["estimator"]["discount"] == 0.95
    assert len(chosen.notes) == LINES_OF_LEFT_OUT + 1


def test_cells_over_a_setting_stand_side_by_side_all_of_one_length(tmp_path):
    key = "method.estimator.discount"
    for discount in (1, 0, 0.95):
        make_run(tmp_path, "ours_discounted", "uci_energy", [1.0, 2.0], config={key: discount})
    make_run(tmp_path, "ours_discounted", "uci_energy", np.ones((1, 9)), config={key: 0})
    cells, notes = over_setting(find(tmp_path), key)
    assert list(cells) == [0, 0.95, 1]
    assert all([len(run.seeds) for run in cell] == [2] for cell in cells.values())
    assert notes == ("uci_energy: left out 1 runs of other lengths (kept: 40)",)
