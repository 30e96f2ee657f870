"""Who goes on at a rung, and where the rungs are."""

from __future__ import annotations

import numpy as np
import pytest
from make_search import frame, search_trainer, searched

from hpo_bench.search.asha import ASHA, promoted, rungs, stops


def by_hand(losses: list[float], reduction: int, batch: int) -> list[bool]:
    """One rung fed by batches: each is judged against all that came so far, by counting who is
    better.
    """
    decisions = []
    for at in range(0, len(losses), batch):
        so_far = losses[: at + batch]
        allowed = max(len(so_far) // reduction, 1)
        for loss in losses[at : at + batch]:
            decisions.append(np.isfinite(loss) and sum(other < loss for other in so_far) < allowed)
    return decisions


@pytest.mark.parametrize("batch", [1, 5, 40])
@pytest.mark.parametrize("reduction", [2, 4])
def test_the_best_of_the_rung_so_far_go_on(batch, reduction):
    losses = np.random.default_rng(batch).normal(size=40)
    losses[::7] = np.nan
    found = [
        bool(keep)
        for at in range(0, 40, batch)
        for keep in promoted(losses[at : at + batch], losses[: at + batch], reduction)
    ]
    known = np.where(np.isnan(losses), np.inf, losses).tolist()
    assert found == by_hand(known, reduction, batch)
    assert any(found)
    assert not all(found)


def test_one_by_one_the_decisions_are_optunas():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    steps = [1, 4, 16]
    values = np.random.default_rng(1).normal(size=(60, 3)) + np.array([0.0, -1.0, -2.0])
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4)
    study = optuna.create_study(pruner=pruner)
    recorded: list[list[float]] = [[], [], []]
    reached = []
    for own in values:
        trial, pruned, height = study.ask(), False, 0
        while not pruned and height < 3:
            trial.report(own[height], steps[height])
            pruned = trial.should_prune()
            recorded[height].append(own[height])
            assert pruned != promoted(own[height : height + 1], np.array(recorded[height]), 4)[0]
            height += 1
        study.tell(
            trial,
            state=optuna.trial.TrialState.PRUNED if pruned else None,
            values=None if pruned else own[-1],
        )
        reached.append(height)
    assert set(reached) == {1, 2, 3}


def test_one_by_one_the_decisions_are_ray_tunes():
    schedulers = pytest.importorskip("ray.tune.schedulers.async_hyperband")
    bracket = schedulers._Bracket(1, 64, 4, 0, True)
    losses, recorded = np.random.default_rng(0).normal(size=200), []
    agreed = 0
    for number, loss in enumerate(losses):
        kept = (
            bracket.on_result(type("Trial", (), {"trial_id": str(number)})(), 1, -loss)
            == "CONTINUE"
        )
        recorded.append(loss)
        agreed += kept == promoted(np.array([loss]), np.array(recorded), 4)[0]
    assert agreed >= 190  # Ray interpolates the quartile, and does not count the trial itself


def test_rungs_of_the_paper():
    assert rungs(1, 4, 4000) == [1, 4, 16, 64, 256, 1024, 4000]
    assert rungs(1, 4, 1024) == [1, 4, 16, 64, 256, 1024]
    assert rungs(7, 3, 7) == [7]
    search = ASHA()
    ideal = sum(search._ideal([1, 4, 16, 64, 256, 1024, 4000], 114_286))
    assert ideal == pytest.approx(0.63e6, rel=0.02)


def test_a_rung_inside_a_window_moves_up(tmp_path):
    steps = [1, 4, 16, 64, 99, 256]
    ours = search_trainer(tmp_path, ASHA(trials=4), "ours", hyperparameter_updates=26)
    assert stops(ours, steps) == [
        1,
        4,
        16,
        64,
        99,
        256,
    ]  # Neumann differentiates the last update of each T alone
    from dataclasses import replace

    from hpo_bench.hypergradients.unroll import Unroll

    unrolled = replace(ours, plan=replace(ours.plan, estimator=Unroll(5)))
    assert stops(unrolled, steps) == [1, 4, 20, 64, 100, 260]


def test_one_batch_spends_what_ideal_halving_spends(tmp_path):
    search = ASHA(trials=27, reduction=3, grace=1, batch=27)
    trainer = search_trainer(tmp_path, search)
    trials = frame(searched(trainer, [3]), "trials")
    assert (
        trials["weight_updates"].sum()
        == search.weight_updates(trainer.settings)
        == 27 * 1 + 9 * 2 + 3 * 6 + 1 * 18 + 1 * 3
    )
    assert trials.groupby("segment").size().tolist() == [27, 9, 3, 1, 1]
    for segment in (0, 1, 2):
        at = trials[trials["segment"] == segment]
        further = set(trials.loc[trials["segment"] == segment + 1, "trial"])
        assert further == set(at.nsmallest(len(further), "validation_loss")["trial"])


def test_batches_are_judged_by_all_that_came_before(tmp_path):
    search = ASHA(trials=20, reduction=3, grace=2, batch=6)
    trials = frame(searched(search_trainer(tmp_path, search), [5]), "trials")
    first = trials[trials["segment"] == 0].sort_values("trial")["validation_loss"].to_numpy()
    further = set(trials.loc[trials["segment"] == 1, "trial"])
    assert further == set(np.flatnonzero(by_hand(first.tolist(), 3, 6)))
