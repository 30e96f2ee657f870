"""Repetitions that complete runs hold, whichever run they lie in.

A repetition is known by its configuration, its data and its seed. Imports no torch: ``status`` asks
for what is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpo_bench.errors import StoreError
from hpo_bench.store import index
from hpo_bench.store.index import Listing, consecutive, spans
from hpo_bench.store.runs import Run, read_arrow, read_run, runs_folder, tables_of
from hpo_bench.store.writer import Block, Writer
from hpo_bench.system import notices


@dataclass(frozen=True)
class Wanted:
    """Repetitions of one configuration that somebody asks for.

    Args:
        run_id: of the run that would hold them all.
        rounded_otherwise: hashes of the same configuration in versions whose results differ in
            rounding alone. What is stored under one of them counts where it is all of the
            repetitions.
    """

    run_id: str
    config_hash: str
    seeds: tuple[int, ...]
    rounded_otherwise: tuple[str, ...] = ()

    @property
    def hashes(self) -> tuple[str, ...]:
        """All hashes that its runs may have, today's first."""
        return (self.config_hash, *self.rounded_otherwise)

    def plain(self) -> list[str]:
        """Write it as a list for JSON, which `of` reads."""
        return [self.run_id, self.config_hash, spans(self.seeds), *self.rounded_otherwise]

    @staticmethod
    def of(plain: Sequence[str]) -> Wanted:
        """Read what `plain` wrote.

        Raises:
            ValueError: it is not what `plain` writes.
        """
        run_id, config_hash, text, *others = plain
        seeds = tuple(seed for series in consecutive(text) for seed in series)
        return Wanted(run_id, config_hash, seeds, tuple(others))


def recorded(content: Mapping[str, Any]) -> tuple[Wanted, ...]:
    """The runs that the record of an experiment names; nothing where it cannot be read."""
    try:
        return tuple(Wanted.of(plain) for plain in content["wanted"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()


def missing(listing: Listing, requests: Sequence[Wanted]) -> dict[str, set[int]]:
    """By run id the seeds that no complete run of a store holds."""
    seeds_of = _held(listing, requests)
    lacking: dict[str, set[int]] = {}
    for each in requests:
        if _is_complete(listing, each) or _whole(seeds_of, each) is not None:
            lacking[each.run_id] = set()
        else:
            lacking[each.run_id] = set(each.seeds) - seeds_of.get(each.config_hash, set())
    return lacking


def of_earlier_versions(listing: Listing, requests: Sequence[Wanted]) -> list[str]:
    """Run ids of the requests that are stored only with an earlier version's rounding."""
    seeds_of = _held(listing, requests)
    earlier = [each for each in requests if not _is_complete(listing, each)]
    return [each.run_id for each in earlier if _whole(seeds_of, each) in each.rounded_otherwise]


def _held(listing: Listing, requests: Sequence[Wanted]) -> dict[str, set[int]]:
    """Seeds that complete runs hold, by hash of the configuration."""
    hashes = {name for each in requests for name in each.hashes}
    entries = listing.entries.values()
    return index.repetitions(entry for entry in entries if entry.config_hash in hashes)


def _is_complete(listing: Listing, request: Wanted) -> bool:
    entry = listing.entries.get(request.run_id)
    return entry is not None and entry.status == "complete"


def _whole(seeds_of: Mapping[str, set[int]], request: Wanted) -> str | None:
    """The first of the hashes under which all repetitions are held."""
    for name in request.hashes:
        if seeds_of.get(name, set()).issuperset(request.seeds):
            return name
    return None


def runs_with(results_dir: Path, request: Wanted) -> list[Run]:
    """Find complete runs that hold the repetitions together: the run itself, or else others.

    Returns:
        Runs with the seeds that each is to give, marked as a part where it holds more; nothing
        where a repetition is missing.
    """
    folder = runs_folder(results_dir) / request.run_id
    run = None if notices.is_left_out(folder) else read_run(folder)
    if run is not None and run.status == "complete":
        return [run]
    seeds = set(request.seeds)
    for config_hash in request.hashes:
        givers = list(_givers(results_dir, replace(request, config_hash=config_hash), seeds))
        if sum(len(giver.seeds) for giver in givers) == len(seeds):
            return givers
    return []


def _givers(results_dir: Path, request: Wanted, seeds: set[int]) -> Iterator[Run]:
    """Other complete runs with the seeds that each is to give, so that no seed is given twice."""
    folder = runs_folder(results_dir)
    runs = []
    for entry in index.holders(folder, request.config_hash):
        if entry.run_id == request.run_id:
            continue
        with contextlib.suppress(StoreError):  # damaged: its repetitions are not there
            run = read_run(folder / entry.run_id)
            if run is None or run.status != "complete":
                continue
            if run.config_hash == request.config_hash:  # the index may be older than the file
                runs.append(run)
    rest = set(seeds)
    while rest and runs:
        # The run that gives most comes first, so that few runs are read.
        run = max(runs, key=lambda run: len(rest.intersection(run.seeds)))
        seeds_given = tuple(seed for seed in run.seeds if seed in rest)
        if not seeds_given:
            return
        runs.remove(run)
        rest.difference_update(seeds_given)
        yield replace(run, seeds=seeds_given, part=len(seeds_given) < len(run.seeds))


# --- copies ---


def take(writer: Writer, results_dir: Path, request: Wanted, finished: set[int]) -> list[Run]:
    """Copy repetitions that other runs hold into a run that was begun, as finished blocks of it.

    They are copied bit by bit. Runs whose curves were thinned give theirs only where nothing has to
    be computed beside them: the curves of a run are alike.

    Args:
        finished: seeds that are not needed any more.

    Returns:
        The runs, with the seeds that were taken from each.
    """
    lacking = set(request.seeds) - finished
    givers = list(_givers(results_dir, request, lacking))
    if sum(len(run.seeds) for run in givers) < len(lacking):
        givers = [run for run in givers if not run.thinned]
    sources = []
    for run in givers:
        with contextlib.suppress(StoreError):  # damaged: computed again
            # All are read before the first is written: a run that proves damaged gives nothing.
            for block in list(_blocks(run)):
                writer.write_block(block)
            sources.append(run)
    return sources


def told(givers: Sequence[Run], count: int, lacking: int) -> str:
    """Say before a run is computed which of its repetitions other runs hold.

    Args:
        count: repetitions of the run.
        lacking: repetitions that nobody holds.
    """
    stored_count = sum(len(run.seeds) for run in givers)
    names = ", ".join(run.run_id for run in givers)
    rest = f"computing {lacking}" if lacking else "nothing to compute"
    return f"{stored_count} of {count} repetitions are stored in {names}, {rest}"


def _blocks(run: Run) -> Iterator[Block]:
    """The repetitions of a run as blocks, one for each series of seeds.

    Raises:
        StoreError: a table is damaged.
    """
    whole = read_run(run.path)
    if whole is None:
        raise StoreError(f"{run.path} is gone")
    tables = {name: read_arrow(whole, name) for name in tables_of(whole)}
    places = {seed: place for place, seed in enumerate(tables["final"]["seed"].to_pylist())}
    weights = _weights(run.path / "final_weights.npz")
    for seeds in map(tuple, consecutive(spans(run.seeds))):
        rows = [places[seed] for seed in seeds]
        share = len(seeds) / len(places)
        origin = {
            "run_id": run.run_id,
            "seeds": spans(seeds),
            "code": run.code,
            "environment": run.environment,
        }
        block_tables = {}
        for name, table in tables.items():
            block_tables[name] = table.filter(np.isin(table["seed"].to_numpy(), seeds))
        block_weights = {name: array[rows] for name, array in weights.items()}
        block_seconds = {kind: seconds * share for kind, seconds in run.seconds.items()}
        yield Block(seeds, block_tables, block_weights, block_seconds, origin)


def _weights(file: Path) -> dict[str, np.ndarray]:
    if not file.exists():
        return {}
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files}
