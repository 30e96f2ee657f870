"""How fast the kernels are on this machine, in about a second: for ``hpo-bench doctor``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from hpo_bench.core import native
from hpo_bench.models.relu_native import NativeReLURegression
from hpo_bench.models.relu_regression import ReLURegression

ROWS, FEATURES, HIDDEN, COUNT = 10, 8, 50, 614  # repetitions, and the sizes of UCI Energy
SECONDS = 1.0


def speeds(used: native.Kernels, seconds: float = SECONDS) -> dict[str, float]:
    """Microseconds that loss and gradient of one repetition take in one thread, the size of UCI
    Energy.

    Returns:
        By variant, of those that are there and give the numbers of the one that is ``used``, and
        for ``torch``.
    """
    found = {used.variant: used.library}
    for name in native.variants():
        if name not in found and "plain" not in (name, used.variant):
            with tempfile.TemporaryDirectory() as folder:
                found[name] = native.load(name, Path(folder)).library
    models: dict[str, ReLURegression] = {
        str(name): NativeReLURegression(FEATURES, HIDDEN, 1.0, torch.float32, library)
        for name, library in found.items()
        if library is not None
    }
    return _measured(
        {**models, "torch": ReLURegression(FEATURES, HIDDEN, 1.0, torch.float32)}, seconds
    )


def _measured(models: Mapping[str, ReLURegression], seconds: float) -> dict[str, float]:
    """The best of many calls, taken in turns: other programs disturb them all alike."""
    random = torch.Generator().manual_seed(0)
    inputs, targets = (torch.randn(COUNT, size, generator=random) for size in (FEATURES, 1))
    best = dict.fromkeys(models, float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        weights = torch.randn(ROWS, next(iter(models.values())).layout.count, generator=random)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for name, model in models.items():
                batch = model.batch(inputs, targets, shared=True, split="training")
                begin = time.perf_counter()
                model.linearise(weights, batch, {}, False)
                best[name] = min(best[name], time.perf_counter() - begin)
    finally:
        torch.set_num_threads(threads)
    return {name: 1e6 * value / ROWS for name, value in best.items()}
