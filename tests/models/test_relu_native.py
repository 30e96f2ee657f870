"""The compiled kernels: the numbers of torch for any size; and torch alone where there is no compiler."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch

from hpo_bench import native
from hpo_bench.experiment import execute
from hpo_bench.models import relu_native
from hpo_bench.models.relu_native import NativeReLURegression
from hpo_bench.models.relu_regression import ReLURegression
from hpo_bench.store import read_table
from tests.problems import make_settings

CPU = torch.device("cpu")
LIBRARY = native.kernels().library
needs_kernels = pytest.mark.skipif(LIBRARY is None, reason=f"no compiled kernels: {native.kernels().why}")
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-5}


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


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
    [(1, 1, 1), (2, 3, 15), (3, 4, 16), (4, 50, 17), (8, 50, 614), (13, 51, 193), (16, 6, 500), (30, 9, 40)],
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
    weights, vectors = draw(kernel.layout.count, 6, seed=2).T, draw(6, 2, kernel.layout.count, seed=3).transpose(0, 1)
    found = kernel.linearise(weights, batch, {}, True)
    again = kernel.linearise(weights.contiguous(), batch, {}, True)
    torch.testing.assert_close(found.gradient, again.gradient, rtol=0, atol=0)
    torch.testing.assert_close(found.products(vectors), again.products(vectors.contiguous()), rtol=0, atol=0)


@needs_kernels
def test_what_is_not_finite_stays_in_its_row():
    _, kernel = both(4, 7, torch.float32)
    batch = kernel.batch(draw(20, 4).float(), draw(20, 1, seed=1).float(), shared=True, split="training")
    weights = draw(4, kernel.layout.count, seed=2).float()
    clean = kernel.linearise(weights, batch, {}, True)
    for place in (0, 30, -2, -1):  # first layer, its bias, second layer, its bias
        for value in (torch.nan, torch.inf):
            spoilt = weights.clone()
            spoilt[1, place] = value
            found = kernel.linearise(spoilt, batch, {}, True)
            assert not torch.isfinite(found.loss[1])
            others = [0, 2, 3]
            torch.testing.assert_close(found.gradient[others], clean.gradient[others], rtol=0, atol=0)
            torch.testing.assert_close(
                found.hessian_product(spoilt)[others], clean.hessian_product(weights)[others], rtol=0, atol=0
            )


@needs_kernels
def test_a_cpu_takes_the_kernels():
    assert isinstance(relu_native.make(4, 7, 1.0, torch.float32, CPU), NativeReLURegression)
    assert type(relu_native.make(4, 7, 1.0, torch.float32, torch.device("meta"))) is ReLURegression


@pytest.mark.parametrize("method", ["baydin", "ours_wd_hdlr_m", "diff_through_opt"])
def test_without_kernels_rows_do_not_depend_on_their_neighbours_either(tmp_path, monkeypatch, method):
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
    code = "from hpo_bench import native; k = native.kernels(); print(k.library is not None, k.seconds > 0, k.why)"
    variables = {**os.environ, "HPO_BENCH_DATA": str(folder), "TMPDIR": str(folder / "tmp"), **environment}
    (folder / "tmp").mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.strip()


def test_no_compiler_or_one_that_fails_leaves_torch(tmp_path):
    assert asked(tmp_path, HPO_BENCH_NATIVE="0") == "False False left out, HPO_BENCH_NATIVE=0"
    assert asked(tmp_path, PATH="").startswith("False False none: no C compiler")
    broken = tmp_path / "cc"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho no such flag >&2; exit 1\n')
    broken.chmod(0o755)
    assert asked(tmp_path, CC=str(broken)).endswith("cc failed (no such flag), torch does all the work")


@needs_kernels
def test_they_are_compiled_once_and_elsewhere_where_the_cache_cannot_be_written(tmp_path):
    assert asked(tmp_path).startswith("True True compiled by")
    assert asked(tmp_path).startswith("True False compiled by")
    (tmp_path / "file").write_text("")
    assert asked(tmp_path, HPO_BENCH_DATA=str(tmp_path / "file")).startswith("True True")
    (kept,) = (tmp_path / "native").glob("kernels-*.so")
    kept.write_text("damaged")
    assert asked(tmp_path).startswith("True")
