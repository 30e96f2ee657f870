"""Models: closed form against autograd, rows against single runs, initialisation against
PyTorch's.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hpo_bench.errors import UserError
from hpo_bench.models.mlp import MLP, Perceptron
from tests.problems import make_table

CPU = torch.device("cpu")


def pair(task, dtype=torch.float64):
    table = make_table(task, rows=50)
    closed, plain = (
        MLP((7,)).build(table, dtype, CPU),
        MLP((7,), closed_form=False).build(table, dtype, CPU),
    )
    assert type(closed) is not type(plain)
    return table, closed, plain


def batches(model, table, shared, dtype=torch.float64, rows=3):
    inputs, targets = torch.from_numpy(table.inputs).to(dtype), torch.from_numpy(table.targets)
    if targets.is_floating_point():
        targets = targets.to(dtype)
    if not shared:
        order = torch.stack(
            [
                torch.from_numpy(np.random.default_rng(r).permutation(len(inputs))[:20])
                for r in range(rows)
            ]
        )
        inputs, targets = inputs[order], targets[order]
    return model.batch(inputs, targets, shared=shared, split="training")


def initial(model, rows=3, dtype=torch.float64):
    return torch.from_numpy(
        np.stack([model.initial_weights(np.random.default_rng(r)) for r in range(rows)])
    ).to(dtype)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("shared", [True, False])
def test_closed_form_is_autograd(task, shared):
    table, closed, plain = pair(task)
    weights, vector = initial(closed), torch.randn(3, closed.layout.count, dtype=torch.float64)
    ours, theirs = (
        m.linearise(weights, batches(m, table, shared), {}, True) for m in (closed, plain)
    )
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-13, atol=0)
    torch.testing.assert_close(ours.gradient, theirs.gradient, rtol=1e-12, atol=1e-15)
    for _ in range(2):  # a linearisation can be used again
        torch.testing.assert_close(
            ours.hessian_product(vector), theirs.hessian_product(vector), rtol=1e-11, atol=1e-14
        )
    pairs = torch.stack([vector, weights])
    torch.testing.assert_close(ours.products(pairs), theirs.products(pairs), rtol=1e-11, atol=1e-14)
    evaluated = [m.evaluate(weights, batches(m, table, shared), {}) for m in (closed, plain)]
    for own, reference in zip(*evaluated, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-13, atol=0)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("hidden", [(7,), (6, 5)])
def test_the_hessian_product_is_the_derivative_of_the_gradient(task, hidden):
    table = make_table(task)
    model = MLP(hidden).build(table, torch.float64, CPU)
    weights, batch, epsilon = initial(model), batches(model, table, True), 1e-6
    vector = torch.randn(3, model.layout.count, dtype=torch.float64)
    up, down = (
        model.linearise(weights + s * epsilon * vector, batch, {}, False).gradient for s in (1, -1)
    )
    product = model.linearise(weights, batch, {}, True).hessian_product(vector)
    torch.testing.assert_close(product, (up - down) / (2 * epsilon), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_row_alone_is_a_row_of_a_batch(task, shared, dtype):
    table = make_table(task)
    model = MLP((50,)).build(table, dtype, CPU)
    weights, vector = initial(model, 5, dtype), torch.randn(5, model.layout.count, dtype=dtype)
    batch = batches(model, table, shared, dtype, 5)
    whole = model.linearise(weights, batch, {}, True)
    for row in range(5):
        pick = slice(row, row + 1)
        own = (
            batch
            if shared
            else type(batch)(
                batch.inputs[pick], batch.targets[pick], batch.count, False, "training", True
            )
        )
        alone = model.linearise(weights[pick], own, {}, True)
        assert torch.equal(alone.loss, whole.loss[pick])
        assert torch.equal(alone.gradient, whole.gradient[pick])
        assert torch.equal(alone.hessian_product(vector[pick]), whole.hessian_product(vector)[pick])


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_diverged_row_leaves_the_others_as_they_are(task):
    table = make_table(task)
    model = MLP((7,)).build(table, torch.float64, CPU)
    weights, batch = initial(model), batches(model, table, True)
    clean = model.linearise(weights, batch, {}, True)
    spoilt = weights.clone()
    spoilt[1] = torch.nan
    dirty = model.linearise(spoilt, batch, {}, True)
    assert torch.equal(dirty.gradient[[0, 2]], clean.gradient[[0, 2]])
    assert torch.equal(
        dirty.hessian_product(weights)[[0, 2]], clean.hessian_product(weights)[[0, 2]]
    )
    assert torch.isnan(model.evaluate(spoilt, batch, {})[1]).tolist() == [False, True, False]


def test_initial_weights_are_distributed_as_pytorchs():
    model = MLP((50,)).build(make_table(features=8), torch.float64, CPU)
    ours = np.stack([model.initial_weights(np.random.default_rng(r)) for r in range(200)])
    theirs = []
    for seed in range(200):
        torch.manual_seed(seed)
        theirs.append(
            torch.cat([p.detach().ravel() for p in Perceptron([8, 50, 1]).parameters()]).numpy()
        )
    for name, array in model.layout.arrays(ours).items():
        reference = model.layout.arrays(np.stack(theirs).astype(float))[name]
        assert np.abs(array).max() == pytest.approx(np.abs(reference).max(), rel=0.02)
        assert array.std() == pytest.approx(reference.std(), rel=0.15)


@pytest.mark.parametrize(("task", "outputs"), [("regression", 1), ("classification", 3)])
def test_parameter_names_and_initial_weights_are_those_of_the_module(task, outputs):
    closed, plain = (
        MLP((50,), closed_form=c).build(make_table(task), torch.float64, CPU) for c in (True, False)
    )
    assert closed.layout == plain.layout
    assert closed.layout.names == tuple(
        name for name, _ in Perceptron([4, 50, outputs]).named_parameters()
    )
    assert np.array_equal(*(m.initial_weights(np.random.default_rng(0)) for m in (closed, plain)))


@pytest.mark.parametrize(
    ("changes", "message"), [({"hidden": (0,)}, "at least 1"), ({"hidden": ("a",)}, "hidden")]
)
def test_widths_that_are_none(changes, message):
    with pytest.raises(UserError, match=message):
        MLP(**changes).build(make_table(), torch.float64, CPU)


def test_rows_that_are_not_lists_of_features():
    table = make_table("classification")
    images = replace(table, inputs=table.inputs.reshape(-1, 2, 2))
    with pytest.raises(UserError, match="lists of features"):
        MLP().build(images, torch.float64, CPU)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_repetition_without_vmap_is_the_same_to_rounding(batch_norm, shared):
    """What a GPU does with one repetition."""
    table = make_table("classification", rows=50)
    model = MLP((7,), batch_norm=batch_norm, closed_form=False).build(table, torch.float64, CPU)
    weights, carried = initial(model, rows=1), model.initial_carried(1)
    vector, batch = (
        torch.randn(1, model.layout.count, dtype=torch.float64),
        batches(model, table, shared, rows=1),
    )

    def everything():
        linear = model.linearise(weights, batch, carried, True)
        loss, after = model.loss(weights, batch, carried)
        product = linear.hessian_product(vector)
        return (
            linear.loss,
            linear.gradient,
            linear.carried,
            product,
            loss,
            after,
            model.evaluate(weights, batch, after),
        )

    mapped = everything()
    model.alone_unmapped = True
    torch.testing.assert_close(everything(), mapped, rtol=1e-12, atol=1e-14)
