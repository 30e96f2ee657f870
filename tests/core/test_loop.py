"""The training loop: the paper's Algorithm 1, where it may stop, and what it carries on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hpo_bench.core import tree
from hpo_bench.core.loop import Plan, Snapshot, train
from hpo_bench.core.recorder import NoRecord, Record
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.hypergradients.dot_product import DotProduct
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.rules.adam import AdamW
from hpo_bench.running.trainer import Trainer
from tests.problems import make_method, make_settings, make_table

CPU = torch.device("cpu")


def plan_of(estimator: object, interval: int = 5, updates: int = 20) -> Plan:
    """A plan of which only the numbers of its updates matter."""
    return Plan(estimator, None, ("lr",), interval, updates, None)  # type: ignore[arg-type]


def trainer_of(folder: Path, estimator: object, rule: object = None) -> Trainer:
    """A trainer of a small network, ten updates between hyperparameter updates."""
    method = make_method("ours_wd_lr_m")
    names = ("lr", "weight_decay") if rule is not None else method.tuned
    method = replace(method, estimator=estimator, rule=rule, tuned=names)
    table = make_table()
    return Trainer.of(make_settings(folder, method, table, hyperparameter_updates=4), table, CPU)


def trained(trainer: Trainer, record: Record, **options: object) -> Snapshot:
    """The end of a training of three repetitions."""
    seeds = [0, 1, 2]
    problem, start = trainer.problem(seeds), trainer.start(seeds)
    return train(problem, trainer.plan, start, record, **options)  # type: ignore[arg-type]


def test_which_updates_are_differentiated_and_which_are_followed() -> None:
    series, whole, each = plan_of(Neumann(7)), plan_of(Unroll(3)), plan_of(DotProduct())
    assert [number for number in range(10) if series.differentiates(number)] == [4, 9]
    assert [number for number in range(10) if whole.differentiates(number)] == [2, 3, 4, 7, 8, 9]
    assert [number for number in range(10) if whole.tunes_after(number)] == [4, 9]
    assert all(each.tunes_after(number) and each.differentiates(number) for number in range(10))
    nothing = plan_of(None)
    assert not any(nothing.differentiates(n) or nothing.tunes_after(n) for n in range(10))


def test_a_horizon_that_does_not_end_differentiates_every_update() -> None:
    endless = plan_of(Forward(discount=0.9))
    assert all(endless.differentiates(number) for number in range(20))
    assert [number for number in range(20) if endless.tunes_after(number)] == [4, 9, 14, 19]


def test_weights_are_put_back_after_every_hyperparameter_update_but_the_last() -> None:
    resets = replace(plan_of(Unroll(5)), reset_weights=True)
    assert [number for number in (4, 9, 14, 19) if resets.resets_after(number)] == [4, 9, 14]


@pytest.mark.parametrize(
    ("estimator", "rule"),
    [
        (Neumann(3), None),
        (Unroll(4), None),
        (Forward(4), None),
        (Forward(discount=0.9), None),
        (Forward(discount=0.9, cap=0.5), None),
        (Neumann(3), AdamW()),
        (Forward(discount=0.9), AdamW()),
        (Unroll(4), MomentumSGD(nesterov=True)),
    ],
    ids=str,
)
def test_a_training_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, estimator: object, rule: object
) -> None:
    trainer = trainer_of(tmp_path, estimator, rule)
    whole = trained(trainer, NoRecord())
    half = trained(trainer, NoRecord(), until=2 * trainer.plan.update_interval)
    joined = trained(trainer, NoRecord(), snapshot=half)
    pairs = zip(tree.leaves(whole), tree.leaves(joined), strict=True)
    for one, other in pairs:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_tangents_that_are_not_finite_begin_anew_and_leave_other_rows_alone(
    tmp_path: Path,
) -> None:
    trainer = trainer_of(tmp_path, Forward(discount=1.0))
    half = trained(trainer, NoRecord(), until=trainer.plan.update_interval)
    spoiled = tree.change(half.window, lambda leaf: leaf.clone())
    spoiled.weights[:, 1] = torch.nan
    after = trained(trainer, NoRecord(), snapshot=replace(half, window=spoiled))
    whole = trained(trainer, NoRecord())
    assert bool(after.window.weights.isfinite().all())
    for row in (0, 2):
        assert torch.equal(after.state.weights[row], whole.state.weights[row])
        assert torch.equal(after.window.weights[:, row], whole.window.weights[:, row])


def test_a_cap_bounds_the_tangents(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, Forward(discount=1.0, cap=1e-3))
    end = trained(trainer, NoRecord())
    lengths = torch.linalg.vector_norm(end.window.weights, dim=-1)
    weights = torch.linalg.vector_norm(end.state.weights, dim=-1)
    assert bool((lengths <= 1.1e-3 * weights).all()), "by the norm before the last update"


def test_carried_tangents_are_the_derivative_of_the_whole_training(tmp_path: Path) -> None:
    """With a hyperparameter step of zero, discount 1 is full forward differentiation."""
    trainer = trainer_of(tmp_path, Forward())
    still = replace(trainer.plan, optimiser=type(trainer.plan.optimiser)(0.0, (0.9, 0.999)))
    seeds = [0, 1, 2]
    problem, start = trainer.problem(seeds), trainer.start(seeds)
    end = train(problem, still, start, NoRecord())

    def weights(change: float) -> torch.Tensor:
        raw = {**start.raw, "lr": start.raw["lr"] + change}
        return train(problem, still, replace(start, raw=raw), NoRecord()).state.weights

    nudge = 1e-5
    difference = (weights(nudge) - weights(-nudge)) / (2 * nudge)
    place = trainer.plan.tuned.index("lr")
    torch.testing.assert_close(end.window.weights[place], difference, rtol=1e-4, atol=1e-8)
