"""Results on disk: one folder a run, written atomically, never half a file (no torch in here).

<results_dir>/runs/<run_id>/
    run.json              what was asked for and where it ran; written last, so its ``complete`` is the commit mark
    final.parquet         one row per repetition
    curves.parquet        one row per (repetition, recorded step)
    trials.parquet        of a search: one row per segment of each trial (`hpo_bench.search.ledger`)
    hypergradients.parquet, final_weights.npz     when asked for
    blocks/               finished blocks of a run that is not complete yet: what a resumed run starts from
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hpo_bench import index
from hpo_bench.errors import RunError, StoreError

FORMAT = 1
FINAL_COLUMNS = (
    "seed", "status", "diverged_at", "initial_lr", "initial_weight_decay", "initial_momentum", "lr", "weight_decay",
    "momentum", "train_loss", "validation_loss", "test_loss", "test_metric", "best_validation_step",
    "test_metric_at_best_validation", "seconds", "rows_in_block",
)  # fmt: skip
CURVE_COLUMNS = (
    "seed", "step", "train_loss", "validation_loss", "test_loss", "test_metric", "lr", "weight_decay", "momentum",
    "elapsed_s",
)  # fmt: skip
TABLES = ("final", "curves", "hypergradients", "trials")


@dataclass(frozen=True)
class Run:
    """One stored run, as ``run.json`` tells it. Reading its tables is left to `read_table`."""

    path: Path
    status: str
    config: dict[str, Any]
    config_hash: str
    code: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    error: str | None = None
    costs: dict[str, int] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return self.path.name

    @property
    def dataset(self) -> str:
        """Id of the dataset."""
        return str(self.config["dataset"]["name"])

    @property
    def method(self) -> str:
        """Id of the method."""
        return str(self.config["method"]["name"])


def runs_folder(results_dir: str | Path) -> Path:
    """Folder that holds the run folders."""
    return Path(results_dir) / "runs"


def read_run(path: Path) -> Run | None:
    """Read ``path/run.json``; None where there is none (a run that is not finished).

    Raises:
        StoreError: the file is there and is not what `Writer` writes.
    """
    file = path / "run.json"
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror or error}") from None
    try:
        content = json.loads(text)
        return Run(
            path=path,
            status=content["status"],
            config=content["config"],
            config_hash=content["config_hash"],
            code=content.get("code", {}),
            environment=content.get("environment", {}),
            seconds=content.get("seconds", {}),
            seeds=tuple(content["seeds"]),
            error=content.get("error"),
            costs=content.get("costs") or {},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{file} is damaged ({type(error).__name__}: {error}); delete the folder {path} to compute the run again"
        ) from None


def scan(results_dir: str | Path, on_error: Callable[[StoreError], None] | None = None) -> Iterator[Run]:
    """All finished runs (complete or failed) of a store, by name.

    A damaged ``run.json`` raises `StoreError`, or is handed to ``on_error`` and passed over.
    """
    folder = runs_folder(results_dir)
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if folder.is_dir() else []
    for name in names:
        try:
            run = read_run(folder / name)
        except StoreError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        if run is not None:
            yield run


def read_table(run: Run, table: str, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """Read one of `TABLES` of a complete run.

    Raises:
        StoreError: the file is missing, truncated, or lacks a column.
    """
    file = run.path / f"{table}.parquet"
    wanted = list(columns) if columns is not None else None
    try:
        frame = pq.read_table(file, columns=wanted, partitioning=None).to_pandas()
    except FileNotFoundError:
        raise StoreError(f"{file} is missing; {_again(run)}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(f"{file} is damaged ({str(error).splitlines()[0][:200]}); {_again(run)}") from None
    required = wanted if wanted is not None else {"final": FINAL_COLUMNS, "curves": CURVE_COLUMNS}.get(table, ())
    missing = [column for column in required if column not in frame.columns]
    if missing:
        raise StoreError(f"{file} lacks the column {missing[0]}; {_again(run)}")
    return frame


def _again(run: Run) -> str:
    return f"delete the folder {run.path} (or run with --force) to compute it again"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        mode = 0o666 & ~_umask()
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically: floats byte-stream-split and zstd, keys run-length encoded."""
    floats = [name for name in table.column_names if pa.types.is_floating(table.schema.field(name).type)]
    others = [name for name in table.column_names if name not in floats]
    with atomic(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", use_dictionary=others, use_byte_stream_split=floats, version="2.6"
        )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically; numbers that are not finite are refused."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """The finished results of some repetitions of one run.

    Args:
        seeds: of its repetitions.
        tables: `TABLES` present, each with a column ``seed``.
        weights: final weights, name -> (rows, …), in the order of ``seeds``; empty unless asked for.
        seconds: wall time spent in ``train`` and ``evaluate``.
    """

    seeds: tuple[int, ...]
    tables: dict[str, pa.Table]
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Locked(RunError):
    """Another process is computing this run."""


class Writer:
    """Collects the blocks of one run and commits them as one. Use as a context: it holds the run's lock.

    Raises:
        StoreError: the folder cannot be written.
        Locked: another process is computing this run.
    """

    def __init__(self, results_dir: str | Path, run_id: str, *, force: bool = False) -> None:
        self.path = runs_folder(results_dir) / run_id
        self.force = force
        self._lock: Any = None

    def __enter__(self) -> Writer:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path / ".lock")
        except OSError as error:
            raise StoreError(f"cannot write to {self.path}: {error.strerror or error}") from None
        if self.force:
            for name in ("run.json", *(f"{table}.parquet" for table in TABLES), "final_weights.npz"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.blocks, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            (self.path / ".lock").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
        with contextlib.suppress(OSError):  # nothing was computed: leave no empty folder behind
            self.path.rmdir()

    @property
    def blocks(self) -> Path:
        """Folder of what is finished, and in the making, of a run that is not complete."""
        return self.path / "blocks"

    def complete(self) -> Run | None:
        """The run if it is already complete."""
        run = read_run(self.path)
        return run if run is not None and run.status == "complete" else None

    def finished_seeds(self) -> set[int]:
        """Seeds of the blocks already on disk. Damaged blocks are dropped, to be computed again."""
        seeds: set[int] = set()
        for folder in self._block_folders():
            try:
                own = json.loads((folder / "block.json").read_text(encoding="utf-8"))["seeds"]
                for table in ("final", "curves"):
                    pq.read_schema(folder / f"{table}.parquet")
                seeds.update(own)
            except (OSError, ValueError, KeyError, pa.ArrowException):
                shutil.rmtree(folder, ignore_errors=True)
        return seeds

    def _block_folders(self) -> list[Path]:
        return sorted(path for path in self.path.glob("blocks/block-*") if (path / "block.json").exists())

    def write_block(self, block: Block) -> None:
        """Store a finished block; ``block.json`` is its commit mark."""
        folder = self.blocks / f"block-{block.seeds[0]}-{block.seeds[-1]}"
        with _disk_errors(self.path):
            for name, table in block.tables.items():
                write_table(folder / f"{name}.parquet", table)
            if block.weights:
                with atomic(folder / "final_weights.npz") as temporary, temporary.open("wb") as file:
                    np.savez(file, **block.weights)  # type: ignore[arg-type]
            write_json(folder / "block.json", {"seeds": list(block.seeds), "seconds": block.seconds})

    def commit(self, seeds: Iterable[int], document: Mapping[str, Any]) -> Run:
        """Join the blocks in the order of ``seeds``, write ``run.json`` last, drop the blocks."""
        order = list(seeds)
        position = {seed: index for index, seed in enumerate(order)}
        folders = self._block_folders()
        blocks = [json.loads((folder / "block.json").read_text(encoding="utf-8")) for folder in folders]
        stored = [seed for block in blocks for seed in block["seeds"]]
        if sorted(stored) != sorted(order):
            raise StoreError(f"{self.path / 'blocks'} does not hold each repetition once; delete it to start again")
        seconds = {
            kind: sum(block["seconds"].get(kind, 0.0) for block in blocks) for kind in ("train", "evaluate", "total")
        }
        with _disk_errors(self.path):
            for name in TABLES:
                parts = [folder / f"{name}.parquet" for folder in folders]
                if parts and parts[0].exists():
                    table = pa.concat_tables([pq.read_table(part, partitioning=None) for part in parts])
                    write_table(self.path / f"{name}.parquet", _in_seed_order(table, position))
            if folders and (folders[0] / "final_weights.npz").exists():
                self._commit_weights(folders, [position[seed] for seed in stored])
            self._write_document(
                {"format": FORMAT, "status": "complete", **document, "seconds": seconds, "seeds": order}
            )
        self.drop_blocks()
        run = read_run(self.path)
        assert run is not None
        return run

    def _commit_weights(self, folders: list[Path], positions: list[int]) -> None:
        archives = [np.load(folder / "final_weights.npz") for folder in folders]
        back = np.argsort(positions)
        with atomic(self.path / "final_weights.npz") as temporary, temporary.open("wb") as file:
            joined = {name: np.concatenate([archive[name] for archive in archives])[back] for name in archives[0].files}
            np.savez(file, **joined)  # type: ignore[arg-type]

    def drop_blocks(self) -> None:
        """Remove what the commit made needless."""
        shutil.rmtree(self.blocks, ignore_errors=True)

    def fail(self, seeds: Iterable[int], document: Mapping[str, Any], error: str) -> None:
        """Mark the run as failed; its finished blocks stay, so a later call computes only the rest."""
        with contextlib.suppress(OSError):
            self._write_document(
                {"format": FORMAT, "status": "failed", "error": error, **document, "seconds": {}, "seeds": list(seeds)}
            )

    def _write_document(self, content: Mapping[str, Any]) -> None:
        write_json(self.path / "run.json", content)
        index.note(self.path.parent, self.path.name, content)


def _in_seed_order(table: pa.Table, position: Mapping[int, int]) -> pa.Table:
    ranks = np.array([position[seed] for seed in table["seed"].to_pylist()])
    return table if (np.diff(ranks) >= 0).all() else table.take(np.argsort(ranks, kind="stable"))


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write results to {path}: {error.strerror or error}; what was finished before is kept, "
            "run the same command again to go on"
        ) from None


def _lock(path: Path) -> Any:
    """Hold an advisory lock that dies with the process, so a killed run leaves no lock behind."""
    try:
        import fcntl
    except ImportError:  # not on Windows: two processes would do the same work twice, with the same numbers
        return None
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise Locked(f"another process is computing {path.parent.name}; wait for it or stop it") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its last holder removed it between our opening and our locking it
