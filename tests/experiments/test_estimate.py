"""Estimates of time and memory before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo_bench.experiments.estimate import Calibration
from tests.experiments.make_jobs import job
from tests.problems import make_settings


def test_calibration_estimates_time_and_shards(tmp_path: Path) -> None:
    one = job(make_settings(tmp_path, repetitions=5, chunk=2, hyperparameter_updates=10))
    long = job(make_settings(tmp_path, repetitions=5, chunk=2, hyperparameter_updates=1000))
    calibration = Calibration()
    short, estimate = calibration.estimate([one]), calibration.estimate([long])
    assert (short.shards, estimate.shards) == (3, 3)
    assert estimate.seconds == pytest.approx(100 * short.seconds)
    assert 0 < short.seconds < 60
    assert estimate.bytes > short.bytes > 0
    assert not (tmp_path / "runs").exists()
