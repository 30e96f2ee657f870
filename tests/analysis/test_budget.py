"""What is said of trainings that were smaller than the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo_bench.analysis import budget, tables
from hpo_bench.analysis.selection import find
from hpo_bench.experiments.definition import Group, read
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.store.runs import Run
from tests.make_store import make_run

OF_PENN_TREEBANK = (
    "20 % of the text, 2 × 64 units, batches of 20 × 40 words, 900 of 23910 weight updates, n = 8"
)
OF_CIFAR10 = "2000 of 50000 images, width 48 of 64, 500 of 32400 weight updates, n = 8"


def at_scale(
    results: Path, experiment: str, scale: str, method: str = "random", count: int = 8, *more: str
) -> Run:
    """A made-up run with the configuration that an experiment gives it."""
    part = read(experiment, scale).parts[0]
    overrides = Group(part, part.datasets[0], method).overrides
    config = parse(compose([*overrides, *more])).config
    values = np.tile(np.linspace(3, 1, 5), (count, 1)) * np.linspace(1, 2, count)[:, None]
    keys = ("dataset", "model", "batch_size", "hyperparameter_updates", "gradient_clip_norm")
    kept: dict[str, Any] = {key: config[key] for key in keys}
    return make_run(results, method, experiment, values, config=kept, suffix=f"-{scale}")


@pytest.mark.parametrize(
    ("experiment", "said"), [("penn_treebank", OF_PENN_TREEBANK), ("cifar10", OF_CIFAR10)]
)
def test_the_scale_for_two_cores_is_told_from_the_stored_configuration(
    tmp_path: Path, experiment: str, said: str
) -> None:
    run = at_scale(tmp_path, experiment, "cpu")
    assert budget.less([run]) == said


@pytest.mark.parametrize("experiment", ["penn_treebank", "cifar10", "fashion_mnist"])
def test_nothing_is_said_of_the_papers_budget(tmp_path: Path, experiment: str) -> None:
    assert budget.less([at_scale(tmp_path, experiment, "paper", count=3)]) == ""


def test_fewer_weight_updates_alone_are_said(tmp_path: Path) -> None:
    more = at_scale(tmp_path, "fashion_mnist", "smoke")
    fewer = at_scale(tmp_path, "fashion_mnist", "smoke", "ours_wd_lr_m", 5)
    assert budget.less([more]) == "50 of 50000 weight updates, n = 8"
    assert budget.less([more, fewer]) == "50 of 50000 weight updates, n = 5 to 8"
    assert budget.less([make_run(tmp_path, "random", "uci_energy", [1.0, 2.0])]) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.layers=1", "1 × 64 units"),
        ("model.embedding=32", "2 × 64 units on word vectors of 32"),
        ("batch_size=70", "2 × 64 units, 900 of"),
        ("batch_size=null", "full batches"),
        ("dataset.first_words=3000", "0.3 % of the text"),
        ("dataset.first_words=null", "2 × 64 units, batches"),
    ],
)
def test_each_setting_is_said_where_it_is_not_the_papers(
    tmp_path: Path, change: str, said: str
) -> None:
    assert said in budget.less([at_scale(tmp_path, "penn_treebank", "cpu", "random", 2, change)])


def test_tables_say_it_below_and_tell_a_part_of_the_text_from_the_whole(tmp_path: Path) -> None:
    for method in ("random", "ours_wd_lr_m"):
        at_scale(tmp_path, "penn_treebank", "cpu", method)
        at_scale(tmp_path, "penn_treebank", "paper", method, 3)
    table = tables.build("larger_scale", tmp_path)
    part, whole = sorted({run.dataset_label for run in find(tmp_path)}, reverse=True)
    assert part.startswith("Penn Treebank (part)")
    assert f"{part}: {OF_PENN_TREEBANK}" in table.label
    assert f"{whole}: " not in table.label
    assert {str(column[0]).partition(":")[0] for column in table.body.columns} == {part, whole}
