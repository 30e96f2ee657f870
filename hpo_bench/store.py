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
import errno
import json
import os
import shutil
import stat
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpo_bench import documents, identity, index, locks, notices, signals
from hpo_bench.documents import FORMAT, again
from hpo_bench.errors import RunError, StoreError
from hpo_bench.quoting import in_one_line

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
KEYS = ("seed", "step")
OF = b"hpo_bench.config_hash"  # in a table's schema: of which configuration its rows are
UNREADABLE = (pa.ArrowException, OSError, ValueError)
runs_folder = index.runs_folder
TRANSIENT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE)


@dataclass(frozen=True)
class Run:
    """One stored run, as ``run.json`` tells it. Reading its tables is left to `read_table`.

    Args:
        own_code: digests of the files of components that are not of this package, by their ``_target_``.
        taken_from: earlier runs whose repetitions it holds copies of (see `Block`).
        thinned: whether some of its curves were left out after it was computed.
        part: whether ``seeds`` names some of its repetitions only, which alone are read.
        variant: which of the data that go by its dataset's name it was trained on; empty where there is one (see
            `told_apart`).
        namesakes: what other runs beside it have that goes by the same label as its own: ``dataset``, ``method``.
    """

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
    data: dict[str, Any] = field(default_factory=dict)
    own_code: dict[str, str] = field(default_factory=dict)
    taken_from: tuple[dict[str, Any], ...] = ()
    thinned: bool = False
    part: bool = False
    variant: str = ""
    namesakes: frozenset[str] = frozenset()

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return self.path.name

    @property
    def dataset(self) -> str:
        """Id of the dataset, with ``@`` and a digest where runs on other data go by the same name."""
        return f"{self.dataset_name}@{self.variant}" if self.variant else self.dataset_name

    @property
    def dataset_name(self) -> str:
        """Id of the dataset as it was asked for."""
        return str(self.config["dataset"]["name"])

    @property
    def dataset_label(self) -> str:
        """How the dataset is called in figures and tables."""
        label = str(self.config["dataset"].get("label", self.dataset_name))
        if label == "Own table" and self.config["dataset"].get("path"):  # as earlier versions stored it
            label = f"{Path(self.config['dataset']['path']).name}: {self.config['dataset'].get('target')}"
        told_apart_by = self.dataset if "dataset" in self.namesakes else self.variant
        return in_one_line(f"{label} ({told_apart_by})" if told_apart_by else label)

    @property
    def data_key(self) -> str:
        """What identifies the data it was trained on."""
        return identity.data_key(self.config, self.data, self.config_hash)

    @property
    def method(self) -> str:
        """Id of the method."""
        return str(self.config["method"]["name"])

    @property
    def method_label(self) -> str:
        """How the method is called in figures and tables."""
        label = str(self.config["method"].get("label", self.method))
        return in_one_line(f"{label} ({self.method})" if "method" in self.namesakes else label)


def read_run(path: Path) -> Run | None:
    """Read ``path/run.json``; None where there is none (a run that is not finished).

    Raises:
        StoreError: the file is there and is not what `Writer` writes.
    """
    file = path / "run.json"
    try:
        text = documents.text_of(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise StoreError(f"{file} is damaged (no UTF-8: {error.reason}); {again(path)}") from None
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror or error}") from None
    try:
        content = documents.parsed_run(text)
    except documents.Newer as error:
        raise StoreError(f"{file} is {error}") from None
    except ValueError as error:
        raise StoreError(f"{file} is damaged ({error}); {again(path)}") from None
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
        data=content.get("data") or {},
        own_code=content.get("own_code") or {},
        taken_from=tuple(content.get("taken_from") or ()),
        thinned="curves_thinned_to" in content or "curves_emptied_of" in content,
    )


def scan(results_dir: str | Path, on_error: Callable[[StoreError], None] | None = None) -> Iterator[Run]:
    """All finished runs (complete or failed) of a store, by name.

    A damaged ``run.json`` raises `StoreError`, or is handed to ``on_error`` and passed over. Where runs may be left out
    (`notices.leaving_out`) so are those that cannot be read, and complete ones whose tables are missing or cut off.
    """
    folder = runs_folder(results_dir)
    for name in index.folders(folder):
        if notices.is_left_out(folder / name):
            continue
        try:
            run = read_run(folder / name)
            if run is not None and run.status == "complete" and notices.may_leave_out():
                check_tables(run)
        except StoreError as error:
            if on_error is None:
                notices.leave_out(folder / name, error)
            else:
                on_error(error)
            continue
        if run is not None:
            yield run


def check_tables(run: Run) -> None:
    """Make sure that the tables of a complete run are there and whole, without reading them.

    Raises:
        StoreError: one is not; names it.
    """
    try:
        documents.check_tables(run.path)
    except ValueError as error:
        raise StoreError(str(error)) from None


def told_apart(runs: Iterable[Run]) -> list[Run]:
    """The runs such that ids and labels tell them apart.

    Those on different data that go by one name get a dataset's id of their own each. Datasets, or methods, that go by
    one label are called by their ids, too: what shares a heading or a row would be taken for one.
    """
    known = [(run, (run.dataset_name, run.data_key)) for run in runs]
    variants = identity.variants(key for _, key in known)
    by_id = [replace(run, variant=variants[key], namesakes=frozenset()) for run, key in known]
    shared = {
        "dataset": _shared((run.dataset_label, run.dataset) for run in by_id),
        "method": _shared((run.method_label, run.method) for run in by_id),
    }
    return [_among(run, shared) for run in by_id]


def _shared(called: Iterable[tuple[str, str]]) -> set[str]:
    """Labels that several ids have."""
    ids: dict[str, set[str]] = defaultdict(set)
    for label, own in called:
        ids[label].add(own)
    return {label for label, own in ids.items() if len(own) > 1}


def _among(run: Run, shared: Mapping[str, Collection[str]]) -> Run:
    labels = {"dataset": run.dataset_label, "method": run.method_label}
    return replace(run, namesakes=frozenset(kind for kind, label in labels.items() if label in shared[kind]))


def complete_runs(results_dir: str | Path) -> list[Run]:
    """The complete runs of a store, by name, told apart by their data.

    Raises:
        StoreError: a ``run.json`` is damaged.
    """
    return told_apart(run for run in scan(results_dir) if run.status == "complete")


def read_table(run: Run, table: str, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """Read one of `TABLES` of a complete run.

    Raises:
        StoreError: the file is missing, truncated, or lacks a column.
    """
    wanted = list(columns) if columns is not None else None
    return read_arrow(run, table, wanted).to_pandas()


def read_arrow(run: Run, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """`read_table` as an Arrow table, whatever pandas or another program noted in the file about an index.

    Raises:
        StoreError: see `read_table`.
    """
    file = run.path / f"{table}.parquet"
    try:
        with pq.ParquetFile(file) as content:
            found = _columns(content, columns)
            seeds = found if "seed" in found.column_names else _columns(content, ["seed"])
            of = (content.schema_arrow.metadata or {}).get(OF)
    except FileNotFoundError:
        raise StoreError(f"{file} is missing; {again(run.path)}") from None
    except UNREADABLE as error:
        raise StoreError(f"{file} is damaged ({_first_line(error)}); {again(run.path)}") from None
    _check_owner(run, file, of, seeds)
    if run.part:
        found = found.filter(np.isin(seeds["seed"].to_numpy(), run.seeds))
    required = columns if columns is not None else {"final": FINAL_COLUMNS, "curves": CURVE_COLUMNS}.get(table, ())
    missing = [column for column in required if column not in found.column_names]
    if missing:
        raise StoreError(f"{file} lacks the column {missing[0]}; {again(run.path)}")
    for name in found.column_names:
        if not _fits(found.schema.field(name).type, name) or (name in KEYS and found[name].null_count):
            raise StoreError(
                f"{file} is damaged (column {name} holds {found.schema.field(name).type}); {again(run.path)}"
            )
    if "status" in found.column_names and found.schema.field("status").type != pa.string():
        found = found.set_column(found.column_names.index("status"), "status", found["status"].cast(pa.string()))
    return found.replace_schema_metadata(None)


def _check_owner(run: Run, file: Path, of: bytes | None, table: pa.Table) -> None:
    """Make sure that a table is the run's own, and not that of another run that was put in its place.

    Args:
        of: what its schema says of its configuration; None where another program, or an earlier version, wrote it.
        table: with its column of seeds, if it has one.

    Raises:
        StoreError: it is of another configuration, or of other repetitions than ``run.json`` names.
    """
    if of is not None and of.decode(errors="replace") != run.config_hash:
        raise StoreError(
            f"{file} is damaged (of configuration {of.decode(errors='replace')}, run.json is of {run.config_hash}); "
            f"{again(run.path)}"
        )
    if "seed" not in table.column_names or not pa.types.is_integer(table["seed"].type):
        return  # told of below
    held, wanted = set(pc.unique(table["seed"]).to_pylist()), set(run.seeds)
    strange = sorted(seed for seed in held if seed is not None and seed not in wanted)
    if strange and not run.part:
        raise StoreError(f"{file} is damaged (holds seed {strange[0]}, run.json does not); {again(run.path)}")
    lacking = sorted(wanted.difference(held)) if file.stem in ("final", "curves") else []
    may_lack_some = file.stem == "curves" and held  # a repetition that diverged before its first row has no curve
    if lacking and not may_lack_some:
        raise StoreError(f"{file} is damaged (lacks seed {lacking[0]} of run.json); {again(run.path)}")
    if file.stem == "final" and table.num_rows != len(held):
        raise StoreError(f"{file} is damaged (holds a seed twice); {again(run.path)}")


def _columns(content: pq.ParquetFile, columns: Sequence[str] | None) -> pa.Table:
    """Columns of a file, those that are its index for pandas too: consecutive numbers are a note there, no column."""
    if "seed" in content.schema_arrow.names or b"pandas" not in (content.schema_arrow.metadata or {}):
        return content.read(columns, use_threads=False)
    whole = pa.Table.from_pandas(content.read().to_pandas().reset_index(), preserve_index=False)
    return whole if columns is None else whole.select([name for name in columns if name in whole.column_names])


def _fits(kind: pa.DataType, name: str) -> bool:
    """Whether a column may have this type: those that we write are read as numbers, seeds and steps as whole ones."""
    if name in KEYS:
        return pa.types.is_integer(kind)
    if name == "status":
        return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
    return numeric or name not in (*FINAL_COLUMNS, *CURVE_COLUMNS)


def _first_line(error: Exception) -> str:
    """An error of pyarrow in some words."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` when the block ends without an error.

    The name is always the same, so that the next to write ``path`` takes up what a killed process left of it; who
    writes holds a lock on it. Where it is taken, or there are no locks, another name is made up.

    Raises:
        OSError: it cannot be written, or something is there that must not be replaced: a device, a pipe.
    """
    _refuse_special(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, descriptor = _temporary(path)
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _refuse_special(path: Path) -> None:
    """Refuse what is no file: who may write to ``/dev`` would put a file in the place of ``/dev/null``.

    Raises:
        OSError: see above.
    """
    folder = Path(os.path.realpath(path.parent))
    among_devices = folder == Path("/dev") or Path("/proc") in (folder, *folder.parents)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        kind = path.stat().st_mode
        if among_devices or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise OSError(errno.EINVAL, "not a regular file", str(path))


def _temporary(path: Path) -> tuple[Path, int]:
    """A file to write to, open and ours alone."""
    usual = path.with_name(f".{path.name}.tmp")
    while True:
        try:
            descriptor = os.open(usual, os.O_RDWR | os.O_CREAT, 0o666)
        except (PermissionError, IsADirectoryError):
            break
        locked = locks.try_lock(descriptor)
        if not locked:
            os.close(descriptor)
            if locked is None:  # there are no locks: this is of no use to anybody
                usual.unlink(missing_ok=True)
            break
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), usual.stat()):
                return usual, descriptor
        os.close(descriptor)  # it was renamed between our opening and our locking it
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    Path(name).chmod(0o666 & ~_umask())
    return Path(name), descriptor


def _to_disk(path: Path) -> None:
    """Have a file's content on the disk before its name is there; some file systems cannot say when it is."""
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                raise


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
        taken_from: the complete run that it is a copy of: ``run_id``, ``seeds`` as text, ``code``, ``environment``;
            empty where it was computed.
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
    """Collects the blocks of one run and commits them as one. Use as a context: it holds the run's lock.

    What was stored before is kept until the commit replaces it, with ``force`` too.

    Args:
        force: compute again what is stored.
        waiting: where another process is computing this run, wait for its end and tell this function about it; what
            that process has stored is not computed again, with ``force`` neither.

    Raises:
        StoreError: the folder cannot be written.
        Locked: another process is computing this run, and ``waiting`` is not given.
    """

    def __init__(
        self, results_dir: str | Path, run_id: str, *, force: bool = False,
        waiting: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.path = runs_folder(results_dir) / run_id
        self.force = force
        self._waiting = waiting
        self._lock: locks.Lock | None = None

    def __enter__(self) -> Writer:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = locks.take(self.path / ".lock", self._waiting)
            self.force = self.force and not self.waited
            if self.force:
                _remove(self.blocks)
        except locks.Busy as busy:
            raise Locked(f"another process ({busy}) is computing {self.path.name}; wait for it or stop it") from None
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
        """Folder of what is finished, and in the making, of a run that is not complete."""
        return self.path / "blocks"

    def complete(self) -> Run | None:
        """The run if it is already complete; None with ``force``."""
        run = None if self.force else read_run(self.path)
        return run if run is not None and run.status == "complete" else None

    def finished_seeds(self) -> set[int]:
        """Seeds of the blocks already on disk. Damaged blocks are dropped, to be computed again.

        Raises:
            StoreError: a block is of a later format, or cannot be read although nothing says that it is damaged.
        """
        return {seed for block in self._finished_blocks() for seed in block.seeds}

    def _finished_blocks(self) -> list[_Stored]:
        found = []
        for folder in sorted(self.path.glob("blocks/block-*")):
            try:
                found.append(_read_block(folder))
            except FileNotFoundError:  # of a block that was killed before its commit mark, or a table of it is gone
                continue
            except documents.Newer as error:
                raise StoreError(f"{folder / 'block.json'} is {error}") from None
            except UNREADABLE as error:
                if isinstance(error, OSError) and error.errno in TRANSIENT:
                    raise StoreError(f"cannot read {folder}: {error.strerror or error}") from None
                _remove(folder)
        return found

    def write_block(self, block: Block) -> None:
        """Store a finished block; ``block.json`` is its commit mark."""
        folder = self.blocks / f"block-{block.seeds[0]}-{block.seeds[-1]}"
        with signals.deferred(), _disk_errors(self.path):
            for name, table in block.tables.items():
                write_table(folder / f"{name}.parquet", table)
            if block.weights:
                with atomic(folder / "final_weights.npz") as temporary, temporary.open("wb") as file:
                    np.savez(file, **block.weights)  # type: ignore[arg-type]
            seconds, seeds = dict(block.seconds), list(block.seeds)
            content = {"format": FORMAT, "run_id": self.path.name, "seeds": seeds, "seconds": seconds}
            if block.taken_from:
                content["taken_from"] = dict(block.taken_from)
            write_json(folder / "block.json", content)

    def commit(self, seeds: Iterable[int], document: Mapping[str, Any]) -> Run:
        """Join the blocks in the order of ``seeds``, write ``run.json`` last, drop the blocks.

        Killed in the middle, the run is one whose blocks are all finished, and is committed by the next that has it.
        """
        order = list(seeds)
        with signals.deferred(), _disk_errors(self.path):
            blocks = _each_once(self._finished_blocks(), order, self.blocks)
            seconds = {
                kind: sum(block.seconds.get(kind, 0.0) for block, _ in blocks)
                for kind in ("train", "evaluate", "total")
            }
            (self.path / "run.json").unlink(missing_ok=True)  # of a failed run, or of one that is computed again
            self._commit_tables(blocks, order, str(document.get("config_hash", "")))
            taken = [dict(block.taken_from) for block, _ in blocks if block.taken_from]
            content = {"format": FORMAT, "status": "complete", **document, "seconds": seconds, "seeds": order}
            self._write_document({**content, "taken_from": taken} if taken else content)
            self.drop_blocks()
        run = read_run(self.path)
        assert run is not None
        return run

    def _commit_tables(
        self, blocks: Sequence[tuple[_Stored, Sequence[int]]], order: Sequence[int], config_hash: str
    ) -> None:
        position = {seed: index for index, seed in enumerate(order)}
        first = blocks[0][0].folder
        for name in TABLES:
            if not (first / f"{name}.parquet").exists():
                continue
            parts = [_rows_of(block, own, name) for block, own in blocks]
            joined = _in_seed_order(pa.concat_tables(parts), position)
            write_table(self.path / f"{name}.parquet", joined.replace_schema_metadata({OF: config_hash}))
        if (first / "final_weights.npz").exists():
            self._commit_weights(blocks, position)

    def _commit_weights(self, blocks: Sequence[tuple[_Stored, Sequence[int]]], position: Mapping[int, int]) -> None:
        archives = [np.load(block.folder / "final_weights.npz") for block, _ in blocks]
        rows = [[block.seeds.index(seed) for seed in own] for block, own in blocks]
        back = np.argsort([position[seed] for _, own in blocks for seed in own])
        with atomic(self.path / "final_weights.npz") as temporary, temporary.open("wb") as file:
            joined = {
                name: np.concatenate([archive[name][own] for archive, own in zip(archives, rows, strict=True)])[back]
                for name in archives[0].files
            }
            np.savez(file, **joined)  # type: ignore[arg-type]

    def drop_blocks(self) -> None:
        """Remove what the commit made needless. Where that fails, the next that has the run does it."""
        with contextlib.suppress(OSError):
            _remove(self.blocks)

    def fail(self, seeds: Iterable[int], document: Mapping[str, Any], error: str) -> None:
        """Mark the run as failed; its finished blocks stay, so a later call computes only the rest.

        A complete run that was to be computed again stays what it is.
        """
        with contextlib.suppress(OSError, StoreError):
            before = read_run(self.path) if self.force else None
            if before is None or before.status != "complete":
                content = {"format": FORMAT, "status": "failed", "error": error, **document}
                self._write_document({**content, "seconds": {}, "seeds": list(seeds)})

    def _write_document(self, content: Mapping[str, Any]) -> None:
        write_json(self.path / "run.json", content)
        index.note(self.path.parent, self.path.name, content)


def tidy(results_dir: str | Path, run_ids: Iterable[str]) -> None:
    """Finish what a process left undone that was killed after the commit of one of these runs."""
    for run_id in run_ids:
        folder = runs_folder(results_dir) / run_id
        if (folder / ".lock").exists() or (folder / "blocks").exists():
            with contextlib.suppress(RunError, StoreError), Writer(results_dir, run_id) as writer:
                if writer.complete() is not None:
                    writer.drop_blocks()


def _read_block(folder: Path) -> _Stored:
    """A finished block, its tables read to the end.

    Raises:
        FileNotFoundError: it is not finished, not there any more, or of another run.
        OSError, ValueError, pyarrow.ArrowException: it cannot be read.
    """
    content = documents.read(folder / "block.json")
    own = folder.parent.parent.name
    if content.get("run_id", own) != own:
        raise FileNotFoundError(f"{folder} is of {content['run_id']}")
    seeds, seconds = content.get("seeds"), content.get("seconds", {})
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise ValueError("block.json must name its seeds")
    if not isinstance(seconds, dict) or not all(type(value) in (int, float) for value in seconds.values()):
        raise ValueError("block.json must hold seconds")
    taken_from = content.get("taken_from") or {}
    if not isinstance(taken_from, dict):
        raise ValueError("block.json must say as an object where it was taken from")
    for name in TABLES:
        file = folder / f"{name}.parquet"
        if file.exists() or name in ("final", "curves"):
            held = set(pq.ParquetFile(file).read(["seed"], use_threads=False)["seed"].to_pylist())
            if not held.issuperset(seeds) and name == "final":
                raise ValueError(f"{file} does not hold the seeds of block.json")
    return _Stored(folder, tuple(seeds), seconds, taken_from)


def _each_once(blocks: Iterable[_Stored], order: Iterable[int], folder: Path) -> list[tuple[_Stored, tuple[int, ...]]]:
    """Blocks with the seeds to take from each, so that every one is taken once.

    Blocks overlap where two processes computed one run and there were no locks; their numbers are the same.

    Raises:
        RunError: not all seeds are there.
    """
    wanted, chosen = set(order), []
    for block in blocks:
        own = tuple(seed for seed in block.seeds if seed in wanted)
        wanted.difference_update(own)
        if own:
            chosen.append((block, own))
    if wanted:
        raise RunError(
            f"{folder} does not hold seed {min(wanted)} any more; run the same command again to compute what is missing"
        )
    return chosen


def _rows_of(block: _Stored, seeds: Sequence[int], name: str) -> pa.Table:
    """A table of a block, of some of its seeds."""
    with pq.ParquetFile(block.folder / f"{name}.parquet") as file:
        table = file.read()
    if len(seeds) == len(block.seeds):
        return table
    return table.filter(np.isin(table["seed"].to_numpy(), seeds))


def _remove(folder: Path) -> None:
    """Remove a folder with all that it holds; what is not there is removed."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        folder.unlink()


def _in_seed_order(table: pa.Table, position: Mapping[int, int]) -> pa.Table:
    ranks = np.array([position[seed] for seed in table["seed"].to_pylist()])
    return table if (np.diff(ranks) >= 0).all() else table.take(np.argsort(ranks, kind="stable"))


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or _first_line(error)
        raise RunError(
            f"cannot write results to {path}: {reason}; what was finished before is kept, "
            "run the same command again to go on"
        ) from None
