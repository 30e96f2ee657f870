"""Proposals of the Gaussian process, the objective, and what is said where Optuna is not
installed.
"""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from make_search import frame, search_settings, search_trainer, searched

from hpo_bench.errors import UserError
from hpo_bench.running.execute import execute
from hpo_bench.search import bayesopt
from hpo_bench.search.bayesopt import NEEDED, BayesianOptimisation, objective, suggest
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from tests.problems import make_table

BOX = {"lr": (-6.0, -1.0), "weight_decay": (-7.0, -2.0), "momentum": (0.0, 1.0)}
needs_optuna = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="pip install 'hpo-bench[search]'",
)


def bowl(point):
    return (
        (point["lr"] + 2.5) ** 2
        + 0.3 * (point["weight_decay"] + 4) ** 2
        + (point["momentum"] - 0.6) ** 2
    )


def drawn(count, seed):
    random = np.random.default_rng(seed)
    return {name: random.uniform(low, high, count) for name, (low, high) in BOX.items()}


@needs_optuna
def test_guided_trials_find_a_minimum_that_random_ones_miss():
    points = drawn(5, 0)
    for trial in range(8):
        point = suggest(points, bowl(points), BOX, trial)
        assert all(low <= point[name] <= high for name, (low, high) in BOX.items())
        points = {name: np.append(points[name], point[name]) for name in BOX}
    random = [bowl(drawn(13, seed)).min() for seed in range(1, 30)]
    assert bowl(points).min() < np.quantile(random, 0.1)


@needs_optuna
def test_a_proposal_is_a_function_of_the_trials_and_the_seed():
    points = drawn(6, 3)
    first = suggest(points, bowl(points), BOX, 1)
    assert suggest(points, bowl(points), BOX, 1) == first
    assert suggest(points, bowl(points), BOX, 2) != first
    same = suggest(points, np.full(6, 150.0), BOX, 1)  # all diverged
    assert all(low <= same[name] <= high for name, (low, high) in BOX.items())


@needs_optuna
def test_random_trials_come_first_and_every_trial_begins_from_its_own_weights(tmp_path):
    kept = frame(
        searched(search_trainer(tmp_path, BayesianOptimisation(trials=3, random=2)), [4]), "trials"
    )
    plain = frame(
        searched(search_trainer(tmp_path, BayesianOptimisation(trials=3, random=3)), [4]), "trials"
    )
    assert kept["trial"].tolist() == [0, 1, 2]
    assert kept["initial_lr"][:2].tolist() == plain["initial_lr"][:2].tolist()
    assert kept["initial_lr"][2] != plain["initial_lr"][2]
    assert len(set(kept["train_loss"])) == 3


def test_the_objective_is_in_the_targets_unit_and_capped():
    table = make_table()  # targets' standard deviation 2.5
    values = objective(np.array([0.1, 4.0, np.nan, 1e30]), table, 9.0)
    assert values.tolist() == pytest.approx([0.625, 9.0, 9.0, 9.0])
    digits = make_table("classification")
    assert objective(np.array([0.1, np.nan]), digits, 3.0).tolist() == [0.1, 3.0]


def test_what_a_diverged_training_counts():
    assert BayesianOptimisation().limit(make_table()) == pytest.approx(1.5 * 2.5**2)
    assert BayesianOptimisation().limit(make_table("classification")) == pytest.approx(
        1.3 * math.log(3)
    )
    paper = {"uci_energy": 150, "uci_kin8nm": 0.1, "uci_power": 400, "fashion_mnist": 3}
    for dataset, value in paper.items():
        found = parse(compose(["method=bayesopt", f"dataset={dataset}"])).method.search
        assert found.limit(make_table()) == value
    assert parse(compose(["method=bayesopt", "dataset=uci_wine"])).method.search.diverged is None


@pytest.mark.parametrize("lacking", NEEDED)
def test_without_optuna_it_is_one_line(lacking, tmp_path, monkeypatch):
    monkeypatch.setattr(bayesopt, "find_spec", lambda name: None if name == lacking else object())
    with pytest.raises(UserError, match=rf"needs {lacking}.*pip install 'hpo-bench\[search\]'"):
        execute(search_settings(tmp_path, BayesianOptimisation(trials=2, random=2)))
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
