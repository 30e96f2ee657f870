"""Rules against the libraries that people take them from, and their rows against single runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.rule import Rule
from hpo_bench.core.schedules import Schedule, WarmupCosine, factors
from hpo_bench.core.tree import leaves
from hpo_bench.core.update import State
from hpo_bench.rules.adam import AdamW
from hpo_bench.rules.dog import DoG
from hpo_bench.rules.hypergradient_adam import HypergradientAdam
from hpo_bench.rules.mechanic import Mechanic
from hpo_bench.rules.momo import MoMo
from hpo_bench.rules.nadam import NAdamW
from hpo_bench.rules.prodigy import Prodigy
from hpo_bench.rules.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from hpo_bench.running.checkpoint import packed, unpacked
from hpo_bench.running.execute import execute
from hpo_bench.settings.run import Method
from hpo_bench.store.runs import read_table
from tests.problems import in_force, make_raw, make_settings, random_quadratic

RULES: dict[str, Rule] = {
    "adam": AdamW(),
    "schedule_free_sgd": ScheduleFreeSGD(),
    "schedule_free_adamw": ScheduleFreeAdamW(),
    "prodigy": Prodigy(),
    "nadamw": NAdamW(),
    "dog": DoG(),
    "momo": MoMo(),
    "mechanic": Mechanic(),
    "hypergradient_adam": HypergradientAdam(hypergradient_lr=1e-3, eps=1e-30),
}
STEPS = 100
# These begin some 1e-6 from where they started and divide by that distance: six digits of rounding
# more.
FROM_NEARBY = ("prodigy", "dog", "mechanic")
TOLERANCE = {name: 1e-9 if name in FROM_NEARBY else 1e-11 for name in RULES}
OWN_RATE = (
    "prodigy",
    "dog",
    "momo",
    "mechanic",
)  # their learning rate and momentum are not those drawn


def values(rule: Rule, raw: dict[str, Tensor]) -> Hyperparameters:
    """What is in force of the paper's raw values; β₁ takes the momentum's, β₂ is 0.999."""
    known = {**raw, "beta1": raw["momentum"]}
    known["beta2"] = torch.full_like(raw["momentum"], rule_logit(0.999))
    chosen = {name: known[name] for name in rule.coordinates}
    return Hyperparameters.of(chosen, rule.coordinates)


def rule_logit(natural: float) -> float:
    """The raw value of a share."""
    return float(torch.logit(torch.tensor(natural, dtype=torch.float64)))


def walk(
    rule: Rule,
    training: Any,
    weights: Tensor,
    raw: dict[str, Tensor],
    steps: int = STEPS,
    clip: float | None = None,
    schedule: Schedule | None = None,
) -> list[State]:
    """The states before each update and after the last."""
    hyper = values(rule, raw)
    table = None if schedule is None else factors(schedule, steps, weights)
    states = [State(weights, rule.init(weights))]
    for number in range(steps):
        present = hyper if table is None else hyper.scheduled(table.at(number))
        after, step = rule.advance(states[-1], training(states[-1].weights), present, clip)
        assert (step is not None) == rule.differentiable
        states.append(after)
    return states


@contextmanager
def float64() -> Iterator[None]:
    """Libraries that make tensors of their own make them of float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass
class Library:
    """One row trained by a library: weights where the gradient is taken, and those that count.

    Args:
        averages: the optimiser shows its average in its mode for evaluation.
        averager: shows an average of its own.
        takes_loss: the optimiser wants to know the loss.
    """

    optimiser: Any
    parameters: list[torch.nn.Parameter]
    averages: bool = False
    averager: Any = None
    takes_loss: bool = False

    def run(
        self,
        training: Any,
        weights: Tensor,
        row: int,
        clip: float | None,
        schedule: Schedule | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The weights after each update, and those that count."""
        rates = [group["lr"] for group in self.optimiser.param_groups]
        at, counted = [], []
        for number in range(STEPS):
            if schedule is not None:
                for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * schedule.factor(number, STEPS)
            stacked = weights.clone()
            stacked[row] = self._flat(self.parameters)
            found = training(stacked)
            sizes = [part.numel() for part in self.parameters]
            for part, own in zip(self.parameters, found.gradient[row].split(sizes), strict=True):
                part.grad = own.clone()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters, clip)
            self.optimiser.step(**({"loss": found.loss[row]} if self.takes_loss else {}))
            at.append(self._flat(self.parameters))
            counted.append(self._counted())
        return at, counted

    def _counted(self) -> Tensor:
        if self.averager is not None:
            self.averager.step()
            return self._flat(list(self.averager.averaged_model))
        if not self.averages:
            return self._flat(self.parameters)
        self.optimiser.eval()
        average = self._flat(self.parameters)
        self.optimiser.train()
        return average

    @staticmethod
    def _flat(parts: list[torch.nn.Parameter]) -> Tensor:
        return torch.cat([part.detach() for part in parts]).clone()


def needed(module: str, package: str) -> Any:
    """A library that is installed with the package's extra for development."""
    pytest.importorskip(module, reason=f"{package} is not installed: pip install -e .[dev]")
    return import_module(module)


def repeating(training: Any, states: list[State]) -> Any:
    """The losses that were met on the way, one at each call, wherever they are asked for.

    So a difference of rounding is not blown up by the training: some of these rules bounce around
    the minimum."""
    found = iter([training(state.weights) for state in states])
    return lambda weights: next(found)


def library(name: str, weights: Tensor, hyper: Hyperparameters, row: int) -> Library:
    """The library's optimiser for one row, its weights in two parameters."""
    lr, decay, beta = (hyper[key][row].item() for key in ("lr", "weight_decay", "momentum"))
    parts = [
        torch.nn.Parameter(part.clone()) for part in weights[row].split([1, weights.shape[1] - 1])
    ]
    if name == "adam":
        return Library(torch.optim.AdamW(parts, lr, (beta, 0.999), weight_decay=decay), parts)
    if name == "nadamw":
        optimiser = torch.optim.NAdam(
            parts, lr, (beta, 0.999), weight_decay=decay, decoupled_weight_decay=True
        )
        return Library(optimiser, parts)
    if name == "prodigy":
        return Library(needed("prodigyopt", "prodigyopt").Prodigy(parts, weight_decay=decay), parts)
    if name == "dog":
        dog, together = needed("dog", "dog-optimizer"), torch.nn.ParameterList(parts)
        averager = dog.PolynomialDecayAverager(together)
        return Library(dog.DoG(parts, weight_decay=decay), parts, averager=averager)
    if name == "momo":
        return Library(
            needed("momo", "momo-opt").Momo(parts, weight_decay=decay), parts, takes_loss=True
        )
    if name == "mechanic":
        mechanized = needed("mechanic_pytorch", "mechanic-pytorch").mechanize(
            torch.optim.SGD, store_delta=True
        )
        return Library(mechanized(parts, lr=1.0, momentum=0.9, weight_decay=decay), parts)
    schedulefree = needed("schedulefree", "schedulefree")
    if name == "schedule_free_sgd":
        optimiser = schedulefree.SGDScheduleFree(parts, lr, beta, decay)
    else:
        optimiser = schedulefree.AdamWScheduleFree(parts, lr, (beta, 0.999), weight_decay=decay)
    optimiser.train()
    return Library(optimiser, parts, averages=True)


@pytest.mark.parametrize("schedule", [None, WarmupCosine(warmup=0.1)])
@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("name", [name for name in RULES if name != "hypergradient_adam"])
def test_a_row_follows_the_library(
    name: str, clip: float | None, schedule: Schedule | None
) -> None:
    training, _, weights = random_quadratic()
    raw = make_raw()
    states = walk(RULES[name], training, weights, raw, clip=clip, schedule=schedule)
    for row in range(len(weights)):
        with float64():
            theirs = library(name, weights, in_force(raw), row)
            at, counted = theirs.run(repeating(training, states), weights, row, clip, schedule)
        close = {"rtol": TOLERANCE[name], "atol": TOLERANCE[name]}
        for step, state in enumerate(states[1:]):
            torch.testing.assert_close(state.weights[row], at[step], **close)
            torch.testing.assert_close(RULES[name].evaluated(state)[row], counted[step], **close)
        assert (at[-1] - weights[row]).abs().max() > 1e-3, "it was to move"


@pytest.mark.filterwarnings("ignore:Using backward")
def test_hypergradient_adam_follows_the_library() -> None:
    """The library differentiates by autograd; its loss has the weight decay as a penalty."""
    name = "gradient_descent_the_ultimate_optimizer"
    gdtuo = needed(f"{name}.gdtuo", name.replace("_", "-"))
    training, _, weights = random_quadratic()
    raw = make_raw()
    hyper, rule = in_force(raw), RULES["hypergradient_adam"]
    states = walk(rule, training, weights, raw)
    rates = [rule.in_force(state, hyper)["lr"] for state in states]
    for row in range(len(weights)):
        lr, decay, beta = (hyper[key][row].item() for key in ("lr", "weight_decay", "momentum"))
        with float64():
            descent = gdtuo.SGD(rule.hypergradient_lr)
            adam = gdtuo.AdamBaydin(lr, beta, log_eps=-30.0, optimizer=descent)
            held = gdtuo.Optimizable({"w": weights[row].clone()}, adam)
            for state, rate in zip(states[1:], rates[1:], strict=True):
                held.begin()
                stacked = [
                    weights[other] if other != row else held.parameters["w"]
                    for other in range(len(weights))
                ]
                loss = training(torch.stack(stacked)).loss[row]
                held.zero_grad()
                (loss + 0.5 * decay * (held.parameters["w"] ** 2).sum()).backward(create_graph=True)
                adam.step(held.parameters)
                torch.testing.assert_close(
                    state.weights[row], held.parameters["w"].detach(), rtol=1e-8, atol=1e-8
                )
                assert rate[row].item() == pytest.approx(adam.parameters["alpha"].item(), rel=1e-8)
        assert abs(rates[-1][row].item() / lr - 1) > 0.01, "the learning rate was to move"


def test_prodigys_step_size_is_the_librarys_and_is_what_the_curves_show() -> None:
    training, _, weights = random_quadratic()
    raw = make_raw()
    states = walk(RULES["prodigy"], training, weights, raw)
    hyper = in_force(raw)
    shown = RULES["prodigy"].in_force(states[-1], hyper)
    for row in range(len(weights)):
        reference = library("prodigy", weights, hyper, row)
        reference.run(training, weights, row, None)
        assert shown["lr"][row].item() == pytest.approx(
            reference.optimiser.param_groups[0]["d"], rel=1e-9
        )
        assert shown["lr"][row] > 1e-4  # d₀ is 1e-6
    assert (shown["momentum"] == 0.9).all()
    assert torch.equal(shown["weight_decay"], hyper["weight_decay"])


@pytest.mark.parametrize("name", OWN_RATE)
def test_a_rule_with_its_own_rate_ignores_the_drawn_learning_rate_and_momentum(name: str) -> None:
    training, _, weights = random_quadratic()
    raw = make_raw()
    other = {**raw, "lr": raw["lr"] + 1, "momentum": raw["momentum"] - 1}
    ours, theirs = (walk(RULES[name], training, weights, each)[-1].weights for each in (raw, other))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", OWN_RATE)
def test_what_the_curves_show_is_the_rate_that_the_last_update_had(name: str) -> None:
    training, _, weights = random_quadratic()
    raw = {**make_raw(), "weight_decay": torch.full((3, 1), -torch.inf, dtype=torch.float64)}
    before, after = walk(RULES[name], training, weights, raw, 2)[-2:]
    shown = RULES[name].in_force(after, in_force(raw))
    if name == "prodigy":
        return  # see the test above
    if name == "mechanic":
        expected = (after.weights - weights) / after.buffer.way
    elif name == "momo":
        expected = (before.weights - after.weights) / after.buffer.gradient
    else:
        expected = (before.weights - after.weights) / training(before.weights).gradient
    torch.testing.assert_close(shown["lr"].expand_as(expected), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", OWN_RATE)
def test_a_flat_loss_moves_no_row(name: str) -> None:
    raw = {**make_raw(), "weight_decay": torch.full((3, 1), -torch.inf, dtype=torch.float64)}
    flat = in_force(raw)
    rule, (training, _, weights) = RULES[name], random_quadratic()
    linearisation = training(weights)
    linearisation.gradient[1] = 0
    state, _ = rule.advance(State(weights, rule.init(weights)), linearisation, flat, None)
    assert torch.equal(state.weights[1], weights[1])
    assert all(torch.isfinite(leaf).all() for leaf in leaves(state.buffer))


def test_prodigy_waits_for_a_gradient_row_by_row() -> None:
    flat = in_force(make_raw())
    rule, (training, _, weights) = RULES["prodigy"], random_quadratic()
    linearisation = training(weights)
    linearisation.gradient[1] = 0
    state, _ = rule.advance(State(weights, rule.init(weights)), linearisation, flat, None)
    assert torch.equal(state.weights[1], weights[1])
    assert (state.weights[[0, 2]] != weights[[0, 2]]).all()
    assert all(torch.isfinite(leaf).all() for leaf in leaves(state.buffer))


@pytest.mark.parametrize("name", RULES)
def test_a_row_is_a_single_run_and_does_not_see_a_diverging_one(name: str) -> None:
    training, _, weights = random_quadratic()
    raw = make_raw()
    whole = walk(RULES[name], training, weights, raw)[-1]
    spoilt = weights.clone()
    spoilt[1] = torch.nan
    beside = walk(RULES[name], training, spoilt, raw)[-1]
    assert torch.isnan(beside.weights[1]).all()
    for row in (0, 2):
        for ours, theirs in zip(leaves(whole), leaves(beside), strict=True):
            assert torch.equal(ours[row], theirs[row])
    single = random_quadratic()[2]
    for row in range(3):

        def alone(own: Tensor, row: int = row) -> Any:
            stacked = single.clone()
            stacked[row] = own[0]
            made = training(stacked)
            return type(made)(made.loss[[row]], made.gradient[[row]], made.hessian_product)

        one = walk(
            RULES[name], alone, weights[[row]], {key: value[[row]] for key, value in raw.items()}
        )[-1]
        assert torch.equal(one.weights[0], whole.weights[row])


@pytest.mark.parametrize("name", [name for name in RULES if name not in OWN_RATE])
def test_momentum_may_be_zero(name: str) -> None:
    training, _, weights = random_quadratic()
    raw = {**make_raw(), "momentum": torch.full((3, 1), -torch.inf, dtype=torch.float64)}
    state = walk(RULES[name], training, weights, raw)[-1]
    assert torch.isfinite(RULES[name].evaluated(state)).all()


@pytest.mark.parametrize("name", RULES)
def test_what_a_rule_carries_has_rows_first_and_goes_through_a_checkpoint(name: str) -> None:
    training, _, weights = random_quadratic()
    *_, state = walk(RULES[name], training, weights, make_raw(), 5)
    assert fields(state.buffer)
    assert all(leaf.shape[0] == len(weights) for leaf in leaves(state.buffer))
    back = unpacked(State(weights, RULES[name].init(weights)), packed(state, "state"), "state")
    assert all(torch.equal(a, b) for a, b in zip(leaves(back), leaves(state), strict=True))
    assert type(back.buffer) is type(state.buffer)


# --- as methods ---


def method(name: str) -> Method:
    return Method(name, None, None, (), (), "train_and_validation", rule=RULES[name])


@pytest.mark.parametrize("name", RULES)
def test_stored_numbers_are_those_of_the_weights_that_count(name: str, tmp_path: Any) -> None:
    settings = make_settings(tmp_path, method(name), save_weights=True, hyperparameter_updates=8)
    run = execute(settings).run
    final = read_table(run, "final")
    assert (final.status == "ok").all()
    assert final.validation_loss.isna().all()
    table = settings.source.load(0.25)
    inputs, targets = (
        torch.from_numpy(array[-table.test :]) for array in (table.inputs, table.targets)
    )
    with np.load(run.path / "final_weights.npz") as archive:
        parts = {key: torch.from_numpy(archive[key]) for key in archive.files}
    hidden = torch.relu(
        inputs @ parts["wT/layers.0.weight"].mT + parts["wT/layers.0.bias"][:, None]
    )
    outputs = hidden @ parts["wT/layers.2.weight"].mT + parts["wT/layers.2.bias"][:, None]
    losses = ((outputs - targets) ** 2).mean((1, 2))
    np.testing.assert_allclose(final.test_loss, losses, rtol=1e-10)


def test_a_training_with_a_rule_goes_on_from_a_checkpoint(tmp_path: Any) -> None:
    from hpo_bench.core.loop import train
    from hpo_bench.running.trainer import Trainer, pick_device

    settings = make_settings(tmp_path, method("schedule_free_adamw"))
    trainer = Trainer.of(settings, settings.source.load(0.25), pick_device("cpu"))
    problem, first, seeds = trainer.problem([0, 1]), trainer.start([0, 1]), 2
    whole = train(problem, trainer.plan, first, trainer.recorder(seeds))
    recorder = trainer.recorder(seeds)
    half = train(problem, trainer.plan, first, recorder, until=20)
    back = unpacked(half, packed(half, "snapshot"), "snapshot")
    end = train(problem, trainer.plan, first, recorder, snapshot=back)
    assert all(
        torch.equal(a, b) for a, b in zip(leaves(end.state), leaves(whole.state), strict=True)
    )


def test_prodigys_curves_show_its_step_size(tmp_path: Any) -> None:
    run = execute(make_settings(tmp_path, method("prodigy"))).run
    curves = read_table(run, "curves")
    assert curves[curves.step == 0].lr.to_numpy() == pytest.approx(1e-6)
    assert curves.groupby("seed").lr.is_monotonic_increasing.all()
    assert curves.lr.max() > 1e-4
    assert (curves.momentum == 0.9).all()
    final = read_table(run, "final")
    assert final.weight_decay.to_numpy() == pytest.approx(final.initial_weight_decay)
