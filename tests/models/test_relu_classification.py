"""The closed form for classification: odd shapes, rows bitwise alone, sets that are evaluated in
parts.
"""

import numpy as np
import pytest
import torch

from hpo_bench.core import model as base
from hpo_bench.core import native
from hpo_bench.models import relu_classification
from hpo_bench.models.autograd import AutogradModel
from hpo_bench.models.mlp import MLP
from hpo_bench.models.relu_classification import ReLUClassification
from hpo_bench.models.relu_classification_native import NativeReLUClassification
from hpo_bench.running.execute import execute
from hpo_bench.store.runs import read_table
from tests.problems import make_settings, make_table

CPU = torch.device("cpu")
SHAPES = [
    (784, 50, 10, 50),
    (64, 50, 10, 31),
    (4, 7, 3, 20),
    (13, 33, 2, 9),
    (13, 33, 3, 1),
    (5, 1, 2, 8),
]


@pytest.fixture(params=[False, True], ids=["torch", "kernel"])
def by_kernel(request):
    """Whether the closed form is computed by the kernel."""
    if request.param and native.kernels().library is None:
        pytest.skip(f"no compiled kernels: {native.kernels().why}")
    return request.param


def closed_form(by_kernel, *arguments):
    """The closed form for features, hidden units, classes and a dtype."""
    if by_kernel:
        return NativeReLUClassification(*arguments, native.kernels().library)
    return ReLUClassification(*arguments)


def problem(by_kernel, shape, shared, dtype, rows=7):
    """Closed form, autograd, weights (R, P) and the inputs and targets of one batch."""
    features, hidden, classes, count = shape
    table = make_table("classification", 80, features, classes)
    closed = closed_form(by_kernel, features, hidden, classes, dtype)
    plain = MLP((hidden,), closed_form=False).build(table, dtype, CPU)
    draws = [closed.initial_weights(np.random.default_rng(row)) for row in range(rows)]
    inputs, targets = torch.from_numpy(table.inputs).to(dtype), torch.from_numpy(table.targets)
    chosen = torch.stack(
        [
            torch.from_numpy(np.random.default_rng(row).permutation(80)[:count])
            for row in range(rows)
        ]
    )
    chosen = chosen[0] if shared else chosen
    return (
        closed,
        plain,
        torch.from_numpy(np.stack(draws)).to(dtype),
        inputs[chosen],
        targets[chosen],
    )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_autograds(shape, shared, by_kernel):
    closed, plain, weights, inputs, targets = problem(by_kernel, shape, shared, torch.float64)
    assert isinstance(plain, AutogradModel)
    assert not isinstance(closed, AutogradModel)
    vector = torch.randn(
        weights.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    ours, theirs = (
        m.linearise(weights, m.batch(inputs, targets, shared=shared, split="training"), {}, True)
        for m in (closed, plain)
    )
    close = {"rtol": 1e-12, "atol": 1e-14}
    torch.testing.assert_close(ours.loss, theirs.loss, **close)
    torch.testing.assert_close(ours.gradient, theirs.gradient, **close)
    torch.testing.assert_close(
        ours.hessian_product(vector), theirs.hessian_product(vector), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_rows_last_digit_does_not_depend_on_its_place(shape, dtype, by_kernel):
    closed, _, weights, inputs, targets = problem(by_kernel, shape, False, dtype)
    vector = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)).to(dtype)

    def numbers(rows):
        batch = closed.batch(inputs[rows], targets[rows], shared=False, split="training")
        linearisation = closed.linearise(weights[rows], batch, {}, True)
        product = linearisation.hessian_product(vector[rows])
        return [
            linearisation.loss,
            linearisation.gradient,
            product,
            *closed.evaluate(weights[rows], batch, {}),
        ]

    whole = numbers(torch.arange(7))
    for rows in ([0], [3], [6, 1], [5, 4, 3, 2]):
        for part, all_rows in zip(numbers(torch.tensor(rows)), whole, strict=True):
            assert torch.equal(part, all_rows[rows])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("shape", SHAPES)
def test_shared_rows_are_evaluated_alike_alone(shape, dtype, tolerance, by_kernel):
    closed, plain, weights, inputs, targets = problem(by_kernel, shape, True, dtype)
    batch = closed.batch(inputs, targets, shared=True, split="test")
    whole = torch.stack(closed.evaluate(weights, batch, {}))
    alone = torch.cat(
        [torch.stack(closed.evaluate(weights[[row]], batch, {})) for row in range(7)], 1
    )
    torch.testing.assert_close(whole, alone, rtol=tolerance, atol=0)
    reference = torch.stack(plain.evaluate(weights, batch, {}))
    torch.testing.assert_close(whole, reference, rtol=10 * tolerance, atol=0)


@pytest.mark.parametrize("form", [True, False])
def test_a_set_evaluated_in_parts_is_the_set(monkeypatch, form):
    table = make_table("classification", rows=120)
    arguments = table.inputs.shape[1], 7, table.outputs, torch.float64
    model = (
        ReLUClassification(*arguments)
        if form
        else MLP((7,), closed_form=False).build(table, torch.float64, CPU)
    )
    weights = torch.from_numpy(
        np.stack([model.initial_weights(np.random.default_rng(r)) for r in range(3)])
    )
    batch = model.batch(
        torch.from_numpy(table.inputs[:113]),
        torch.from_numpy(table.targets[:113]),
        shared=True,
        split="test",
    )
    whole = model.evaluate(weights, batch, {})
    seen = []
    original = base.replace
    monkeypatch.setattr(
        base, "replace", lambda *a, **k: (seen.append(k["count"]), original(*a, **k))[1]
    )
    for module in ("hpo_bench.models.autograd", "hpo_bench.models.relu_classification"):
        monkeypatch.setattr(
            f"{module}.EVALUATION_BYTES", 16 * 8 * (4 if form else model_activations(model))
        )
    parts = model.evaluate(weights, batch, {})
    assert seen == [16] * 7 + [1]
    for part, reference in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, reference, rtol=1e-14, atol=1e-15)
    assert model.evaluation_bytes(10_000) == model.evaluation_bytes(16)
    weights[1] = torch.nan
    assert [torch.isnan(value).tolist() for value in model.evaluate(weights, batch, {})] == [
        [False, True, False]
    ] * 2


def model_activations(model):
    return model.activations


def test_large_scores_are_neither_infinite_nor_lost(by_kernel):
    closed, plain, weights, inputs, targets = problem(by_kernel, (4, 7, 3, 20), True, torch.float32)
    batch = closed.batch(inputs, targets, shared=True, split="training")
    loss = closed.evaluate(1e4 * weights, batch, {})[0]
    assert torch.isfinite(loss).all()
    assert (loss > 1e4).any()
    torch.testing.assert_close(loss, plain.evaluate(1e4 * weights, batch, {})[0])


def test_matrices_begin_at_whole_vectors():
    like, vector = torch.zeros(1), relu_classification.VECTOR
    made = relu_classification.aligned(like, 3, 5, 7)
    assert made.shape == (3, 5, 7)
    assert made.stride(0) % vector == 0
    assert relu_classification.is_aligned(made)
    crooked = torch.arange(3 * 35.0).reshape(3, 5, 7)
    straight = relu_classification.as_aligned(crooked)
    assert straight is not crooked
    assert torch.equal(straight, crooked)
    assert relu_classification.is_aligned(straight)
    assert relu_classification.as_aligned(straight) is straight


@pytest.mark.parametrize("batch_size", [None, 7])
def test_a_training_is_bitwise_the_same_in_any_block(tmp_path, batch_size):
    table = make_table("classification", rows=70, features=13)
    common = {"table": table, "repetitions": 5, "batch_size": batch_size, "precision": "float32"}
    runs = [
        execute(make_settings(tmp_path / str(chunk), chunk=chunk, **common)).run
        for chunk in (1, 3, 5)
    ]
    first, *others = [read_table(run, "curves") for run in runs]
    for other in others:
        for column in ("train_loss", "validation_loss", "lr", "weight_decay", "momentum"):
            assert first[column].equals(other[column]), column
        np.testing.assert_allclose(first.test_loss, other.test_loss, rtol=1e-6)
