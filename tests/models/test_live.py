"""`OnePass` and modules that change under its hands, or that do not belong together."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from hpo_bench import OnePass
from hpo_bench.errors import UserError
from hpo_bench.hypergradients.unroll import Unroll

INPUTS = torch.linspace(-1, 2, 64).reshape(16, 4)
BATCH = INPUTS, INPUTS.sin().sum(1, keepdim=True)


def mean_squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.mse_loss(model(batch[0]), batch[1])


def train(tuner: OnePass, updates: int = 21) -> None:
    for _ in range(updates):
        tuner.step(BATCH)
        if tuner.due:
            tuner.tune(BATCH)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))


# --- state that is assigned anew ---


class Centred(nn.Module):
    """Subtracts a running mean, kept as a buffer, as a buffer that begins as None, or as a plain
    attribute.
    """

    def __init__(self, keeps: str, scale: float = 1.0) -> None:
        super().__init__()
        self.layer, self.scale, self.calls = nn.Linear(4, 1), scale, 0
        if keeps == "attribute":
            self.mean = torch.zeros(4)
        else:
            self.register_buffer("mean", torch.zeros(4) if keeps == "buffer" else None)

    def forward(self, inputs: Tensor) -> Tensor:
        before = torch.zeros(4) if self.mean is None else self.mean
        self.mean = 0.9 * before + 0.1 * inputs.mean(0).detach()
        self.calls += 1
        return self.layer(inputs - self.mean)


@pytest.mark.parametrize("keeps", ["buffer", "none", "attribute"])
@pytest.mark.parametrize("together", [False, True])
def test_state_that_forward_assigns_anew_is_kept_as_in_plain_training(
    keeps: str, together: bool
) -> None:
    modules = [Centred(keeps) for _ in range(2 if together else 1)]
    plain = copy.deepcopy(modules[0])
    tuner = OnePass(modules if together else modules[0], mean_squared, every=5)
    for _ in range(10):
        tuner.step(BATCH)
        plain(INPUTS)
    tuner.tune(BATCH)  # leaves it as it is
    for module in modules:
        torch.testing.assert_close(module.mean, plain.mean)
        assert module.calls == plain.calls
        assert not module.mean.requires_grad


# --- a module that changes ---


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("per_weight", [(), ("lr",)])
def test_a_frozen_layer_stays_and_goes_on_when_it_is_released(
    together: bool, per_weight: Any
) -> None:
    modules = [net() for _ in range(2 if together else 1)]
    tuner = OnePass(
        modules if together else modules[0],
        mean_squared,
        per_weight=per_weight,
        estimator=Unroll(4),
    )
    train(tuner)
    layers = [module[0] for module in modules]
    before = [layer.weight.clone() for layer in layers]
    momentum = tuner._buffer[:, :12].clone()
    for layer in layers:
        layer.requires_grad_(False)
    train(tuner)
    assert all(torch.equal(layer.weight, old) for layer, old in zip(layers, before, strict=True))
    saved = tuner.state_dict()
    again = [copy.deepcopy(module) for module in modules]
    other = OnePass(
        again if together else again[0], mean_squared, per_weight=per_weight, estimator=Unroll(4)
    )
    other.load_state_dict(saved)
    for module in (*modules, *again):
        module[0].requires_grad_(True)
    for each in (tuner, other):
        each._follow()
        assert torch.equal(each._buffer[:, :12], momentum)
        train(each)
    for module, copied, old in zip(modules, again, before, strict=True):
        assert not torch.equal(module[0].weight, old)
        assert torch.equal(module[0].weight, copied[0].weight)


def test_freezing_is_as_training_the_others_alone() -> None:
    frozen, never = net(), net()
    never.load_state_dict(frozen.state_dict())
    never[0].requires_grad_(False)
    tuners = OnePass(frozen, mean_squared), OnePass(never, mean_squared)
    frozen[0].requires_grad_(False)
    for tuner in tuners:
        train(tuner)
    assert torch.equal(frozen[2].weight, never[2].weight)
    assert tuners[0].hyperparameters == tuners[1].hyperparameters


def test_after_loading_by_assignment_the_users_module_is_the_one_that_trains() -> None:
    module = net()
    tuner = OnePass(module, mean_squared, lr=1e-2)
    module.load_state_dict(
        {name: value.clone() for name, value in module.state_dict().items()}, assign=True
    )
    before = mean_squared(module, BATCH).item()
    train(tuner)
    assert mean_squared(module, BATCH).item() < before


def replaced(module: nn.Sequential) -> None:
    module[0] = nn.Linear(4, 3)


def widened(module: nn.Sequential) -> None:
    module[0], module[2] = nn.Linear(4, 5), nn.Linear(5, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced, "layer 0 was replaced"),
        (widened, r"0.weight has another shape, \(5, 4\) for \(3, 4\)"),
        (lambda module: module.append(nn.Linear(1, 1)), r"parameters have changed \(3\."),
        (lambda module: module.double(), "was moved to another device or dtype"),
        (lambda module: module.to("meta"), "was moved to another device or dtype"),
        (lambda module: module.requires_grad_(False), "no parameters that require gradients"),
    ],
)
@pytest.mark.parametrize("call", ["step", "tune"])
def test_a_change_that_cannot_be_followed_is_one_error(
    change: Callable[[Any], Any], message: str, call: str
) -> None:
    module = net()
    tuner = OnePass(module, mean_squared, every=2)
    tuner.step(BATCH)
    tuner.step(BATCH)
    change(module)
    for _ in range(2):
        with pytest.raises(UserError, match=message) as caught:
            getattr(tuner, call)(BATCH)
        assert "\n" not in str(caught.value)


# --- modules that do not belong together ---


class Acts(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 1), function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self.layer(inputs))


def with_layer(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), layer, nn.Linear(3, 1))


SHARED = nn.Linear(4, 3)


class Slotted:
    __slots__ = ("rate",)

    def __init__(self, rate: float) -> None:
        self.rate = rate


class Holds(nn.Module):
    """Keeps something that is neither a parameter nor a buffer."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.layer, self.held = nn.Linear(4, 1), held

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs)


def hooked() -> nn.Sequential:
    module = net()
    module[0].register_full_backward_hook(lambda layer, inward, outward: None)
    return module


def in_one_memory(weight: Tensor) -> nn.Module:
    module = net()
    module[0].weight.data = weight
    return module


MEMORY = torch.ones(3, 4)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (partial(with_layer, nn.Tanh()), partial(with_layer, nn.ReLU()), "layer 1: Tanh and ReLU"),
        (
            lambda: with_layer(nn.Dropout(0.1)),
            lambda: with_layer(nn.Dropout(0.2)),
            "layer 1: p is 0.1 and 0.2",
        ),
        (
            lambda: with_layer(nn.BatchNorm1d(3)),
            lambda: with_layer(nn.BatchNorm1d(3, eps=1e-3)),
            "layer 1: eps is 1e-05 and 0.001",
        ),
        (net, lambda: net().eval(), "training is True and False"),
        (lambda: Acts(torch.tanh), lambda: Acts(torch.relu), "function is tanh and relu"),
        (lambda: Acts(lambda x: 2 * x), lambda: Acts(lambda x: 3 * x), "function is <lambda>"),
        (lambda: Centred("buffer", 1.0), lambda: Centred("buffer", 2.0), "scale is 1.0 and 2.0"),
        (lambda: with_layer(SHARED), lambda: with_layer(SHARED), "share 1.weight"),
        (net, lambda: net().append(nn.Tanh()), "layer 3 is in one of them only"),
        (lambda: Holds(Slotted(0.1)), lambda: Holds(Slotted(0.2)), "held is"),
        (lambda: Holds([nn.Linear(4, 4)]), lambda: Holds([nn.Linear(4, 4)]), "held is"),
        (
            lambda: Holds(itertools.count(1)),
            lambda: Holds(itertools.count(2)),
            r"held is count\(1\) and count\(2\)",
        ),
        (lambda: Holds(random.Random(1)), lambda: Holds(random.Random(2)), "held is"),
        (
            lambda: Holds(np.random.default_rng(1)),
            lambda: Holds(np.random.default_rng(2)),
            "held is",
        ),
        (lambda: Holds(np.zeros((2, 3))), lambda: Holds(np.zeros((3, 2))), "held is"),
        (net, hooked, "layer 0: _backward_hooks is"),
        (lambda: in_one_memory(MEMORY), lambda: in_one_memory(MEMORY), "share 0.weight"),
    ],
)
def test_modules_that_are_not_one_program_are_not_run_as_the_first(
    first: Any, second: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        OnePass([first(), second()], mean_squared)


def test_equal_things_that_modules_hold_are_no_difference() -> None:
    def closing(module: nn.Sequential) -> nn.Sequential:
        module[0].register_forward_hook(lambda layer, inputs, output, whole=[module]: None)
        return module

    OnePass([closing(net()), closing(net())], mean_squared).step(BATCH)
    one = Holds([nn.Linear(4, 4), Slotted(1.0), random.Random(3), {"a": torch.ones(2)}])
    OnePass([one, copy.deepcopy(one)], mean_squared).step(BATCH)


def test_a_hook_that_comes_later_is_a_difference() -> None:
    modules = [net(), net()]
    tuner = OnePass(modules, mean_squared)
    tuner.step(BATCH)
    modules[1].register_forward_hook(lambda layer, inputs, output: 0 * output)
    with pytest.raises(UserError, match="_forward_hooks is"):
        tuner.step(BATCH)


def test_the_same_module_twice_is_an_error() -> None:
    module = net()
    with pytest.raises(UserError, match="modules 0 and 2 of the list are the same object"):
        OnePass([module, net(), module], mean_squared)


def test_a_difference_that_comes_later_is_found() -> None:
    modules = [with_layer(nn.Dropout(0.0)) for _ in range(2)]
    tuner = OnePass(modules, mean_squared)
    tuner.step(BATCH)
    modules[1][1].p = 0.5  # type: ignore[index]
    with pytest.raises(UserError, match=r"p is 0\.0 and 0\.5"):
        tuner.step(BATCH)
    modules[0][1].p = 0.5  # type: ignore[index]
    tuner.step(BATCH)


class Attends(nn.Module):
    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(1, 8), nn.Linear(8, 1)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) if whole else None

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.enter(inputs[..., None])
        mixed = (
            self.layer(tokens)
            if self.layer
            else functional.scaled_dot_product_attention(tokens, tokens, tokens)
        )
        return self.leave(mixed.mean(1))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("evaluating", [False, True])
def test_attention_trains_alone_and_together(whole: bool, evaluating: bool) -> None:
    modules = [Attends(whole).train(not evaluating) for _ in range(2)]
    single = copy.deepcopy(modules[0])
    tuners = OnePass(modules, mean_squared), OnePass(single, mean_squared)
    for tuner in tuners:
        train(tuner)
    torch.testing.assert_close(modules[0].enter.weight, single.enter.weight, rtol=1e-4, atol=1e-6)
    assert tuners[1].hyperparameters["lr"] != pytest.approx(1e-2)
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.utils.weight_norm(nn.Linear(4, 1)),
        lambda: parametrizations.weight_norm(nn.Linear(4, 1)),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)),
        lambda: Acts(lambda outputs: 2 * outputs),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:There is a performance drop")
def test_modules_together_are_modules_alone_whatever_they_are_made_of(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)  # of some starts rounding makes more than the tolerance
    together = [make() for _ in range(2)]
    alone = [make() for _ in range(2)]
    for one, other in zip(together, alone, strict=True):
        other.load_state_dict(one.state_dict())
    train(OnePass(together, mean_squared))
    for module, other in zip(together, alone, strict=True):
        train(OnePass(other, mean_squared))
        for value, wanted in zip(
            module.state_dict().values(), other.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-5)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.leave = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.leave(self.cells(inputs[:, None])[0][:, -1])


def test_what_cannot_be_mapped_is_one_line_and_trains_alone() -> None:
    train(OnePass(Gated(), mean_squared))
    with pytest.raises(UserError, match="cannot be computed for several modules at once"):
        OnePass([Gated(), Gated()], mean_squared).step(BATCH)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 1, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LazyLinear(1), "weight has no shape yet"),
        (lambda: nn.Sequential(nn.Linear(4, 1), nn.LazyBatchNorm1d()), "has no shape yet"),
        (Complex, "parameter weight is torch.complex64"),
        (lambda: net().requires_grad_(False), "no parameters that require gradients"),
        (lambda: torch.jit.trace(nn.Linear(4, 1), INPUTS), "give what it wraps"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_trained_is_one_line(make: Callable[[], nn.Module], message: str) -> None:
    for model in (make(), [make(), make()]):
        with pytest.raises(UserError, match=message):
            OnePass(model, mean_squared)


# --- what would be lost or wrong without a word ---


class Following(nn.Module):
    """Keeps a moving average of its own weights in parameters that are not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.average = copy.deepcopy(self.layer).requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            self.average.weight.lerp_(self.layer.weight, 0.5)
        return self.layer(inputs)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("together", [False, True])
def test_parameters_that_forward_changes_are_kept_by_step_and_left_by_tune(together: bool) -> None:
    one = Following()
    modules = [one, copy.deepcopy(one)]
    plain = copy.deepcopy(one)
    tuner = OnePass(modules if together else one, mean_squared, every=1)
    plain(INPUTS)
    tuner.step(BATCH)
    for module in modules if together else [one]:
        torch.testing.assert_close(module.average.weight, plain.average.weight)
    kept = one.average.weight.clone()
    tuner.tune(BATCH)
    assert torch.equal(one.average.weight, kept)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_of_parameters_which_would_not_be_called_are_refused(
    late: bool, register: str
) -> None:
    module = net()
    tuner = OnePass(module, mean_squared)
    getattr(module[0].weight, register)(lambda value: None)
    with pytest.raises(UserError, match=r"parameter 0\.weight has a hook"):
        tuner.step(BATCH) if late else OnePass(module, mean_squared)


def test_memory_that_cannot_be_written_to_is_told() -> None:
    def with_weight(value: Tensor) -> nn.Module:
        module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))
        module[0].weight = nn.Parameter(value)
        return module

    with torch.inference_mode():
        inference = net()
    twice = with_weight(torch.ones(4, 4))
    twice[1].weight.data = twice[0].weight.data
    for module, message in (
        (with_weight(torch.ones(1, 4).expand(4, 4)), "share memory"),
        (inference, "inference_mode"),
        (net().to("meta"), "meta device"),
        (twice, r"0\.weight and 1\.weight share their memory"),
    ):
        with pytest.raises(UserError, match=message):
            OnePass(module, mean_squared)
    with pytest.raises(UserError, match="inference_mode"), torch.inference_mode():
        OnePass(net(), mean_squared).step(BATCH)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("call", ["step", "tune"])
def test_a_batch_of_one_row_for_batch_normalisation_is_one_line(together: bool, call: str) -> None:
    modules = [with_layer(nn.BatchNorm1d(3)) for _ in range(2)]
    tuner = OnePass(modules if together else modules[0], mean_squared, every=1)
    tuner.step(BATCH)
    with pytest.raises(UserError, match="batch: is too small for a normalisation layer") as caught:
        getattr(tuner, call)((INPUTS[:1], INPUTS[:1, :1]))
    assert "\n" not in str(caught.value)
    tuner.step(BATCH)


def test_losses_that_do_not_depend_on_the_parameters_are_told_and_linear_ones_train() -> None:
    constant, outer = torch.tensor(1.0, requires_grad=True), net()
    for loss in (
        lambda model, batch: constant * 1,
        lambda model, batch: mean_squared(outer, batch),
    ):
        with pytest.raises(UserError, match="does not depend on the model's parameters"):
            OnePass([net(), net()], loss).step(BATCH)
    train(OnePass(nn.Linear(4, 1), lambda model, batch: (model(batch[0]) * batch[1]).mean()))


def test_sparse_gradients_are_told() -> None:
    words = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(3, 1))
    tuner = OnePass(words, lambda model, batch: model(batch).mean())
    with pytest.raises(UserError, match="sparse=False"):
        tuner.step(torch.zeros(2, 1, dtype=torch.int64))


def test_a_validation_batch_without_a_finite_loss_changes_nothing() -> None:
    tuner = OnePass(net(), mean_squared, every=1)
    tuner.step(BATCH)
    before = tuner.hyperparameters
    with pytest.warns(RuntimeWarning, match="not finite"):
        tuner.tune((INPUTS[:0], INPUTS[:0, :1]))  # its loss is NaN, its gradient 0
    assert (tuner.hyperparameters, tuner.skipped) == (before, 1)
