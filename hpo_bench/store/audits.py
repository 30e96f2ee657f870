"""Stored audits, as what figures are made from: like runs, with a table of their own."""

from __future__ import annotations

from pathlib import Path

from hpo_bench.errors import StoreError
from hpo_bench.store import index
from hpo_bench.store.runs import Run, read_run, told_apart
from hpo_bench.system import notices

FOLDER = "audits"
DOCUMENT = "audit.json"
OVER_TIME = "over_time"  # the table of the audits that look ahead


def folder(results_dir: str | Path) -> Path:
    """Where the audits of a store lie, a folder each."""
    return Path(results_dir) / FOLDER


def complete_audits(results_dir: str | Path, table: str) -> list[Run]:
    """The complete audits of a store that have a ``table``, by name, told apart by their data.

    Where runs may be left out (`notices.leaving_out`) so are audits that cannot be read.

    Raises:
        StoreError: an ``audit.json`` is damaged.
    """
    return told_apart(_complete(folder(results_dir), table))


def _complete(parent: Path, table: str) -> list[Run]:
    found: list[Run] = []
    for name in index.folders(parent):
        path = parent / name
        if not (path / f"{table}.parquet").exists():
            continue
        try:
            audit = read_run(path, DOCUMENT)
        except StoreError as error:
            notices.leave_out(path, error)
            continue
        if audit is not None and audit.status == "complete":
            found.append(audit)
    return found
