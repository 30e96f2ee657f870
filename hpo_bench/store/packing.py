"""Making packs of complete runs, and runs of packs (`hpo_bench.store.packed`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpo_bench.errors import StoreError, UserError
from hpo_bench.store import packed, packed_tables
from hpo_bench.store.documents import TABLES
from hpo_bench.store.files import write_json, write_table
from hpo_bench.store.packed import Pack
from hpo_bench.store.packed_tables import RUN_ID
from hpo_bench.store.runs import (
    CONFIGURATION_KEY,
    UNREADABLE,
    Run,
    first_line,
    intact_packs,
    read_arrow,
    read_document,
    tables_of,
)
from hpo_bench.system import locks

# Rows from which on a row group ends with its run: a run is read without most others, and what
# small runs have in common is stored once.
GROUP_ROWS = 20_000
MOST_ROWS = 2**26  # of a row group, whatever its run has
LEVEL = 19  # of zstd: written once, read often, and as fast as others to read


@dataclass(frozen=True)
class WholeRun:
    """All of a complete run, in memory.

    Args:
        document: what its ``run.json`` says.
        tables: those of `TABLES` that it has.
    """

    run_id: str
    document: Mapping[str, Any]
    tables: Mapping[str, pa.Table]


def whole(run: Run) -> WholeRun:
    """Read all of a complete run but its weights, also where it stands for a part of it.

    Raises:
        StoreError: a file is damaged.
    """
    document = read_document(run)
    entire = replace(run, seeds=tuple(document["seeds"]), part=False)
    tables = {name: read_arrow(entire, name) for name in tables_of(run)}
    return WholeRun(run.run_id, document, tables)


# --- runs of packs ---


def unpack(run: Run, folder: Path) -> None:
    """Write a run of a pack as a folder of its own, ``run.json`` last.

    Raises:
        StoreError: it cannot be read, or not be written.
    """
    content = whole(run)
    try:
        for name, table in content.tables.items():
            stored = table.replace_schema_metadata({CONFIGURATION_KEY: run.config_hash})
            write_table(folder / f"{name}.parquet", stored)
        write_json(folder / "run.json", content.document)
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror or error}") from None


# --- packs of runs ---


def add(results_dir: Path, name: str, runs: Sequence[WholeRun]) -> Pack:
    """Put runs into a pack of a store, beside what it holds; those of the same id are replaced.

    The pack appears whole or stays what it was. What was written is read and compared, bit for
    bit, before it takes the place of anything.

    Args:
        name: of the pack, which is made if need be.

    Raises:
        UserError: another pack holds one of the runs, or a run cannot be packed as it is.
        StoreError: the pack is damaged, or cannot be written.
    """
    parent = packed.folder(results_dir)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with locks.take(parent / ".lock"):
            _restore(parent / name)
            content = _together(results_dir, name, runs)
            fresh = parent / f".{name}.new"
            shutil.rmtree(fresh, ignore_errors=True)  # of a killed process
            try:
                fresh.mkdir()
                _write(fresh, content)
                _check(fresh, content)
                _take_the_place_of(fresh, parent / name)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except locks.Busy as busy:
        raise StoreError(f"another process ({busy}) is writing to {parent}; wait for it") from None
    except OSError as error:
        raise StoreError(f"cannot write to {parent}: {error.strerror or error}") from None
    return next(pack for pack in intact_packs(results_dir).whole if pack.path == parent / name)


def _together(results_dir: Path, name: str, runs: Sequence[WholeRun]) -> list[WholeRun]:
    """What a pack holds and some runs, by run id."""
    contents: dict[str, WholeRun] = {}
    for pack in intact_packs(results_dir).whole:
        if pack.path.name == name:
            for run_id in pack.lines:
                contents[run_id] = _of_pack(pack, run_id)
            continue
        for run in runs:
            if run.run_id in pack.lines:
                raise UserError(f"{run.run_id}: is in {pack.path} already")
    contents |= {run.run_id: run for run in runs}
    return [contents[run_id] for run_id in sorted(contents)]


def _of_pack(pack: Pack, run_id: str) -> WholeRun:
    """A run of a pack as it lies there."""
    tables = {}
    for table, rows in pack.rows.items():
        if run_id in rows:
            tables[table] = packed_tables.read(pack, run_id, table)
    return WholeRun(run_id, pack.document(run_id), tables)


def _restore(path: Path) -> None:
    """Put back what a killed process had moved aside to replace it."""
    aside = _aside(path)
    if aside.is_dir() and not path.exists():
        aside.rename(path)
    shutil.rmtree(aside, ignore_errors=True)


def _take_the_place_of(fresh: Path, path: Path) -> None:
    """Rename a folder to what another one is called, which is removed."""
    if path.exists():
        path.rename(_aside(path))
    fresh.rename(path)
    shutil.rmtree(_aside(path), ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _write(path: Path, runs: Sequence[WholeRun]) -> None:
    """Write the files of a pack into an empty folder."""
    columns: dict[str, pa.Schema] = {}
    for name in TABLES:
        having = [(run.run_id, run.tables[name]) for run in runs if name in run.tables]
        if having:
            columns[name] = _schema(having)
            _write_table(path / f"{name}.parquet", columns[name], having)
    with (path / packed.LINES).open("w", encoding="utf-8", newline="\n") as file:
        for run in runs:
            tables = {}
            for name, table in run.tables.items():
                own = _kinds(table.schema)
                alike = [*own.items()] == [*_kinds(columns[name]).items()]
                tables[name] = len(table), None if alike else own
            file.write(packed.line(run.run_id, tables, run.document))


def _kinds(schema: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}


def _schema(tables: Sequence[tuple[str, pa.Table]]) -> pa.Schema:
    """The columns of some tables, each of the widest of its types.

    Raises:
        UserError: a column has types that are not of one kind.
    """
    schemas = {str(table.schema): table.schema for _, table in tables}
    try:
        return pa.unify_schemas([*schemas.values()], promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"these runs do not fit into one pack: {first_line(error)}") from None


def _write_table(path: Path, schema: pa.Schema, tables: Sequence[tuple[str, pa.Table]]) -> None:
    """Write the rows of all runs; each row group begins with a run."""
    encodings: dict[str, str] = {}  # of numbers; texts are numbered
    for field in schema:
        if pa.types.is_floating(field.type):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(field.type):
            encodings[field.name] = "DELTA_BINARY_PACKED"
    whole_schema = schema.insert(0, pa.field(RUN_ID, pa.string()))
    with pq.ParquetWriter(
        path,
        whole_schema,
        compression="zstd",
        compression_level=LEVEL,
        use_dictionary=[name for name in whole_schema.names if name not in encodings],
        column_encoding=encodings,
        version="2.6",
        write_statistics=False,  # as large as small columns
    ) as writer:
        for group in _groups(tables):
            parts = []
            for run_id, table in group:
                wide = pa.concat_tables([schema.empty_table(), table], promote_options="permissive")
                run_ids = pa.array([run_id] * len(table), pa.string())
                parts.append(wide.add_column(0, RUN_ID, run_ids).cast(whole_schema))
            writer.write_table(pa.concat_tables(parts), row_group_size=MOST_ROWS)


def _groups(tables: Sequence[tuple[str, pa.Table]]) -> Iterator[list[tuple[str, pa.Table]]]:
    """Tables that share a row group."""
    group: list[tuple[str, pa.Table]] = []
    for run_id, table in tables:
        if group and sum(len(other) for _, other in group) + len(table) > GROUP_ROWS:
            yield group
            group = []
        group.append((run_id, table))
    if group:
        yield group


def _check(path: Path, runs: Sequence[WholeRun]) -> None:
    """Make sure that a pack reads as the runs that it was made of.

    Raises:
        UserError: it does not; names the run and the table.
    """
    pack = packed.read(path)
    for run in runs:
        if pack.document(run.run_id) != run.document:
            raise UserError(f"{run.run_id}: its run.json cannot be packed")
        for name, table in run.tables.items():
            try:
                is_same = same_bits(packed_tables.read(pack, run.run_id, name), table)
            except UNREADABLE:
                is_same = False
            if not is_same:
                raise UserError(f"{run.run_id}: its table {name} cannot be packed as it is")


def same_bits(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables have the same columns, types, nulls and bits."""
    if one.schema.names != other.schema.names or one.schema.types != other.schema.types:
        return False
    return all(map(_same, one.columns, other.columns))


def _same(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    if not pa.types.is_floating(one.type):
        return bool(one.equals(other))
    # NaN is not equal to itself, and 0 is to -0.
    nulls = one.is_null().equals(other.is_null())
    values = (column.fill_null(0).to_numpy() for column in (one, other))
    return nulls and len({column.tobytes() for column in values}) == 1
