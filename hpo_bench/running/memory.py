"""How many repetitions to train at once: what stays in cache on a CPU, what fits in memory
anywhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from hpo_bench.core.model import CACHE_BYTES
from hpo_bench.errors import UserError, described

LEAST_ROWS = 2  # beyond the cache, two rows still beat one: the same calls serve both
SHARE = 0.6  # of the free memory that is used
GIB = 1 << 30


@dataclass(frozen=True)
class Chunk:
    """Rows trained at once, how many such blocks run side by side, and the memory that they
    need.
    """

    rows: int
    workers: int
    bytes: int
    reason: str


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device, bytes (on a CPU within the control group's
    limit).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = (
        os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if hasattr(os, "sysconf")
        else 4 * GIB
    )
    for text in _lines("/proc/meminfo"):
        if text.startswith("MemAvailable:"):
            free = int(text.split()[1]) * 1024
    limit, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0] != "max":
        free = min(free, int(limit[0]) - int(used[0]))
    return max(free, 0)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose(
    repetitions: int,
    row_bytes: int,
    working_set: int,
    device: torch.device,
    chunk: int | None,
    workers: int | None,
) -> Chunk:
    """Divide ``repetitions`` into blocks.

    Args:
        row_bytes: memory that one repetition needs at once, its record included.
        working_set: bytes of activations of one repetition.
        chunk, workers: fixed by the user, or None.

    Raises:
        UserError: not even one repetition fits.
    """
    # A GPU computes one block well; on a CPU blocks side by side use the cores better than threads
    # within the small operations of one.
    side_by_side = workers or (cores() if device.type == "cpu" else 1)
    fits = int(SHARE * free_bytes(device)) // max(row_bytes, 1)
    if fits < 1:
        raise UserError(
            f"one repetition needs about {row_bytes / GIB:.1f} GiB, {device} has "
            f"{free_bytes(device) / GIB:.1f} GiB free; reduce batch_size, look_back, the model or "
            "the length of the training, or raise record_every"
        )
    if chunk is not None:
        rows, reason = min(chunk, repetitions), "as asked"
    elif device.type == "cpu":
        # Rows whose activations leave the cache cost more each than the operations that larger
        # blocks save.
        reason = "activations that stay in cache"
        rows = max(LEAST_ROWS, CACHE_BYTES // max(working_set, 1))
        # No core is to be left without a block.
        rows = min(rows, max(1, -(-repetitions // side_by_side)))
    else:
        rows, reason = repetitions, "all at once"
    side_by_side = max(1, min(side_by_side, fits, -(-repetitions // rows)))
    if chunk is None and rows * side_by_side > fits:
        rows, reason = max(1, fits // side_by_side), f"what fits in {SHARE:.0%} of the free memory"
    # A last block of a few rows would keep one core busy while the others wait.
    if chunk is None:
        rows = _even(repetitions, rows, side_by_side)
    side_by_side = min(side_by_side, -(-repetitions // rows))
    return Chunk(rows, side_by_side, rows * side_by_side * row_bytes, reason)


def _even(repetitions: int, rows: int, workers: int) -> int:
    """At most ``rows`` a block, in blocks of nearly equal size whose number the workers share
    evenly.
    """
    blocks = -(-repetitions // rows)
    blocks = -(-blocks // workers) * workers
    return max(1, -(-repetitions // blocks))


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory has run out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = described(error)
    return any(sign in text for sign in ("not enough memory", "t allocate memory", "out of memory"))


def give_back(device: torch.device) -> None:
    """Let go of memory that torch only keeps in store."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
