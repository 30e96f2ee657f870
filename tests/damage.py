"""Stored runs that something has happened to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def bad(results: Path) -> Path:
    """The folder of the run that is damaged: Baydin's."""
    (folder,) = (results / "runs").glob("*baydin*")
    return folder


def edit(folder: Path, **changes: Any) -> None:
    """Change keys of a run's ``run.json``."""
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def swap(one: Path, other: Path) -> None:
    """Exchange the contents of two files."""
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def with_table(folder: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a run's table."""
    file = folder / f"{name}.parquet"
    pq.write_table(change(pq.read_table(file, partitioning=None)), file)


# Changes by which a table becomes one that is not the run's own.
OF_OTHERS: dict[str, Callable[[Path], None]] = {
    "swapped": lambda folder: swap(
        folder / "final.parquet", next(folder.parent.glob("*-random-*/final.parquet"))
    ),
    "other seeds": lambda folder: edit(folder, seeds=[0, 1, 7]),
    "fewer seeds": lambda folder: edit(folder, seeds=[0, 1]),
    "a seed twice": lambda folder: with_table(
        folder, "final", lambda table: pa.concat_tables([table, table.slice(0, 1)])
    ),
    "no rows": lambda folder: with_table(folder, "final", lambda table: table.slice(0, 0)),
    "no curves": lambda folder: with_table(folder, "curves", lambda table: table.slice(0, 0)),
}
