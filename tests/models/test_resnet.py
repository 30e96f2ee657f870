"""ResNet: torchvision's layout, its layers against torch's own, and everything that trains on
it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hpo_bench.core.table import Table
from hpo_bench.core.update import State
from hpo_bench.errors import UserError
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.models import row_by_row
from hpo_bench.models.resnet import Convolution, ResidualNetwork, ResNet
from hpo_bench.running.trainer import Trainer
from tests.problems import ALL, METHODS, advance, in_force, make_raw, make_settings, make_table

CPU = torch.device("cpu")
TINY = ResNet((1, 1, 1), 2)
SIZE = 8  # of the images: 4 after the first convolution, then 2 in stage 1, 1 in stages 2 and 3


def make_images(rows: int = 40, size: int = SIZE, seed: int = 0) -> Table:
    """Noise with a brighter channel for each class: 60 % training, 20 % validation, 20 % test."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, rows)
    inputs = random.standard_normal((rows, 3, size, size))
    inputs[np.arange(rows), classes] += 1
    training, validation = rows * 6 // 10, rows * 2 // 10
    return Table(
        name="random_images",
        task="classification",
        inputs=inputs,
        targets=classes,
        training=training,
        validation=validation,
        test=rows - training - validation,
        outputs=3,
        target_scale=1.0,
        fingerprint=f"images-{rows}-{size}-{seed}",
    )


def make_model(shape: ResNet = TINY, dtype: torch.dtype = torch.float64):
    return shape.build(make_images(), dtype, CPU)


def initial(model, rows=3):
    return torch.from_numpy(
        np.stack([model.initial_weights(np.random.default_rng(r)) for r in range(rows)])
    )


def make_batch(model, begin=0, end=10, split="training", rows=None):
    """Some images; others for each repetition where ``rows`` are wanted."""
    table = make_images()
    inputs, targets = torch.from_numpy(table.inputs), torch.from_numpy(table.targets)
    chosen = torch.arange(begin, end)
    if rows is not None:
        chosen = torch.stack([(chosen + 3 * r) % 24 for r in range(rows)])
    return model.batch(inputs[chosen], targets[chosen], shared=rows is None, split=split)


def plain(model, weights) -> ResidualNetwork:
    """One repetition as an ordinary module in double precision."""
    module = ResidualNetwork(3, TINY.width, TINY.blocks, 3).double()
    for value, own in zip(module.parameters(), model.layout.views(weights).values(), strict=True):
        value.data.copy_(own)
    return module


@pytest.fixture
def apart(monkeypatch):
    """Take one row after another, whatever its size."""
    monkeypatch.setattr(row_by_row, "CACHE_BYTES", 0)


def torchvisions_layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's resnet18 with ten classes, written down here."""

    def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    found = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    for stage, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name, entering = (
                f"layer{stage}.{block}",
                width // 2 if stage > 1 and block == 0 else width,
            )
            found |= {f"{name}.conv1.weight": (width, entering, 3, 3), **norm(f"{name}.bn1", width)}
            found |= {f"{name}.conv2.weight": (width, width, 3, 3), **norm(f"{name}.bn2", width)}
            if entering != width:
                found |= {
                    f"{name}.downsample.0.weight": (width, entering, 1, 1),
                    **norm(f"{name}.downsample.1", width),
                }
    return found | {"fc.weight": (10, 512), "fc.bias": (10,)}


def test_names_order_shapes_and_count_are_torchvisions():
    with torch.device("meta"):
        module = ResidualNetwork(3, 64, [2, 2, 2, 2], 10)
    found = {name: tuple(value.shape) for name, value in module.named_parameters()}
    assert list(found.items()) == list(torchvisions_layout().items())
    assert sum(math.prod(shape) for shape in found.values()) == 11_181_642


class ReferenceBlock(nn.Module):
    """Two convolutions and a way past them, of torch's own layers."""

    def __init__(self, entering: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(entering, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        past = self.downsample(images) if hasattr(self, "downsample") else images
        inner = functional.relu(self.bn1(self.conv1(images)))
        return functional.relu(self.bn2(self.conv2(inner)) + past)


class Reference(nn.Module):
    """He et al.'s ResNet-18 of torch's own layers, with the names and the order that torchvision
    gives them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        for stage, width in enumerate((64, 128, 256, 512), 1):
            first = (
                ReferenceBlock(64, 64, 1) if stage == 1 else ReferenceBlock(width // 2, width, 2)
            )
            self.add_module(f"layer{stage}", nn.Sequential(first, ReferenceBlock(width, width, 1)))
        self.fc = nn.Linear(512, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = functional.max_pool2d(functional.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        for stage in range(1, 5):
            inner = getattr(self, f"layer{stage}")(inner)
        return self.fc(inner.mean((2, 3)))


def test_outputs_are_those_of_torchs_own_layers():
    torch.manual_seed(0)
    theirs, ours = Reference().double(), ResidualNetwork(3, 64, [2, 2, 2, 2], 10).double()
    assert list(theirs.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    seen: dict[str, list[torch.Tensor]] = {}
    for module in (theirs, ours):
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
                layer.register_forward_hook(
                    lambda _, __, output, name=name: seen.setdefault(name, []).append(output)
                )
    images = torch.randn(
        4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    outputs = theirs(images), ours(images)
    for name, (first, second) in seen.items():
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12, msg=name)
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2), (7, 2), (5, 1)])
def test_a_convolution_is_torchs_for_every_image(size, stride):
    random = torch.Generator().manual_seed(0)
    layer = Convolution(2, 3, size, stride).double()
    for extent in [(1, 1), (2, 2), (3, 3), (4, 4), (2, 3), (1, 4), (8, 8)]:
        images = torch.randn(
            4, 2, *extent, dtype=torch.float64, generator=random, requires_grad=True
        )
        outputs = (
            layer(images),
            functional.conv2d(images, layer.weight, stride=stride, padding=size // 2),
        )
        assert outputs[0].shape == outputs[1].shape
        torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-13)
        vector = torch.randn(outputs[0].shape, dtype=torch.float64, generator=random)
        ours, theirs = (torch.autograd.grad(out, (images, layer.weight), vector) for out in outputs)
        for first, second in zip(ours, theirs, strict=True):
            torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-13)


def test_initial_weights_are_torchvisions():
    """Convolutions normal with variance 2 / fan_out, batch norm 1 and 0, the last layer uniform as
    `nn.Linear`.
    """
    model = make_model(ResNet((1, 2), 8))
    for name, array in model.layout.arrays(initial(model, 40).numpy()).items():
        if array.ndim == 5:
            fan_out = array.shape[1] * array.shape[3] * array.shape[4]
            assert array.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05), name
            assert (array**4).mean() / array.var() ** 2 == pytest.approx(3, rel=0.15), name
        elif name.startswith("fc."):
            assert np.abs(array).max() == pytest.approx(1 / 4, rel=0.05), name
        else:
            assert (array == (1 if name.endswith("weight") else 0)).all(), name


@pytest.mark.parametrize("shared", [True, False])
def test_row_by_row_is_all_rows_at_once(shared, monkeypatch):
    model = make_model()
    weights, batch, carried = (
        initial(model),
        make_batch(model, rows=None if shared else 3),
        model.initial_carried(3),
    )
    found = []
    for cache in (1 << 40, 0):
        monkeypatch.setattr(row_by_row, "CACHE_BYTES", cache)
        linearisation = model.linearise(weights, batch, carried, True)
        losses, after = model.loss(weights, batch, linearisation.carried)
        found.append(
            {
                "loss": linearisation.loss,
                "gradient": linearisation.gradient,
                "product": linearisation.hessian_product(weights),
                "again": losses,
                **after,
                "test": torch.stack(model.evaluate(weights, batch, after)),
            }
        )
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-10, atol=1e-12)


def test_training_is_that_of_a_plain_loop(apart):
    """Five SGD steps, a validation batch forwarded at each: weights, statistics and test loss of
    ordinary modules.
    """
    model = make_model()
    weights, raw = initial(model), make_raw()
    hyper, state = (
        in_force(raw),
        State(weights, torch.zeros_like(weights), model.initial_carried(3)),
    )
    validation, test = make_batch(model, 24, 32, "validation"), make_batch(model, 32, 40, "test")
    batches = [make_batch(model, n, n + 8, rows=3) for n in range(5)]
    for batch in batches:
        linearisation = model.linearise(state.weights, batch, state.carried, False)
        _, carried = model.loss(state.weights, validation, linearisation.carried)
        state, _ = advance(State(state.weights, state.buffer, carried), linearisation, hyper, None)
    found = model.evaluate(state.weights, test, state.carried)
    for row in range(3):
        module = plain(model, weights[row])
        optimiser = torch.optim.SGD(
            module.parameters(),
            lr=hyper["lr"][row].item(),
            momentum=hyper["momentum"][row].item(),
            weight_decay=hyper["weight_decay"][row].item(),
        )
        for batch in batches:
            optimiser.zero_grad()
            functional.cross_entropy(module(batch.inputs[row]), batch.targets[row]).backward()
            with torch.no_grad():
                module(validation.inputs)
            optimiser.step()
        expected = torch.cat([value.detach().ravel() for value in module.parameters()])
        torch.testing.assert_close(state.weights[row], expected, rtol=1e-9, atol=1e-11)
        for name, value in module.named_buffers():
            torch.testing.assert_close(state.carried[name][row], value, rtol=1e-9, atol=1e-11)
        outputs = module.eval()(test.inputs)
        torch.testing.assert_close(
            found[0][row], functional.cross_entropy(outputs, test.targets).detach()
        )
        assert found[1][row] == (outputs.argmax(-1) != test.targets).double().mean()


def test_the_loss_in_training_mode_does_not_see_the_statistics():
    model = make_model()
    weights, batch, carried = initial(model), make_batch(model), model.initial_carried(3)
    other = {name: value + 1 for name, value in carried.items()}
    first, second = (model.linearise(weights, batch, state, False) for state in (carried, other))
    assert torch.equal(first.gradient, second.gradient)
    assert not torch.equal(
        *(model.evaluate(weights, batch, state)[0] for state in (carried, other))
    )


@pytest.mark.parametrize("clip", [None, 0.5])
def test_unrolling_is_finite_differences(clip):
    model, epsilon = make_model(), 1e-6
    weights, raw = initial(model), make_raw()
    training, validation = make_batch(model), make_batch(model, 24, 32, "validation")
    carried = model.initial_carried(3)

    def run(raw, second_order):
        state, steps, hyper = (
            State(weights, torch.zeros_like(weights), carried),
            [],
            in_force(raw),
        )
        for _ in range(3):
            linearisation = model.linearise(state.weights, training, state.carried, second_order)
            state, step = advance(
                State(state.weights, state.buffer, linearisation.carried),
                linearisation,
                hyper,
                clip,
            )
            steps.append(step)
        return steps, model.linearise(state.weights, validation, state.carried, False)

    steps, end = run(raw, True)
    exact = Unroll(3).estimate(steps, end.gradient, ALL)
    for name in ALL:
        up, down = (
            run({**raw, name: raw[name] + sign * epsilon}, False)[1].loss for sign in (1, -1)
        )
        torch.testing.assert_close(
            exact[name][:, 0], (up - down) / (2 * epsilon), rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_it(method, tmp_path, apart):
    settings = make_settings(
        tmp_path,
        method,
        make_images(),
        model=TINY,
        batch_size=8,
        update_interval=3,
        look_back=2,
        hyperparameter_updates=2,
        record_every=3,
    )
    trainer = Trainer.of(settings, settings.source.table, CPU)
    final = trainer.block((0, 1)).tables["final"].to_pydict()
    assert final["status"] == ["ok"] * 2
    assert np.isfinite(final["test_loss"]).all()
    alone = trainer.block((1,)).tables["final"].to_pydict()
    for name in ("train_loss", "test_loss", "lr", "weight_decay", "momentum"):
        assert alone[name][0] == pytest.approx(final[name][1], rel=1e-9), name


def test_a_diverged_row_leaves_the_others_as_they_are(apart):
    model = make_model()
    weights, batch, carried = initial(model), make_batch(model), model.initial_carried(3)
    clean = model.linearise(weights, batch, carried, True)
    spoilt = weights.clone()
    spoilt[1] = torch.nan
    dirty = model.linearise(spoilt, batch, carried, True)
    assert torch.equal(dirty.gradient[[0, 2]], clean.gradient[[0, 2]])
    assert torch.equal(
        dirty.hessian_product(weights)[[0, 2]], clean.hessian_product(weights)[[0, 2]]
    )
    assert torch.isnan(model.evaluate(spoilt, batch, dirty.carried)[1]).tolist() == [
        False,
        True,
        False,
    ]


def test_what_is_not_images_is_refused():
    with pytest.raises(
        UserError, match="model=resnet18: does not fit dataset random_classification"
    ):
        ResNet().build(make_table("classification"), torch.float32, CPU)
    with pytest.raises(UserError, match=r"model\.width=0: must be whole numbers"):
        replace(TINY, width=0).build(make_images(), torch.float32, CPU)
