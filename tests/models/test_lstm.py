"""The written-out LSTM against torch.nn.LSTM, its carried state, and everything that trains on
it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import nn
from torch.nn import functional

from hpo_bench.core.table import Table
from hpo_bench.core.update import State
from hpo_bench.errors import UserError
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.models.lstm import LSTM
from hpo_bench.running.trainer import Trainer
from tests.problems import ALL, METHODS, advance, in_force, make_raw, make_settings, make_table

CPU = torch.device("cpu")
WORDS, COLUMNS, SHAPE = 13, 3, LSTM(5, 4, 2, 6)


def make_words(steps: int = 40, seed: int = 0) -> Table:
    """Columns that count upwards modulo the vocabulary, with some noise: 60 % training, 20 %
    validation, 20 % test.
    """
    random = np.random.default_rng(seed)
    strides = random.choice([1, 1, 1, 2], (steps + 1, COLUMNS))
    stream = np.cumsum(strides, 0) % WORDS
    training, validation = steps * 6 // 10, steps * 2 // 10
    return Table(
        name="random_words",
        task="language",
        inputs=stream[:-1],
        targets=stream[1:],
        training=training,
        validation=validation,
        test=steps - training - validation,
        outputs=WORDS,
        target_scale=1.0,
        fingerprint=f"words-{steps}-{seed}",
    )


def make_model(shape: LSTM = SHAPE, dtype: torch.dtype = torch.float64):
    return shape.build(make_words(), dtype, CPU)


def initial(model, rows=3, dtype=torch.float64):
    return torch.from_numpy(
        np.stack([model.initial_weights(np.random.default_rng(r)) for r in range(rows)])
    ).to(dtype)


def make_batch(model, begin=0, end=7, split="training", first=False, rows=None):
    """Steps of the words, each column's order turned by its repetition where ``rows`` are
    wanted.
    """
    table = make_words()
    inputs, targets = (
        torch.from_numpy(array[begin:end]) for array in (table.inputs, table.targets)
    )
    if rows is not None:
        inputs, targets = (
            torch.stack([t.roll(r, 1) for r in range(rows)]) for t in (inputs, targets)
        )
    return model.batch(inputs, targets, shared=rows is None, split=split, first=first)


def random_state(model, rows=3):
    random = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(value.shape, dtype=value.dtype, generator=random)
        for name, value in model.initial_carried(rows).items()
    }


class Reference(nn.Module):
    """The same model out of torch's layers."""

    def __init__(self, shape: LSTM) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, shape.embedding)
        self.lstm = nn.LSTM(shape.embedding, shape.hidden, shape.layers)
        self.decoder = nn.Linear(shape.hidden, WORDS)

    def forward(self, words, targets, state):
        outputs, state = self.lstm(self.embedding(words), state)
        return functional.cross_entropy(
            self.decoder(outputs).flatten(0, 1), targets.flatten()
        ), state


def reference_call(model, weights, words, targets, state):
    with torch.backends.mkldnn.flags(enabled=False):  # whose LSTM has no second derivative
        module = Reference(model.shape).to(weights.dtype)
        return torch.func.functional_call(
            module, model.layout.views(weights), (words, targets, state)
        )


@pytest.mark.parametrize("shape", [SHAPE, LSTM(3, 6, 1), LSTM(4, 4, 3)])
@pytest.mark.parametrize("shared", [True, False])
def test_value_gradient_and_hessian_are_torchs(shape, shared):
    model = make_model(shape)
    weights, carried = initial(model), random_state(model)
    batch = make_batch(model, rows=None if shared else 3)
    vector = torch.randn(
        weights.shape, dtype=weights.dtype, generator=torch.Generator().manual_seed(2)
    )
    ours = model.linearise(weights, batch, carried, True)
    products = [ours.hessian_product(v) for v in (vector, 2 * vector)]  # it can be used again
    for row in range(3):
        own = weights[row].clone().requires_grad_(True)
        words, targets = (t if shared else t[row] for t in (batch.inputs, batch.targets))
        state = carried["training.hidden"][row], carried["training.cells"][row]
        loss, after = reference_call(model, own, words, targets, state)
        (gradient,) = torch.autograd.grad(loss, own, create_graph=True)
        (product,) = torch.autograd.grad(gradient, own, vector[row])
        torch.testing.assert_close(ours.loss[row], loss.detach(), rtol=1e-13, atol=0)
        torch.testing.assert_close(ours.gradient[row], gradient.detach(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(products[0][row], product, rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(products[1][row], 2 * product, rtol=1e-11, atol=1e-14)
        for name, value in zip(("hidden", "cells"), after, strict=True):
            torch.testing.assert_close(
                ours.carried[f"training.{name}"][row], value.detach(), rtol=1e-12, atol=1e-14
            )


def test_names_shapes_and_counts_are_those_of_torchs_layers():
    model = LSTM().build(replace(make_words(), outputs=10000), torch.float32, CPU)
    with torch.device("meta"):
        layers = {
            "embedding": nn.Embedding(10000, 650),
            "lstm": nn.LSTM(650, 650, 2),
            "decoder": nn.Linear(650, 10000),
        }
    expected = {
        f"{prefix}.{name}": tuple(value.shape)
        for prefix, layer in layers.items()
        for name, value in layer.named_parameters()
    }
    assert dict(zip(model.layout.names, model.layout.shapes, strict=True)) == expected
    assert (
        model.layout.count
        == 6_500_000 + 2 * (2 * 4 * 650 * 650 + 2 * 4 * 650) + 650 * 10_000 + 10_000
    )


def test_initial_weights_are_distributed_as_torchs():
    model = make_model(LSTM(8, 16, 2))
    drawn = model.layout.arrays(initial(model, 60).numpy())
    torch.manual_seed(0)
    theirs = [dict(Reference(model.shape).named_parameters()) for _ in range(60)]
    for name, array in drawn.items():
        reference = torch.stack([own[name].detach() for own in theirs]).numpy()
        assert array.std() == pytest.approx(reference.std(), rel=0.1), name
        if name != "embedding.weight":
            assert np.abs(array).max() == pytest.approx(0.25, rel=0.02), name


def test_training_is_that_of_a_plain_loop_with_a_detached_state():
    """Five SGD steps on torch's own layers, the state carried from batch to batch and reset at the
    pass's start.
    """
    model, batches = make_model(), [(0, 6), (6, 12), (12, 15), (0, 6), (6, 12)]
    weights, raw = initial(model), make_raw()
    hyper, state = (
        in_force(raw),
        State(weights, torch.zeros_like(weights), random_state(model)),
    )
    for begin, end in batches:
        batch = make_batch(model, begin, end, first=begin == 0)
        linearisation = model.linearise(state.weights, batch, state.carried, False)
        state, _ = advance(
            State(state.weights, state.buffer, linearisation.carried), linearisation, hyper, 0.25
        )
    for row in range(3):
        module = Reference(SHAPE).double()
        for value, own in zip(
            module.parameters(), model.layout.views(weights[row]).values(), strict=True
        ):
            value.data.copy_(own)
        optimiser = torch.optim.SGD(
            module.parameters(),
            lr=hyper["lr"][row].item(),
            momentum=hyper["momentum"][row].item(),
            weight_decay=hyper["weight_decay"][row].item(),
        )
        carried = None
        for begin, end in batches:
            batch = make_batch(model, begin, end)
            loss, carried = module(batch.inputs, batch.targets, None if begin == 0 else carried)
            carried = tuple(part.detach() for part in carried)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 0.25)
            optimiser.step()
        found = torch.cat([value.detach().ravel() for value in module.parameters()])
        torch.testing.assert_close(state.weights[row], found, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shared", [True, False])
def test_a_row_alone_is_a_row_of_a_batch_and_a_diverged_one_stays_alone(shared, dtype):
    model = make_model(dtype=dtype)
    weights, carried = initial(model, dtype=dtype), random_state(model)
    batch = make_batch(model, rows=None if shared else 3)
    whole = model.linearise(weights, batch, carried, True)
    spoilt = torch.stack([weights[0], torch.full_like(weights[1], torch.nan), weights[2]])
    dirty = model.linearise(spoilt, batch, carried, True)
    assert torch.isnan(dirty.loss).tolist() == [False, True, False]
    tolerance = (
        {"rtol": 1e-12, "atol": 1e-14} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    )
    for row in (0, 2):
        pick = slice(row, row + 1)
        own = (
            batch
            if shared
            else replace(batch, inputs=batch.inputs[pick], targets=batch.targets[pick])
        )
        alone = model.linearise(weights[pick], own, {k: v[pick] for k, v in carried.items()}, True)
        torch.testing.assert_close(alone.gradient, whole.gradient[pick], **tolerance)
        product = whole.hessian_product(weights)[pick]
        torch.testing.assert_close(alone.hessian_product(weights[pick]), product, **tolerance)
        assert torch.equal(dirty.gradient[row], whole.gradient[row])
        assert torch.equal(dirty.hessian_product(weights)[row], product[0])


def test_each_part_carries_a_state_of_its_own_that_a_pass_begins_at_zero():
    model = make_model()
    weights, carried = initial(model), random_state(model)
    for split, other in (("training", "validation"), ("validation", "training")):
        batch = make_batch(model, split=split)
        loss, after = model.loss(weights, batch, carried)
        again = model.linearise(weights, batch, carried, False)
        assert torch.equal(loss, again.loss)
        for name in ("hidden", "cells"):
            assert after[f"{other}.{name}"] is carried[f"{other}.{name}"]
            assert torch.equal(after[f"{split}.{name}"], again.carried[f"{split}.{name}"])
        twice, _ = model.loss(weights, batch, after)
        assert not torch.equal(twice, loss)
        reset = [
            model.loss(weights, replace(batch, first=True), state)[0] for state in (carried, after)
        ]
        fresh, _ = model.loss(weights, batch, model.initial_carried(3))
        assert torch.equal(reset[0], fresh)
        assert torch.equal(reset[1], fresh)


def test_evaluation_begins_at_zero_and_is_the_unweighted_mean_of_batches():
    model = make_model()
    weights, whole = initial(model), make_batch(model, 0, 15, split="test")
    loss, perplexity = model.evaluate(weights, whole, random_state(model))
    state, means = model.initial_carried(3), []
    for begin, end in ((0, 6), (6, 12), (12, 15)):
        mean, state = model.loss(weights, make_batch(model, begin, end), state)
        means.append(mean)
    torch.testing.assert_close(loss, sum(means) / 3, rtol=1e-13, atol=0)
    torch.testing.assert_close(perplexity, loss.exp(), rtol=1e-13, atol=0)
    at_once, _ = make_model(replace(SHAPE, evaluation_steps=None)).evaluate(weights, whole, {})
    assert not torch.allclose(at_once, loss)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_unrolling_is_finite_differences(clip):
    """Exact hypergradients through three batches; what a batch begins with is a constant, as it is
    for its gradient.
    """
    model, epsilon = make_model(LSTM(3, 3, 2)), 1e-5
    weights, raw = initial(model), make_raw()
    training = [make_batch(model, begin, begin + 4) for begin in (0, 4, 8)]
    validation, carried = make_batch(model, 20, 26, split="validation"), random_state(model)

    def run(raw):
        state, steps = State(weights, torch.zeros_like(weights), carried), []
        for batch in training:  # each from the same state: its dependence on the weights is cut
            state, step = advance(
                state,
                model.linearise(state.weights, batch, carried, True),
                in_force(raw),
                clip,
            )
            steps.append(step)
        return steps, model.linearise(state.weights, validation, carried, False)

    steps, end = run(raw)
    exact = Unroll(3).estimate(steps, end.gradient, ALL)
    for name in ALL:
        up, down = (run({**raw, name: raw[name] + sign * epsilon})[1].loss for sign in (1, -1))
        torch.testing.assert_close(
            exact[name][:, 0], (up - down) / (2 * epsilon), rtol=1e-5, atol=1e-9
        )


def words_settings(folder, method, **changes):
    values = {
        "model": SHAPE,
        "batch_size": 6,
        "data_order": "sequential",
        "gradient_clip_norm": 0.25,
        "update_interval": 4,
        "look_back": 3,
        "hyperparameter_updates": 3,
    }
    return make_settings(folder, method, make_words(), **(values | changes))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_it(method, tmp_path):
    settings = words_settings(tmp_path, method)
    trainer = Trainer.of(settings, settings.source.table, CPU)
    block = trainer.block((0, 1, 2))
    final = block.tables["final"].to_pydict()
    assert final["status"] == ["ok"] * 3
    assert np.isfinite(final["test_metric"]).all()
    curves = block.tables["curves"].to_pydict()
    np.testing.assert_allclose(curves["test_metric"], np.exp(curves["test_loss"]), rtol=1e-12)
    alone = trainer.block((1,)).tables["final"].to_pydict()
    for name in ("train_loss", "test_loss", "lr", "weight_decay", "momentum"):
        assert alone[name][0] == pytest.approx(final[name][1], rel=1e-11), name


def test_a_validation_batch_moves_its_state_at_every_update_and_once_more_at_a_hyper_update(
    tmp_path,
):
    """As in the paper's code; recorded validation losses tell, because a batch's loss depends on
    where it begins.
    """
    settings = words_settings(tmp_path, "lorraine")
    trainer = Trainer.of(settings, settings.source.table, CPU)
    model, calls = trainer.model, []
    watched = _Watched(model, calls)
    replace(trainer, model=watched).block((0,))
    validation = [kind for kind, batch in calls if batch.split == "validation"]
    assert validation == (["loss"] * 4 + ["linearise"]) * 3 + ["loss"]


@pytest.mark.parametrize("method", ["lorraine", "baydin"])
def test_where_nothing_is_recorded_the_state_moves_all_the_same(tmp_path, method):
    """The training does not depend on how often it is recorded, though the decoder is then left
    out.
    """
    often, seldom = (
        Trainer.of(settings, settings.source.table, CPU).block((0, 1)).tables["curves"].to_pandas()
        for settings in (words_settings(tmp_path, method, record_every=every) for every in (1, 5))
    )
    seen = often[often.step.isin(seldom.step)].reset_index(drop=True)
    columns = ["seed", "step", "train_loss", "validation_loss", "test_metric", "lr", "weight_decay"]
    assert_frame_equal(seen[columns], seldom[columns], rtol=0, atol=0)


def test_carrying_on_is_a_loss_that_nobody_wants():
    model = make_model()
    weights, state = initial(model), random_state(model)
    for split in ("training", "validation"):
        batch = make_batch(model, split=split)
        expected, found = model.loss(weights, batch, state)[1], model.carry(weights, batch, state)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)


class _Watched:
    """A model that writes down its calls."""

    carries_state = True

    def __init__(self, model, calls):
        self.model, self.calls = model, calls

    def __getattr__(self, name):
        found = getattr(self.model, name)
        if name not in ("loss", "carry", "linearise"):
            return found

        def call(weights, batch, *rest):
            self.calls.append((name, batch))
            return found(weights, batch, *rest)

        return call


def test_training_lowers_the_perplexity(tmp_path):
    changes = {"model": LSTM(8, 16, 1, 6), "hyperparameter_updates": 40, "gradient_clip_norm": None}
    settings = words_settings(tmp_path, "ours_wd_lr_m", **changes)
    block = Trainer.of(settings, settings.source.table, CPU).block((0, 1))
    metric = np.array(block.tables["curves"].to_pydict()["test_metric"]).reshape(2, -1)
    assert (metric[:, -1] < 0.8 * metric[:, 0]).all()


def test_what_is_not_words_is_refused():
    with pytest.raises(UserError, match="model=lstm: does not fit dataset random_regression"):
        LSTM().build(make_table(), torch.float32, CPU)
    with pytest.raises(UserError, match=r"model.hidden=0: must be a whole number"):
        LSTM(hidden=0).build(make_words(), torch.float32, CPU)


def test_the_estimate_of_memory_grows_with_what_is_kept():
    model = make_model()
    assert model.row_bytes(70, 5) > model.row_bytes(70, 1) > model.row_bytes(6, 1)
    assert model.evaluation_bytes(10_000) == model.evaluation_bytes(6)


@pytest.mark.parametrize("key", ["embedding", "hidden", "layers", "evaluation_steps"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_sizes_that_leave_nothing_are_one_line(key, value):
    with pytest.raises(UserError, match=rf"^model\.{key}="):
        replace(SHAPE, **{key: value}).build(make_words(), torch.float32, torch.device("cpu"))
