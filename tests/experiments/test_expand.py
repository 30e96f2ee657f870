"""From an experiment to its runs, and which of them are one program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo_bench.core.table import Table
from hpo_bench.datasets.cifar10 import CIFAR10
from hpo_bench.datasets.fashion_mnist import FashionMNIST
from hpo_bench.datasets.penn_treebank import PennTreebank
from hpo_bench.errors import UserError
from hpo_bench.experiments.definition import Part
from hpo_bench.experiments.expand import expand, units
from hpo_bench.running.trainer import Trainer
from tests.experiments.make_jobs import SMALL, cells, experiment, job
from tests.problems import make_settings


def test_expansion_composes_groups_and_sets_cells(tmp_path: Path) -> None:
    part = Part(
        "cells",
        ("diabetes",),
        ("ours_wd_lr_m",),
        2,
        seed=3,
        overrides=("batch_size=20",),
        grid={"update_interval": (1, 3), "look_back": (1, 2, 3)},
        at_most={"look_back": "update_interval"},
    )
    composed = []
    found = expand(experiment(part), tmp_path, on_group=composed.append)
    assert len(composed) == 1
    assert [(j.settings.update_interval, j.settings.look_back) for j in found.jobs] == [
        (1, 1),
        (3, 1),
        (3, 2),
        (3, 3),
    ]
    for own in found.jobs:
        assert own.settings.method.estimator.look_back == own.settings.look_back
        assert (own.settings.seed, own.settings.repetitions, own.settings.batch_size) == (3, 2, 20)
        assert own.settings.results_dir == tmp_path


def test_expanded_runs_are_those_of_the_command_line(tmp_path: Path) -> None:
    from hpo_bench.settings.compose import compose
    from hpo_bench.settings.parse import parse

    (own,) = expand(experiment(replace(SMALL, methods=("random",))), tmp_path).jobs
    line = ["method=random", "dataset=diabetes", "repetitions=3", "hyperparameter_updates=2"]
    assert own.run_id == job(parse(compose(line))).run_id


def test_what_is_missing_is_left_out_and_told(tmp_path: Path) -> None:
    part = replace(SMALL, datasets=("diabetes", "nowhere"), methods=("random", "mine"))
    found = expand(experiment(part), tmp_path)
    assert [(j.settings.dataset, j.settings.method.name) for j in found.jobs] == [
        ("diabetes", "random")
    ]
    assert [line.partition(":")[0] for line in found.missing] == ["dataset=nowhere", "method=mine"]


def test_a_dataset_that_cannot_be_had_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpo_bench.datasets.bundled import Bundled

    def load(self: Bundled, share: float) -> None:
        raise UserError("cannot fetch diabetes")

    monkeypatch.setattr(Bundled, "load", load)
    assert expand(experiment(SMALL), tmp_path).missing == (
        "dataset=diabetes: cannot fetch diabetes",
    )


def test_a_wrong_override_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hyperparameter_update: no such setting"):
        expand(experiment(replace(SMALL, overrides=("hyperparameter_update=2",))), tmp_path)


def test_only_cells_that_differ_in_their_look_back_alone_share_a_program(tmp_path: Path) -> None:
    jobs = [
        *cells(tmp_path, "ours_wd_lr_m", (2, 1)),
        *cells(tmp_path, "ours_wd_lr_m", (1,), hyperparameter_updates=6),
        *cells(tmp_path, "ours_wd_lr_m", (1,), seed=5),
        *cells(tmp_path, "diff_through_opt", (1,)),
    ]
    found = units(jobs)
    assert [[own.settings.look_back for own in unit] for unit in found] == [[1, 2], [1], [1], [1]]
    assert (
        len(units([job(make_settings(tmp_path, "random")), job(make_settings(tmp_path, "baydin"))]))
        == 2
    )


@pytest.mark.parametrize(
    ("dataset", "source", "words"),
    [
        ("cifar10", CIFAR10, ["dataset.subset=true", "model.width=2", "batch_size=10"]),
        ("fashion_mnist", FashionMNIST, []),
        ("penn_treebank", PennTreebank, ["dataset.first_words=9000", "model.hidden=4"]),
    ],
)
def test_a_plan_is_of_made_up_data_where_the_real_ones_are_not_to_be_had(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dataset: str,
    source: type[Any],
    words: list[str],
) -> None:
    def load(self: object, validation_share: float) -> Table:
        raise UserError("cannot download it")

    monkeypatch.setattr(source, "load", load)
    part = Part("main", (dataset,), ("random",), 2, overrides=(*words, "hyperparameter_updates=2"))
    line = (f"dataset={dataset}: cannot download it",)
    lacking = expand(experiment(part), tmp_path)
    assert (lacking.jobs, lacking.missing, lacking.made_up) == ((), line, ())
    planned = expand(experiment(part), tmp_path, may_make_up=True)
    assert (planned.missing, planned.made_up) == ((), line)

    (job,) = planned.jobs
    table, settings = job.table, job.settings
    summary = settings.source.summary(settings.validation_share)  # type: ignore[attr-defined]
    assert (table.training, table.validation, table.test) == summary.parts
    assert len(table.inputs) == len(table.targets) == sum(summary.parts)
    assert np.prod(table.inputs.shape[1:]) == summary.inputs
    assert (table.targets >= 0).all()
    assert (table.targets < table.outputs).all()
    Trainer.of(settings, table, torch.device("cpu"))  # models take it
