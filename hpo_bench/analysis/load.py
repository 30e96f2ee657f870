"""Stored runs as tidy frames: which runs there are, their final values, their curves (no torch, no hydra)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from hpo_bench import identity, notices, store
from hpo_bench.errors import StoreError, UserError, nearest
from hpo_bench.identity import canonical, flat
from hpo_bench.index import consecutive
from hpo_bench.quoting import override
from hpo_bench.store import Run

NAMED = 2  # configurations left out of a comparison that get a line each
Runs = Sequence[Run]
T = TypeVar("T")

# Columns of final.parquet that tell how long a run took, not what came out.
TIMINGS = ("seconds", "rows_in_block")
SETTINGS = (
    "update_interval", "look_back", "hyperparameter_updates", "batch_size", "validation_share", "data_order",
    "data_for_weights", "precision", "record_every",
)  # fmt: skip
MACHINE = ("device", "cpu", "threads", "workers")  # of the environment: what run times depend on
SHARES = (0.25, 0.375, 0.5)  # validation parts of an experiment of their own
THREADS = 2


# --- which runs ---


def find(
    results_dir: str | Path,
    *,
    datasets: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> list[Run]:
    """Complete runs of a store, by method's order and run id.

    Args:
        results_dir: folder that holds ``runs/``.
        datasets, methods: ids to keep; all by default. A dataset's id stands for all data that go by it.
        where: dotted configuration keys and the values they must have, as ``{"update_interval": 10}``.
        command: what would make the runs that are looked for, named where there are none.

    Raises:
        UserError: the store is empty or damaged, or nothing in it fits (nearest names are given).
    """
    own = f"hpo-bench run {override('results_dir', str(results_dir))}"
    make = f"make them with: {command or own}"
    runs = store.complete_runs(results_dir)
    if not runs:
        raise UserError(f"no complete runs in {store.runs_folder(results_dir)}; {make}")
    runs = _keep(runs, "dataset", datasets, make)
    runs = _keep(runs, "method", methods, make)
    for key, value in (where or {}).items():
        runs = _where(runs, key, value, results_dir)
    return sorted(runs, key=lambda run: (run.dataset, run.config["method"].get("order", 0), run.run_id))


def _keep(runs: list[Run], kind: Literal["dataset", "method"], names: Iterable[str] | None, make: str) -> list[Run]:
    if names is None:
        return runs
    wanted = list(names)
    kept = [run for run in runs if getattr(run, kind) in wanted or (kind == "dataset" and run.dataset_name in wanted)]
    if not kept:
        close = nearest(",".join(wanted), {getattr(run, kind) for run in runs})
        known = close.replace("Allowed", "Stored").replace("allowed", "stored")
        raise UserError(f"{kind}={','.join(wanted)}: no complete runs; {known}; {make}")
    return kept


def each_data(runs: Runs, datasets: Iterable[str]) -> list[str]:
    """Dataset ids, a name that stands for several data replaced by the ids of each."""
    own: dict[str, dict[str, None]] = defaultdict(dict)
    for run in runs:
        own[run.dataset_name][run.dataset] = None
    return [each for name in datasets for each in own.get(name, {name: None})]


def _where(runs: list[Run], key: str, value: Any, results_dir: str | Path) -> list[Run]:
    values = [(run, settings(run)) for run in runs]
    wanted = dict(flat(canonical({key: value}))).get(key, value)
    if not any(key in config for _, config in values):
        keys = {name for _, config in values for name in config}
        close = nearest(key, keys).partition(" Allowed: ")[0]
        hint = close if close.startswith("did you mean") else "see the config of a run.json for what there is"
        raise UserError(f"{key}: no run in {store.runs_folder(results_dir)} has this setting; {hint}")
    kept = [run for run, config in values if key in config and config[key] == wanted]
    if not kept:
        stored = sorted({str(config[key]) for _, config in values if key in config})
        raise UserError(f"{key}={value}: no complete run has it; stored: {', '.join(stored)}")
    return kept


def settings(run: Run) -> dict[str, Any]:
    """All settings of a run by dotted key, in the one spelling of their values."""
    return dict(flat(canonical(run.config)))


def configuration(run: Run) -> str:
    """Hash of what decides the numbers of a run's repetitions apart from their seeds: equal for shards of one sweep."""
    return run.config_hash


@dataclass(frozen=True)
class Selection:
    """Runs that may stand side by side.

    Args:
        runs: one configuration per dataset and method.
        notes: a line for each configuration that was left out, and for each that was kept although its settings differ
            from the others': what is different about it.
    """

    runs: list[Run]
    notes: tuple[str, ...]


def comparable(runs: Runs) -> Selection:
    """Choose one configuration per dataset and method, so that the methods of a dataset are comparable.

    A dataset's reference is the combination of common settings (T, K, batch size, initial ranges, …) that most methods
    share, then one with the usual validation part rather than a larger one, then most repetitions, then most weight
    updates. Of each method the configuration with the fewest differences from it is kept, then the usual
    hyperparameter optimiser, the newest numbers (CHANGELOG), the most repetitions. A method that was trained on other
    rows than these (another validation part) is left out.
    """
    kept: list[Run] = []
    notes = _apart(runs)
    changed: list[str] = []
    for dataset in _groups(runs, lambda run: run.dataset).values():
        reference, hyper = _shared_by_most(dataset, _common), _shared_by_most(dataset, _hyper)
        for method in _groups(dataset, lambda run: run.method).values():
            shards = list(_groups(method, configuration).values())
            shards.sort(key=lambda group: _preference(group, reference, hyper))
            alike = [group for group in shards if _split(_common(group[0])) == _split(reference)]
            if not alike:  # trained on other rows than the other methods
                notes += [_of_another_split(group[0], reference) for group in shards[:1]]
                continue
            chosen = alike[0]
            others = [group for group in shards if group is not chosen]
            kept += chosen
            notes += [_left_out(group, chosen[0]) for group in others[:NAMED]]
            notes += _also_left_out(others[NAMED:])
            notes += _unlike(chosen[0], reference)
        changed += _other_code([run for run in kept if run.dataset == dataset[0].dataset])
    return Selection(kept, (*notes, *changed))


def _other_code(runs: Runs) -> list[str]:
    """A line for each component of one's own whose file changed between runs that stand side by side."""
    files: dict[str, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        for target, digest in run.own_code.items():
            files[target].setdefault(digest, run)
    return [
        f"{runs[0].dataset}: the file of {target} changed between runs: "
        f"{', '.join(f'{run.run_id} ({digest[:8]})' for digest, run in found.items())}"
        for target, found in files.items()
        if len(found) > 1
    ]


def _apart(runs: Runs) -> list[str]:
    """A line for each name that stands for several data."""
    by_name = _groups([run for run in runs if run.variant], lambda run: run.dataset_name)
    notes = []
    for name, group in by_name.items():
        labels = dict.fromkeys(f"{run.dataset_label}, dataset {run.dataset}" for run in group)
        count = len({run.dataset for run in group})  # one file may lie under several names
        notes.append(f"{name}: runs on {count} different data, shown apart and never compared: {'; '.join(labels)}")
    if any(run.variant.startswith(identity.UNKNOWN) for run in runs):
        notes.append(
            "data unknown: runs on one's own table that an earlier version stored do not say what was in it; they are "
            "compared with nothing else, compute them again to compare them"
        )
    return notes


def _split(common: Mapping[str, Any]) -> Any:
    """What tells the training and validation rows of a dataset apart."""
    return common.get("validation_share")


def _of_another_split(run: Run, reference: Mapping[str, Any]) -> str:
    return (
        f"{run.dataset}, {run.method}: left out, it is trained on other rows than the other methods: "
        f"validation_share={_split(_common(run))} (others: {_split(reference)})"
    )


def _groups(runs: Runs, key: Callable[[Run], T]) -> dict[T, list[Run]]:
    groups: dict[T, list[Run]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return groups


def _preference(group: Runs, reference: Mapping[str, Any], hyper: Mapping[str, Any]) -> tuple[int, int, int, int, str]:
    first = group[0]
    distances = len(_differences(_common(first), reference)), len(_differences(_hyper(first), hyper))
    return *distances, -int(first.code.get("numbers") or 0), -_repetitions(group), configuration(first)


def _common(run: Run) -> dict[str, Any]:
    """The settings that methods share when they are compared, by dotted key."""
    return identity.shared(run.config)


def _hyper(run: Run) -> dict[str, Any]:
    return {key: value for key, value in settings(run).items() if key.startswith("hyper.")}


def _shared_by_most(runs: Runs, settings: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
    groups = _groups(runs, lambda run: json.dumps(settings(run), sort_keys=True))

    def rank(key: str) -> tuple[int, bool, int, int, str]:
        group = groups[key]
        usual = any(run.config["validation_share"] not in SHARES for run in group)
        return len({run.method for run in group}), usual, _repetitions(group), weight_updates(group[0]), key

    return settings(groups[max(groups, key=rank)][0])


def _repetitions(runs: Runs) -> int:
    return len({seed for run in runs for seed in run.seeds})


def weight_updates(run: Run) -> int:
    """T·K, the length of a run's trainings."""
    return int(run.config["update_interval"]) * int(run.config["hyperparameter_updates"])


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*a, *b} if a.get(key) != b.get(key))


def _left_out(group: Runs, chosen: Run) -> str:
    run = group[0]
    own, kept = settings(run), settings(chosen)
    told_of = (*identity.DECISIVE, identity.Role.KEPT)
    named = [key for key in _differences(own, kept) if identity.role(key) in told_of]
    told = ", ".join(f"{key}={own.get(key)} (kept: {kept.get(key)})" for key in named[:4])
    return (
        f"{run.dataset}, {run.method}: left out {_repetitions(group)} repetitions with "
        f"{told or f'other data or code (config_hash {run.config_hash}, kept: {chosen.config_hash})'}"
    )


def _also_left_out(groups: list[list[Run]]) -> list[str]:
    """One line for the configurations beyond `NAMED`: a grid would fill the page."""
    if not groups:
        return []
    first, repetitions = groups[0][0], sum(_repetitions(group) for group in groups)
    return [
        f"{first.dataset}, {first.method}: left out {repetitions} repetitions of {len(groups)} other configurations"
    ]


def _unlike(run: Run, reference: Mapping[str, Any]) -> list[str]:
    """A line where a kept configuration has other common settings."""
    own = _common(run)
    named = _differences(own, reference)
    told = ", ".join(f"{key}={own.get(key)} (others: {reference.get(key)})" for key in named[:4])
    return [f"{run.dataset}, {run.method}: settings unlike the other methods': {told}"] if named else []


# --- final values ---


def finals(runs: Runs) -> pd.DataFrame:
    """Final values of runs, a row per repetition: the columns of final.parquet, the run's identity and its settings.

    Beside `store.FINAL_COLUMNS`: ``run_id``, ``config_hash``, ``configuration``, ``dataset``, ``dataset_label``,
    ``metric_label``, ``metric_scale``, ``method``, ``label``, ``colour``, ``line_style``, ``order``, `SETTINGS`,
    ``weight_updates`` and `MACHINE`. Seeds that two runs of one configuration share are kept once.
    Reads no curves.

    Raises:
        UserError: a file is damaged (named), or two runs disagree about a repetition.
    """
    if not runs:
        return pd.DataFrame(columns=[*_description_columns(), *store.FINAL_COLUMNS])
    runs, tables = _readable(runs, map(_final_table, runs))  # small files: threads would only hinder each other
    if not runs:
        return finals([])
    frame = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    lengths = [table.num_rows for table in tables]
    described = pd.DataFrame([_description(run) for run in runs]).iloc[np.repeat(np.arange(len(runs)), lengths)]
    joined = pd.concat([described.reset_index(drop=True), frame], axis=1)
    for run in runs:
        _where_computed(joined, run)
    return _once(joined, ["seed"], TIMINGS)


def _where_computed(frame: pd.DataFrame, run: Run) -> None:
    """Repetitions that a run took from another are of the machine that computed them."""
    for source in run.taken_from:
        seeds = [seed for series in consecutive(str(source.get("seeds", ""))) for seed in series]
        rows = (frame["run_id"] == run.run_id) & frame["seed"].isin(seeds)
        for key in MACHINE:
            frame.loc[rows, key] = (source.get("environment") or {}).get(key)


def failure_aware(frame: pd.DataFrame, column: str = "test_metric") -> NDArray[np.float64]:
    """A column of `finals` with diverged repetitions, and values that are not finite, as +inf, (rows,)."""
    values = frame[column].to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.isfinite(values) & (frame["status"] == "ok").to_numpy(), values, np.inf)


def _readable(runs: Runs, tables: Iterable[pa.Table | StoreError]) -> tuple[list[Run], list[pa.Table]]:
    """Runs and their tables, if all could be read.

    Raises:
        StoreError, FoundLate: see `hpo_bench.notices.leave_out_late`.
    """
    kept: list[tuple[Run, pa.Table]] = []
    damaged: dict[Path, StoreError] = {}
    for run, table in zip(runs, tables, strict=True):
        if isinstance(table, StoreError):
            damaged[run.path] = table
        else:
            kept.append((run, table))
    notices.leave_out_late(damaged)
    return [run for run, _ in kept], [table for _, table in kept]


def _final_table(run: Run) -> pa.Table | StoreError:
    """The final values, without columns of others' making that are no numbers."""
    try:
        table = store.read_arrow(run, "final")
    except StoreError as error:
        return error
    numeric = {field.name for field in table.schema if not pa.types.is_nested(field.type) and _is_number(field.type)}
    return table.select([name for name in table.column_names if name in numeric or name in store.FINAL_COLUMNS])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _description(run: Run) -> dict[str, Any]:
    dataset, method, config = run.config["dataset"], run.config["method"], run.config
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
        **{key: config.get(key) for key in SETTINGS},
        "weight_updates": weight_updates(run),
        **{key: run.environment.get(key) for key in MACHINE},
    }


def _description_columns() -> list[str]:
    described = ("run_id", "config_hash", "configuration", "dataset", "dataset_label", "metric_label", "metric_scale",
                 "method", "label", "colour", "line_style", "order")  # fmt: skip
    return [*described, *SETTINGS, "weight_updates", *MACHINE]


def _once(frame: pd.DataFrame, keys: list[str], ignored: Sequence[str]) -> pd.DataFrame:
    """Drop repetitions that several runs of one configuration hold, all with the same numbers.

    Raises:
        UserError: the numbers differ.
    """
    identity = ["configuration", *keys]
    repeated = frame.duplicated(identity, keep=False)
    if not repeated.any():
        return frame
    values = [column for column in store.FINAL_COLUMNS + store.CURVE_COLUMNS
              if column in frame.columns and column not in ("seed", "step", *ignored)]  # fmt: skip
    unique = frame[repeated].drop_duplicates([*identity, *values])
    conflict = unique[unique.duplicated(identity, keep=False)]
    if len(conflict):
        first = conflict.iloc[0]
        same = (conflict[identity] == first[identity]).all(axis=1)
        names = ", ".join(str(name) for name in conflict.loc[same, "run_id"])
        raise UserError(
            f"runs {names} have one configuration but different numbers for seed {first['seed']}; move one of them away"
        )
    return frame.drop_duplicates(identity).reset_index(drop=True)


# --- curves ---


def curves(runs: Runs, columns: Sequence[str], every: int | None = None) -> pd.DataFrame:
    """Curves of runs, a row per repetition and recorded step: ``run_id``, ``configuration``, ``dataset``, ``method``
    (categories), ``seed``, ``step`` and ``columns``. Seeds that two runs of one configuration share are kept once.

    Args:
        columns: of curves.parquet.
        every: keep only steps that are multiples of it, and the last step of each repetition.

    Raises:
        UserError: a file is damaged (named) or lacks a column, or two runs disagree about a repetition.
    """
    wanted = ["seed", "step", *(column for column in columns if column not in ("seed", "step"))]
    with ThreadPoolExecutor(THREADS) as pool:  # reading Parquet releases the GIL
        runs, frames = _readable(runs, pool.map(lambda run: _thinned(run, wanted, every), runs))
    described = {
        "run_id": [run.run_id for run in runs],
        "configuration": [configuration(run) for run in runs],
        "dataset": [run.dataset for run in runs],
        "method": [run.method for run in runs],
    }
    repeats = np.repeat(np.arange(len(runs)), [table.num_rows for table in frames])
    data: dict[str, Any] = {
        name: pd.Categorical(values).take(repeats) if values else pd.Categorical([])
        for name, values in described.items()
    }
    for column in wanted:
        parts = [table[column].to_numpy() for table in frames]
        data[column] = np.concatenate(parts) if parts else np.empty(0)
    frame = pd.DataFrame(data, copy=False)
    return _once(frame, ["seed", "step"], ("elapsed_s",)) if _overlap(runs) else frame


def _overlap(runs: Runs) -> bool:
    counts = Counter((configuration(run), seed) for run in runs for seed in run.seeds)
    return any(count > 1 for count in counts.values())


def _thinned(run: Run, wanted: list[str], every: int | None) -> pa.Table | StoreError:
    try:
        table = store.read_arrow(run, "curves", wanted)
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
        failures: `finals` of the same runs; repetitions that diverged are +inf from `diverged_at` on, and from the end
            of their rows. Without it they are NaN there, like repetitions that are shorter.

    Returns:
        steps (S,), seeds (R,), values (R, S), NaN where a repetition has no such step. Diverged repetitions without
        any row are there too when ``failures`` names them.

    Raises:
        ValueError: a repetition has a step twice (runs of several configurations in one frame).
    """
    seed, step = frame["seed"].to_numpy(), frame["step"].to_numpy()
    diverged = failures.loc[failures["status"] != "ok", ["seed", "diverged_at"]] if failures is not None else None
    seeds = np.unique(seed if diverged is None else np.append(pd.unique(seed), diverged["seed"]))
    steps = np.sort(pd.unique(step))
    cells = np.searchsorted(seeds, seed) * len(steps) + np.searchsorted(steps, step)
    values = np.full(len(seeds) * len(steps), np.nan)
    values[cells] = frame[column].to_numpy(dtype=float, na_value=np.nan)
    if len(cells) > 1 and np.bincount(cells, minlength=1).max() > 1:
        raise ValueError("several rows for one seed and step: select one configuration first")
    matrix_RS = values.reshape(len(seeds), len(steps))
    if diverged is not None:
        _fail(matrix_RS, steps, np.searchsorted(seeds, diverged["seed"]), diverged)
    return steps.astype(np.int64), seeds.astype(np.int64), matrix_RS


def _fail(matrix_RS: NDArray[np.float64], steps: NDArray[Any], rows: NDArray[Any], diverged: pd.DataFrame) -> None:
    """Put +inf where the given rows have diverged: from `diverged_at`, at the latest after their last finite value."""
    for row, at in zip(rows, diverged["diverged_at"].to_numpy(dtype=float, na_value=np.nan), strict=True):
        present = np.flatnonzero(np.isfinite(matrix_RS[row]))
        end = steps[present[-1]] + 1 if present.size else 0
        matrix_RS[row, steps >= np.nanmin([at, end])] = np.inf
