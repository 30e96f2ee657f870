"""Blocks in the middle of their training, on disk: a killed run goes on from its last checkpoint,
to the same numbers.

A checkpoint lies beside the finished blocks of its run, as ``blocks/checkpoint-FIRST-LAST.npz``.
Streams of batches are functions of the update's number, so a `Snapshot` and what the recorder wrote
down are all that it holds."""

from __future__ import annotations

import contextlib
import hashlib
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpo_bench.core import tree
from hpo_bench.core.loop import Snapshot
from hpo_bench.core.recorder import Recorder
from hpo_bench.store.files import atomic
from hpo_bench.system import notices

# Raised when what is held changes its meaning; a checkpoint of another format is passed over.
FORMAT = 1
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile)


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, format=np.array(FORMAT), **arrays)  # type: ignore[arg-type]


def read(path: Path) -> dict[str, np.ndarray] | None:
    """What `write` wrote; None where there is nothing, or nothing that can be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            _check_format(archive)
            return {name: archive[name] for name in archive.files if name != "format"}
    except UNREADABLE:
        return None


def _check_format(archive: Mapping[str, np.ndarray]) -> None:
    """Raise `ValueError` where another version wrote it; the first ones did not say theirs."""
    if int(archive.get("format", np.array(FORMAT))) != FORMAT:
        raise ValueError("of another format")


def save_or_warn(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """`write`, or a warning: a checkpoint that cannot be written costs time, no result."""
    try:
        write(path, arrays)
    except OSError as error:
        reason = error.strerror or error
        notices.warn(
            f"no checkpoint can be written to {path.parent} ({reason}); the run goes on without"
        )


def packed(value: Any, prefix: str) -> dict[str, np.ndarray]:
    """Leaves of a structure as arrays ``PREFIX/NUMBER``."""
    found = tree.leaves(value)
    return {f"{prefix}/{index:04d}": _array(leaf) for index, leaf in enumerate(found)}


def unpacked(template: Any, arrays: Mapping[str, np.ndarray], prefix: str) -> Any:
    """The structure like ``template`` that was `packed` under ``prefix``.

    Raises:
        ValueError: it was another structure.
    """
    stored = [array for name, array in sorted(arrays.items()) if name.startswith(f"{prefix}/")]
    leaves = tree.leaves(template)
    if len(stored) != len(leaves):
        raise ValueError(f"{len(stored)} leaves stored, {len(leaves)} expected")
    return tree.rebuilt(
        template, [_leaf(array, like) for array, like in zip(stored, leaves, strict=True)]
    )


def _array(leaf: Any) -> np.ndarray:
    return leaf.detach().cpu().numpy() if isinstance(leaf, torch.Tensor) else np.asarray(leaf)


def _leaf(array: np.ndarray, like: Any) -> Any:
    if not isinstance(like, torch.Tensor):
        return type(like)(array.item())
    if array.shape != tuple(like.shape):
        raise ValueError(f"shape {array.shape} stored, {tuple(like.shape)} expected")
    return torch.from_numpy(array).to(like)


@dataclass(frozen=True)
class Checkpoints:
    """Where the blocks of one run leave their checkpoints.

    Args:
        folder: of the run's blocks.
        every: seconds between two of a block; 0 for one after every hyperparameter update.
        name: of the run.
        runs: names of the runs that the rows of a block belong to, row by row; empty where all are
            of this run.
    """

    folder: Path
    every: float
    name: str = ""
    runs: tuple[str, ...] = ()

    def shared(self, runs: Sequence[str]) -> Checkpoints:
        """Those of a block whose rows belong to these runs, the first of them to this one."""
        return replace(self, runs=() if set(runs) == {self.name} else tuple(runs))

    def path(self, seeds: Sequence[int]) -> Path:
        """File of one block."""
        own = (
            f"-{hashlib.sha256(repr((self.runs, tuple(seeds))).encode()).hexdigest()[:8]}"
            if self.runs
            else ""
        )
        return self.folder / f"checkpoint-{seeds[0]}-{seeds[-1]}{own}.npz"

    def of(self, seeds: Sequence[int]) -> Checkpoint:
        """That of one block."""
        return Checkpoint(self.path(seeds), tuple(seeds), self.every, self.runs)

    def begun(self) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
        """Names of the runs and seeds of the rows of each block that was interrupted."""
        for path in sorted(self.folder.glob("checkpoint-*.npz")):
            runs, seeds = _rows(path)
            if seeds:
                yield runs or (self.name,) * len(seeds), seeds


def _rows(path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            _check_format(archive)
            runs = archive["runs"] if "runs" in archive.files else ()
            return tuple(str(run) for run in runs), tuple(int(seed) for seed in archive["seeds"])
    except UNREADABLE:
        return (), ()


class Checkpoint:
    """The checkpoint of one block; one that cannot be read or written costs time, no result."""

    def __init__(
        self, path: Path, seeds: tuple[int, ...], every: float, runs: tuple[str, ...] = ()
    ) -> None:
        self.path, self.seeds, self.every, self.runs = path, seeds, every, runs
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self._last >= self.every

    def save(self, snapshot: Snapshot, recorder: Recorder) -> None:
        """Write it, or warn that it cannot be written."""
        recorded = {f"recorder/{name}": array for name, array in recorder.contents().items()}
        rows = {"seeds": np.array(self.seeds)}
        if self.runs:
            rows["runs"] = np.array(self.runs)
        save_or_warn(self.path, {**rows, **packed(snapshot, "snapshot"), **recorded})
        self._last = time.monotonic()

    def load(self, template: Snapshot, recorder: Recorder) -> Snapshot | None:
        """Where to go on, with the recorder brought there; None to begin at the beginning."""
        arrays = read(self.path)
        if arrays is None or tuple(arrays.get("seeds", ())) != self.seeds:
            return None
        if tuple(arrays.get("runs", ())) != self.runs:
            return None
        recorded = {
            name.removeprefix("recorder/"): array
            for name, array in arrays.items()
            if "recorder/" in name
        }
        try:
            snapshot: Snapshot = unpacked(template, arrays, "snapshot")
            recorder.restore(recorded)
        except UNREADABLE:
            return None
        return snapshot

    def drop(self) -> None:
        """The block is finished."""
        with contextlib.suppress(OSError):  # it goes with the blocks, when the run is committed
            self.path.unlink(missing_ok=True)
