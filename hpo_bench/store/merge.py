"""Joining the stores of several machines into one that holds each repetition once.

Nothing is copied before everything was compared.
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
from hpo_bench.store import index, packed
from hpo_bench.store.files import atomic
from hpo_bench.store.packing import unpack
from hpo_bench.store.runs import (
    Run,
    look_through,
    read_run,
    read_table,
    runs_folder,
    scan,
    told_apart,
)
from hpo_bench.store.writer import Writer

# What a repetition's rows say that differs from machine to machine.
TIMINGS = ("seconds", "rows_in_block", "elapsed_s")


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
    """Read all runs and compare those of one configuration; nothing is copied.

    Raises:
        UserError: a source is no store or is the destination, or two runs disagree about a
            repetition.
    """
    _check(sources, results_dir)
    outcome = MergePlan()
    runs_there = scan(results_dir, outcome.damaged.append)
    existing = [run for run in runs_there if run.status == "complete"]
    names = {run.run_id: _repetitions(run) for run in existing}
    contents = set(names.values())
    # A damaged run of the destination keeps its name: copying over it would lose what can be saved.
    broken = {path.name for path in _folders(results_dir) if _is_damaged(path)}
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in existing:
        groups[run.config_hash].append(run)
    for source in sources:
        for run in _complete(source, outcome):
            groups[run.config_hash].append(run)
            if _repetitions(run) in contents:
                outcome.identical.append(run)
            elif run.run_id in names:
                outcome.damaged.append(
                    StoreError(f"{_named(run)}: another run has this name already; rename it")
                )
            elif run.run_id not in broken:
                names[run.run_id] = _repetitions(run)
                contents.add(_repetitions(run))
                outcome.copies.append(run)
    for runs in groups.values():
        _compare(runs)
    together = told_apart([*existing, *outcome.copies])
    outcome.apart.extend(sorted({run.dataset_name for run in together if run.variant}))
    return outcome


def _repetitions(run: Run) -> tuple[str, tuple[int, ...]]:
    """What a run holds, whatever its folder is called: configuration and data, and seeds."""
    return run.config_hash, tuple(sorted(run.seeds))


def _named(run: Run) -> str:
    """Where a run is, for a user."""
    return str(run.path) if run.pack is None else f"{run.run_id} in {run.place}"


def copy(run: Run, results_dir: Path) -> None:
    """Copy one complete run into a folder of its own.

    Raises:
        RunError: another process is computing this very run in the destination.
        StoreError: a file cannot be copied.
    """
    with Writer(results_dir, run.run_id) as writer:
        if run.pack is None:
            _copy_files(run.path, writer.path)
        else:
            unpack(run, writer.path)
        writer.drop_blocks()


def _copy_files(folder: Path, target: Path) -> None:
    """Copy the files of a run's folder.

    Raises:
        StoreError: one cannot be copied.
    """
    files = sorted(
        path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    )
    # run.json last: a copy that was interrupted is an unfinished run, and is made again.
    files.sort(key=lambda path: path.name == "run.json")
    for file in files:
        try:
            with atomic(target / file.name) as temporary:
                shutil.copyfile(file, temporary)
        except OSError as error:
            raise StoreError(f"cannot copy {file} to {target}: {error.strerror or error}") from None


def _check(sources: Sequence[Path], results_dir: Path) -> None:
    for source in sources:
        if not runs_folder(source).is_dir() and not packed.folder(source).is_dir():
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


def _complete(source: Path, outcome: MergePlan) -> Iterator[Run]:
    """Complete and readable runs of a store; the others are noted in ``outcome``."""
    damaged_packs: set[Path] = set()
    for path, run in look_through(source, outcome.damaged.append):
        if run is None or run.status != "complete":
            outcome.incomplete.append(path)
            continue
        try:
            seeds = read_table(run, "final")["seed"].tolist()
            seeds_with_curve = set(read_table(run, "curves")["seed"])
            if seeds != list(run.seeds) or not seeds_with_curve.issuperset(seeds):
                raise StoreError(f"{path} does not hold the repetitions that its run.json names")
        except StoreError as error:
            if run.place not in damaged_packs:  # of a pack that is damaged, one line
                outcome.damaged.append(error)
            if run.pack is not None:
                damaged_packs.add(run.place)
            continue
        yield run


def _compare(runs: Iterable[Run]) -> None:
    """Make sure that runs of one configuration agree wherever they share a seed.

    Raises:
        UserError: they do not; names both runs and the seed.
    """
    first_with: dict[int, Run] = {}
    digests: dict[Path, dict[int, str]] = {}  # only of runs that share a seed with another
    for run in runs:
        for seed in run.seeds:
            other = first_with.setdefault(seed, run)
            if other is run:
                continue
            for each in (run, other):
                if each.path not in digests:
                    digests[each.path] = numbers(each)
            if digests[run.path][seed] != digests[other.path][seed]:
                raise UserError(
                    f"{_named(run)} and {_named(other)} are of one configuration "
                    f"({run.config_hash}) "
                    f"but have different numbers for seed {seed}; "
                    "nothing was copied: move one of them away"
                )


def numbers(run: Run) -> dict[int, str]:
    """Digest for each seed everything that was computed: equal for numbers that are bit by bit so.

    Times are left out.
    """
    digests = {seed: hashlib.sha256() for seed in run.seeds}
    for table in ("final", "curves"):
        frame = read_table(run, table).drop(columns=[*TIMINGS], errors="ignore")
        seeds = frame["seed"].to_numpy()
        order = np.argsort(seeds, kind="stable")
        for name in sorted(frame.columns):
            # A stable order by seed: how rows of several repetitions alternate is no number.
            hashes = pd.util.hash_array(_comparable(frame[name]))[order]
            unique, begins = np.unique(seeds[order], return_index=True)
            for seed, part in zip(unique, np.split(hashes, begins[1:]), strict=True):
                digests[int(seed)].update(part.tobytes())
    return {seed: digest.hexdigest() for seed, digest in digests.items()}


def _comparable(column: pd.Series) -> np.ndarray:
    """Numbers as float64 with one kind of NaN; other things as text."""
    # A table of few rows may give a column another type: integers, or nulls alone.
    if not pd.api.types.is_numeric_dtype(column) and not column.isna().all():
        return column.astype(str).to_numpy(dtype=object)
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(values), np.nan, values)
