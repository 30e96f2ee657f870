"""Packs: many complete runs in a few files, which are read and never written to.

<results_dir>/packed/NAME/
    runs.jsonl          a line for each run, sorted by ``run_id``: that, the ``tables`` that it has
                        and how many rows of each, and all that its ``run.json`` said
    final.parquet, curves.parquet, and trials.parquet, hypergradients.parquet where a run has them
                        the rows of all runs, one run after the other as the lines are, with a
                        column ``run_id`` before their own

Where a run has a folder of its own beside them, the folder is the run. `hpo_bench.store.packing`
makes packs. Imports neither pandas nor pyarrow: a list of runs is read without them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from hpo_bench.errors import StoreError
from hpo_bench.store import documents
from hpo_bench.store.documents import TABLES

FOLDER = "packed"  # beside the folder of the runs
LINES = "runs.jsonl"
OWN_KEYS = ("run_id", "tables")  # of a line; all others are those of a ``run.json``

# Time, size and number of each file of a pack, -1 where there is none.
Stamps = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class RowsOfRun:
    """Where a run's rows lie in a table of a pack.

    Args:
        first: row of the table.
        columns: names and types of the run's own columns, in their order; None where they are
            those of the table.
    """

    first: int
    count: int
    columns: Mapping[str, str] | None


@dataclass(frozen=True, eq=False)
class Pack:
    """What the lines of a pack say.

    Args:
        path: its folder.
        stamps: of its files when it was read.
        lines: by run id.
        contents: the same, read; not to be changed.
        rows: by table and run id.
        totals: how many rows each table must have.
    """

    path: Path
    stamps: Stamps
    lines: Mapping[str, str]
    contents: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, Mapping[str, RowsOfRun]]
    totals: Mapping[str, int]

    def file(self, table: str) -> Path:
        """The file of a table."""
        return self.path / f"{table}.parquet"

    def document(self, run_id: str) -> dict[str, Any]:
        """What the ``run.json`` of a run said; a copy of its own at each call."""
        content: dict[str, Any] = json.loads(self.lines[run_id])
        return {key: value for key, value in content.items() if key not in OWN_KEYS}


@dataclass(frozen=True)
class Packs:
    """The packs of a store, by name.

    Args:
        damaged: what is wrong with those that cannot be read, by their folders.
    """

    whole: tuple[Pack, ...] = ()
    damaged: Mapping[Path, StoreError] = field(default_factory=dict)

    def holding(self, run_id: str) -> Pack | None:
        """The first pack that holds a run."""
        return next((pack for pack in self.whole if run_id in pack.lines), None)


def folder(results_dir: str | Path) -> Path:
    """The folder of a store's packs, whether it is there or not."""
    return Path(results_dir) / FOLDER


def find(results_dir: str | Path) -> Packs:
    """Read the packs of a store; those that have not changed since this process read them are not
    read again.
    """
    whole: list[Pack] = []
    damaged: dict[Path, StoreError] = {}
    parent = folder(results_dir)
    for name in _names(parent):
        path = parent / name
        content = _read(path, _stamps(path))
        if isinstance(content, Pack):
            whole.append(content)
        else:
            damaged[path] = content
    return Packs(tuple(whole), damaged)


def read(path: Path) -> Pack:
    """Read one pack.

    Raises:
        StoreError: a file cannot be read; names it, and what to do.
    """
    content = _read(path, _stamps(path))
    if isinstance(content, StoreError):
        raise content
    return content


def again(path: Path) -> str:
    """Say what to do about a pack that cannot be read."""
    return f"restore it, or move {path} aside"


def _names(parent: Path) -> list[str]:
    """Names of the packs in a folder; what begins with a dot is none."""
    try:
        with os.scandir(parent) as items:
            names = [item.name for item in items if item.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if not name.startswith("."))


def _stamps(path: Path) -> Stamps:
    return tuple(_stamp(f"{path}/{name}") for name in (LINES, *(f"{t}.parquet" for t in TABLES)))


def _stamp(file: str) -> tuple[int, int, int]:
    try:
        status = os.stat(file)
    except OSError:
        return -1, -1, -1
    return status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=256)
def _read(path: Path, stamps: Stamps) -> Pack | StoreError:
    """A pack, or what is wrong with it."""
    try:
        return _whole(path, stamps)
    except StoreError as error:
        return error


def _whole(path: Path, stamps: Stamps) -> Pack:
    """Read the lines of a pack, and look at both ends of its tables.

    Raises:
        StoreError: one cannot be read; names the file, and what to do.
    """
    lines: dict[str, str] = {}
    contents: dict[str, Mapping[str, Any]] = {}
    rows: dict[str, dict[str, RowsOfRun]] = {}
    totals: dict[str, int] = {}
    file = path / LINES
    for number, text in enumerate(_lines(path), 1):
        try:
            content = documents.parsed_run(text)
            run_id, tables = _described(content)
            if run_id in lines:
                raise ValueError(f"{run_id} stands there twice")
        except documents.Newer as error:
            raise StoreError(f"{file} is {error}") from None
        except ValueError as error:
            raise StoreError(f"{file} is damaged (line {number}: {error}); {again(path)}") from None
        lines[run_id], contents[run_id] = text, content
        for table, (count, columns) in tables.items():
            first = totals.get(table, 0)
            rows.setdefault(table, {})[run_id] = RowsOfRun(first, count, columns)
            totals[table] = first + count
    for table in totals:
        _check_table(path, path / f"{table}.parquet")
    return Pack(path, stamps, lines, contents, rows, totals)


def _lines(path: Path) -> list[str]:
    """The lines of a pack.

    Raises:
        StoreError: they cannot be read, or the last one is cut off.
    """
    file = path / LINES
    try:
        text = documents.text_of(file)
    except FileNotFoundError:
        raise StoreError(f"{file} is missing; {again(path)}") from None
    except UnicodeDecodeError as error:
        raise StoreError(f"{file} is damaged (no UTF-8: {error.reason}); {again(path)}") from None
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror or error}") from None
    # Not `splitlines`: a label may hold what it takes for the end of a line.
    *lines, rest = text.split("\n")
    if rest or not lines:
        raise StoreError(f"{file} is damaged (not all of it is there); {again(path)}")
    return lines


Tables = Mapping[str, tuple[int, Mapping[str, str] | None]]  # rows, and columns of its own


def _described(content: Mapping[str, Any]) -> tuple[str, Tables]:
    """The run id and the tables that a line names.

    Raises:
        ValueError: a key is missing or of another type.
    """
    run_id, described = (content.get(key) for key in OWN_KEYS)
    if not isinstance(run_id, str) or not run_id:
        raise ValueError("run_id must be text")
    if content["status"] != "complete":
        raise ValueError(f"{run_id} is not complete")
    if not isinstance(described, dict) or not {"final", "curves"} <= set(described) <= set(TABLES):
        raise ValueError(f"tables of {run_id} must be final, curves, and others that runs have")
    return run_id, {name: _table(name, facts) for name, facts in described.items()}


def _table(name: str, facts: Any) -> tuple[int, Mapping[str, str] | None]:
    """What a line says of a table.

    Raises:
        ValueError: it is something else.
    """
    count = facts.get("rows") if isinstance(facts, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ValueError(f"tables.{name} must say how many rows it has")
    columns = facts.get("columns")
    kinds = columns.values() if isinstance(columns, dict) else [columns]
    if columns is not None and not all(isinstance(kind, str) for kind in kinds):
        raise ValueError(f"columns of tables.{name} must be names and types")
    return count, columns


def _check_table(path: Path, file: Path) -> None:
    """Look at both ends of a table.

    Raises:
        StoreError: it is not there, or not whole.
    """
    try:
        documents.check_table(file)
    except FileNotFoundError:
        raise StoreError(f"{file} is missing; {again(path)}") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise StoreError(f"{file} is damaged ({reason}); {again(path)}") from None


def line(run_id: str, tables: Tables, document: Mapping[str, Any]) -> str:
    """Write the line of a run, which `find` reads.

    Args:
        document: what its ``run.json`` says.
    """
    described: dict[str, dict[str, Any]] = {}
    for name, (count, columns) in tables.items():
        described[name] = {"rows": count}
        if columns is not None:
            described[name]["columns"] = dict(columns)
    content = {"run_id": run_id, "tables": described, **document}
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
