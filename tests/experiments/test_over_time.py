"""Audits over time: finite differences, reverse mode, what a run computes, the store."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hpo_bench.core import schedules
from hpo_bench.core.loop import beginning, train
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.errors import UserError
from hpo_bench.experiments import over_time
from hpo_bench.experiments.audit import ALL
from hpo_bench.experiments.over_time import COLUMNS, Outlook
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.rules.adam import AdamW
from hpo_bench.rules.rmsprop import RMSprop
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer
from hpo_bench.store.audits import complete_audits
from hpo_bench.store.runs import read_table
from tests.problems import make_method, make_settings, make_table

CPU = torch.device("cpu")
HORIZONS = (1, 3, 8)
RULES = {
    "sgd": (None, ("weight_decay", "lr", "momentum")),
    "nesterov": (MomentumSGD(nesterov=True), ("weight_decay", "lr", "momentum")),
    "adamw": (AdamW(), ("weight_decay", "lr", "beta1")),
    "rmsprop": (RMSprop(), ("weight_decay", "lr", "alpha")),
}


def moment(settings):
    """A training after one hyperparameter update of it."""
    trainer = Trainer.of(settings, settings.source.load(0.25), CPU)
    problem, start = trainer.problem(settings.seeds), trainer.start(settings.seeds)
    recorder = trainer.recorder(len(settings.seeds))
    now = train(problem, trainer.plan, start, recorder, until=settings.update_interval)
    return problem, trainer.plan, now


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("changes", [{}, {"batch_size": 7, "gradient_clip_norm": 0.3}])
def test_derivatives_are_finite_differences_over_the_next_updates(tmp_path, rule, changes):
    of_rule, tuned = RULES[rule]
    method = make_method("ours_wd_lr_m", 2, 4, rule=of_rule, tuned=tuned)
    settings = make_settings(tmp_path, method, update_interval=4, **changes)
    problem, plan, now = moment(settings)

    def losses(raw):
        found = over_time.looked_ahead(problem, plan, now, raw, HORIZONS)
        return {horizon: ahead.loss for horizon, ahead in found}

    ahead = dict(over_time.looked_ahead(problem, plan, now, now.raw, HORIZONS))
    assert list(ahead) == list(HORIZONS)
    nudge = 6e-6
    for name in tuned:
        up, down = (losses({**now.raw, name: now.raw[name] + sign * nudge}) for sign in (1, -1))
        for horizon in HORIZONS:
            expected = (up[horizon] - down[horizon]) / (2 * nudge)
            found = ahead[horizon].derivatives[name][:, 0]
            assert (found != 0).all()
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-8)


def test_a_learning_rate_per_weight_is_shifted_as_one(tmp_path):
    settings = make_settings(tmp_path, make_method("ours_wd_hdlr_m", 2, 4), update_interval=4)
    problem, plan, now = moment(settings)
    nudge = 6e-6
    up, down = (
        dict(over_time.looked_ahead(problem, plan, now, {**now.raw, "lr": raw}, (5,)))[5].loss
        for raw in (now.raw["lr"] + nudge, now.raw["lr"] - nudge)
    )
    ahead = dict(over_time.looked_ahead(problem, plan, now, now.raw, (5,)))[5]
    expected = (up - down) / (2 * nudge)
    torch.testing.assert_close(ahead.derivatives["lr"][:, 0], expected, rtol=2e-5, atol=1e-8)


def test_from_the_start_it_is_what_the_exact_method_says_there(tmp_path):
    """The derivative over the first T updates is the hypergradient of unrolling all of them."""
    settings = make_settings(
        tmp_path, make_method("diff_through_opt", 10), look_back=10, save_hypergradients=True
    )
    trainer = Trainer.of(settings, settings.source.load(0.25), CPU)
    assert isinstance(trainer.plan.estimator, Unroll)
    problem, start = trainer.problem(settings.seeds), trainer.start(settings.seeds)
    now = beginning(problem, trainer.plan, start)
    ((_, ahead),) = over_time.looked_ahead(problem, trainer.plan, now, now.raw, (10,))
    saved = read_table(execute(settings).run, "hypergradients")
    saved = saved[saved.hyper_step == 0].set_index("seed")
    for name, derivative in ahead.derivatives.items():
        np.testing.assert_allclose(derivative[:, 0], saved[f"hypergradient_{name}"], rtol=1e-9)


@pytest.mark.parametrize("method", ["ours_wd_lr_m", "discounted", "baydin", "reset"])
def test_what_is_compared_is_what_a_run_computes(tmp_path, method):
    known = {
        "discounted": make_method("ours_wd_lr_m", estimator=Forward(discount=0.9)),
        "reset": make_method("long_diff_through_opt"),
    }
    settings = make_settings(
        tmp_path, known.get(method, method), save_hypergradients=True, batch_size=7
    )
    frame = over_time.over_time(settings, settings.source.load(0.25), Outlook((1, 3, 5), (1, 2)))
    assert tuple(frame.columns) == COLUMNS
    assert sorted(set(frame.step)) == [10, 30, 50]
    saved = read_table(execute(settings).run, "hypergradients")
    updates_a_call = 1 if method == "baydin" else 10
    for (hyper_update, _, name), cell in frame.groupby(
        ["hyper_update", "horizon", "hyperparameter"]
    ):
        if name != ALL:
            step = hyper_update * 10 // updates_a_call - 1
            expected = saved[saved.hyper_step == step].set_index("seed")
            found = cell.set_index("seed").approximate
            np.testing.assert_allclose(
                found, expected[f"hypergradient_{name}"], rtol=1e-9, atol=1e-15
            )


def test_an_audit_over_time_is_stored_once_and_found(tmp_path):
    settings, moments = make_settings(tmp_path), Outlook((1, 2), (1, 4))
    first = over_time.run(settings, moments)
    assert len(first.frame) == 3 * 2 * 2 * 4
    assert {path.name for path in first.path.iterdir()} == {"audit.json", "over_time.parquet"}
    document = json.loads((first.path / "audit.json").read_text())
    assert (document["moments"], document["horizons"]) == ([1, 2], [1, 4])
    stamp = (first.path / "audit.json").stat().st_mtime_ns
    assert over_time.run(settings, moments).path == first.path
    assert (first.path / "audit.json").stat().st_mtime_ns == stamp
    assert over_time.run(settings, Outlook((1, 2), (1,))).path != first.path
    (found, _) = sorted(
        complete_audits(tmp_path, "over_time"), key=lambda audit: audit.path != first.path
    )
    assert (found.path, found.method, found.seeds) == (first.path, "ours_wd_lr_m", (0, 1, 2))
    assert complete_audits(tmp_path, "hypergradient_error") == []


def test_diverged_repetitions_are_left_out_of_the_shares(tmp_path):
    settings = make_settings(tmp_path)
    frame = over_time.over_time(settings, settings.source.load(0.25), Outlook((1,), (1, 4)))
    frame.loc[(frame.seed == 1) & (frame.horizon == 4), "exact"] = np.inf
    found = over_time.summary(frame).set_index(["horizon", "hyperparameter"])
    assert found.n[1, "lr"] == 3
    assert found.n[4, "lr"] == 2
    assert ALL not in found.index.get_level_values("hyperparameter")
    assert found.same_sign.between(0, 1).all()


def test_moments_are_spread_over_the_training_unless_chosen(tmp_path):
    settings = make_settings(tmp_path, hyperparameter_updates=400)
    assert Outlook().of(settings) == (1, 40, 100, 200, 300)
    assert Outlook().of(replace(settings, hyperparameter_updates=1)) == (1,)


def test_what_cannot_be_looked_at_is_one_line(tmp_path):
    settings = make_settings(tmp_path)
    with pytest.raises(UserError, match="--moments 6: the training has hyperparameter_updates=5"):
        Outlook((1, 6)).of(settings)
    scheduled = replace(settings, method=replace(settings.method, schedule=schedules.Linear()))
    assert Outlook((4,), (10,)).of(scheduled) == (4,)
    with pytest.raises(UserError, match=r"--horizons 11: .* after 50 .* update 51"):
        Outlook((4,), (11,)).of(scheduled)
    with pytest.raises(UserError, match="method=random: tunes nothing"):
        over_time.run(make_settings(tmp_path, "random", make_table()), Outlook((1,), (1,)))
