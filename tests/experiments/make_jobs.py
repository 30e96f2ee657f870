"""Experiments and jobs that tests carry out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from hpo_bench.experiments.definition import Experiment, Part
from hpo_bench.experiments.expand import Job
from hpo_bench.running.identify import identify
from hpo_bench.settings.run import Settings
from hpo_bench.store.runs import Run, read_table
from tests.problems import make_method, make_settings

SMALL = Part(
    "main", ("diabetes",), ("random", "lorraine"), 3, overrides=("hyperparameter_updates=2",)
)


def experiment(*parts: Part) -> Experiment:
    return Experiment("tiny", "smoke", "Tiny", (), (), parts)


def job(settings: Settings) -> Job:
    table = settings.source.load(settings.validation_share)
    return Job("main", settings, table, *identify(settings, table))


def cells(folder: Path, method: str, look_backs: tuple[int, ...], **changes: Any) -> list[Job]:
    """Jobs that differ in their look-back alone, with the configuration that says so."""
    jobs = []
    for look_back in look_backs:
        settings = make_settings(
            folder,
            make_method(method, look_back, 4),
            look_back=look_back,
            update_interval=4,
            **changes,
        )
        settings.config["look_back"] = look_back
        settings.config["method"] = {
            "name": method,
            "estimator": {"_target_": method, "look_back": look_back},
        }
        jobs.append(job(settings))
    return jobs


def rows(run: Run, table: str) -> pd.DataFrame:
    return read_table(run, table).drop(
        columns=["seconds", "rows_in_block", "elapsed_s"], errors="ignore"
    )
