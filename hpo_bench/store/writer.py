"""Writing one run: its finished blocks beside each other, then the whole run in one step."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpo_bench.errors import RunError, StoreError
from hpo_bench.store import documents, index
from hpo_bench.store.documents import FORMAT, TABLES
from hpo_bench.store.files import atomic, write_json, write_table
from hpo_bench.store.runs import (
    CONFIGURATION_KEY,
    TRANSIENT,
    UNREADABLE,
    Run,
    first_line,
    read_run,
    runs_folder,
)
from hpo_bench.system import locks, signals


@dataclass(frozen=True)
class Block:
    """The finished results of some repetitions of one run.

    Args:
        seeds: of its repetitions.
        tables: `TABLES` present, each with a column ``seed``.
        weights: final weights, name -> (rows, …), in the order of ``seeds``; empty unless asked
            for.
        seconds: wall time spent in ``train`` and ``evaluate``.
        taken_from: the complete run that it is a copy of: ``run_id``, ``seeds`` as text, ``code``,
            ``environment``; empty where it was computed.
    """

    seeds: tuple[int, ...]
    tables: dict[str, pa.Table]
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    taken_from: Mapping[str, Any] = field(default_factory=dict)


class Locked(RunError):
    """Another process is computing this run."""


@dataclass(frozen=True)
class _Stored:
    """A finished block on disk."""

    folder: Path
    seeds: tuple[int, ...]
    seconds: Mapping[str, float]
    taken_from: Mapping[str, Any]


class Writer:
    """Collects the blocks of one run and commits them as one.

    It is a context, in which it holds the run's lock. What was stored before is kept until the
    commit replaces it, with ``force`` too.

    Args:
        force: compute again what is stored.
        waiting: where another process is computing this run, wait for its end and tell this
            function about it; what that process has stored is not computed again, with ``force``
            neither.

    Raises:
        StoreError: the folder cannot be written.
        Locked: another process is computing this run, and ``waiting`` is not given.
    """

    def __init__(
        self,
        results_dir: str | Path,
        run_id: str,
        *,
        force: bool = False,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        self.path = runs_folder(results_dir) / run_id
        self.force = force
        self._waiting = waiting
        self._lock: locks.Lock | None = None

    def __enter__(self) -> Writer:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = locks.take(self.path / ".lock", self._waiting)
            # Who asked for a new computation and waited for another process's has got one.
            self.force = self.force and not self.waited
            if self.force:
                _remove(self.blocks)
        except locks.Busy as busy:
            raise Locked(
                f"another process ({busy}) is computing {self.path.name}; wait for it or stop it"
            ) from None
        except OSError as error:
            self.__exit__()
            raise StoreError(f"cannot write to {self.path}: {error.strerror or error}") from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()
        with contextlib.suppress(OSError):  # nothing was computed: leave no empty folder behind
            self.path.rmdir()

    @property
    def waited(self) -> bool:
        """Whether another process was computing this run."""
        return self._lock is not None and self._lock.waited

    @property
    def blocks(self) -> Path:
        """The folder of what is finished, and in the making, of a run that is not complete."""
        return self.path / "blocks"

    def complete(self) -> Run | None:
        """The run if it is already complete; None with ``force``."""
        run = None if self.force else read_run(self.path)
        return run if run is not None and run.status == "complete" else None

    def finished_seeds(self) -> set[int]:
        """The seeds of the blocks already on disk; damaged ones are dropped, to be computed again.

        Raises:
            StoreError: a block is of a later format, or cannot be read although nothing says that
                it is damaged.
        """
        return {seed for block in self._finished_blocks() for seed in block.seeds}

    def _finished_blocks(self) -> list[_Stored]:
        blocks = []
        for folder in sorted(self.path.glob("blocks/block-*")):
            try:
                blocks.append(_read_block(folder))
            except FileNotFoundError:
                # It was killed before its commit mark, or a table of it is gone.
                continue
            except documents.Newer as error:
                raise StoreError(f"{folder / 'block.json'} is {error}") from None
            except UNREADABLE as error:
                if isinstance(error, OSError) and error.errno in TRANSIENT:
                    raise StoreError(f"cannot read {folder}: {error.strerror or error}") from None
                _remove(folder)
        return blocks

    def write_block(self, block: Block) -> None:
        """Store a finished block; ``block.json`` is its commit mark."""
        folder = self.blocks / f"block-{block.seeds[0]}-{block.seeds[-1]}"
        with signals.deferred(), _disk_errors(self.path):
            for name, table in block.tables.items():
                write_table(folder / f"{name}.parquet", table)
            if block.weights:
                _write_weights(folder / "final_weights.npz", block.weights)
            content = {
                "format": FORMAT,
                "run_id": self.path.name,
                "seeds": list(block.seeds),
                "seconds": dict(block.seconds),
            }
            if block.taken_from:
                content["taken_from"] = dict(block.taken_from)
            write_json(folder / "block.json", content)

    def commit(self, seeds: Iterable[int], document: Mapping[str, Any]) -> Run:
        """Join the blocks in the order of ``seeds``, write ``run.json`` last, drop the blocks.

        Killed in the middle, the run is one whose blocks are all finished, and is committed by the
        next that has it.

        Raises:
            RunError: a seed is missing, or the disk refuses.
        """
        order = list(seeds)
        with signals.deferred(), _disk_errors(self.path):
            blocks = _each_once(self._finished_blocks(), order, self.blocks)
            # Of a failed run, or of one that is computed again: its tables are about to change.
            (self.path / "run.json").unlink(missing_ok=True)
            self._commit_tables(blocks, order, str(document.get("config_hash", "")))
            content = {
                "format": FORMAT,
                "status": "complete",
                **document,
                "seconds": _total_seconds(block for block, _ in blocks),
                "seeds": order,
            }
            origins = [dict(block.taken_from) for block, _ in blocks if block.taken_from]
            if origins:
                content["taken_from"] = origins
            self._write_document(content)
            self.drop_blocks()
        run = read_run(self.path)
        assert run is not None
        return run

    def _commit_tables(
        self,
        blocks: Sequence[tuple[_Stored, Sequence[int]]],
        order: Sequence[int],
        config_hash: str,
    ) -> None:
        position = {seed: index for index, seed in enumerate(order)}
        first = blocks[0][0].folder
        for name in TABLES:
            if not (first / f"{name}.parquet").exists():
                continue
            parts = [_rows_of(block, seeds, name) for block, seeds in blocks]
            table = _in_seed_order(pa.concat_tables(parts), position)
            table = table.replace_schema_metadata({CONFIGURATION_KEY: config_hash})
            write_table(self.path / f"{name}.parquet", table)
        if (first / "final_weights.npz").exists():
            self._commit_weights(blocks, position)

    def _commit_weights(
        self, blocks: Sequence[tuple[_Stored, Sequence[int]]], position: Mapping[int, int]
    ) -> None:
        parts: dict[str, list[np.ndarray]] = {}
        positions: list[int] = []
        for block, seeds in blocks:
            rows = [block.seeds.index(seed) for seed in seeds]
            positions += [position[seed] for seed in seeds]
            with np.load(block.folder / "final_weights.npz") as archive:
                for name in archive.files:
                    parts.setdefault(name, []).append(archive[name][rows])
        order = np.argsort(positions)
        weights = {name: np.concatenate(arrays)[order] for name, arrays in parts.items()}
        _write_weights(self.path / "final_weights.npz", weights)

    def drop_blocks(self) -> None:
        """Remove what the commit made needless."""
        # Where that fails, the next that has the run does it.
        with contextlib.suppress(OSError):
            _remove(self.blocks)

    def fail(self, seeds: Iterable[int], document: Mapping[str, Any], error: str) -> None:
        """Mark the run as failed; its finished blocks stay, so a later call computes only the rest.

        A complete run that was to be computed again stays what it is.
        """
        # Where not even this can be written, the error that is being reported matters more.
        with contextlib.suppress(OSError, StoreError):
            before = read_run(self.path) if self.force else None
            if before is None or before.status != "complete":
                content = {"format": FORMAT, "status": "failed", "error": error, **document}
                self._write_document({**content, "seconds": {}, "seeds": list(seeds)})

    def _write_document(self, content: Mapping[str, Any]) -> None:
        write_json(self.path / "run.json", content)
        index.note(self.path.parent, self.path.name, content)


def tidy(results_dir: str | Path, run_ids: Iterable[str]) -> None:
    """Remove the blocks that a process left which was killed after committing one of these runs."""
    for run_id in run_ids:
        folder = runs_folder(results_dir) / run_id
        if (folder / ".lock").exists() or (folder / "blocks").exists():
            with contextlib.suppress(RunError, StoreError), Writer(results_dir, run_id) as writer:
                if writer.complete() is not None:
                    writer.drop_blocks()


def _read_block(folder: Path) -> _Stored:
    """Read what a finished block says of itself, and its tables to the end.

    Raises:
        FileNotFoundError: it is not finished, not there any more, or of another run.
        OSError, ValueError, pyarrow.ArrowException: it cannot be read.
    """
    content = documents.read(folder / "block.json")
    run_id = folder.parent.parent.name
    if content.get("run_id", run_id) != run_id:
        raise FileNotFoundError(f"{folder} is of {content['run_id']}")
    seeds, seconds = content.get("seeds"), content.get("seconds", {})
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise ValueError("block.json must name its seeds")
    if not isinstance(seconds, dict) or not all(
        type(value) in (int, float) for value in seconds.values()
    ):
        raise ValueError("block.json must hold seconds")
    taken_from = content.get("taken_from") or {}
    if not isinstance(taken_from, dict):
        raise ValueError("block.json must say as an object where it was taken from")
    for name in TABLES:
        file = folder / f"{name}.parquet"
        if file.exists() or name in ("final", "curves"):
            present = set(
                pq.ParquetFile(file).read(["seed"], use_threads=False)["seed"].to_pylist()
            )
            if not present.issuperset(seeds) and name == "final":
                raise ValueError(f"{file} does not hold the seeds of block.json")
    return _Stored(folder, tuple(seeds), seconds, taken_from)


def _each_once(
    blocks: Iterable[_Stored], order: Iterable[int], folder: Path
) -> list[tuple[_Stored, tuple[int, ...]]]:
    """Blocks with the seeds to take from each, so that every one is taken once.

    Blocks overlap where two processes computed one run and there were no locks; their numbers are
    the same.

    Raises:
        RunError: not all seeds are there.
    """
    rest = set(order)
    chosen_blocks = []
    for block in blocks:
        seeds = tuple(seed for seed in block.seeds if seed in rest)
        rest.difference_update(seeds)
        if seeds:
            chosen_blocks.append((block, seeds))
    if rest:
        raise RunError(
            f"{folder} does not hold seed {min(rest)} any more; "
            "run the same command again to compute what is missing"
        )
    return chosen_blocks


def _rows_of(block: _Stored, seeds: Sequence[int], name: str) -> pa.Table:
    """Read a table of a block, the rows of some of its seeds."""
    with pq.ParquetFile(block.folder / f"{name}.parquet") as file:
        table = file.read()
    if len(seeds) == len(block.seeds):
        return table
    return table.filter(np.isin(table["seed"].to_numpy(), seeds))


def _remove(folder: Path) -> None:
    """Remove a folder with all that it holds, or the file that is called like it."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        folder.unlink()


def _in_seed_order(table: pa.Table, position: Mapping[int, int]) -> pa.Table:
    ranks = np.array([position[seed] for seed in table["seed"].to_pylist()])
    if (np.diff(ranks) >= 0).all():
        return table
    # Stable, so that a repetition's rows stay in the order of their steps.
    return table.take(np.argsort(ranks, kind="stable"))


def _write_weights(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **weights)  # type: ignore[arg-type]


def _total_seconds(blocks: Iterable[_Stored]) -> dict[str, float]:
    """The wall time of all blocks together, by kind."""
    totals = {"train": 0.0, "evaluate": 0.0, "total": 0.0}
    for block in blocks:
        for kind in totals:
            totals[kind] += block.seconds.get(kind, 0.0)
    return totals


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one that says what is kept and what to do."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise RunError(
            f"cannot write results to {path}: {reason}; what was finished before is kept, "
            "run the same command again to go on"
        ) from None
