"""Incumbents at equal budgets, from hand-made stores."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from hpo_bench.analysis import incumbent, tables
from hpo_bench.analysis.incumbent import Path, searched_at
from hpo_bench.analysis.selection import find
from tests.make_store import make_run

UPDATES = 40  # of a training of five recorded steps of 10


def search_run(folder, values, method="bayesopt", published=None, **changes):
    """A search whose curve has a point for every training's worth of weight updates; products
    double its cost.
    """
    values = np.asarray(values, float)
    spent = np.arange(values.shape[1]) * UPDATES * np.ones((len(values), 1))
    return make_run(
        folder,
        method,
        "uci_energy",
        values,
        record_every=UPDATES,
        gradients=spent,
        hessian_products=spent / 2,
        rows_in_block=1,
        seconds=4.0,
        config={
            "method.search": {"trials": 4, "published": published or {}},
            "hyperparameter_updates": 4,
        },
        **changes,
    )


def cell(made, axis, label, budget):
    return made.data[
        (made.data["axis"] == axis)
        & (made.data["method"] == label)
        & (made.data["budget"] == budget)
    ].iloc[0]


def test_budgets_buy_restarts_of_one_pass_methods_and_parts_of_searches(tmp_path):
    rng = np.random.default_rng(0)
    test, validation = rng.lognormal(size=(2, 6))
    make_run(
        tmp_path, "random_validation", "uci_energy", test, validation_loss=validation, seconds=0.5
    )
    values = np.array([[9.0, 8.0, 7.0, 3.0, 5.0, 1.0], [9.0, 6.0, 5.0, 4.0, 3.0, 2.0]])
    search_run(tmp_path, values, validation_loss=values)
    made = tables.build("multi_pass", tmp_path)
    for budget in (1, 5):
        winners = [
            test[min(group, key=lambda run: validation[run])]
            for group in combinations(range(6), budget)
        ]
        own = cell(made, "weight_updates", "random_validation", budget)
        assert own["low"] <= np.quantile(winners, 0.5, method="inverted_cdf") <= own["high"]
    assert np.isnan(cell(made, "weight_updates", "random_validation", 30)["estimate"])
    assert cell(made, "weight_updates", "bayesopt", 1)["cost"] == UPDATES
    assert 6.0 <= cell(made, "weight_updates", "bayesopt", 1)["estimate"] <= 8.0
    assert 1.0 <= cell(made, "weight_updates", "bayesopt", 5)["estimate"] <= 2.0
    assert (
        3.0 < cell(made, "gradient_equivalents", "bayesopt", 5)["estimate"] < 7.0
    )  # two trainings' worth
    assert set(made.data["n"]) == {6, 2}
    assert "95 % bootstrap" in made.label


def test_a_search_that_is_over_or_has_not_begun_has_no_value():
    path = Path({"weight_updates": np.array([10.0, 20.0])}, np.array([3.0, 2.0]))
    longer = Path({"weight_updates": np.array([15.0, 40.0])}, np.array([5.0, 1.0]))
    assert np.isnan(searched_at([path, longer], "weight_updates", 30, 0).estimate)
    assert np.isnan(searched_at([path, longer], "weight_updates", 5, 0).estimate)
    assert searched_at([path], "weight_updates", 20, 0).estimate == 2.0
    assert searched_at([path, longer], "weight_updates", 12, 0).estimate == np.inf


def test_a_budget_in_gradients_pays_for_fewer_trainings_with_hypergradients(tmp_path):
    run = make_run(tmp_path, "ours_wd_lr_m", "uci_energy", np.arange(1.0, 7.0), seconds=1.0)
    from dataclasses import replace

    from hpo_bench.analysis.frames import finals
    from hpo_bench.analysis.summary import measures

    told = replace(
        run,
        costs={"weight_updates": UPDATES, "gradients": UPDATES, "hessian_products": UPDATES // 2},
    )
    frame, measure = finals([told]), measures([told])[0]
    assert incumbent.of_one_training([told], frame)["gradient_equivalents"] == 2 * UPDATES
    equal = incumbent.restarted_at([told], frame, measure, "gradient_equivalents", 5 * UPDATES, 0)
    assert equal == incumbent.restarted_at([told], frame, measure, "weight_updates", 2 * UPDATES, 0)
    untold = incumbent.restarted([run], frame, measure)
    assert set(untold["part"]) == {"weight_updates", "seconds"}
    assert np.isnan(
        incumbent.restarted_at(
            [run], frame, measure, "gradient_equivalents", 5 * UPDATES, 0
        ).estimate
    )


def test_what_was_scaled_down_is_said(tmp_path):
    values = np.array([[3.0, 2.0, 1.0]])
    search_run(
        tmp_path, values, published={"trials": 30, "weight_updates": 4000}, validation_loss=values
    )
    made = tables.build("multi_pass", tmp_path, methods=["bayesopt"])
    less = "trials 4 instead of 30, weight updates 40 instead of 4000"
    assert f"scaled down from the paper: bayesopt: {less}" in made.label
    search_run(tmp_path / "full", values, published={"trials": 4}, validation_loss=values)
    assert incumbent.scaled_down(find(tmp_path / "full")) == ""


def test_searches_have_no_place_in_the_table_of_run_times(tmp_path):
    values = np.array([[3.0, 2.0, 1.0]])
    search_run(tmp_path, values, validation_loss=values)
    make_run(tmp_path, "random", "uci_energy", [1.0, 2.0])
    assert set(tables.build("runtime", tmp_path).data["method"]) == {"random"}
    with pytest.raises(ValueError, match="no table multi_pas; did you mean multi_pass"):
        tables.build("multi_pas", tmp_path)
