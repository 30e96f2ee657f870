"""The runs of Figure 14: which settings they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo_bench.bench.runtime import NEVER, plan
from hpo_bench.errors import UserError


def test_a_scale_gives_its_settings_and_overrides_come_on_top(tmp_path: Path) -> None:
    words = ["hyperparameter_updates=9"]
    both = list(plan(["penn_treebank"], ["random"], 3, tmp_path, words, "cpu"))
    assert [settings.record_every for settings in both] == [100, NEVER]
    for settings in both:
        assert (settings.repetitions, settings.chunk, settings.workers) == (3, 1, 1)
        assert (settings.hyperparameter_updates, settings.batch_size) == (9, 20)
        assert settings.config["dataset"]["first_words"] == 200_000
        assert settings.config["model"]["hidden"] == 64


def test_without_a_scale_the_datasets_own_settings_hold(tmp_path: Path) -> None:
    (evaluated, _) = plan(["fashion_mnist"], ["random"], 3, tmp_path)
    assert (evaluated.hyperparameter_updates, evaluated.record_every) == (5000, 10)


@pytest.mark.parametrize(
    ("dataset", "scale", "told"),
    [
        ("uci_energy", "cpu", "--scale cpu: no experiment is called like dataset=uci_energy"),
        ("fashion_mnist", "cpu", "--scale cpu: allowed: paper, small, smoke"),
        ("cifar10", "big", "--scale big: allowed: cpu, paper, small, smoke"),
    ],
)
def test_a_scale_that_there_is_not_is_one_line(
    tmp_path: Path, dataset: str, scale: str, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        list(plan([dataset], ["random"], 3, tmp_path, (), scale))
