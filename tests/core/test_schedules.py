"""Schedules of the learning rate: against PyTorch's, and as a part of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hpo_bench.core.loop import Eager, train
from hpo_bench.core.schedules import Constant, Linear, Schedule, WarmupCosine, factors
from hpo_bench.core.tree import leaves
from hpo_bench.errors import UserError
from hpo_bench.rules.adam import AdamW
from hpo_bench.running import graphs
from hpo_bench.running.checkpoint import packed, unpacked
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer, pick_device
from hpo_bench.store.runs import read_table
from tests.problems import in_force, make_method, make_settings, make_table, trained
from tests.running.test_graphs import replays, same

UPDATES = 100
SCHEDULES: dict[str, Schedule] = {
    "cosine": WarmupCosine(warmup=0.0),
    "warmup_cosine": WarmupCosine(warmup=0.1, final=0.2),
    "linear": Linear(),
    "warmup_linear": Linear(warmup=0.07, final=0.5),
}


def pytorch(name: str, optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """The same schedule, made of PyTorch's."""
    schedule: Any = SCHEDULES[name]
    rising, scheduler = round(schedule.warmup * UPDATES), torch.optim.lr_scheduler
    rate, falling = optimiser.param_groups[0]["lr"], UPDATES - rising
    if isinstance(schedule, WarmupCosine):
        fall: Any = scheduler.CosineAnnealingLR(optimiser, falling, eta_min=schedule.final * rate)
    else:
        fall = scheduler.LinearLR(optimiser, 1.0, schedule.final, falling)
    if rising == 0:
        return fall
    rise = scheduler.LinearLR(optimiser, 1 / rising, 1.0, rising - 1)
    return scheduler.SequentialLR(optimiser, [rise, fall], [rising])


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_training_follows_sgd_with_pytorchs_scheduler(name: str, tmp_path: Path) -> None:
    """Weights and the recorded learning rate of each update, row by row."""
    table = make_table()
    method = make_method("random", schedule=SCHEDULES[name])
    settings = make_settings(tmp_path, method, table, hyperparameter_updates=UPDATES // 10)
    trainer = Trainer.of(settings, table, pick_device("cpu"))
    seeds = list(settings.seeds)
    start, recorder = trainer.start(seeds), trainer.recorder(len(seeds))
    end = train(trainer.problem(seeds), trainer.plan, start, recorder)
    natural = in_force(start.raw).natural
    for row in range(len(seeds)):
        weights = torch.nn.Parameter(start.weights[row].clone())
        lr, decay, momentum = (
            natural[key][row].item() for key in ("lr", "weight_decay", "momentum")
        )
        optimiser = torch.optim.SGD([weights], lr, momentum, weight_decay=decay)
        scheduler, rates = pytorch(name, optimiser), []
        for number in range(UPDATES):
            rates.append(optimiser.param_groups[0]["lr"])
            weights.grad = gradient(trainer, weights.detach(), seeds, row, number)
            optimiser.step()
            scheduler.step()
        torch.testing.assert_close(end.state.weights[row], weights.detach(), rtol=1e-8, atol=1e-8)
        recorded = recorder.curves()["lr"][:, row]
        np.testing.assert_allclose(recorded[:-1], rates, rtol=1e-12)
        assert recorded[-1] == recorded[-2], "no update follows the last one"


def gradient(trainer: Trainer, weights: Tensor, seeds: list[int], row: int, number: int) -> Tensor:
    """Of one row's training loss, (P,)."""
    stacked = trainer.start(seeds).weights.clone()
    stacked[row] = weights
    problem = trainer.problem(seeds)
    return trainer.model.linearise(stacked, problem.training.batch(number), {}, False).gradient[row]


def test_the_table_of_factors_is_the_schedule() -> None:
    schedule = WarmupCosine(warmup=0.1)
    table = factors(schedule, 30, torch.empty(0, dtype=torch.float64))
    assert [float(table.at(number)) for number in range(30)] == [
        schedule.factor(n, 30) for n in range(30)
    ]
    assert float(table.at(30)) == float(table.at(29))
    assert [schedule.factor(number, 30) for number in range(4)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 1]
    )
    assert all(schedule.factor(number, 30) > 0 for number in range(30))


@pytest.mark.parametrize("schedule", [WarmupCosine(warmup=1.0), Linear(warmup=1.0)])
def test_a_training_may_be_all_warm_up(schedule: Schedule) -> None:
    assert [schedule.factor(number, 4) for number in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("kind", [WarmupCosine, Linear])
@pytest.mark.parametrize(
    "setting", [{"warmup": 1.1}, {"warmup": -0.1}, {"final": 2}, {"final": "a"}]
)
def test_shares_and_factors_have_ranges(kind: type, setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        kind(**setting)


def test_a_constant_schedule_moves_no_bit(tmp_path: Path) -> None:
    plain, record, _ = trained(make_settings(tmp_path, "random"), graphs.of)
    method = make_method("random", schedule=Constant())
    scheduled, other, (engine,) = trained(make_settings(tmp_path, method), graphs.of)
    assert isinstance(engine, Eager)
    assert torch.equal(plain.state.weights, scheduled.state.weights)
    same(record.curves(), other.curves())


@pytest.mark.parametrize(
    "name", ["random", "random_lr_schedule", "ours_wd_lr_m", "baydin", "diff_through_opt"]
)
def test_every_way_of_making_updates_has_the_same_factors(name: str, tmp_path: Path) -> None:
    """Replays, a training that is interrupted, and one whose end is put off, as searches do."""
    method = make_method(name, schedule=WarmupCosine(warmup=0.2))
    settings = make_settings(
        tmp_path, method, batch_size=7, hyperparameter_updates=12, save_hypergradients=True
    )
    end, record, _ = trained(settings)
    replayed, written, (engine,) = trained(settings, replays)
    assert engine._programs
    assert torch.equal(replayed.state.weights, end.state.weights)
    same(record.curves(), written.curves())
    same(record.hypergradients(), written.hypergradients())

    half, _, _ = trained(settings, until=50)
    after, _, _ = trained(settings, snapshot=unpacked(half, packed(half, "snapshot"), "snapshot"))
    for ours, theirs in zip(leaves(after), leaves(end), strict=True):
        assert ours is theirs or np.array_equal(ours, theirs)


def test_fused_updates_are_not_taken_up_under_a_schedule(tmp_path: Path) -> None:
    """The kernels have one learning rate for all updates of a call."""
    scheduled = make_settings(
        tmp_path, make_method("random", schedule=Linear()), precision="float32"
    )
    _, _, (engine,) = trained(scheduled, graphs.of)
    assert isinstance(engine, Eager)


def test_a_hypergradient_under_a_schedule_is_the_derivative(tmp_path: Path) -> None:
    """Of the loss after the last update with respect to raw lr, by finite differences of whole
    trainings.
    """
    method = make_method(
        "diff_through_opt", look_back=4, schedule=Linear(warmup=0.5), tuned=("lr",)
    )
    changes = {
        "update_interval": 4,
        "look_back": 4,
        "hyperparameter_updates": 1,
        "save_hypergradients": True,
    }
    settings = make_settings(tmp_path, method, **changes)
    trainer = Trainer.of(settings, make_table(), pick_device("cpu"))
    seeds = list(settings.seeds)
    start, recorder = trainer.start(seeds), trainer.recorder(len(seeds))
    train(trainer.problem(seeds), trainer.plan, start, recorder)

    def loss(change: float) -> Tensor:
        raw = {**start.raw, "lr": start.raw["lr"] + change}
        moved = type(start)(start.weights, raw, None)
        end = train(trainer.problem(seeds), trainer.plan, moved, trainer.recorder(len(seeds)))
        batch = trainer.problem(seeds).second
        assert batch is not None
        return trainer.model.loss(end.state.weights, batch.batch(3), {})[0]

    expected = (loss(1e-5) - loss(-1e-5)) / 2e-5
    np.testing.assert_allclose(recorder.hypergradients()["lr"][0, 0], expected, rtol=1e-6)


def test_a_schedule_reaches_every_rule_and_the_stored_curves(tmp_path: Path) -> None:
    method = make_method("random", schedule=WarmupCosine(), rule=AdamW())
    run = execute(make_settings(tmp_path, method)).run
    curves, final = read_table(run, "curves"), read_table(run, "final")
    one = curves[curves.seed == 0].set_index("step").lr
    drawn = final.set_index("seed").initial_lr[0]
    expected = [WarmupCosine().factor(min(step, 49), 50) * drawn for step in range(51)]
    np.testing.assert_allclose(one, expected, rtol=1e-12)
    assert final.set_index("seed").lr[0] == one[50]
