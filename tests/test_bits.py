"""float32 results of one hidden layer are the same, bit by bit, with every instruction set of
x86-64-v3 and later.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo_bench.core import native
from hpo_bench.core.loop import train
from hpo_bench.core.native.elementary import address, exp, sqrt
from hpo_bench.running import graphs
from hpo_bench.running.trainer import Trainer
from tests.problems import BEYOND, METHODS, make_settings, make_table

SEEDS = range(5)
FUSED = (*METHODS, *BEYOND)

needs_kernels = pytest.mark.skipif(native.kernels().library is None, reason="no compiled kernels")
needs_avx2 = pytest.mark.skipif(
    native.kernels().library is None or native.kernels().variant == "plain",
    reason="no kernels, or no AVX2",
)


def digest(folder: Path, method: str, parts: Sequence[Sequence[int]]) -> str:
    """Of all that one method writes down of a small regression, its repetitions trained in
    ``parts``.
    """
    table, batch_size = pickle.loads((folder / "table").read_bytes())
    settings = make_settings(
        folder,
        method,
        table,
        precision="float32",
        save_hypergradients=True,
        hyperparameter_updates=12,
        repetitions=5,
        batch_size=batch_size,
    )
    trainer = Trainer.of(settings, table, torch.device("cpu"))
    columns: dict[str, list[np.ndarray]] = {}
    for seeds in parts:
        recorder = trainer.recorder(len(seeds))
        end = train(
            trainer.problem(seeds), trainer.plan, trainer.start(seeds), recorder, engine=graphs.of
        )
        found = {
            "weights": end.state.weights.numpy().T,
            **recorder.curves(),
            **recorder.hypergradients(),
        }
        for name, values in found.items():
            columns.setdefault(name, []).append(values)
    text = hashlib.sha256()
    for _, values in sorted(columns.items()):
        text.update(np.ascontiguousarray(np.concatenate(values, axis=-1)).tobytes())
    return text.hexdigest()[:16]


def digests(folder: Path, *, divided: bool) -> str:
    """Of each method, a line for each."""
    parts = [list(SEEDS)[:2], list(SEEDS)[2:]] if divided else [list(SEEDS)]
    return "".join(f"{method} {digest(folder, method, parts)}\n" for method in FUSED)


def elsewhere(folder: Path, **environment: str) -> str:
    """`digests` by another process, its repetitions trained in two parts."""
    code = (
        "import sys, pathlib, tests.test_bits as t; "
        "print(t.digests(pathlib.Path(sys.argv[1]), divided=True), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wide_features() -> str:
    """What NumPy must do without to compute as on a processor without AVX-512."""
    core = pytest.importorskip("numpy._core._multiarray_umath")
    return " ".join(name for name in core.__cpu_dispatch__ if "512" in name or name == "X86_V4")


@needs_avx2
@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "batch_size"), [("regression", None), ("classification", None), ("classification", 9)]
)
def test_methods_give_the_same_bits_with_every_instruction_set_and_division(
    tmp_path: Path, task: str, batch_size: int | None
) -> None:
    (tmp_path / "table").write_bytes(pickle.dumps((make_table(task), batch_size)))
    here = digests(tmp_path, divided=False)
    assert len(set(here.splitlines())) == len(FUSED)
    as_without_avx512 = {"ATEN_CPU_CAPABILITY": "avx2", "NPY_DISABLE_CPU_FEATURES": wide_features()}
    assert elsewhere(tmp_path, **as_without_avx512) == here
    for variant in native.variants():
        if variant != "plain":
            assert elsewhere(tmp_path, HPO_BENCH_NATIVE=variant) == here


@needs_kernels
def test_exp_is_exact_to_a_digit_and_the_same_for_every_variant() -> None:
    special = [0.0, -0.0, 1e-320, 709.78, 709.79, -745.1, -745.2, torch.inf, -torch.inf, torch.nan]
    random = (
        torch.rand(20001, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1450
        - 745
    )
    values = torch.cat([random, torch.tensor(special, dtype=torch.float64)])
    found = exp(values)
    torch.testing.assert_close(found, torch.exp(values), rtol=5e-16, atol=1e-320, equal_nan=True)
    torch.testing.assert_close(exp(values[3:8]), found[3:8], rtol=0, atol=0)
    for variant in native.variants():
        library = native.load(variant).library
        assert library is not None
        again = torch.empty_like(values)
        library.exponentials(ctypes.c_long(len(values)), address(values), address(again))
        torch.testing.assert_close(again, found, rtol=0, atol=0, equal_nan=True)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_square_roots_are_exact_and_the_same_for_every_variant(dtype: torch.dtype) -> None:
    random = torch.rand(100_003, dtype=dtype, generator=torch.Generator().manual_seed(0))
    special = [0.0, -0.0, 1e-42, torch.inf, -1.0, torch.nan]
    values = torch.cat([random, torch.tensor(special, dtype=dtype)])
    found = sqrt(values)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found.numpy(), np.sqrt(values.numpy()))
    kind = str(dtype).removeprefix("torch.")
    for variant in native.variants():
        library = native.load(variant).library
        assert library is not None
        again = torch.empty_like(values)
        roots = library[f"square_roots_{kind}"]
        roots(ctypes.c_long(len(values)), address(values), address(again))
        torch.testing.assert_close(again, found, rtol=0, atol=0, equal_nan=True)


def test_square_roots_of_other_numbers_are_torchs() -> None:
    values = torch.tensor([0.25, 4.0], dtype=torch.bfloat16)
    torch.testing.assert_close(sqrt(values), torch.sqrt(values))
    leaf = torch.tensor([0.25, 4.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(sqrt(leaf).sum(), leaf)
    torch.testing.assert_close(gradient, torch.tensor([1.0, 0.25]))


def test_exp_leaves_what_is_differentiated_to_torch() -> None:
    values = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(exp(values).sum(), values)
    torch.testing.assert_close(gradient, values.exp())
