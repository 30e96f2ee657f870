"""Named random streams: everything random about a repetition follows from its seed, the dataset and
a purpose.

DIFFERENCE: the released code seeds torch's global generator once and draws everything from it, so
its repetitions change with the method and the device; distributions are the same here, the numbers
are not. Tests hold `permutation`, starts and rows independent of method, batch and shard.

Nothing is drawn from a global generator, and nothing depends on the method, on the batch that a
repetition was computed
in, or on the device: all draws are made by NumPy on the CPU, in float64.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Independent generator for one repetition and one purpose.

    Args:
        seed: of the repetition, at least 0.
        purpose: words and numbers that name the stream, such as ``("uci_energy", "weights")``.
    """
    key = [_number(word) for word in purpose]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def _number(word: str | int) -> int:
    if isinstance(word, int):
        return word
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")


def permutation(seed: int, dataset: str, stream: str, rows: int, passes: int) -> np.ndarray:
    """Order of ``rows`` rows in pass number ``passes`` (from 0) of a stream of batches: (rows,)
    int64.

    A function of its arguments alone, so a stream can be taken up anywhere without a stored state.
    Sorts raw 64-bit numbers, whose stream NumPy promises for ever, which it does not for its own
    ``permutation``."""
    return np.argsort(random_bits(seed, dataset, stream, rows, passes))


def random_bits(seed: int, dataset: str, stream: str, rows: int, passes: int) -> np.ndarray:
    """The random numbers whose order is the `permutation`: (rows,) uint64."""
    return generator(seed, dataset, "batches", stream, rows, passes).bit_generator.random_raw(rows)


def as_signed(bits: np.ndarray) -> np.ndarray:
    """Unsigned 64-bit numbers as signed ones in the same order, for libraries that sort no
    others.
    """
    return (bits ^ np.uint64(1 << 63)).view(np.int64)
