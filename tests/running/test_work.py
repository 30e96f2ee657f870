"""Counted gradients and Hessian-vector products against what the estimators are known to need."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hpo_bench.hypergradients.forward import Forward
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer
from hpo_bench.running.work import Work, work
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from tests.problems import make_method, make_settings, make_table

# interval, gradients, products with T = 10: a Neumann series and reverse mode take i - 1 products
KNOWN = {
    "random": (10, 10, 0),
    "random_validation": (10, 10, 0),
    "random_lr_schedule": (10, 10, 0),
    "lorraine": (10, 11, 4),
    "ours_wd_lr_m": (10, 11, 4),
    "ours_wd_hdlr_m": (10, 11, 4),
    "baydin": (1, 2, 0),
    "diff_through_opt": (10, 11, 4),
    "long_diff_through_opt": (10, 11, 9),
}


def trainer(tmp_path, method, **changes) -> Trainer:
    return Trainer.of(make_settings(tmp_path, method, **changes), make_table(), torch.device("cpu"))


@pytest.mark.parametrize("method", KNOWN)
def test_every_method_costs_what_it_should(method, tmp_path):
    assert work(trainer(tmp_path, method)) == Work(*KNOWN[method])


def test_the_ultimate_optimizer_takes_a_second_gradient_and_no_product(tmp_path):
    ultimate = parse(compose(["method=ultimate", "dataset=diabetes"])).method
    assert work(trainer(tmp_path, ultimate)) == Work(1, 2, 0)


def test_the_look_back_and_the_mode_are_seen(tmp_path):
    assert work(trainer(tmp_path, "ours_wd_lr_m", look_back=8)).hessian_products == 7
    forward = make_method("ours_wd_lr_m", estimator=Forward(5))
    assert work(trainer(tmp_path, forward)).hessian_products == 3 * 4


def test_a_part_of_a_training_costs_its_share():
    cost = Work(10, 11, 4)
    assert cost.between(0, 100) == (110, 40)
    assert cost.between(0, 9) == (9, 0)
    assert cost.between(9, 10) == (2, 4)
    assert cost.between(16, 64) == (48 + 5, 20)
    pieces = [
        cost.between(first, last) for first, last in ((0, 1), (1, 4), (4, 20), (20, 64), (64, 100))
    ]
    assert tuple(map(sum, zip(*pieces, strict=True))) == cost.between(0, 100)


def test_a_run_says_what_it_costs(tmp_path):
    settings = make_settings(tmp_path, "ours_wd_lr_m")
    assert execute(settings).run.costs == {
        "weight_updates": 50,
        "gradients": 55,
        "hessian_products": 20,
    }
    counted = work(trainer(tmp_path, "ours_wd_lr_m", batch_size=7))
    assert counted == work(replace(trainer(tmp_path, "ours_wd_lr_m")))
