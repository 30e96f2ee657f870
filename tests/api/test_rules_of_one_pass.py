"""`OnePass` with weight updates other than the paper's, and with a horizon that does not end."""

from __future__ import annotations

import inspect
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from hpo_bench import OnePass
from hpo_bench.core import tree
from hpo_bench.core.hyperparameters import LOG10, Coordinate, Hyperparameters
from hpo_bench.core.pure import PureRule
from hpo_bench.core.rule import Rule
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.core.update import Linearisation, State
from hpo_bench.errors import UserError
from hpo_bench.hypergradients.dot_product import DotProduct
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.ultimate import Ultimate
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.models.live import LiveModules
from hpo_bench.rules.adam import AdamW
from hpo_bench.rules.dog import DoG
from hpo_bench.rules.rmsprop import RMSprop

ROOT = Path(__file__).resolve().parents[2]
Batch = tuple[Tensor, Tensor]
BATCH_SIZE = 8
RULES: dict[str, Rule] = {
    "sgd": MomentumSGD(),
    "nesterov": MomentumSGD(nesterov=True, dampening=0.1),
    "adamw": AdamW(),
    "rmsprop": RMSprop(),
}
ESTIMATORS = {
    "neumann": Neumann(3),
    "unroll": Unroll(3),
    "forward": Forward(3),
    "carried": Forward(discount=0.9),
}

each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


def net(seed: int = 0) -> nn.Sequential:
    """A small net with a norm, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 1)]
        return nn.Sequential(*layers).double()


def batch(number: int) -> Batch:
    random = torch.Generator().manual_seed(number)
    inputs = torch.randn(BATCH_SIZE, 3, generator=random, dtype=torch.float64)
    return inputs, inputs.square().sum(1, keepdim=True)


def mean_squared(model: Any, rows: Batch) -> Tensor:
    return functional.mse_loss(model(rows[0]), rows[1])


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, value), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-12, msg=name)


# --- the updates are those of torch ---


def is_plain(name: str, parameter: Tensor) -> bool:
    """What usually has no weight decay."""
    return parameter.ndim < 2


UNDECAYED: dict[str, Any] = {
    "every weight decays": (),
    "names": ("0.bias", "1.weight", "1.bias", "3.bias"),
    "patterns": ("bias", "1.*"),
    "function": is_plain,
}


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("no_decay", UNDECAYED.values(), ids=UNDECAYED)
def test_adamw_is_that_of_torch_with_clipping_groups_and_a_schedule(
    no_decay: Any, clip: float | None
) -> None:
    ours, theirs = net(), net()
    tuner = OnePass(
        ours, mean_squared, rule=AdamW(), lr=3e-2, beta1=0.85, weight_decay=0.1,
        no_decay=no_decay, gradient_clip_norm=clip, every=1000,
    )  # fmt: skip
    plain = [value for value in theirs.parameters() if value.ndim < 2 and no_decay]
    others = [value for value in theirs.parameters() if value.ndim >= 2 or not no_decay]
    groups = [{"params": others}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=3e-2, betas=(0.85, 0.999), weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda number: 1 / (1 + number / 20))
    for number in range(100):
        factor = scheduler.get_last_lr()[0] / 3e-2
        value = tuner.step(batch(number), lr_factor=factor)
        optimiser.zero_grad()
        loss = mean_squared(theirs, batch(number))
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        optimiser.step()
        scheduler.step()
        torch.testing.assert_close(value, loss.detach(), rtol=1e-9, atol=1e-12)
    assert_same(ours, theirs)
    assert tuner.hyperparameters == pytest.approx(
        {"lr": 3e-2, "weight_decay": 0.1, "beta1": 0.85, "beta2": 0.999}, rel=1e-12
    )


def test_adamw_starts_where_that_of_torch_does() -> None:
    ours, theirs = net(), net()
    tuner = OnePass(ours, mean_squared, rule=AdamW(), lr=1e-3, every=1000)
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=1e-3)
    for number in range(20):
        tuner.step(batch(number))
        optimiser.zero_grad()
        mean_squared(theirs, batch(number)).backward()
        optimiser.step()
    assert_same(ours, theirs)


def test_layers_that_rest_have_counts_of_their_own_as_in_torch() -> None:
    """Adam's bias correction is that of each parameter's own updates."""
    ours, theirs = net(), net()
    tuner = OnePass(ours, mean_squared, rule=AdamW(), lr=1e-2, every=1000)
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    ours[0].requires_grad_(False)
    theirs[0].requires_grad_(False)
    for number in range(30):
        if number in (10, 20):
            for module in (ours, theirs):
                module[0].requires_grad_(True)
                module[3].requires_grad_(number == 20)
        if number == 15:
            saved = tuner.state_dict()
            tuner = OnePass(ours, mean_squared, rule=AdamW(), lr=1e-2, every=1000)
            tuner.load_state_dict(saved)
        tuner.step(batch(number))
        optimiser.zero_grad()
        mean_squared(theirs, batch(number)).backward()
        optimiser.step()
    assert_same(ours, theirs)


# --- the hypergradients are derivatives ---


def flat(module: nn.Module) -> Tensor:
    return torch.cat([value.detach().reshape(-1) for value in module.parameters()])


def loss_of(module: nn.Module, weights: Tensor, rows: Batch) -> Tensor:
    """The loss at flat weights (P,), by torch's own way to call a module with other parameters."""
    values, begin = {}, 0
    for name, value in module.named_parameters():
        values[name] = weights[begin : begin + value.numel()].view_as(value)
        begin += value.numel()
    return functional.mse_loss(functional_call(module, values, (rows[0],)), rows[1])


def by_autograd(
    rule: Rule,
    module: nn.Module,
    natural: Mapping[str, float],
    decays: Tensor,
    factors: list[float],
) -> dict[str, Tensor]:
    """d(validation loss)/d raw through a training of one update for each factor."""
    spaces = {name: coordinate.space for name, coordinate in rule.coordinates.items()}
    raw = {
        name: torch.tensor([[spaces[name].raw(value)]], dtype=torch.float64, requires_grad=True)
        for name, value in natural.items()
    }
    state = State(flat(module).unsqueeze(0), rule.init(flat(module).unsqueeze(0)))
    for number, factor in enumerate(factors):
        hyper = Hyperparameters.of(raw, rule.coordinates)
        acting = {
            **hyper.natural,
            "lr": hyper["lr"] * factor,
            "weight_decay": hyper["weight_decay"] * decays,
        }
        hyper = Hyperparameters(raw, acting, rule.coordinates)

        def gradient_at(weights: Tensor, number: int = number) -> Tensor:
            value = loss_of(module, weights[0], batch(number))
            return torch.autograd.grad(value, weights, create_graph=True)[0]

        weights = state.weights if number else state.weights.requires_grad_()
        gradient = gradient_at(weights)
        linearisation = Linearisation(gradient, gradient, _no_product)
        state, _ = rule.advance(State(weights, state.buffer), linearisation, hyper, 0.7)
    final = loss_of(module, state.weights[0], batch(1000))
    found = torch.autograd.grad(final, list(raw.values()))
    return {name: value.squeeze() for name, value in zip(raw, found, strict=True)}


def _no_product(vector: Tensor) -> Tensor:
    raise AssertionError("the gradient has a graph of its own")


@pytest.mark.parametrize("no_decay", [(), ("bias", "1.*")])
@each_rule
def test_hypergradients_are_what_autograd_says_of_the_whole_training(
    rule: Rule, no_decay: Any
) -> None:
    updates = 4
    natural = {"lr": 0.02, "weight_decay": 0.3, "momentum": 0.7, "beta1": 0.7, "beta2": 0.9,
               "alpha": 0.8}  # fmt: skip
    natural = {name: natural[name] for name in rule.coordinates}
    factors = [1.0, 0.5, 0.25, 2.0]
    decays = torch.cat(
        [
            torch.full((value.numel(),), float(value.ndim >= 2 or not no_decay)).double()
            for value in net().parameters()
        ]
    )
    expected = by_autograd(rule, net(), natural, decays, factors)
    for estimator in (Unroll(updates), Forward(updates), Forward()):
        tuner = OnePass(
            net(), mean_squared, rule=rule, tune=tuple(natural), estimator=estimator,
            every=updates, no_decay=no_decay, gradient_clip_norm=0.7, **natural,
        )  # fmt: skip
        for number, factor in enumerate(factors):
            tuner.step(batch(number), lr_factor=factor)
        found = tuner.hypergradients(batch(1000))
        assert set(found) == set(natural)
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-8, atol=1e-12, msg=name)


def test_a_weight_without_decay_has_none_in_any_derivative() -> None:
    """A net in which no weight decays has the derivative 0, one in which all do not."""
    for no_decay, is_zero in ((("*",), True), ((), False)):
        for estimator in ESTIMATORS.values():
            tuner = OnePass(
                net(), mean_squared, rule=AdamW(), no_decay=no_decay, estimator=estimator, every=3
            )
            for number in range(3):
                tuner.step(batch(number))
            assert (tuner.hypergradients(batch(9))["weight_decay"] == 0) == is_zero


def test_a_decay_of_each_weights_own_is_zero_where_there_is_none() -> None:
    tuner = OnePass(
        net(), mean_squared, rule=AdamW(), per_weight=("weight_decay",), no_decay=is_plain, every=2
    )
    for number in range(4):
        tuner.step(batch(number), batch(9))
    decays = tuner.hyperparameters["weight_decay"]
    for name, parameter in net().named_parameters():
        assert bool((decays[name] == 0).all()) == (parameter.ndim < 2)
    assert len(decays["0.weight"].unique()) > 1


# --- the carried horizon ---


@each_rule
def test_the_carried_horizon_is_that_of_the_engine(rule: Rule) -> None:
    """Tangents that outlive hyperparameter updates, against the estimator called by hand."""
    estimator, updates, every = Forward(discount=0.9), 9, 3
    tuner = OnePass(net(), mean_squared, rule=rule, estimator=estimator, every=every)
    module = net()
    live = LiveModules(module, mean_squared, separate_batches=False)
    start = {
        name: torch.tensor([[coordinate.space.raw(coordinate.default)]], dtype=torch.float64)
        for name, coordinate in rule.coordinates.items()
    }
    raw, tuned = start, tuner._tuned
    state = State(live.weights(), rule.init(live.weights()))
    memory = tuner._optimiser.init({name: raw[name] for name in tuned})
    tangents = estimator.begin(tuned, state)
    with torch.no_grad():
        for number in range(updates):
            hyper = Hyperparameters.of(raw, rule.coordinates)
            linearisation = live.linearise(state.weights, batch(number), True)
            state, step = rule.advance(state, linearisation, hyper, None)
            assert step is not None
            tangents = estimator.accumulate(tangents, step, tuned)
            tuner.step(batch(number))
            if tuner.due:
                gradient = live.look_only(state.weights, batch(99))
                expected = estimator.finish(tangents, gradient, tuned)
                found = tuner.tune(batch(99))
                for name in tuned:
                    torch.testing.assert_close(found[name], expected[name].squeeze())
                changes, memory = tuner._optimiser.update(expected, memory)
                raw = {name: value + changes.get(name, 0) for name, value in raw.items()}
    assert tuner.updates == updates


def test_tangents_of_what_stays_follow_and_others_begin_at_zero() -> None:
    tuner = OnePass(net(), mean_squared, rule=AdamW(), estimator=Forward(discount=0.95), every=4)
    module = tuner._modules._modules[0]
    for number in range(6):
        tuner.step(batch(number), batch(99))
    full = tree.leaves(tuner._window)
    module[0].requires_grad_(False)  # type: ignore[index]
    tuner._follow()
    own = sum(value.numel() for value in module[0].parameters())  # type: ignore[index]
    for before, after in zip(full, tree.leaves(tuner._window), strict=True):
        wide = before.expand(*before.shape[:-1], full[0].shape[-1])
        assert torch.equal(wide[..., own:], after)
    assert tuner._count == 2  # the interval goes on
    module[0].requires_grad_(True)  # type: ignore[index]
    tuner._follow()
    for before, after in zip(full, tree.leaves(tuner._window), strict=True):
        wide = before.expand(*before.shape[:-1], full[0].shape[-1])
        assert torch.equal(wide[..., own:], after[..., own:])
        assert not bool(after[..., :own].any())
    tuner.step(batch(7))
    tuner.step(batch(8), batch(99))
    assert tuner.skipped == 0


def test_a_horizon_that_is_carried_on_needs_no_tuning_in_between() -> None:
    whole = OnePass(net(), mean_squared, estimator=Forward(), every=6)
    halves = OnePass(net(), mean_squared, estimator=Forward(), every=3)
    for number in range(6):
        whole.step(batch(number))
        halves.step(batch(number))
    expected = whole.hypergradients(batch(99))
    for name, value in halves.hypergradients(batch(99)).items():
        torch.testing.assert_close(value, expected[name])


# --- the state ---


def through_a_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("together", [False, True])
@each_estimator
@each_rule
def test_it_goes_on_from_its_state_bit_by_bit(rule: Rule, estimator: Any, together: bool) -> None:
    def made() -> tuple[list[nn.Sequential], OnePass]:
        modules = [net(seed) for seed in range(2 if together else 1)]
        tuner = OnePass(
            modules if together else modules[0], mean_squared, rule=rule, estimator=estimator,
            every=4, no_decay=("bias",),
        )  # fmt: skip
        return modules, tuner

    def go(modules: list[nn.Sequential], tuner: OnePass, numbers: range) -> None:
        for number in numbers:
            if number == 10:
                for module in modules:
                    module[0].requires_grad_(False)
            if number == 14:
                for module in modules:
                    module[0].requires_grad_(True)
            tuner.step(batch(number), batch(99), lr_factor=1 - number / 40)

    modules, tuner = made()
    # Within an interval where tangents are carried on; else where a window begins.
    stop = 11 if estimator.is_carried else 9 if estimator.window(4) == 3 else 8
    go(modules, tuner, range(stop))
    saved = through_a_file([tuner.state_dict(), *(module.state_dict() for module in modules)])
    go(modules, tuner, range(stop, 20))

    again, other = made()
    for module, values in zip(again, saved[1:], strict=True):
        module.load_state_dict(values)
        module[0].requires_grad_(stop <= 10)
    other.load_state_dict(saved[0])
    go(again, other, range(stop, 20))
    for module, copied in zip(modules, again, strict=True):
        for value, same in zip(module.parameters(), copied.parameters(), strict=True):
            assert torch.equal(value, same)
    for name, value in tuner.hyperparameters.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other.hyperparameters[name]))
    assert tuner.updates == other.updates == 20


def test_a_state_of_before_there_were_other_rules_is_taken() -> None:
    tuner = OnePass(net(), mean_squared, every=3)
    for number in range(4):
        tuner.step(batch(number), batch(99))
    old = tuner.state_dict()
    (old["momentum_buffer"],) = old.pop("rule")
    again = OnePass(net(), mean_squared, every=3)
    again.load_state_dict(through_a_file(old))
    assert torch.equal(again._buffer, tuner._buffer)
    assert again.hyperparameters == tuner.hyperparameters


def states() -> Iterator[tuple[OnePass, OnePass, str]]:
    sgd, adam = OnePass(net(), mean_squared), OnePass(net(), mean_squared, rule=AdamW())
    forward = OnePass(net(), mean_squared, estimator=Forward(discount=0.9))
    yield sgd, adam, "state_dict: has lr, weight_decay, momentum; AdamW has .*beta2"
    yield adam, sgd, "state_dict: has .*beta2; MomentumSGD has lr, weight_decay, momentum"
    yield sgd, forward, "its estimator carried nothing on, Forward as given here something"
    yield forward, sgd, "its estimator carried something on, Neumann as given here nothing"


def test_a_state_of_another_rule_or_horizon_is_one_line() -> None:
    for saved, tuner, text in states():
        before = tuner.hyperparameters
        with pytest.raises(UserError, match=text) as caught:
            tuner.load_state_dict(saved.state_dict())
        assert "\n" not in str(caught.value)
        assert tuner.hyperparameters == before


# --- all of it, for every rule ---


@each_estimator
@each_rule
def test_modules_together_are_modules_alone(rule: Rule, estimator: Any) -> None:
    common: dict[str, Any] = {
        "rule": rule, "estimator": estimator, "every": 4, "no_decay": ("bias",),
    }  # fmt: skip
    lrs, factors = [0.01, 0.02], [1.0, 0.5]
    together = [net(seed) for seed in range(2)]
    many = OnePass(together, mean_squared, lr=lrs, **common)
    for number in range(8):
        many.step(batch(number), batch(99), lr_factor=factors)
    for row, lr in enumerate(lrs):
        module = net(row)
        one = OnePass(module, mean_squared, lr=lr, **common)
        for number in range(8):
            one.step(batch(number), batch(99), lr_factor=factors[row])
        assert_same(together[row], module)
        for name, value in one.hyperparameters.items():
            assert many.hyperparameters[name][row].item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_estimator
@each_rule
def test_what_a_rule_carries_is_float32_or_better(
    rule: Rule, estimator: Any, dtype: torch.dtype
) -> None:
    module = net().to(dtype)

    def loss(model: nn.Module, rows: Batch) -> Tensor:
        return functional.mse_loss(model(rows[0].to(dtype)).float(), rows[1].float())

    tuner = OnePass(module, loss, rule=rule, estimator=estimator, every=4, lr=1e-3)
    for number in range(8):
        tuner.step(batch(number), batch(99))
    assert all(value.dtype == dtype for value in module.parameters())
    assert tuner.hyperparameters["lr"] != pytest.approx(1e-3)
    leaves = [*tree.leaves(tuner._buffer), *tuner._raw.values()]
    leaves += tree.leaves(tuner._window) if estimator.is_carried else []
    assert all(leaf.dtype == torch.float32 for leaf in leaves)


@each_estimator
@each_rule
def test_a_hypergradient_that_is_not_finite_changes_nothing(rule: Rule, estimator: Any) -> None:
    tuner = OnePass(net(), mean_squared, rule=rule, estimator=estimator, every=2)
    before = tuner.hyperparameters
    inputs, targets = batch(99)
    tuner.step(batch(0))
    with pytest.warns(RuntimeWarning, match="not finite"):
        tuner.step(batch(1), (inputs * torch.nan, targets))
    assert tuner.hyperparameters == before
    assert tuner.skipped == 1
    tuner.step(batch(2))
    tuner.step(batch(3), batch(99))
    assert tuner.hyperparameters["lr"] != before["lr"]


@pytest.mark.parametrize("name", ["lr", "beta1", "alpha"])
@each_rule
def test_each_weight_may_have_its_own(rule: Rule, name: str) -> None:
    if name not in rule.coordinates:
        return
    module = net()
    tuner = OnePass(
        module,
        mean_squared,
        rule=rule,
        tune=(name,),
        per_weight=(name,),
        estimator=Unroll(2),
        every=2,
    )
    for number in range(12):
        if number in (5, 8):
            module[0].requires_grad_(number == 8)
        tuner.step(batch(number), batch(99))
    values = tuner.hyperparameters[name]
    assert all(len(values[layer].unique()) > 1 for layer in ("0.weight", "3.weight"))


def test_the_estimators_of_every_update_take_any_rule() -> None:
    for estimator in (DotProduct(), Ultimate()):
        tuner = OnePass(net(), mean_squared, rule=AdamW(), tune=("lr",), estimator=estimator)
        for number in range(3):
            tuner.step(batch(number), batch(number + 1))
        assert tuner.hyperparameters["lr"] != pytest.approx(1e-3)


def test_a_step_that_is_given_a_validation_batch_tunes_where_it_is_due() -> None:
    shorter, longer = (OnePass(net(), mean_squared, rule=AdamW(), every=3) for _ in range(2))
    for number in range(7):
        shorter.step(batch(number), batch(99))
        longer.step(batch(number))
        if longer.due:
            longer.tune(batch(99))
    assert shorter.hyperparameters == longer.hyperparameters
    assert not shorter.due


def test_a_tied_parameter_goes_by_each_of_its_names() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    module[2].weight = module[0].weight
    tuner = OnePass(module, mean_squared, no_decay=("2.weight",))
    assert tuner._without_decay == {"0.weight"}


# --- the two lines that the pages show ---


def changes(text: str) -> list[str]:
    """The lines that a page shows as changed, with the line between them."""
    shown = re.search(r"^( *)-optimiser = .*\n(?:\1[ +-].*\n)+", text, re.MULTILINE)
    assert shown is not None
    return textwrap.dedent(shown[0]).splitlines()


def test_a_loop_with_adamw_changes_the_two_lines_that_the_pages_show() -> None:
    readme, page = (ROOT / "README.md", ROOT / "docs" / "training_loop.md")
    lines = changes(readme.read_text(encoding="utf-8"))
    assert changes(page.read_text(encoding="utf-8")) == lines
    assert changes(inspect.getdoc(OnePass) or "") == lines
    assert [line[0] for line in lines] == ["-", "+", " ", "-", "+"]
    trained = []
    for sign in "-+":
        program = "\n".join(line[1:] for line in lines if line[0] in (sign, " "))
        names = {
            "torch": torch, "OnePass": OnePass, "AdamW": AdamW, "model": net(),
            "loss": mean_squared, "batches": [batch(number) for number in range(10)],
            "validation": batch(99),
        }  # fmt: skip
        exec(program, names)
        trained.append(names)
    assert_same(trained[1]["model"], trained[0]["model"])
    assert trained[1]["tuner"].hyperparameters["lr"] != pytest.approx(1e-3)


# --- mistakes ---

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "not of this rule": ({"tune": ("momentum",)}, "unknown momentum; allowed: beta1, beta2"),
    "start of another": ({"momentum": 0.9}, "momentum: AdamW has no such hyperparameter"),
    "misspelt": ({"beta_1": 0.9}, "did you mean beta1"),
    "misspelt argument": ({"lookback": 3}, "did you mean look_back"),
    "one": ({"beta1": 1.0}, "beta1=1.0: must be above 0 to be tuned and below 1"),
    "zero": ({"beta1": 0}, "beta1=0.0: must be above 0 to be tuned and below 1"),
    "one that is not tuned": ({"beta2": 1}, "beta2=1.0: must be 0 or more and below 1"),
    "lr": ({"lr": -1}, "lr=-1.0: must be above 0"),
    "per weight": ({"per_weight": ("momentum",)}, "per_weight=.*unknown momentum"),
    "tangent for each": (
        {"per_weight": ("lr",), "estimator": Forward(3)},
        "per_weight: Forward would need a tangent for every weight's lr",
    ),
    "class": ({"rule": AdamW}, "rule: cannot be a AdamW; give one such as"),
    "of torch": (
        {"rule": torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1)},
        "rule: cannot be a SGD; give one such as",
    ),
    "no derivatives": ({"rule": DoG()}, "rule: DoG has no derivatives"),
    "no such parameter": ({"no_decay": ("bais",)}, "no_decay: no parameter is called bais"),
    "one pattern": ({"no_decay": "bias"}, "no_decay=bias: must be a list of names"),
    "no pattern": ({"no_decay": (1,)}, "no_decay=.*must be a list of names"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_one_line(case: str) -> None:
    arguments, text = WRONG[case]
    with pytest.raises(UserError, match=text) as caught:
        OnePass(**{"model": net(), "loss": mean_squared, "rule": AdamW(), **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factor", [-1, float("nan"), "half", True, [1.0, 2.0], None])
def test_a_factor_is_a_number_of_0_or_more(factor: Any) -> None:
    tuner = OnePass(net(), mean_squared)
    with pytest.raises(UserError, match="lr_factor"):
        tuner.step(batch(0), lr_factor=factor)
    before = flat(tuner._modules._modules[0])
    tuner.step(batch(0), lr_factor=0)
    assert torch.equal(flat(tuner._modules._modules[0]), before)


@dataclass(frozen=True)
class Sparse(PureRule):
    """A rule without lr, weight decay or a default."""

    coordinates: ClassVar[Mapping[str, Coordinate]] = {"pace": Coordinate(LOG10, (-3, -1))}

    def init(self, weights: Tensor) -> tuple[()]:
        return ()

    def change(
        self, weights: Tensor, memory: Any, gradient: Tensor, hyper: Mapping[str, Tensor]
    ) -> tuple[Tensor, Any]:
        return hyper["pace"] * gradient, ()


@each_estimator
def test_a_rule_need_have_none_of_the_names_that_others_have(estimator: Any) -> None:
    given: dict[str, Any] = {"rule": Sparse(), "estimator": estimator, "every": 3}
    tuner = OnePass(net(), mean_squared, pace=0.01, **given)
    for number in range(6):
        tuner.step(batch(number), batch(99))
    assert list(tuner.hyperparameters) == ["pace"]
    assert tuner.hyperparameters["pace"] != pytest.approx(0.01)
    with pytest.raises(UserError, match="lr_factor: Sparse has no lr"):
        tuner.step(batch(0), lr_factor=0.5)
    wrong: dict[str, Callable[[], Any]] = {
        "pace: Sparse does not say where it starts": lambda: OnePass(net(), mean_squared, **given),
        "no_decay: Sparse has no weight_decay": lambda: OnePass(
            net(), mean_squared, pace=0.01, no_decay=("bias",), **given
        ),
    }
    for text, call in wrong.items():
        with pytest.raises(UserError, match=text):
            call()
