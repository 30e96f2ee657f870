"""The compiled kernels: the numbers of torch for any size; and torch alone where there is no
compiler.
"""

import ctypes
import os
import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch

from hpo_bench.core import native
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.model import Carried
from hpo_bench.core.native import building
from hpo_bench.core.update import Phase, State
from hpo_bench.errors import UserError
from hpo_bench.models import relu_native
from hpo_bench.models.relu_native import NativeReLURegression
from hpo_bench.models.relu_regression import ReLURegression
from hpo_bench.rules.adam import AdamW
from hpo_bench.running.execute import execute
from hpo_bench.store.runs import read_table
from tests.problems import advance, in_force, make_settings

CPU = torch.device("cpu")
LIBRARY = native.kernels().library
needs_kernels = pytest.mark.skipif(
    LIBRARY is None, reason=f"no compiled kernels: {native.kernels().why}"
)
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-5}


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    ).to(dtype)


def both(features, hidden, dtype):
    plain = ReLURegression(features, hidden, 2.5, dtype)
    return plain, NativeReLURegression(features, hidden, 2.5, dtype, LIBRARY)


def close(a, b):
    scale = a.abs().max().clamp(min=1)
    torch.testing.assert_close(b / scale, a / scale, rtol=0, atol=TOLERANCE[a.dtype])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("features", "hidden", "count"),
    [
        (1, 1, 1),
        (2, 3, 15),
        (3, 4, 16),
        (4, 50, 17),
        (8, 50, 614),
        (13, 51, 193),
        (16, 6, 500),
        (30, 9, 40),
    ],
)
def test_kernels_give_the_numbers_of_torch(features, hidden, count, shared, dtype):
    plain, kernel = both(features, hidden, dtype)
    rows = 3
    inputs = draw(*([] if shared else [rows]), count, features, dtype=dtype)
    targets = draw(*inputs.shape[:-1], 1, dtype=dtype, seed=1)
    batch = plain.batch(inputs, targets, shared=shared, split="training")
    weights = draw(rows, plain.layout.count, dtype=dtype, seed=2)
    vectors = draw(2, rows, plain.layout.count, dtype=dtype, seed=3)
    expected, found = (model.linearise(weights, batch, {}, True) for model in (plain, kernel))
    close(expected.loss, found.loss)
    close(expected.gradient, found.gradient)
    close(expected.products(vectors), found.products(vectors))
    close(expected.hessian_product(vectors[1]), found.hessian_product(vectors[1]))
    close(plain.loss(weights, batch, {})[0], kernel.loss(weights, batch, {})[0])
    close(plain.evaluate(weights, batch, {})[1], kernel.evaluate(weights, batch, {})[1])
    torch.testing.assert_close(found.loss, kernel.loss(weights, batch, {})[0], rtol=0, atol=0)


@needs_kernels
def test_a_view_of_weights_or_vectors_will_do():
    _, kernel = both(4, 7, torch.float64)
    batch = kernel.batch(draw(20, 4), draw(20, 1, seed=1), shared=True, split="training")
    weights, vectors = (
        draw(kernel.layout.count, 6, seed=2).T,
        draw(6, 2, kernel.layout.count, seed=3).transpose(0, 1),
    )
    found = kernel.linearise(weights, batch, {}, True)
    again = kernel.linearise(weights.contiguous(), batch, {}, True)
    torch.testing.assert_close(found.gradient, again.gradient, rtol=0, atol=0)
    torch.testing.assert_close(
        found.products(vectors), again.products(vectors.contiguous()), rtol=0, atol=0
    )
    lr, decay = draw(kernel.layout.count, 6, seed=4).T, draw(6, 1, seed=5)
    torch.testing.assert_close(
        found.series(vectors[0], lr, decay, 3),
        again.series(vectors[0], lr.contiguous(), decay, 3),
        rtol=0,
        atol=0,
    )


@needs_kernels
def test_what_is_not_finite_stays_in_its_row():
    _, kernel = both(4, 7, torch.float32)
    batch = kernel.batch(
        draw(20, 4).float(), draw(20, 1, seed=1).float(), shared=True, split="training"
    )
    weights = draw(4, kernel.layout.count, seed=2).float()
    clean = kernel.linearise(weights, batch, {}, True)
    for place in (0, 30, -2, -1):  # first layer, its bias, second layer, its bias
        for value in (torch.nan, torch.inf):
            spoilt = weights.clone()
            spoilt[1, place] = value
            found = kernel.linearise(spoilt, batch, {}, True)
            assert not torch.isfinite(found.loss[1])
            others = [0, 2, 3]
            torch.testing.assert_close(
                found.gradient[others], clean.gradient[others], rtol=0, atol=0
            )
            torch.testing.assert_close(
                found.hessian_product(spoilt)[others],
                clean.hessian_product(weights)[others],
                rtol=0,
                atol=0,
            )


@needs_kernels
def test_a_cpu_takes_the_kernels():
    assert isinstance(relu_native.make(4, 7, 1.0, torch.float32, CPU), NativeReLURegression)
    assert type(relu_native.make(4, 7, 1.0, torch.float32, torch.device("meta"))) is ReLURegression


@pytest.mark.parametrize("method", ["baydin", "ours_wd_hdlr_m", "diff_through_opt"])
def test_without_kernels_rows_do_not_depend_on_their_neighbours_either(
    tmp_path, monkeypatch, method
):
    monkeypatch.setattr(native, "kernels", lambda: native.Kernels(None, "left out"))
    common = {"precision": "float32", "hyperparameter_updates": 3}
    whole = execute(make_settings(tmp_path / "whole", method, repetitions=5, **common)).run
    parts = execute(make_settings(tmp_path / "parts", method, repetitions=5, chunk=2, **common)).run
    columns = ["seed", "step", "train_loss", "test_metric", "lr"]
    pd.testing.assert_frame_equal(
        read_table(whole, "curves", columns), read_table(parts, "curves", columns), rtol=0, atol=0
    )


def asked(folder, **environment):
    """What a fresh process says of its kernels."""
    code = (
        "from hpo_bench.core import native; k = native.kernels(); "
        "print(k.library is not None, k.seconds > 0, k.why)"
    )
    variables = {
        **os.environ,
        "HPO_BENCH_DATA": str(folder),
        "TMPDIR": str(folder / "tmp"),
        **environment,
    }
    (folder / "tmp").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return done.stdout.strip()


def test_no_compiler_or_one_that_fails_leaves_torch(tmp_path):
    assert asked(tmp_path, HPO_BENCH_NATIVE="0") == "False False left out, HPO_BENCH_NATIVE=0"
    assert "no C compiler" in asked(tmp_path, PATH="")
    broken = tmp_path / "cc"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho no such flag >&2; exit 1\n')
    broken.chmod(0o755)
    assert asked(tmp_path, CC=str(broken)).endswith(
        "cc failed (no such flag), torch does all the work"
    )


@needs_kernels
def test_they_are_compiled_once_and_elsewhere_where_the_cache_cannot_be_written(tmp_path):
    assert re.match("True True [-x0-9v_a-z]+, compiled on this machine", asked(tmp_path))
    assert re.match("True False [-x0-9v_a-z]+, compiled on this machine", asked(tmp_path))
    (tmp_path / "file").write_text("")
    assert asked(tmp_path, HPO_BENCH_DATA=str(tmp_path / "file")).startswith("True True")
    (kept,) = (tmp_path / "native").glob("kernels-*.so")
    assert asked(tmp_path, PATH="").startswith("True False")
    kept.write_text("damaged")
    assert asked(tmp_path).startswith("True")


def test_a_variant_that_there_is_not_is_refused(monkeypatch):
    monkeypatch.setenv("HPO_BENCH_NATIVE", "avx")
    with pytest.raises(UserError, match="HPO_BENCH_NATIVE=avx: must be 0, 1 or one of x86-64-v4"):
        native.wanted()


# --- the same bits ---


def libraries():
    """Every variant that this processor can run, by name."""
    found = {name: native.load(name).library for name in native.variants()}
    return {name: library for name, library in found.items() if library is not None}


def fused(names):
    """Those whose numbers are promised to be the same."""
    return [name for name in names if name != "plain"] or list(names)


SIZES = [
    (1, 1, 1),
    (2, 3, 15),
    (4, 50, 700),
    (8, 50, 614),
    (13, 51, 193),
    (16, 6, 1500),
    (30, 9, 40),
]


def everything(model, shared, dtype):
    """Results of every kernel for some weights, by name."""
    rows, count, features = 3, model.count, model.features
    inputs = draw(*([] if shared else [rows]), count, features, dtype=dtype)
    batch = model.batch(
        inputs, draw(*inputs.shape[:-1], 1, dtype=dtype, seed=1), shared=shared, split="training"
    )
    other = model.batch(
        draw(37, features, dtype=dtype, seed=5),
        draw(37, 1, dtype=dtype, seed=6),
        shared=True,
        split="test",
    )
    weights, buffer = (draw(rows, model.layout.count, dtype=dtype, seed=seed) for seed in (2, 3))
    vectors = draw(2, rows, model.layout.count, dtype=dtype, seed=4)
    hyper = hyperparameters(rows, model.layout.count, dtype)
    found = model.linearise(weights, batch, {}, True)
    stretch = model.updates(
        State(weights, buffer), [batch] * 3, hyper, [True, False, True], [other] * 2, other
    )
    series = found.series(vectors[0], hyper["lr"], hyper["weight_decay"], 4)
    single = one_for_all(hyper, rows, dtype)
    carried = Carried(Phase(vectors, 0.1 * vectors.flip(0)), ("momentum", "lr"), 0.9)
    tangents = model.updates(
        State(weights, buffer), [batch] * 3, single, [False] * 3, [], other, carried=carried
    ).tangents
    return {
        "tangents": tangents.weights,
        "tangents of the buffer": tangents.memory,
        **of_adamw(model, batch, other, weights, vectors),
        "loss": found.loss,
        "gradient": found.gradient,
        "products": found.products(vectors),
        "series": series,
        "alone": model.loss(weights, other, {})[0],
        "weights": stretch.state.weights,
        "buffer": stretch.state.buffer,
        "finite": stretch.finite,
        **stretch.columns,
    }


def one_for_all(hyper, rows, dtype):
    """With one learning rate for all weights."""
    lr = draw(rows, 1, dtype=dtype, seed=9) - 2
    return in_force({**hyper.raw, "lr": lr})


def of_adamw(model, batch, other, weights, vectors):
    """Updates of AdamW, and the products of a shortened series through the last of them."""
    rule, rows = AdamW(), len(weights)
    raw = {name: draw(rows, 1, dtype=weights.dtype, seed=9) - 2 for name in rule.coordinates}
    hyper = Hyperparameters.of(raw, rule.coordinates)
    stretch = model.updates(
        State(weights, rule.init(weights)), [batch] * 3, hyper, [True] * 3, [], other, True,
        rule=rule,
    )  # fmt: skip
    step, longest = stretch.step, torch.linalg.vector_norm(vectors[1], dim=-1, keepdim=True)
    products = step.products_of_series(vectors[0], range(1, rows + 1), tuple(raw), longest)
    memory = stretch.state.buffer
    return {
        "weights by AdamW": stretch.state.weights,
        "first": memory.first,
        "second": memory.second,
        "correction": memory.correction2,
        **{f"product of {name}": values for name, values in products.items()},
    }


@needs_kernels
@pytest.mark.parametrize("shorten", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("features", "hidden", "count"), [(1, 1, 1), (4, 50, 17), (8, 50, 614)])
def test_products_of_adamw_are_those_of_torch(features, hidden, count, dtype, shorten):
    plain, kernel = both(features, hidden, dtype)
    rule, rows = AdamW(), 3
    inputs, targets = draw(count, features, dtype=dtype), draw(count, 1, dtype=dtype, seed=1)
    batch = plain.batch(inputs, targets, shared=True, split="training")
    raw = {name: draw(rows, 1, dtype=dtype, seed=9) - 1 for name in rule.coordinates}
    hyper = Hyperparameters.of(raw, rule.coordinates)
    vector = draw(rows, plain.layout.count, dtype=dtype, seed=3)
    longest = 0.3 * torch.linalg.vector_norm(vector, dim=-1, keepdim=True) if shorten else None
    state = State(draw(rows, plain.layout.count, dtype=dtype, seed=2), None)
    state = replace(state, buffer=rule.init(state.weights))
    state, _ = rule.advance(state, plain.linearise(state.weights, batch, {}, True), hyper, None)
    found = []
    for model in (plain, kernel):
        _, step = rule.advance(state, model.linearise(state.weights, batch, {}, True), hyper, None)
        products = step.products_of_series(vector, [4] * rows, tuple(raw), longest)
        if products is None:
            products = step.update_products(step.series(vector, 4, longest), tuple(raw))
        found.append(torch.cat([products[name] for name in raw], -1))
    one, other = found
    tolerance = 1e-11 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(other, one, rtol=tolerance, atol=float(tolerance * one.abs().max()))


def hyperparameters(rows, weights, dtype):
    """A learning rate for each weight, one weight decay and momentum for all."""
    raw = {"lr": (rows, weights), "weight_decay": (rows, 1), "momentum": (rows, 1)}
    return in_force({name: draw(*shape, dtype=dtype, seed=9) - 2 for name, shape in raw.items()})


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("features", "hidden", "count"), SIZES)
def test_instruction_sets_agree_bit_by_bit(features, hidden, count, shared, dtype):
    found = {}
    for name in fused(libraries()):
        model = NativeReLURegression(features, hidden, 2.5, dtype, libraries()[name])
        model.count = count
        found[name] = everything(model, shared, dtype)
    first, *rest = found.values()
    for other in rest:
        for name, values in first.items():
            assert torch.equal(values, other[name]), name


@needs_kernels
@pytest.mark.parametrize("changed", [["-O1"], ["-DTILE=80"], ["-O2", "-fno-tree-vectorize"]])
def test_neither_tiles_nor_optimisation_change_a_bit(tmp_path, monkeypatch, changed):
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, *changed))
    variant = next(iter(fused(libraries())))
    building.compile_to(tmp_path / "kernels.so", building.compiler(), variant)
    models = [
        NativeReLURegression(8, 50, 2.5, torch.float32, library)
        for library in (libraries()[variant], ctypes.CDLL(str(tmp_path / "kernels.so")))
    ]
    for model in models:
        model.count = 1500
    usual, other = (everything(model, True, torch.float32) for model in models)
    for name, values in usual.items():
        assert torch.equal(values, other[name]), name


# --- several updates, several terms, in one call ---

fused_torch = pytest.mark.skipif(
    native.variants()[0] == "plain", reason="torch multiplies and adds with two roundings"
)


@needs_kernels
@fused_torch
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("validation", [True, False])
def test_updates_in_one_call_are_updates_one_by_one_bit_by_bit(dtype, validation):
    _, model = both(8, 50, dtype)
    rows, count = 3, model.layout.count
    batch, second, test = (
        model.batch(
            draw(n, 8, dtype=dtype, seed=n),
            draw(n, 1, dtype=dtype, seed=n + 1),
            shared=True,
            split="test",
        )
        for n in (614, 78, 76)
    )
    state = State(draw(rows, count, dtype=dtype, seed=2), draw(rows, count, dtype=dtype, seed=3))
    state.weights[1, 0] = torch.nan
    hyper, recorded = hyperparameters(rows, count, dtype), [True, False, True, True]
    before = state.weights.clone()
    stretch = model.updates(
        state, [batch] * 4, hyper, recorded, [second] * 3 if validation else [], test
    )
    torch.testing.assert_close(state.weights, before, rtol=0, atol=0, equal_nan=True)

    finite, columns = [], {name: [] for name in stretch.columns}
    assert ("validation_loss" in columns) == validation
    for due in recorded:
        found = model.linearise(state.weights, batch, {}, False)
        finite.append((state.weights * 0).sum(-1) + found.loss * 0)
        if due:
            values = {
                "train_loss": found.loss,
                "validation_loss": model.loss(state.weights, second, {})[0],
            }
            values["test_loss"], values["test_metric"] = model.evaluate(state.weights, test, {})
            for name, column in columns.items():
                column.append(values[name])
        state, _ = advance(state, found, hyper, None)
    same = {"rtol": 0, "atol": 0, "equal_nan": True}
    torch.testing.assert_close(stretch.state.weights, state.weights, **same)
    torch.testing.assert_close(stretch.state.buffer, state.buffer, **same)
    torch.testing.assert_close(stretch.finite, torch.stack(finite), **same)
    for name, column in columns.items():
        torch.testing.assert_close(stretch.columns[name], torch.stack(column), **same)


@needs_kernels
@fused_torch
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_last_update_of_a_call_can_be_differentiated(dtype):
    _, model = both(8, 50, dtype)
    batch = model.batch(
        draw(614, 8, dtype=dtype), draw(614, 1, dtype=dtype, seed=1), shared=True, split="training"
    )
    state = State(*(draw(3, model.layout.count, dtype=dtype, seed=seed) for seed in (2, 3)))
    hyper = hyperparameters(3, model.layout.count, dtype)
    for number in (1, 2):
        found = model.updates(
            state, [batch] * number, hyper, [False] * number, [], batch, True
        ).step
        now = state
        for _ in range(number):
            now, step = advance(now, model.linearise(now.weights, batch, {}, True), hyper, None)
        for name in ("weights", "memory", "new_buffer"):
            assert torch.equal(getattr(found, name), getattr(step, name))
        vector = draw(3, model.layout.count, dtype=dtype, seed=4)
        assert torch.equal(found.series(vector, 5), step.series(vector, 5))
        assert torch.equal(found.update_pullback(vector), step.update_pullback(vector))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_terms_in_one_call_are_terms_one_by_one_bit_by_bit(dtype):
    _, model = both(8, 50, dtype)
    batch = model.batch(
        draw(614, 8, dtype=dtype), draw(614, 1, dtype=dtype, seed=1), shared=True, split="training"
    )
    state = State(*(draw(3, model.layout.count, dtype=dtype, seed=seed) for seed in (2, 3)))
    found = model.linearise(state.weights, batch, {}, True)
    _, step = advance(state, found, hyperparameters(3, model.layout.count, dtype), None)
    vector = draw(3, model.layout.count, dtype=dtype, seed=4)
    one_by_one = replace(step, linearisation=replace(found, series=None))
    for terms in (1, 2, 6):
        assert torch.equal(step.series(vector, terms), one_by_one.series(vector, terms))
