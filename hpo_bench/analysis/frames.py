"""The rows of stored runs as tables of pandas and numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from hpo_bench.analysis.selection import MACHINE, Runs, configuration, weight_updates
from hpo_bench.errors import StoreError, UserError
from hpo_bench.store.index import consecutive
from hpo_bench.store.runs import CURVE_COLUMNS, FINAL_COLUMNS, Run, read_arrow
from hpo_bench.system import notices

# Columns of final.parquet that tell how long a run took, not what came out.
TIMINGS = ("seconds", "rows_in_block")
SETTINGS = (
    "update_interval",
    "look_back",
    "hyperparameter_updates",
    "batch_size",
    "validation_share",
    "data_order",
    "data_for_weights",
    "precision",
    "record_every",
)
DESCRIBED = (
    "run_id",
    "config_hash",
    "configuration",
    "dataset",
    "dataset_label",
    "metric_label",
    "metric_scale",
    "method",
    "label",
    "colour",
    "line_style",
    "order",
)  # columns of `finals` that say what a run is
READERS = 2  # threads that read curves


def finals(runs: Runs) -> pd.DataFrame:
    """Final values of runs, a row per repetition.

    The columns are `store.runs.FINAL_COLUMNS` and what the run is: `DESCRIBED`, `SETTINGS`,
    ``weight_updates`` and `MACHINE`. Seeds that two runs of one configuration share are kept once.
    No curves are read.

    Raises:
        UserError: a file is damaged (named), or two runs disagree about a repetition.
    """
    if not runs:
        columns = [*DESCRIBED, *SETTINGS, "weight_updates", *MACHINE, *FINAL_COLUMNS]
        return pd.DataFrame(columns=columns)
    # One after the other: these files are so small that threads would only hinder each other.
    runs, tables = _readable(runs, map(_final_table, runs))
    if not runs:
        return finals([])
    rows = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    lengths = [table.num_rows for table in tables]
    run_of_row = np.repeat(np.arange(len(runs)), lengths)
    descriptions = pd.DataFrame([_description(run) for run in runs]).iloc[run_of_row]
    joined = pd.concat([descriptions.reset_index(drop=True), rows], axis=1)
    for run in runs:
        _set_machine_of_taken(joined, run)
    return _once(joined, ["seed"], TIMINGS)


def _set_machine_of_taken(frame: pd.DataFrame, run: Run) -> None:
    """Give repetitions that a run took from another the machine that computed them."""
    for source in run.taken_from:
        seeds: list[int] = []
        for series in consecutive(str(source.get("seeds", ""))):
            seeds.extend(series)
        rows = (frame["run_id"] == run.run_id) & frame["seed"].isin(seeds)
        environment = source.get("environment") or {}
        for key in MACHINE:
            frame.loc[rows, key] = environment.get(key)


def failure_aware(frame: pd.DataFrame, column: str = "test_metric") -> NDArray[np.float64]:
    """A column of `finals`, (rows,), in which what failed is +inf.

    A repetition failed if it diverged or if its value is not finite.
    """
    values = frame[column].to_numpy(dtype=float, na_value=np.nan)
    ok = np.isfinite(values) & (frame["status"] == "ok").to_numpy()
    return np.where(ok, values, np.inf)


def _readable(
    runs: Runs, tables: Iterable[pa.Table | StoreError]
) -> tuple[list[Run], list[pa.Table]]:
    """Runs and their tables, if all could be read.

    Raises:
        StoreError, FoundLate: see `hpo_bench.system.notices.leave_out_late`.
    """
    readable: list[Run] = []
    contents: list[pa.Table] = []
    damaged: dict[Path, StoreError] = {}
    for run, table in zip(runs, tables, strict=True):
        if isinstance(table, StoreError):
            damaged[run.place] = table
        else:
            readable.append(run)
            contents.append(table)
    notices.leave_out_late(damaged)
    return readable, contents


def _final_table(run: Run) -> pa.Table | StoreError:
    """The final values, without columns of others' making that are no numbers."""
    try:
        table = read_arrow(run, "final")
    except StoreError as error:
        return error
    strange = [
        field.name
        for field in table.schema
        if field.name not in FINAL_COLUMNS and not _is_number(field.type)
    ]
    return table.drop_columns(strange) if strange else table


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _description(run: Run) -> dict[str, Any]:
    """A row of `DESCRIBED`, `SETTINGS`, ``weight_updates`` and `MACHINE`."""
    config = run.config
    dataset, method = config["dataset"], config["method"]
    settings = {key: config.get(key) for key in SETTINGS}
    machine = {key: run.environment.get(key) for key in MACHINE}
    return {
        "run_id": run.run_id,
        "config_hash": run.config_hash,
        "configuration": configuration(run),
        "dataset": run.dataset,
        "dataset_label": run.dataset_label,
        "metric_label": dataset.get("metric_label", "Test metric"),
        "metric_scale": float(dataset.get("metric_scale") or 1.0),
        "method": run.method,
        "label": run.method_label,
        "colour": method.get("colour", "#000000"),
        "line_style": method.get("line_style", "-"),
        "order": method.get("order", 0),
        **settings,
        "weight_updates": weight_updates(run),
        **machine,
    }


def _once(frame: pd.DataFrame, keys: list[str], ignored: Sequence[str]) -> pd.DataFrame:
    """Drop repetitions that several runs of one configuration hold, all with the same numbers.

    Raises:
        UserError: the numbers differ.
    """
    identity = ["configuration", *keys]
    repeated = frame.duplicated(identity, keep=False)
    if not repeated.any():
        return frame
    values = [
        column
        for column in FINAL_COLUMNS + CURVE_COLUMNS
        if column in frame.columns and column not in ("seed", "step", *ignored)
    ]
    unique = frame[repeated].drop_duplicates([*identity, *values])
    conflicting = unique[unique.duplicated(identity, keep=False)]
    if len(conflicting):
        first = conflicting.iloc[0]
        same = (conflicting[identity] == first[identity]).all(axis=1)
        names = ", ".join(str(name) for name in conflicting.loc[same, "run_id"])
        raise UserError(
            f"runs {names} have one configuration but different numbers for seed "
            f"{first['seed']}; move one of them away"
        )
    return frame.drop_duplicates(identity).reset_index(drop=True)


def curves(runs: Runs, columns: Sequence[str] | None, every: int | None = None) -> pd.DataFrame:
    """Curves of runs, a row per repetition and recorded step.

    The columns are ``run_id``, ``configuration``, ``dataset``, ``method`` (categories), ``seed``,
    ``step`` and ``columns``. Seeds that two runs of one configuration share are kept once.

    Args:
        columns: of curves.parquet; None for all that any of the runs has, NaN where one lacks them.
        every: keep only steps that are multiples of it, and the last step of each repetition.

    Raises:
        UserError: a file is damaged (named) or lacks a column, or two runs disagree about a
            repetition.
    """
    wanted = None if columns is None else list(dict.fromkeys(["seed", "step", *columns]))
    with ThreadPoolExecutor(READERS) as pool:  # reading Parquet releases the GIL
        runs, tables = _readable(runs, pool.map(lambda run: _thinned(run, wanted, every), runs))
    lengths = [table.num_rows for table in tables]
    run_of_row = np.repeat(np.arange(len(runs)), lengths)

    data: dict[str, Any] = {}
    for name, values in _named(runs).items():
        data[name] = pd.Categorical(values).take(run_of_row) if runs else pd.Categorical([])
    for column in _all_columns(tables) if wanted is None else wanted:
        parts = [_values(table, column) for table in tables]
        data[column] = np.concatenate(parts) if parts else np.empty(0)
    frame = pd.DataFrame(data, copy=False)
    return _once(frame, ["seed", "step"], ("elapsed_s",)) if _overlap(runs) else frame


def _named(runs: Runs) -> dict[str, list[str]]:
    """What tells runs apart, a value for each run."""
    return {
        "run_id": [run.run_id for run in runs],
        "configuration": [configuration(run) for run in runs],
        "dataset": [run.dataset for run in runs],
        "method": [run.method for run in runs],
    }


def _all_columns(tables: Iterable[pa.Table]) -> list[str]:
    """Columns of curves that any of some tables has: those that every run has first."""
    columns = dict.fromkeys(CURVE_COLUMNS)
    for table in tables:
        columns |= {field.name: None for field in table.schema if _is_number(field.type)}
    return list(columns)


def _values(table: pa.Table, column: str) -> NDArray[Any]:
    """A column as numbers, NaN where the table has none."""
    if column not in table.column_names or pa.types.is_null(table.schema.field(column).type):
        return np.full(table.num_rows, np.nan, np.float32)
    values: NDArray[Any] = table[column].to_numpy()
    return values


def trials(runs: Runs) -> pd.DataFrame | None:
    """The trainings of searches, a row each; None where no run is a search.

    The columns are ``run_id``, ``configuration``, ``dataset``, ``method`` and those of
    trials.parquet.

    Raises:
        UserError: a file is damaged (named).
    """
    searches = [run for run in runs if run.config["method"].get("search")]
    if not searches:
        return None
    searches, tables = _readable(searches, map(_trials_table, searches))
    lengths = [table.num_rows for table in tables]
    run_of_row = np.repeat(np.arange(len(searches)), lengths)
    names = pd.DataFrame(_named(searches)).iloc[run_of_row]
    rows = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    joined: pd.DataFrame = pd.concat([names.reset_index(drop=True), rows], axis=1)
    if not _overlap(searches):
        return joined
    owners = joined.groupby(["configuration", "seed"])["run_id"].transform("first")
    once: pd.DataFrame = joined[joined["run_id"] == owners].reset_index(drop=True)
    return once


def _trials_table(run: Run) -> pa.Table | StoreError:
    """The trials of one search, or what is wrong with them."""
    try:
        return read_arrow(run, "trials")
    except StoreError as error:
        return error


def _overlap(runs: Runs) -> bool:
    """Whether a repetition is in more than one of the runs."""
    repetitions = [(configuration(run), seed) for run in runs for seed in run.seeds]
    return len(set(repetitions)) < len(repetitions)


def _thinned(run: Run, wanted: list[str] | None, every: int | None) -> pa.Table | StoreError:
    """The curves of one run, see `curves`, or what is wrong with them."""
    try:
        table = read_arrow(run, "curves", wanted)
    except StoreError as error:
        return error
    if not every or every == 1:
        return table
    seed, step = table["seed"].to_numpy(), table["step"].to_numpy()
    last = np.append(seed[1:] != seed[:-1], True) if len(seed) else np.empty(0, bool)
    return table.filter(pa.array((step % every == 0) | last))


def matrix(
    frame: pd.DataFrame, column: str, failures: pd.DataFrame | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """A column of `curves` as a matrix.

    Args:
        frame: `curves` of one configuration.
        failures: `finals` of the same runs; repetitions that diverged are +inf from
            ``diverged_at`` on, and from the end of their rows. Without it they are NaN there, like
            repetitions that are shorter.

    Returns:
        steps (S,), seeds (R,), values (R, S), NaN where a repetition has no such step. Diverged
        repetitions without any row are there too when ``failures`` names them.

    Raises:
        ValueError: a repetition has a step twice (runs of several configurations in one frame).
    """
    seed, step = frame["seed"].to_numpy(), frame["step"].to_numpy()
    all_seeds = seed
    if failures is not None:
        diverged = failures.loc[failures["status"] != "ok", ["seed", "diverged_at"]]
        all_seeds = np.append(pd.unique(seed), diverged["seed"])
    seeds = np.unique(all_seeds)
    steps = np.sort(pd.unique(step))

    cells = np.searchsorted(seeds, seed) * len(steps) + np.searchsorted(steps, step)
    values = np.full(len(seeds) * len(steps), np.nan)
    values[cells] = frame[column].to_numpy(dtype=float, na_value=np.nan)
    if len(cells) > 1 and np.bincount(cells, minlength=1).max() > 1:
        raise ValueError("several rows for one seed and step: select one configuration first")
    matrix_RS = values.reshape(len(seeds), len(steps))

    if failures is not None:
        rows = np.searchsorted(seeds, diverged["seed"])
        diverged_at = diverged["diverged_at"].to_numpy(dtype=float, na_value=np.nan)
        _fail(matrix_RS, steps, rows, diverged_at)
    return steps.astype(np.int64), seeds.astype(np.int64), matrix_RS


def _fail(
    matrix_RS: NDArray[np.float64],
    steps: NDArray[Any],
    rows: NDArray[Any],
    diverged_at: NDArray[np.float64],
) -> None:
    """Put +inf where the given rows have diverged.

    They have from the step ``diverged_at`` on, at the latest after their last finite value.
    """
    for row, at in zip(rows, diverged_at, strict=True):
        present = np.flatnonzero(np.isfinite(matrix_RS[row]))
        end = steps[present[-1]] + 1 if present.size else 0
        matrix_RS[row, steps >= np.nanmin([at, end])] = np.inf
