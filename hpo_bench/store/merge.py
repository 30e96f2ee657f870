"""Stores of several machines joined into one: each repetition once, nothing copied before
everything was compared.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from hpo_bench.errors import StoreError, UserError
from hpo_bench.store import index
from hpo_bench.store.files import atomic
from hpo_bench.store.runs import Run, read_run, read_table, runs_folder, scan, told_apart
from hpo_bench.store.writer import Writer

TIMINGS = (
    "seconds",
    "rows_in_block",
    "elapsed_s",
)  # of a repetition: differ from machine to machine


@dataclass(frozen=True)
class MergePlan:
    """What merging would do.

    Args:
        copies: runs that the destination lacks.
        identical: runs left out because the destination, or an earlier source, holds them.
        incomplete: folders of failed or unfinished runs, which are left out.
        damaged: runs that cannot be read, which are left out.
        apart: names of datasets that stand for several data in what comes out.
    """

    copies: list[Run] = field(default_factory=list)
    identical: list[Run] = field(default_factory=list)
    incomplete: list[Path] = field(default_factory=list)
    damaged: list[StoreError] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)


def plan(sources: Sequence[Path], results_dir: Path) -> MergePlan:
    """Read all runs and compare those of one configuration; copies nothing.

    Raises:
        UserError: a source is no store or is the destination, or two runs disagree about a
            repetition.
    """
    _check(sources, results_dir)
    made = MergePlan()
    held = [run for run in scan(results_dir, made.damaged.append) if run.status == "complete"]
    names = {run.run_id: _repetitions(run) for run in held}
    contents = set(names.values())
    broken = {path.name for path in _folders(results_dir) if _is_damaged(path)}
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in held:
        groups[run.config_hash].append(run)
    for source in sources:
        for run in _complete(source, made):
            groups[run.config_hash].append(run)
            if _repetitions(run) in contents:
                made.identical.append(run)
            elif run.run_id in names:
                made.damaged.append(
                    StoreError(f"{run.path}: another run has this name already; rename the folder")
                )
            elif run.run_id not in broken:
                names[run.run_id] = _repetitions(run)
                contents.add(_repetitions(run))
                made.copies.append(run)
    for runs in groups.values():
        _compare(runs)
    together = told_apart([*held, *made.copies])
    made.apart.extend(sorted({run.dataset_name for run in together if run.variant}))
    return made


def _repetitions(run: Run) -> tuple[str, tuple[int, ...]]:
    """What a run is, whatever its folder is called: configuration and data, and seeds."""
    return run.config_hash, tuple(sorted(run.seeds))


def copy(run: Run, results_dir: Path) -> None:
    """Copy one complete run, ``run.json`` last: a copy that was interrupted is an unfinished run,
    and is made again.

    Raises:
        RunError: another process is computing this very run in the destination.
    """
    files = sorted(
        path for path in run.path.iterdir() if path.is_file() and not path.name.startswith(".")
    )
    files.sort(key=lambda path: path.name == "run.json")
    with Writer(results_dir, run.run_id) as writer:
        for file in files:
            try:
                with atomic(writer.path / file.name) as temporary:
                    shutil.copyfile(file, temporary)
            except OSError as error:
                raise StoreError(
                    f"cannot copy {file} to {writer.path}: {error.strerror or error}"
                ) from None
        writer.drop_blocks()


def _check(sources: Sequence[Path], results_dir: Path) -> None:
    for source in sources:
        if not runs_folder(source).is_dir():
            raise UserError(f"{source}: no store of results there (it has no folder runs)")
        if source.resolve() == results_dir.resolve():
            raise UserError(
                f"{source}: is the destination itself; name the other stores, or another --results"
            )


def _folders(results_dir: Path) -> Iterator[Path]:
    folder = runs_folder(results_dir)
    return (folder / name for name in index.folders(folder))


def _is_damaged(path: Path) -> bool:
    try:
        read_run(path)
    except StoreError:
        return True
    return False


def _complete(source: Path, made: MergePlan) -> Iterator[Run]:
    """Complete and readable runs of a store; the others are noted."""
    for path in _folders(source):
        try:
            run = read_run(path)
            if run is None or run.status != "complete":
                made.incomplete.append(path)
                continue
            seeds = read_table(run, "final")["seed"].tolist()
            stepped = set(read_table(run, "curves")["seed"])
            if seeds != list(run.seeds) or not stepped.issuperset(seeds):
                raise StoreError(f"{path} does not hold the repetitions that its run.json names")
        except StoreError as error:
            made.damaged.append(error)
            continue
        yield run


def _compare(runs: Iterable[Run]) -> None:
    """Make sure that runs of one configuration agree wherever they share a seed.

    Raises:
        UserError: they do not; names both runs and the seed.
    """
    seen: dict[int, Run] = {}
    digests: dict[Path, dict[int, str]] = {}
    for run in runs:
        shared = [seed for seed in run.seeds if seed in seen]
        for other in {seen[seed].path: seen[seed] for seed in shared}.values():
            for each in (run, other):
                if each.path not in digests:
                    digests[each.path] = numbers(each)
        for seed in shared:
            other = seen[seed]
            if digests[run.path][seed] != digests[other.path][seed]:
                raise UserError(
                    f"{run.path} and {other.path} are of one configuration ({run.config_hash}) but have different "
                    f"numbers for seed {seed}; nothing was copied: move one of them away"
                )
        seen.update({seed: run for seed in run.seeds if seed not in seen})


def numbers(run: Run) -> dict[int, str]:
    """Per seed a digest of everything that was computed, times apart: equal for equal numbers, bit
    by bit.
    """
    digests = {seed: hashlib.sha256() for seed in run.seeds}
    for table in ("final", "curves"):
        frame = read_table(run, table).drop(columns=[*TIMINGS], errors="ignore")
        seeds = frame["seed"].to_numpy()
        order = np.argsort(seeds, kind="stable")
        for name in sorted(frame.columns):
            hashed = pd.util.hash_array(_comparable(frame[name]))[order]
            unique, begins = np.unique(seeds[order], return_index=True)
            for seed, part in zip(unique, np.split(hashed, begins[1:]), strict=True):
                digests[int(seed)].update(part.tobytes())
    return {seed: digest.hexdigest() for seed, digest in digests.items()}


def _comparable(column: pd.Series) -> np.ndarray:
    """Numbers as float64 with one kind of NaN, whatever type a table of few rows gave them; other
    things as text.
    """
    if not pd.api.types.is_numeric_dtype(column) and not column.isna().all():
        return column.astype(str).to_numpy(dtype=object)
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(values), np.nan, values)
