"""What a machine can do: ceilings that the engine is measured against, and peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

SIZE = 512  # of the matrices whose product gives the arithmetic ceiling
COPY_BYTES = 256 << 20  # beyond any cache
SECONDS = 0.3


@dataclass(frozen=True)
class Ceilings:
    """Best of several measurements with one thread.

    Args:
        flops: multiply-adds count two, of large float32 products.
        bytes: read plus written, of a copy that no cache holds.
    """

    flops: float
    bytes: float


def ceilings(dtype: torch.dtype = torch.float32) -> Ceilings:
    """Measure in about a second, in the calling thread."""
    left, right = (torch.randn(SIZE, SIZE, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    source = torch.empty(COPY_BYTES, dtype=torch.uint8).fill_(1)
    target = torch.empty_like(source)
    product = _best(lambda: torch.mm(left, right, out=out))
    copy = _best(lambda: target.copy_(source))
    return Ceilings(2 * SIZE**3 / product, 2 * COPY_BYTES / copy)


def _best(work: Callable[[], object]) -> float:
    work()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 3:
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def peak_memory() -> int:
    """Largest memory that this process has held so far, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
