"""Estimates of time and memory before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo_bench.experiments.estimate import Calibration, Estimate, Rate
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
