"""Laws of every search: seeds decide, rows are alone, budgets are exact, killed ones go on to the
same numbers.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest
from make_search import frame, interrupted, search_settings, search_trainer, searched

from hpo_bench.errors import UserError
from hpo_bench.running.execute import execute
from hpo_bench.search.asha import ASHA
from hpo_bench.search.bayesopt import NEEDED, BayesianOptimisation
from hpo_bench.search.pbt import PopulationBasedTraining
from hpo_bench.search.rows import trial_seed
from hpo_bench.store.runs import FINAL_COLUMNS, read_table
from tests.problems import make_settings

needs_optuna = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="pip install 'hpo-bench[search]'",
)
CASES = [
    pytest.param(
        BayesianOptimisation(trials=4, random=2), "random", id="bayesopt", marks=needs_optuna
    ),
    pytest.param(ASHA(trials=24, reduction=3, grace=2, batch=10), "random", id="asha_random"),
    pytest.param(ASHA(trials=24, reduction=3, grace=2, batch=10), "ours", id="asha_ours"),
    pytest.param(PopulationBasedTraining(population=8, interval=10), "random", id="pbt_random"),
    pytest.param(
        PopulationBasedTraining(population=8, interval=10, perturbs="raw"), "ours", id="pbt_ours"
    ),
]
TABLES = ("final", "curves", "trials")


@pytest.mark.parametrize(("search", "inner"), CASES)
class TestEverySearch:
    """With rows in chunks of three, two repetitions."""

    def test_repetitions_and_chunks_do_not_matter(self, search, inner, tmp_path):
        together = searched(search_trainer(tmp_path, search, inner, chunk=3, workers=2))
        for seed in (0, 1):
            alone = searched(search_trainer(tmp_path, search, inner), [seed])
            for table in TABLES:
                pd.testing.assert_frame_equal(
                    frame(together, table, seed), frame(alone, table), rtol=1e-10
                )
        assert not frame(together, "trials", 0).equals(frame(together, "trials", 1))

    @pytest.mark.parametrize("after", [1, 3])
    def test_killed_in_the_middle_it_goes_on_to_the_same_numbers(
        self, search, inner, after, tmp_path
    ):
        trainer = search_trainer(tmp_path, search, inner, save_weights=True)
        whole = searched(trainer)
        again, told = interrupted(trainer, (0, 1), after, tmp_path / "blocks")
        for table in TABLES:
            pd.testing.assert_frame_equal(
                frame(whole, table), frame(again, table), check_exact=True
            )
        for name, array in whole.weights.items():
            np.testing.assert_array_equal(array, again.weights[name])
        assert told == search.weight_updates(trainer.settings)

    def test_what_is_stored_adds_up(self, search, inner, tmp_path):
        block = searched(search_trainer(tmp_path, search, inner))
        trials, curves, final = (frame(block, table) for table in ("trials", "curves", "final"))
        assert list(block.tables["final"].column_names) == list(FINAL_COLUMNS)
        for seed in (0, 1):
            own, curve = trials[trials["seed"] == seed], curves[curves["seed"] == seed]
            incumbent = final[final["seed"] == seed].iloc[0]
            assert curve["step"].iloc[-1] == own["weight_updates"].sum()
            assert curve["step"].is_monotonic_increasing
            assert curve["step"].is_unique
            assert curve["hessian_products"].iloc[-1] == own["hessian_products"].sum()
            assert (own["hessian_products"].sum() > 0) == (inner == "ours")
            best = own.loc[own["validation_loss"].idxmin()]
            for name in (
                "validation_loss",
                "test_loss",
                "test_metric",
                "train_loss",
                "lr",
                "momentum",
            ):
                assert incumbent[name] == best[name]
            assert incumbent["validation_loss"] == curve["validation_loss"].min()

    def test_the_first_trial_is_the_repetition_itself(self, search, inner, tmp_path):
        trials = frame(searched(search_trainer(tmp_path, search, inner)), "trials", 1)
        own = trials[(trials["trial"] == 0) & (trials["segment"] == 0)].iloc[0]
        plain = make_settings(
            tmp_path,
            search_settings(tmp_path, None, inner).method,
            hyperparameter_updates=3,
            seed=1,
        )
        curve = read_table(execute(plain).run, "curves")
        there = curve[(curve["seed"] == 1) & (curve["step"] == own["step"])].iloc[0]
        for name in ("train_loss", "validation_loss", "test_metric", "lr", "weight_decay"):
            assert own[name] == pytest.approx(there[name], rel=1e-10), name


def test_a_search_is_stored_as_any_run(tmp_path):
    settings = search_settings(
        tmp_path,
        PopulationBasedTraining(population=4, interval=10),
        repetitions=3,
        save_weights=True,
    )
    outcome = execute(settings)
    assert outcome.computed == 3
    assert len(read_table(outcome.run, "final")) == 3
    assert set(read_table(outcome.run, "trials")["trial"]) == {0, 1, 2, 3}
    assert (outcome.run.path / "final_weights.npz").exists()
    assert execute(settings).computed == 0


@pytest.mark.parametrize(("search", "inner"), CASES)
def test_blocks_are_planned_by_rows(search, inner, tmp_path):
    trainer = search_trainer(tmp_path, search, inner, workers=2)
    trials = search.side_by_side(trainer.settings)
    chunk = trainer.chunk(6)
    assert trainer.settings.total_updates == search.weight_updates(trainer.settings)
    assert trainer.settings.total_updates > trainer.settings.weight_updates
    if trials == 1:
        assert chunk == trainer.rows_at_once(6)
    else:
        assert (chunk.rows, chunk.workers) == (
            max(1, min(6, trainer.rows_at_once(6 * trials).rows // trials)),
            1,
        )


def test_trials_have_seeds_of_their_own():
    seeds = [trial_seed(seed, trial) for seed in range(20) for trial in range(1, 20)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert trial_seed(7, 0) == 7


def test_when_every_trial_diverges_so_does_the_search(tmp_path):
    from hpo_bench.settings.run import StartRanges

    wild = StartRanges(None, (9.0, 10.0), (-5.0, -3.0), (0.2, 0.8), (0.9, 1.0))
    search = ASHA(trials=6, reduction=3, grace=10, batch=3)
    block = searched(
        search_trainer(tmp_path, search, start=wild, clip_log10_lr=None, hyperparameter_updates=20)
    )
    final = frame(block, "final")
    assert (final["status"] == "diverged").all()
    assert final["validation_loss"].isna().all()
    assert (
        frame(block, "trials").groupby("seed")["status"].apply(list).map(set) == {"diverged"}
    ).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ASHA(trials=0), "method.search.trials=0"),
        (lambda: ASHA(reduction=1), "method.search.reduction=1: must be a whole number, 2 or more"),
        (lambda: PopulationBasedTraining(quantile=0.6), "method.search.quantile=0.6"),
        (lambda: PopulationBasedTraining(factors=(2, 1)), "method.search.factors"),
        (lambda: PopulationBasedTraining(perturbs="row"), "method.search.perturbs=row"),
        (lambda: BayesianOptimisation(random=0), "method.search.random=0"),
        (lambda: BayesianOptimisation(diverged=-1), "method.search.diverged=-1"),
    ],
)
def test_wrong_arguments_are_one_line(make, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"save_hypergradients": True}, "save_hypergradients=true"),
        ({"data": "train_and_validation"}, "data_for_weights=train_and_validation"),
        ({"search": ASHA(grace=50)}, "method.search.grace=50: longer than a training; at most 30"),
        (
            {
                "search": PopulationBasedTraining(population=2, interval=5),
                "inner": "ours",
                "update_interval": 5,
            },
            None,
        ),
    ],
)
def test_what_a_search_cannot_work_with_is_one_line(changes, message, tmp_path):
    from dataclasses import replace

    changes = dict(changes)
    search, inner = changes.pop("search", ASHA(trials=4)), changes.pop("inner", "random")
    data = changes.pop("data", "train")
    settings = search_settings(tmp_path, search, inner, **changes)
    settings = replace(settings, method=replace(settings.method, data_for_weights=data))
    if message is None:
        execute(settings)
        return
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        execute(settings)
