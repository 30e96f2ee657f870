"""`OnePass`: the engine's numbers on any module and loss, in the module itself, for one or many."""

from __future__ import annotations

import copy
import io
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hpo_bench
from hpo_bench import OnePass
from hpo_bench.core.loop import train
from hpo_bench.core.optimisers import SGD
from hpo_bench.errors import UserError
from hpo_bench.hypergradients.dot_product import DotProduct
from hpo_bench.hypergradients.exact import Exact
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.models.mlp import MLP, Perceptron
from hpo_bench.running.trainer import Trainer, pick_device
from tests.problems import in_force, make_settings

ROOT = Path(__file__).resolve().parents[2]
ROWS, UPDATES = 3, 40
ENGINE: dict[str, dict[str, Any]] = {
    "ours_wd_lr_m": {},
    "ours_wd_hdlr_m": {"per_weight": ("lr",)},
    "diff_through_opt": {"estimator": Unroll(5)},
    "lorraine": {"tune": ("weight_decay",)},
    "baydin": {"tune": ("lr",), "estimator": DotProduct(), "optimiser": SGD(0.001)},
}


def mean_squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.mse_loss(model(batch[0]), batch[1])


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def perceptrons(trainer: Trainer, weights: Tensor) -> list[nn.Module]:
    """Modules with the rows' initial weights."""
    modules = []
    for row in weights:
        module = Perceptron([4, 7, 1]).double()
        module.load_state_dict(trainer.model.layout.views(row))
        modules.append(module)
    return modules


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("method", ENGINE)
@pytest.mark.parametrize("batch_size", [None, 15])
def test_the_numbers_are_those_of_the_engine(
    method: str, together: bool, batch_size: int | None, tmp_path: Path
) -> None:
    clip = {"gradient_clip_norm": 0.5}
    settings = make_settings(
        tmp_path, method, hyperparameter_updates=UPDATES // 10, batch_size=batch_size, **clip
    )
    trainer = Trainer.of(settings, settings.source.load(0.25), pick_device("cpu"))
    seeds = list(range(ROWS))
    problem, first = trainer.problem(seeds), trainer.start(seeds)
    end = train(problem, trainer.plan, first, trainer.recorder(ROWS))
    natural = in_force(first.raw).natural
    modules = perceptrons(trainer, first.weights)
    given = {name: value[:, 0] for name, value in natural.items()}
    common = {**ENGINE[method], **clip}
    if together:
        separate = batch_size is not None
        tuners = [OnePass(modules, mean_squared, **given, **common, separate_batches=separate)]
    else:
        tuners = [
            OnePass(
                module,
                mean_squared,
                **{name: value[row] for name, value in given.items()},
                **common,
            )
            for row, module in enumerate(modules)
        ]

    plain = replace(
        settings, model=MLP((7,), closed_form=False)
    )  # whose batches are in the form of the data
    streams = Trainer.of(plain, settings.source.load(0.25), pick_device("cpu")).problem(seeds)

    def batch(stream: Any, number: int, row: int) -> tuple[Tensor, Tensor]:
        made = stream.batch(number)
        parts = made.inputs, made.targets
        if together:
            return tuple(
                part.expand(ROWS, *part.shape) if made.shared and batch_size else part
                for part in parts
            )
        return parts if made.shared else (parts[0][row], parts[1][row])

    for row, tuner in enumerate(tuners):
        for number in range(UPDATES):
            tuner.step(batch(streams.training, number, row))
            if tuner.due:
                tuner.tune(batch(streams.second, number, row))
        assert tuner.updates == UPDATES
    for row, module in enumerate(modules):
        flat = torch.cat([value.detach().ravel() for value in module.parameters()])
        torch.testing.assert_close(flat, end.state.weights[row], rtol=1e-11, atol=1e-12)
    wanted = in_force(end.raw).natural
    for name in given:
        found = [tuner.hyperparameters[name] for tuner in tuners]
        ours = flattened(found, together)
        torch.testing.assert_close(ours, wanted[name], rtol=1e-11, atol=1e-13)


def flattened(found: list[Any], together: bool) -> Tensor:
    """Hyperparameters of the tuners as (R, 1) or (R, P)."""
    if not isinstance(found[0], dict):
        return (
            found[0].unsqueeze(-1)
            if together
            else torch.tensor(found, dtype=torch.float64).unsqueeze(-1)
        )
    rows = [
        [value.reshape(ROWS, -1) if together else value.reshape(1, -1) for value in each.values()]
        for each in found
    ]
    return torch.cat([torch.cat(row, dim=1) for row in rows])


def images(count: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 6, 6, generator=random, dtype=torch.float64), torch.arange(
        count
    ) % 3


def convolutions(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
        return nn.Sequential(*layers).double()


def test_a_convolutional_net_with_batch_norm_keeps_its_statistics_as_in_plain_training() -> None:
    ours, plain = convolutions(), convolutions()
    tuner = OnePass(ours, cross_entropy, lr=0.05, every=5)
    optimiser = torch.optim.SGD(plain.parameters(), 0.05, 0.9, weight_decay=1e-4)
    for _ in range(5):
        value = tuner.step(images())
        optimiser.zero_grad()
        loss = cross_entropy(plain, images())
        loss.backward()
        optimiser.step()
        assert value.item() == pytest.approx(loss.item(), rel=1e-10)
    tuner.hypergradients(images(seed=1))
    for (name, value), other in zip(
        ours.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-10, msg=name)
    hypergradients = tuner.tune(images(seed=1))
    assert set(hypergradients) == {"lr", "weight_decay", "momentum"}
    assert all(value.ndim == 0 for value in hypergradients.values())
    assert tuner.hyperparameters["lr"] != 0.05
    assert all(parameter.grad is None for parameter in ours.parameters())


@pytest.mark.parametrize("estimator", [None, Unroll(3), Forward(3)])
def test_modules_together_are_modules_alone(estimator: Any) -> None:
    lrs, alone = [0.01, 0.05, 0.1], []
    together = [convolutions(seed) for seed in range(3)]
    common = {"every": 4, "estimator": estimator}
    many = OnePass(together, cross_entropy, lr=lrs, **common)
    for seed, lr in enumerate(lrs):
        module = convolutions(seed)
        one = OnePass(module, cross_entropy, lr=lr, **common)
        for _ in range(8):
            last = one.step(images())
            if one.due:
                one.tune(images(seed=1))
        alone.append((module, one, last))
    for _ in range(8):
        losses = many.step(images())
        if many.due:
            many.tune(images(seed=1))
    for row, (module, one, last) in enumerate(alone):
        torch.testing.assert_close(losses[row], last, rtol=1e-9, atol=0)
        for name, value in one.hyperparameters.items():
            assert many.hyperparameters[name][row].item() == pytest.approx(value, rel=1e-9)
        for value, other in zip(
            together[row].state_dict().values(), module.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(value, other, rtol=1e-8, atol=1e-10)


def test_a_diverging_module_leaves_the_others_as_they_are() -> None:
    pair = [convolutions(0), convolutions(1)]
    with torch.no_grad():
        pair[1][0].weight.fill_(torch.nan)  # type: ignore[union-attr, operator]
    single = convolutions(0)
    many, one = OnePass(pair, cross_entropy, every=3), OnePass([single], cross_entropy, every=3)
    for _ in range(6):
        one.step(images())
        many.step(images())
        if one.due:
            one.tune(images(seed=1))
        if many.due:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                many.tune(images(seed=1))
    torch.testing.assert_close(pair[0][0].weight, single[0].weight, rtol=1e-10, atol=1e-12)  # type: ignore[union-attr]
    assert many.hyperparameters["lr"][0] == pytest.approx(
        one.hyperparameters["lr"].item(), rel=1e-10
    )
    assert many.hyperparameters["lr"][1].item() == pytest.approx(0.01)
    assert many.skipped.tolist() == [0, 2]  # type: ignore[union-attr]


def with_a_gap(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    inputs = batch[0].clone()
    inputs[0] = torch.nan
    return inputs, batch[1]


def with_too_much(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0] * 1e200, batch[1]  # whose square is what Adam would remember for ever


@pytest.mark.parametrize("spoilt", [with_a_gap, with_too_much])
@pytest.mark.parametrize("optimiser", [None, SGD(0.01)])
def test_a_hypergradient_that_is_not_finite_changes_nothing_and_is_said_once(
    spoilt: Any, optimiser: Any
) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    module, other = linear, copy.deepcopy(linear)
    skipping = OnePass(module, cross_entropy, every=2, optimiser=optimiser)
    never = OnePass(other, cross_entropy, every=2, optimiser=optimiser)
    said = []
    for interval in range(5):
        for tuner in (skipping, never):
            tuner.step(images())
            tuner.step(images())
        if interval in (1, 3):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                skipping.tune(with_a_gap(images()) if optimiser else spoilt(images()))
            said += [str(warning.message) for warning in caught]
        else:
            skipping.tune(images())
            never.tune(images())
    assert skipping.hyperparameters == never.hyperparameters  # as if it had not been asked
    assert (skipping.skipped, never.skipped) == (2, 0)
    assert len(said) == 1
    assert "not finite" in said[0]
    again = OnePass(module, cross_entropy, every=2, optimiser=optimiser)
    again.load_state_dict(skipping.state_dict())
    assert again.skipped == 2


def test_one_of_several_modules_skips_alone() -> None:
    pairs = [[convolutions(0), convolutions(1)] for _ in range(2)]
    tuners = [OnePass(pair, cross_entropy, every=2, separate_batches=True) for pair in pairs]
    batch = tuple(torch.stack([part, part]) for part in images())
    inputs = batch[0].clone()
    inputs[1, 0] = torch.nan
    for interval in range(4):
        for tuner in tuners:
            tuner.step(batch)
            tuner.step(batch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            tuners[0].tune((inputs, batch[1]) if interval == 1 else batch)
        if interval != 1:
            tuners[1].tune(batch)
        else:  # the second tuner's rows leave this one out, both of them
            tuners[1].step(batch)
            tuners[1]._begin_interval()
    assert tuners[0].skipped.tolist() == [0, 1]  # type: ignore[union-attr]
    counts = tuners[0]._memory.count
    assert counts.squeeze(-1).tolist() == [4, 3]
    file = io.BytesIO()
    torch.save(tuners[0].state_dict(), file)
    file.seek(0)
    again = OnePass(pairs[0], cross_entropy, every=2, separate_batches=True)
    again.load_state_dict(torch.load(file, weights_only=True))
    for tuner in (tuners[0], again):
        before = tuner.hyperparameters["lr"]
        tuner._update(
            {
                name: torch.ones(2, 1, dtype=torch.float64)
                for name in ("lr", "weight_decay", "momentum")
            }
        )
        assert not torch.equal(tuner.hyperparameters["lr"], before)
    assert torch.equal(tuners[0].hyperparameters["lr"], again.hyperparameters["lr"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_what_tunes_is_float32_or_better_whatever_the_module_is(dtype: torch.dtype) -> None:
    module = convolutions().to(dtype)
    wanted = torch.promote_types(dtype, torch.float32)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(model(batch[0].to(dtype)).float(), batch[1])

    tuner = OnePass(module, loss, lr=0.01, hyper_lr=0.01, every=2)
    lrs = []
    for _ in range(40):
        tuner.step(images())
        if tuner.due:
            hypergradients = tuner.tune(images(seed=1))
            lrs.append(tuner.hyperparameters["lr"])
            assert all(value.dtype == wanted for value in hypergradients.values())
    assert all(value.dtype == dtype for value in module.parameters())
    assert len(set(lrs)) == len(lrs)  # a step of 2 % is not lost
    assert tuner.skipped == 0
    leaves = [
        tuner._buffer,
        *tuner._raw.values(),
        *tuner._memory.first.values(),
        *tuner._memory.second.values(),
    ]
    assert all(leaf.dtype == wanted for leaf in leaves)


def test_hypergradients_are_finite_differences_of_a_loss_of_ones_own() -> None:
    """Tied and frozen parameters, a dictionary as the batch, a loss with two terms."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.scale = (
                nn.Linear(3, 3),
                nn.Parameter(torch.tensor(2.0), requires_grad=False),
            )
            self.again = self.inner

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.again(torch.tanh(self.inner(x)))

    def loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
        return (
            functional.mse_loss(model(batch["x"]), batch["y"])
            + 0.1 * model.inner.weight.square().mean()
        )

    random = torch.Generator().manual_seed(0)
    batches = [
        {key: torch.randn(8, 3, generator=random, dtype=torch.float64) for key in "xy"}
        for _ in range(4)
    ]
    initial = copy.deepcopy(Tied().double().state_dict())

    def after(lr: float, decay: float, momentum: float) -> OnePass:
        module = Tied().double()
        module.load_state_dict(initial)
        tuner = OnePass(
            module, loss, lr=lr, weight_decay=decay, momentum=momentum, every=3, estimator=Unroll(3)
        )
        for batch in batches[:3]:
            tuner.step(batch)
        tuner.module_for_test = module  # type: ignore[attr-defined]
        return tuner

    def validation(lr: float, decay: float, momentum: float) -> float:
        return loss(after(lr, decay, momentum).module_for_test, batches[3]).item()  # type: ignore[attr-defined]

    exact = after(0.1, 0.01, 0.5).hypergradients(batches[3])
    step = 1e-5
    factor = 10**step
    by_lr = (validation(0.1 * factor, 0.01, 0.5) - validation(0.1 / factor, 0.01, 0.5)) / (2 * step)
    by_decay = (validation(0.1, 0.01 * factor, 0.5) - validation(0.1, 0.01 / factor, 0.5)) / (
        2 * step
    )
    up, down = (torch.tensor(sign * step, dtype=torch.float64).sigmoid().item() for sign in (1, -1))
    by_momentum = (validation(0.1, 0.01, up) - validation(0.1, 0.01, down)) / (2 * step)
    assert exact["lr"].item() == pytest.approx(by_lr, rel=1e-6)
    assert exact["weight_decay"].item() == pytest.approx(by_decay, rel=1e-6)
    assert exact["momentum"].item() == pytest.approx(by_momentum, rel=1e-6)
    assert after(0.1, 0.01, 0.5).module_for_test.scale == 2  # type: ignore[attr-defined]


def test_the_module_is_the_truth_between_steps() -> None:
    module = convolutions()
    tuner = OnePass(module, cross_entropy)
    tuner.step(images())
    with torch.no_grad():
        module[4].weight.zero_()  # type: ignore[union-attr, operator]
        module[4].bias.zero_()  # type: ignore[union-attr, operator]
    assert tuner.step(images()).item() == pytest.approx(torch.tensor(3.0).log().item())


def test_tuning_may_be_left_out_and_is_refused_where_it_is_not_due() -> None:
    tuner = OnePass(convolutions(), cross_entropy, every=3)
    for _ in range(4):
        tuner.step(images())
    assert not tuner.due
    assert tuner.hyperparameters["lr"] == pytest.approx(0.01)
    with pytest.raises(UserError, match="after 1 of 3 weight updates"):
        tuner.tune(images())
    tuner.step(images())
    tuner.step(images())
    tuner.tune(images())
    with pytest.raises(UserError, match="after 0 of 3 weight updates"):
        tuner.tune(images())


@pytest.mark.parametrize("many", [False, True])
def test_it_goes_on_from_its_state(many: bool) -> None:
    def made(modules: list[nn.Module]) -> OnePass:
        return OnePass(modules if many else modules[0], cross_entropy, every=3, per_weight=("lr",))

    def go(tuner: OnePass, steps: int) -> None:
        for _ in range(steps):
            tuner.step(images())
            if tuner.due:
                tuner.tune(images(seed=1))

    first = [convolutions(seed) for seed in range(2)]
    whole = made(first)
    go(whole, 7)  # not in the window: 1 of 3
    file = io.BytesIO()
    torch.save(
        {"tuner": whole.state_dict(), "modules": [module.state_dict() for module in first]}, file
    )
    go(whole, 5)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = [convolutions(seed + 5) for seed in range(2)]
    again = made(second)
    again.load_state_dict(saved["tuner"])
    for module, values in zip(second, saved["modules"], strict=True):
        module.load_state_dict(values)
    go(again, 5)
    assert again.updates == whole.updates == 12
    for ours, theirs in zip(first[: 2 if many else 1], second, strict=False):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)
    for name, parameters in whole.hyperparameters["lr"].items():
        assert torch.equal(parameters, again.hyperparameters["lr"][name])
    with pytest.raises(UserError, match="state_dict: is of another tuner"):
        OnePass(Perceptron([4, 2]), cross_entropy).load_state_dict(saved["tuner"])
    shared = convolutions()
    with pytest.raises(UserError, match="state_dict: "):
        OnePass(shared, cross_entropy, tune=("lr",), per_weight=("lr",)).load_state_dict(
            saved["tuner"]
        )


def test_a_state_saved_in_the_window_begins_the_interval_again() -> None:
    tuner = OnePass(convolutions(), cross_entropy, every=4, estimator=Unroll(2))
    for _ in range(3):
        tuner.step(images())
    other = OnePass(convolutions(), cross_entropy, every=4, estimator=Unroll(2))
    other.load_state_dict(tuner.state_dict())
    for number in range(4):
        assert not other.due, number
        other.step(images())
    other.tune(images())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a criterion": (
        {"loss": nn.CrossEntropyLoss()},
        r"loss: must be a function of \(model, batch\)",
    ),
    "no module": ({"model": 3}, "model: must be a torch.nn.Module"),
    "no modules": ({"model": []}, "model: must be a torch.nn.Module"),
    "nothing to train": ({"model": nn.ReLU()}, "no parameters that require gradients"),
    "two dtypes": (
        {"model": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())},
        "one dtype",
    ),
    "two kinds": ({"model": [nn.Linear(2, 2), nn.Linear(2, 3)]}, "same parameters"),
    "unknown name": ({"tune": ("lr", "momntum")}, "did you mean momentum"),
    "nothing tuned": ({"tune": ()}, r"tune=\[\]"),
    "not by this estimator": (
        {"estimator": DotProduct()},
        "DotProduct cannot tune weight_decay; allowed: lr",
    ),
    "a chooser": ({"estimator": Exact(5)}, "give Unroll"),
    "look_back": ({"look_back": 0}, "look_back=0: must be a whole number, 1 or more"),
    "every": ({"every": 0.5}, "every=0.5"),
    "hyper_lr": ({"hyper_lr": -1.0}, "hyper_lr=-1"),
    "lr": ({"lr": 0.0}, "lr=0.0: must be above 0"),
    "weight decay": ({"weight_decay": 0.0}, "weight_decay=0.0: must be above 0 to be tuned"),
    "momentum": ({"momentum": 1.0}, "momentum=1.0: must be above 0 to be tuned and below 1"),
    "lost in float32": ({"lr": 1e-50}, "lr=1e-50: would be 0 in float32"),
    "beyond float32": ({"lr": 1e39}, "would be inf in float32"),
    "next to one": ({"momentum": 1 - 1e-9}, "momentum=0.999999999: would be 1 in float32"),
    "a truth value": ({"lr": True}, "lr=True: must be a number"),
    "a long number": ({"gradient_clip_norm": 10**400}, "gradient_clip_norm: is too large"),
    "text": ({"lr": "fast"}, "lr=fast: must be a number"),
    "too many": ({"lr": [0.1, 0.2]}, "one for each of 1 modules"),
    "clip": ({"gradient_clip_norm": -1.0}, "gradient_clip_norm=-1.0: must be above 0"),
    "interval": ({"clip_log10_lr": (0.0, -10.0)}, "clip_log10_lr=.*low at most high"),
    "no interval": ({"clip_log10_lr": 3.0}, r"clip_log10_lr=3.0: must be a pair"),
    "a class": ({"estimator": Unroll}, "estimator: cannot be a Unroll"),
    "an optimiser of torch": ({"optimiser": torch.optim.Adam}, "optimiser: cannot be a Adam"),
    "a flag": ({"separate_batches": 1}, "separate_batches=1: must be true or false"),
    "one name": ({"tune": "lr"}, "tune=lr: must be a list"),
    "separate": ({"separate_batches": True}, "is for several modules"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_one_line(case: str) -> None:
    arguments, text = WRONG[case]
    with pytest.raises(UserError, match=text) as caught:
        OnePass(**{"model": nn.Linear(2, 2), "loss": cross_entropy, **arguments})
    assert "\n" not in str(caught.value)


NUMBERS = ("lr", "weight_decay", "momentum", "look_back", "hyper_lr", "every", "gradient_clip_norm")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, "much", [[1.0]], {}])
def test_no_argument_takes_what_is_not_a_number_in_its_range(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=name):
        OnePass(nn.Linear(2, 2), cross_entropy, **{name: value})


@pytest.mark.parametrize(
    "bounds", [(float("nan"), 0), (float("-inf"), float("nan")), (0,), ("a", "b"), "ab"]
)
def test_bounds_are_two_numbers(bounds: Any) -> None:
    with pytest.raises(UserError, match="clip_log10_lr"):
        OnePass(nn.Linear(2, 2), cross_entropy, clip_log10_lr=bounds)


def test_mistakes_in_a_step_are_one_line() -> None:
    module, other = convolutions(), convolutions()
    for loss, text in {
        lambda model, batch: model(batch[0]): r"not shape \(24, 3\)",
        lambda model, batch: 1.0: "not float",
        lambda model, batch: batch[0].mean(): "does not depend on the model's parameters",
        lambda model, batch: cross_entropy(
            other.requires_grad_(False), batch
        ): "does not depend on the model",
    }.items():
        with pytest.raises(UserError, match=text):
            OnePass(module, loss).step(images())
    with pytest.raises(
        UserError,
        match=r"batch: separate_batches needs .* the 2 modules, not shape \(24, 1, 6, 6\)",
    ):
        OnePass([convolutions(), convolutions()], cross_entropy, separate_batches=True).step(
            images()
        )
    tuner = OnePass(module, cross_entropy)
    module.float()
    with pytest.raises(UserError, match="was moved to another device or dtype"):
        tuner.step(images())


def test_what_is_not_tuned_may_be_zero() -> None:
    tuner = OnePass(
        convolutions(), cross_entropy, weight_decay=0.0, momentum=0.0, tune=("lr",), every=2
    )
    for _ in range(4):
        tuner.step(images())
        if tuner.due:
            tuner.tune(images(seed=1))
    assert tuner.hyperparameters["lr"] != pytest.approx(0.01)
    assert (tuner.hyperparameters["weight_decay"], tuner.hyperparameters["momentum"]) == (0.0, 0.0)


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys, hpo_bench; assert 'torch' not in sys.modules; hpo_bench.OnePass; "
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    light = (
        "import sys; from hpo_bench import UserError; UserError('a'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", light], check=True, timeout=120)
    assert hpo_bench.UserError is UserError
    with pytest.raises(AttributeError, match="no attribute TwoPass"):
        hpo_bench.TwoPass  # noqa: B018


def test_the_example_of_the_readme_runs() -> None:
    section = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .partition("## From your own training loop")[2]
    )
    code = section.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line]) <= 16
    shorter = code.replace("range(2000)", "range(600)")
    assert shorter != code
    done = subprocess.run(
        [sys.executable, "-c", shorter], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    wrong, lr = re.match(r"([\d.]+)% wrong with \{'lr': ([\d.]+)", done.stdout).groups()  # type: ignore[union-attr]
    assert float(wrong) < 40  # without tuning: 80
    assert float(lr) > 1e-3
