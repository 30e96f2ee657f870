"""Calibration: the best configuration of other sets, which never looks at the set itself."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml

from hpo_bench.analysis import calibration, paper
from hpo_bench.analysis.calibration import Draws, calibrate, expected_ranks
from hpo_bench.analysis.selection import find
from hpo_bench.errors import UserError
from hpo_bench.settings.yamls import configs_folder
from tests.make_store import make_run

NAMES = ("lr", "weight_decay", "momentum")
DATASETS = ("uci_energy", "uci_kin8nm", "uci_power")


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    monkeypatch.setattr(calibration, "GRID_POINTS", 11)
    monkeypatch.setattr(calibration, "WIDTHS", (0.1, 1.0))


def make(results, dataset, best_lr, scale=1.0, n=60, seed=0):
    """Random runs whose validation loss is least at a learning rate; the first diverges."""
    rng = np.random.default_rng([seed, *map(ord, dataset)])
    lr, decay = 10 ** rng.uniform(-6, -1, n), 10 ** rng.uniform(-7, -2, n)
    momentum = rng.uniform(0, 1, n)
    loss = scale * (1 + np.abs(np.log10(lr / best_lr)))
    loss[0] = np.nan
    both = {
        name: np.repeat(values[:, None], 2, axis=1)
        for name, values in (("lr", lr), ("weight_decay", decay), ("momentum", momentum))
    }
    curves = np.stack([loss, loss], axis=1)
    curves[0, 0] = 1.0
    test = np.where(np.isnan(curves), np.nan, 1.0)
    make_run(results, "random_validation", dataset, test, validation_loss=curves, **both)


def test_each_set_gets_what_is_best_on_the_others_whatever_their_scale(tmp_path):
    make(tmp_path, "uci_energy", 1e-5, scale=1e6)  # unlike the others, and never heeded by itself
    for dataset in DATASETS[1:]:
        make(tmp_path, dataset, 1e-2)
    make(tmp_path, "uci_wine", 1e-2)
    choices = calibrate(find(tmp_path), NAMES)
    assert set(choices) == {*DATASETS, "uci_wine", None}
    assert choices["uci_energy"].datasets == ("uci_kin8nm", "uci_power", "uci_wine")
    assert np.log10(choices["uci_energy"].values["lr"]) == pytest.approx(-2, abs=0.5)
    assert choices["uci_energy"].widths["lr"] == 0.1


def test_the_set_itself_has_no_part_in_its_choice(tmp_path):
    chosen = []
    for folder, best in (("a", 1e-5), ("b", 1e-1)):
        make(tmp_path / folder, "uci_energy", best)
        for dataset in (*DATASETS[1:], "uci_wine"):
            make(tmp_path / folder, dataset, 1e-3)
        chosen.append(calibrate(find(tmp_path / folder), NAMES))
    first, second = (choices["uci_energy"].values for choices in chosen)
    assert first == second
    assert chosen[0][None].values != chosen[1][None].values


def test_what_hardly_matters_ends_in_the_middle(tmp_path):
    for dataset in DATASETS:
        make(tmp_path, dataset, 1e-3, n=150)
    chosen = calibrate(find(tmp_path), NAMES)[None]
    assert chosen.widths["momentum"] == 1.0
    assert chosen.values["momentum"] == pytest.approx(0.5, abs=0.02)
    assert np.log10(chosen.values["lr"]) == pytest.approx(-3, abs=0.5)


def test_smoothed_ranks_by_two_loops():
    rng = np.random.default_rng(0)
    draws = [Draws(rng.uniform(size=(n, 2)), rng.uniform(size=n)) for n in (5, 9)]
    points, widths = rng.uniform(size=(3, 2)), (0.2, 0.5)
    for point, found in zip(points, expected_ranks(points, draws, widths), strict=True):
        of_sets = []
        for drawn in draws:
            above = below = 0.0
            for place, rank in zip(drawn.points, drawn.ranks, strict=True):
                weight = np.prod(
                    [
                        np.exp(-0.5 * ((a - b) / width) ** 2)
                        for a, b, width in zip(point, place, widths, strict=True)
                    ]
                )
                above, below = above + weight * rank, below + weight
            of_sets.append(above / below)
        assert found == pytest.approx(np.mean(of_sets))


def test_needs_three_sets_and_validation_losses(tmp_path):
    make(tmp_path, "uci_energy", 1e-3)
    make(tmp_path, "uci_power", 1e-3)
    with pytest.raises(UserError, match="three data sets, there are 2"):
        calibrate(find(tmp_path), NAMES)
    nothing = np.full((4, 2), np.nan)
    lr = np.repeat(np.geomspace(1e-6, 1e-1, 4)[:, None], 2, axis=1)
    make_run(
        tmp_path, "random_validation", "uci_wine", np.ones((4, 2)), validation_loss=nothing,
        lr=lr, weight_decay=lr, momentum=lr,
    )  # fmt: skip
    with pytest.raises(UserError, match="uci_wine, random_validation: no validation losses"):
        calibrate(find(tmp_path), NAMES)


@pytest.mark.parametrize("method", ["sgd_calibrated", "adamw_calibrated"])
def test_every_uci_set_has_a_choice_of_its_own_that_says_where_it_is_from(method):
    names = {"lr", "weight_decay", "momentum" if method == "sgd_calibrated" else "beta1"}
    for dataset in paper.UCI:
        file = configs_folder() / "method_dataset" / f"{method}__{dataset}.yaml"
        text = file.read_text()
        assert re.search(r"on 7 other UCI sets among \d+ runs of random_", text), file
        fixed = yaml.safe_load(text)["method"]["fixed"]
        assert set(fixed) == names
        assert all(float(value) > 0 for value in fixed.values())
    of_others = yaml.safe_load((configs_folder() / "method" / f"{method}.yaml").read_text())
    assert set(of_others["method"]["fixed"]) == names
