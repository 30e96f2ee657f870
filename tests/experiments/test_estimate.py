"""Estimates of time and memory before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hpo_bench.experiments import speed
from hpo_bench.experiments.estimate import Calibration, Estimate, Rate
from hpo_bench.experiments.speed import Speed
from hpo_bench.running.trainer import Trainer
from hpo_bench.running.work import work
from tests.experiments.make_jobs import job
from tests.problems import make_settings


def test_calibration_estimates_time_and_shards(tmp_path: Path) -> None:
    calibration = Calibration()

    def estimate(updates: int, **changes: int) -> Estimate:
        changed = make_settings(
            tmp_path, repetitions=5, chunk=2, hyperparameter_updates=updates, **changes
        )
        return calibration.estimate([job(changed)])

    short, longer, longest = estimate(10), estimate(100), estimate(1000)
    assert (short.shards, longest.shards) == (3, 3)
    assert 0 < short.seconds < 60
    assert longest.seconds - longer.seconds == pytest.approx(10 * (longer.seconds - short.seconds))
    assert longest.bytes > short.bytes > 0
    assert not (tmp_path / "runs").exists()


def test_losses_that_are_recorded_less_often_cost_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Calibration, "_rate", lambda *_: Rate(update=1.0, evaluation=10.0))

    def seconds(every: int) -> float:
        changed = make_settings(
            tmp_path, repetitions=1, hyperparameter_updates=100, record_every=every
        )
        return Calibration().estimate([job(changed)]).seconds

    updates = make_settings(tmp_path, hyperparameter_updates=100).weight_updates
    assert seconds(1) == pytest.approx(updates + 10 * (updates + 1))
    assert seconds(updates) == pytest.approx(updates + 10 * 2)


def test_a_large_model_is_measured_once_for_all_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "LARGE", 0)
    measured: list[str] = []
    calibration = Calibration(measured.append)
    long, method = {"hyperparameter_updates": 1000}, make_settings(tmp_path).method
    plain = replace(method, estimator=None, optimiser=None, tuned=())
    tuned = job(make_settings(tmp_path, repetitions=4, chunk=2, **long))
    untuned = job(make_settings(tmp_path, repetitions=4, chunk=2, method=plain, **long))
    dear, cheap = calibration.estimate([tuned]), calibration.estimate([untuned])
    assert measured == [tuned.settings.dataset]
    assert 0 < cheap.seconds < dear.seconds < 3600
    assert (dear.shards, cheap.shards) == (2, 2)


def test_the_time_of_a_training_is_that_of_its_parts(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, hyperparameter_updates=4, update_interval=10)
    one = job(settings)
    trainer = Trainer.of(settings, one.table, torch.device("cpu"))
    costs = work(trainer).of(40)
    assert costs["gradients"] == 40 + 4
    assert costs["hessian_products"] > 0
    speed = Speed(gradient=1, product=100, evaluation=1000)
    assert speed.update(trainer) == (44 + 100 * costs["hessian_products"]) / 40
    assert speed.record(trainer) == 1000 * one.table.test
    whole = replace(settings, method=replace(settings.method, full_validation=True))
    trainer = Trainer.of(whole, one.table, torch.device("cpu"))
    assert speed.record(trainer) == 1000 * (one.table.test + one.table.validation)
