"""Reading stored runs: what their ``run.json`` says, and their tables."""

from __future__ import annotations

import errno
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

from hpo_bench.errors import StoreError
from hpo_bench.settings import identity
from hpo_bench.settings.run import in_order
from hpo_bench.store import documents, index, packed, packed_tables
from hpo_bench.store.documents import TABLES, again
from hpo_bench.store.packed import Pack, Packs
from hpo_bench.system import notices
from hpo_bench.system.quoting import in_one_line

FINAL_COLUMNS = (
    "seed",
    "status",
    "diverged_at",
    "initial_lr",
    "initial_weight_decay",
    "initial_momentum",
    "lr",
    "weight_decay",
    "momentum",
    "train_loss",
    "validation_loss",
    "test_loss",
    "test_metric",
    "best_validation_step",
    "test_metric_at_best_validation",
    "seconds",
    "rows_in_block",
)
STARTED = "initial_"  # before a hyperparameter's name: the column of where it began
CURVE_COLUMNS = (
    "seed",
    "step",
    "train_loss",
    "validation_loss",
    "test_loss",
    "test_metric",
    "lr",
    "weight_decay",
    "momentum",
    "elapsed_s",
)


def hyperparameters_of(final_columns: Iterable[str]) -> tuple[str, ...]:
    """The hyperparameters that a table of finals tells the start of: the paper's three first.

    A rule may have others, under names of its user's choice, so nothing else knows them all.
    """
    started = [name for name in final_columns if name.startswith(STARTED)]
    return in_order(name.removeprefix(STARTED) for name in started)


def final_columns(hyperparameters: Iterable[str]) -> tuple[str, ...]:
    """`FINAL_COLUMNS` with start and end of further hyperparameters beside the momentum's."""
    return _with_others(FINAL_COLUMNS, hyperparameters)


def curve_columns(hyperparameters: Iterable[str]) -> tuple[str, ...]:
    """`CURVE_COLUMNS` with further hyperparameters beside the momentum."""
    return _with_others(CURVE_COLUMNS, hyperparameters)


def _with_others(columns: Sequence[str], hyperparameters: Iterable[str]) -> tuple[str, ...]:
    others = [name for name in hyperparameters if name not in columns]
    whole: list[str] = []
    for column in columns:
        whole.append(column)
        if column.endswith("momentum"):
            prefix = column.removesuffix("momentum")
            whole += [f"{prefix}{name}" for name in others]
    return tuple(whole)


KEY_COLUMNS = ("seed", "step")  # never null, and whole numbers
# The key in a table's schema that says of which configuration its rows are.
CONFIGURATION_KEY = b"hpo_bench.config_hash"
UNREADABLE = (pa.ArrowException, OSError, ValueError)  # what reading a damaged table may raise
# Errors that say nothing about a file: it may well be read another time.
TRANSIENT = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.ESTALE,
)

# What the document of a run says of which something was left out after it was computed.
THINNED = ("curves_thinned_to", "curves_emptied_of", "trials_thinned_to")

runs_folder = index.runs_folder


@dataclass(frozen=True)
class Run:
    """One stored run, as ``run.json`` tells it. Reading its tables is left to `read_table`.

    Args:
        path: its own folder, where it has one, or would have one: it is the run's alone.
        own_code: digests of the files of components that are not of this package, by their
            ``_target_``.
        taken_from: earlier runs whose repetitions it holds copies of (see `Block`).
        thinned: whether some of its curves or trials were left out after it was computed.
        part: whether ``seeds`` names some of its repetitions only, which alone are read.
        variant: which of the data that go by its dataset's name it was trained on; empty where
            there is one (see `told_apart`).
        namesakes: what other runs beside it have that goes by the same label as its own:
            ``dataset``, ``method``.
        pack: which holds it, where it has no folder of its own.
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
    pack: Pack | None = field(default=None, compare=False, repr=False)

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return self.path.name

    @property
    def place(self) -> Path:
        """The folder that its files are in: its own, or that of a pack, which it shares."""
        return self.path if self.pack is None else self.pack.path

    @property
    def again(self) -> str:
        """What to do where it cannot be read."""
        return again(self.path) if self.pack is None else packed.again(self.pack.path)

    @property
    def dataset(self) -> str:
        """Id of the dataset; with ``@`` and a digest where it stands for several data."""
        return f"{self.dataset_name}@{self.variant}" if self.variant else self.dataset_name

    @property
    def dataset_name(self) -> str:
        """Id of the dataset as it was asked for."""
        return str(self.config["dataset"]["name"])

    @property
    def dataset_label(self) -> str:
        """How the dataset is called in figures and tables."""
        dataset = self.config["dataset"]
        label = str(dataset.get("label", self.dataset_name))
        if label == "Own table" and dataset.get("path"):  # as earlier versions stored it
            label = f"{Path(dataset['path']).name}: {dataset.get('target')}"
        told_apart_by = self.dataset if "dataset" in self.namesakes else self.variant
        return in_one_line(f"{label} ({told_apart_by})" if told_apart_by else label)

    @property
    def data_key(self) -> str:
        """A text that identifies the data it was trained on."""
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


def read_run(path: Path, document: str = "run.json") -> Run | None:
    """Read ``path/run.json``, or what a pack beside the folder of runs says of the run.

    Args:
        path: the run's folder.
        document: the file's name, where it is another; no pack is looked into then.

    Returns:
        The run; None where there is none, or one that is not finished.

    Raises:
        StoreError: the file is there and is not what `Writer` writes, or a pack is damaged.
    """
    run = _read_own(path, document)
    if run is not None or document != "run.json" or path.parent.name != index.FOLDER:
        return run
    # Outside the commands, a damaged pack is no matter of the runs that others hold.
    packs = packed.find(path.parent.parent)
    if packs.holding(path.name) is None or notices.may_leave_out():
        packs = intact_packs(path.parent.parent)
    return _from_pack(path, packs)


def _read_own(path: Path, document: str = "run.json") -> Run | None:
    """Read the document in a run's own folder; None where there is none.

    Raises:
        StoreError: it is not what `Writer` writes.
    """
    file = path / document
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
    return _run(path, content)


def _run(path: Path, content: Mapping[str, Any], pack: Pack | None = None) -> Run:
    """The run that a ``run.json`` tells of.

    Args:
        content: of the file, checked.
    """
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
        thinned=any(key in content for key in THINNED),
        pack=pack,
    )


def _from_pack(path: Path, packs: Packs) -> Run | None:
    """The run whose folder would be ``path``, from the first pack that holds it."""
    pack = packs.holding(path.name)
    return None if pack is None else _run(path, pack.document(path.name), pack)


def is_packed(path: Path) -> bool:
    """Whether a pack holds the run whose folder would be ``path``."""
    beside_packs = path.parent.name == index.FOLDER
    return beside_packs and packed.find(path.parent.parent).holding(path.name) is not None


def read_document(run: Run) -> dict[str, Any]:
    """All that the ``run.json`` of a run says.

    Raises:
        StoreError: it cannot be read any more.
    """
    if run.pack is not None:
        return run.pack.document(run.run_id)
    file = run.path / "run.json"
    try:
        return documents.read(file)
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} is damaged ({error}); {run.again}") from None


def tables_of(run: Run) -> list[str]:
    """Those of `TABLES` that a run has."""
    if run.pack is not None:
        return [name for name in TABLES if run.run_id in run.pack.rows.get(name, {})]
    return [name for name in TABLES if (run.path / f"{name}.parquet").exists()]


def intact_packs(
    results_dir: str | Path, on_error: Callable[[StoreError], None] | None = None
) -> Packs:
    """The packs of a store that can be read.

    Where runs may be left out (`notices.leaving_out`) so are packs whose tables have not the rows
    that they should have.

    Args:
        on_error: takes the error of one that cannot be read.

    Raises:
        StoreError: one cannot be read, there is no ``on_error``, and it may not be left out.
    """
    packs = packed.find(results_dir)
    damaged = dict(packs.damaged)
    for pack in packs.whole if notices.may_leave_out() else ():
        try:
            _check_pack(pack)
        except StoreError as error:
            damaged[pack.path] = error
    for path, wrong in damaged.items():
        if on_error is None:
            notices.leave_out(path, wrong)
        else:
            on_error(wrong)
    whole = (pack for pack in packs.whole if pack.path not in damaged)
    return Packs(tuple(pack for pack in whole if not notices.is_left_out(pack.path)))


def scan(
    results_dir: str | Path, on_error: Callable[[StoreError], None] | None = None
) -> Iterator[Run]:
    """All finished runs (complete or failed) of a store, by name.

    Where runs may be left out (`notices.leaving_out`) so are those that cannot be read, and
    complete ones whose tables are missing or cut off.

    Args:
        on_error: takes the error of a run that cannot be read, which is then passed over.

    Raises:
        StoreError: a run cannot be read, there is no ``on_error``, and it may not be left out.
    """
    return (run for _, run in look_through(results_dir, on_error) if run is not None)


def look_through(
    results_dir: str | Path, on_error: Callable[[StoreError], None] | None = None
) -> Iterator[tuple[Path, Run | None]]:
    """All runs as `scan` finds them, with the path of each, and None where it is not finished.

    Raises:
        StoreError: as `scan` does.
    """
    folder = runs_folder(results_dir)
    packs = intact_packs(results_dir, on_error)
    in_packs = {run_id for pack in packs.whole for run_id in pack.lines}
    for name in sorted({*index.folders(folder), *in_packs}):
        if notices.is_left_out(folder / name):
            continue
        try:
            run = _read_own(folder / name) or _from_pack(folder / name, packs)
            if run is not None and run.status == "complete" and notices.may_leave_out():
                check_tables(run)
        except StoreError as error:
            if on_error is None:
                notices.leave_out(folder / name, error)
            else:
                on_error(error)
            continue
        yield folder / name, run


def check_tables(run: Run) -> None:
    """Make sure that the tables of a complete run are there and whole, without reading them.

    Raises:
        StoreError: one is not; names it.
    """
    if run.pack is not None:
        _check_pack(run.pack)
        return
    try:
        documents.check_tables(run.path)
    except ValueError as error:
        raise StoreError(str(error)) from None


def _check_pack(pack: Pack) -> None:
    """Make sure that the tables of a pack have the rows that its lines say.

    Raises:
        StoreError: one has not; names it.
    """
    for table in pack.totals:
        try:
            packed_tables.check(pack, table)
        except UNREADABLE as error:
            file = pack.path / f"{table}.parquet"
            text = f"{file} is damaged ({first_line(error)}); {packed.again(pack.path)}"
            raise StoreError(text) from None


def told_apart(runs: Iterable[Run]) -> list[Run]:
    """Mark runs such that the ids and labels of their datasets and methods tell them apart.

    Those on different data that go by one name get a dataset's id of their own each. Datasets, or
    methods, that go by one label are called by their ids, too: what shares a heading or a row would
    be taken for one.
    """
    keyed = [(run, (run.dataset_name, run.data_key)) for run in runs]
    variants = identity.variants(key for _, key in keyed)
    by_id = [replace(run, variant=variants[key], namesakes=frozenset()) for run, key in keyed]
    datasets = _shared((run.dataset_label, run.dataset) for run in by_id)
    methods = _shared((run.method_label, run.method) for run in by_id)
    return [_among(run, {"dataset": datasets, "method": methods}) for run in by_id]


def _shared(called: Iterable[tuple[str, str]]) -> set[str]:
    """Labels that several ids have."""
    ids_of: dict[str, set[str]] = defaultdict(set)
    for label, name in called:
        ids_of[label].add(name)
    return {label for label, ids in ids_of.items() if len(ids) > 1}


def _among(run: Run, shared: Mapping[str, Collection[str]]) -> Run:
    labels = {"dataset": run.dataset_label, "method": run.method_label}
    namesakes = frozenset(kind for kind, label in labels.items() if label in shared[kind])
    return replace(run, namesakes=namesakes)


def complete_runs(results_dir: str | Path) -> list[Run]:
    """The complete runs of a store, by name, told apart by their data.

    Raises:
        StoreError: a ``run.json`` is damaged.
    """
    return told_apart(run for run in scan(results_dir) if run.status == "complete")


def read_table(run: Run, table: str, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """Read one of `TABLES` of a complete run, or some of its columns.

    Raises:
        StoreError: the file is missing, truncated, or lacks a column.
    """
    names = list(columns) if columns is not None else None
    frame: pd.DataFrame = read_arrow(run, table, names).to_pandas()
    return frame


def read_arrow(run: Run, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table as `read_table` does, as an Arrow table without notes of other programs.

    Raises:
        StoreError: as `read_table` does.
    """
    file = run.place / f"{table}.parquet"
    try:
        rows, seeds, owner = _rows(run, file, columns)
    except FileNotFoundError:
        raise StoreError(f"{file} is missing; {run.again}") from None
    except UNREADABLE as error:
        raise StoreError(f"{file} is damaged ({first_line(error)}); {run.again}") from None
    if owner is not None and owner != run.config_hash:
        raise StoreError(
            f"{file} is damaged (of configuration {owner}, run.json is of {run.config_hash}); "
            f"{run.again}"
        )
    _check_seeds(run, file, seeds)
    if run.part:
        rows = rows.filter(np.isin(seeds["seed"].to_numpy(), run.seeds))
    _check_columns(run, file, rows, columns)
    if "status" in rows.column_names and rows.schema.field("status").type != pa.string():
        # Other programs may have written it as a dictionary of texts.
        place = rows.column_names.index("status")
        rows = rows.set_column(place, "status", rows["status"].cast(pa.string()))
    return rows.replace_schema_metadata(None)


def _rows(
    run: Run, file: Path, columns: Sequence[str] | None
) -> tuple[pa.Table, pa.Table, str | None]:
    """Read a run's rows of a table.

    Returns:
        The columns that were asked for, a table that has the column of seeds, and the hash of the
        configuration that the rows are of, where the file tells it.

    Raises:
        FileNotFoundError: it is not there.
        OSError, ValueError, pyarrow.ArrowException: it cannot be read.
    """
    if run.pack is not None:
        # A pack's rows name the run that they are of, and its id tells the configuration.
        wanted = None if columns is None else [*columns, "seed"]
        rows = packed_tables.read(run.pack, run.run_id, file.stem, wanted)
        return (rows if columns is None else _select(rows, columns)), rows, None
    # Opened here: pyarrow would look for a file system that the path might name.
    with pa.OSFile(str(file)) as opened, pq.ParquetFile(opened) as content:
        rows = _columns(content, columns)
        seeds = rows if "seed" in rows.column_names else _columns(content, ["seed"])
        owner = (content.schema_arrow.metadata or {}).get(CONFIGURATION_KEY)
    return rows, seeds, None if owner is None else owner.decode(errors="replace")


def _select(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Those of some columns that a table has."""
    return table.select([name for name in columns if name in table.column_names])


def _check_seeds(run: Run, file: Path, table: pa.Table) -> None:
    """Make sure that a table holds the run's own repetitions, not those of another run.

    Args:
        table: with its column of seeds, if it has one.

    Raises:
        StoreError: it holds other repetitions than ``run.json`` names.
    """
    if "seed" not in table.column_names or not pa.types.is_integer(table["seed"].type):
        return  # `_check_columns` says so
    present, expected = set(pc.unique(table["seed"]).to_pylist()), set(run.seeds)
    strange = sorted(seed for seed in present if seed is not None and seed not in expected)
    if strange and not run.part:
        raise StoreError(
            f"{file} is damaged (holds seed {strange[0]}, run.json does not); {run.again}"
        )
    lacking = sorted(expected.difference(present)) if file.stem in ("final", "curves") else []
    # A repetition that diverged before its first row has no curve.
    may_lack_some = file.stem == "curves" and present
    if lacking and not may_lack_some:
        raise StoreError(f"{file} is damaged (lacks seed {lacking[0]} of run.json); {run.again}")
    if file.stem == "final" and table.num_rows != len(present):
        raise StoreError(f"{file} is damaged (holds a seed twice); {run.again}")


def _check_columns(run: Run, file: Path, rows: pa.Table, columns: Sequence[str] | None) -> None:
    """Make sure that a table has the columns that were asked for, or all, of the right types.

    Raises:
        StoreError: it lacks one, or one is of another type; names it.
    """
    if columns is None:
        columns = {"final": FINAL_COLUMNS, "curves": CURVE_COLUMNS}.get(file.stem, ())
    names = rows.column_names  # each time it is asked for, pyarrow makes the list anew
    for name in columns:
        if name not in names:
            raise StoreError(f"{file} lacks the column {name}; {run.again}")
    for name, kind in zip(names, rows.schema.types, strict=True):
        lacks_keys = name in KEY_COLUMNS and rows[name].null_count
        if lacks_keys or not _fits(kind, name):
            raise StoreError(f"{file} is damaged (column {name} holds {kind}); {run.again}")


def _columns(content: pq.ParquetFile, columns: Sequence[str] | None) -> pa.Table:
    """Read columns of a file, also those that are its index for pandas."""
    by_pandas = b"pandas" in (content.schema_arrow.metadata or {})
    if "seed" in content.schema_arrow.names or not by_pandas:
        return content.read(columns, use_threads=False)
    # An index of consecutive numbers is no column, but a note that pandas alone reads.
    frame = content.read().to_pandas().reset_index()
    whole = pa.Table.from_pandas(frame, preserve_index=False)
    if columns is None:
        return whole
    return _select(whole, columns)


def _fits(kind: pa.DataType, name: str) -> bool:
    """Whether a column may have this type; one that we do not write may have any."""
    is_integer = bool(pa.types.is_integer(kind))
    if name in KEY_COLUMNS:
        return is_integer
    if name == "status":
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        return bool(is_text or pa.types.is_dictionary(kind))
    # A column without any value is of the type null.
    is_numeric = is_integer or pa.types.is_floating(kind) or pa.types.is_null(kind)
    return bool(is_numeric) or name not in (*FINAL_COLUMNS, *CURVE_COLUMNS)


def first_line(error: Exception) -> str:
    """Say an error of pyarrow in some words; its own text may be a page."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
