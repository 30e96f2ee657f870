"""Reading the tables of packs: one run's rows, without those of most others."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpo_bench.store.packed import Pack, RowsOfRun

KEPT = 16  # row groups of several runs that stay in memory, for the next run is likely in one
RUN_ID = "run_id"  # the first column of a pack's tables


def check(pack: Pack, table: str) -> None:
    """Make sure that a table of a pack has as many rows as the lines say, and read none of them.

    Raises:
        ValueError: it has not. OSError, pyarrow.ArrowException: it cannot be read.
    """
    _starts(pack, table)


def read(pack: Pack, run_id: str, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a run's rows of a table, with the run's own columns and their types.

    Args:
        columns: of these those that it has; all by default.

    Raises:
        FileNotFoundError: the run has no such table.
        ValueError: lines and tables disagree. OSError, pyarrow.ArrowException: it cannot be read.
    """
    rows = pack.rows.get(table, {}).get(run_id)
    if rows is None:
        raise FileNotFoundError
    file, starts = pack.file(table), _starts(pack, table)
    if not rows.count:
        return _as_stored(_end(file, pack.stamps)[0].schema.to_arrow_schema().empty_table(), rows)
    number = bisect_right(starts, rows.first, hi=len(starts) - 1) - 1
    if rows.first + rows.count > starts[number + 1]:
        raise ValueError(f"the rows of {run_id} are torn apart")
    wanted = None if columns is None else (RUN_ID, *dict.fromkeys(columns))
    of_several_runs = rows.count < starts[number + 1] - starts[number]
    reading = _kept_group if of_several_runs else _group
    group = reading(file, pack.stamps, number, wanted)
    own = group.slice(rows.first - starts[number], rows.count)
    if pc.unique(own[RUN_ID]).to_pylist() != [run_id]:
        raise ValueError(f"does not hold {run_id} where runs.jsonl says")
    return _as_stored(own, rows)


def _starts(pack: Pack, table: str) -> tuple[int, ...]:
    """First rows of a table's row groups, and how many rows there are.

    Raises:
        ValueError: there are not as many as the lines of the pack say.
    """
    starts = _end(pack.file(table), pack.stamps)[1]
    if starts[-1] != pack.totals[table]:
        raise ValueError(f"holds {starts[-1]} rows, runs.jsonl says {pack.totals[table]}")
    return starts


@lru_cache(maxsize=256)
def _end(file: Path, stamps: object) -> tuple[pq.FileMetaData, tuple[int, ...]]:
    """What the end of a file says, and where its row groups begin and the last one ends."""
    with pa.OSFile(str(file)) as opened, pq.ParquetFile(opened) as content:
        metadata = content.metadata
    numbers = range(metadata.num_row_groups)
    return metadata, (0, *accumulate(metadata.row_group(number).num_rows for number in numbers))


def _group(file: Path, stamps: object, number: int, columns: tuple[str, ...] | None) -> pa.Table:
    """Read a row group, or some of its columns."""
    metadata, _ = _end(file, stamps)
    with pa.OSFile(str(file)) as opened, pq.ParquetFile(opened, metadata=metadata) as content:
        return content.read_row_group(number, columns, use_threads=False)


_kept_group = lru_cache(maxsize=KEPT)(_group)


def _as_stored(table: pa.Table, rows: RowsOfRun) -> pa.Table:
    """A run's rows with the columns that the run has, as they were before they were packed."""
    if rows.columns is None:
        return table.drop_columns([RUN_ID])
    names = [name for name in rows.columns if name in table.column_names]
    return cast(table.select(names), rows.columns)


def cast(table: pa.Table, kinds: Mapping[str, str]) -> pa.Table:
    """A table whose columns have other types, given by their names.

    Raises:
        ValueError, pyarrow.ArrowException: there is no such type, or a value is none of it.
    """
    arrays = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = pa.type_for_alias(kinds[name])
        if column.type == kind:
            arrays.append(column)
        elif pa.types.is_null(kind):
            arrays.append(pa.nulls(len(column)))
        else:
            arrays.append(column.cast(kind))
    return pa.table(arrays, names=table.column_names)
