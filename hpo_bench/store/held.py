"""Repetitions that complete runs hold: of one configuration, data and seed, whichever run they lie
in (no torch).
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
from hpo_bench.store.runs import TABLES, Run, read_arrow, read_run, runs_folder
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
        """Today's first."""
        return (self.config_hash, *self.rounded_otherwise)

    def plain(self) -> list[str]:
        """For JSON."""
        return [self.run_id, self.config_hash, spans(self.seeds), *self.rounded_otherwise]

    @staticmethod
    def of(plain: Sequence[str]) -> Wanted:
        """What `plain` wrote.

        Raises:
            ValueError: it did not.
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


def missing(listing: Listing, wanted: Sequence[Wanted]) -> dict[str, set[int]]:
    """By run id the seeds that no complete run of a store holds."""
    held = _held(listing, wanted)
    found = {}
    for each in wanted:
        stored = _is_complete(listing, each) or _whole(held, each) is not None
        found[each.run_id] = (
            set() if stored else set(each.seeds) - held.get(each.config_hash, set())
        )
    return found


def of_earlier_versions(listing: Listing, wanted: Sequence[Wanted]) -> list[str]:
    """Run ids of what is stored only with an earlier version's rounding."""
    held = _held(listing, wanted)
    earlier = [each for each in wanted if not _is_complete(listing, each)]
    return [each.run_id for each in earlier if _whole(held, each) in each.rounded_otherwise]


def _held(listing: Listing, wanted: Sequence[Wanted]) -> dict[str, set[int]]:
    """Seeds that complete runs hold, by hash of the configuration."""
    hashes = {name for each in wanted for name in each.hashes}
    return index.repetitions(
        entry for entry in listing.entries.values() if entry.config_hash in hashes
    )


def _is_complete(listing: Listing, wanted: Wanted) -> bool:
    own = listing.entries.get(wanted.run_id)
    return own is not None and own.status == "complete"


def _whole(held: Mapping[str, set[int]], wanted: Wanted) -> str | None:
    """The first of the hashes under which all repetitions are held."""
    return next(
        (name for name in wanted.hashes if held.get(name, set()).issuperset(wanted.seeds)), None
    )


def runs_with(results_dir: Path, wanted: Wanted) -> list[Run]:
    """Complete runs that hold the repetitions: the run itself, or else others that hold all of them
    together.

    Each has the seeds that it is to give, and is marked as a part where it holds more; none where
    some are missing."""
    folder = runs_folder(results_dir) / wanted.run_id
    own = read_run(folder) if not notices.is_left_out(folder) else None
    if own is not None and own.status == "complete":
        return [own]
    for config_hash in wanted.hashes:
        found = list(
            _givers(results_dir, replace(wanted, config_hash=config_hash), set(wanted.seeds))
        )
        if sum(len(run.seeds) for run in found) == len(set(wanted.seeds)):
            return found
    return []


def _givers(results_dir: Path, wanted: Wanted, seeds: set[int]) -> Iterator[Run]:
    """Complete runs with the seeds that each gives, the one with the most of them first; each seed
    once.
    """
    runs = []
    for entry in index.holders(runs_folder(results_dir), wanted.config_hash):
        if entry.run_id == wanted.run_id:
            continue
        with contextlib.suppress(StoreError):  # damaged: its repetitions are not there
            run = read_run(runs_folder(results_dir) / entry.run_id)
            if (
                run is not None
                and run.status == "complete"
                and run.config_hash == wanted.config_hash
            ):
                runs.append(run)
    left = set(seeds)
    while left and runs:
        run = max(runs, key=lambda run: len(left.intersection(run.seeds)))
        given = tuple(seed for seed in run.seeds if seed in left)
        if not given:
            return
        runs.remove(run)
        left.difference_update(given)
        yield replace(run, seeds=given, part=len(given) < len(run.seeds))


# --- copies ---


def take(writer: Writer, results_dir: Path, wanted: Wanted, finished: set[int]) -> list[Run]:
    """Copy repetitions that other runs hold into a run that is begun, as finished blocks of it, bit
    by bit.

    Runs whose curves were thinned give theirs only where nothing has to be computed beside them:
    the curves of a run are alike.

    Args:
        finished: seeds that are not needed any more.

    Returns:
        The runs, with the seeds that were taken from each.
    """
    missing = set(wanted.seeds) - finished
    givers = list(_givers(results_dir, wanted, missing))
    if sum(len(run.seeds) for run in givers) < len(missing):
        givers = [run for run in givers if not run.thinned]
    taken = []
    for run in givers:
        with contextlib.suppress(StoreError):  # damaged: computed again
            for block in list(_blocks(run)):
                writer.write_block(block)
            taken.append(run)
    return taken


def told(taken: Sequence[Run], count: int, missing: int) -> str:
    """What is said before a run is computed of which other runs hold repetitions."""
    stored = sum(len(run.seeds) for run in taken)
    names = ", ".join(run.run_id for run in taken)
    rest = f"computing {missing}" if missing else "nothing to compute"
    return f"{stored} of {count} repetitions are stored in {names}, {rest}"


def _blocks(run: Run) -> Iterator[Block]:
    """The repetitions of a run as blocks, one for each series of seeds.

    Raises:
        StoreError: a table is damaged.
    """
    whole = read_run(run.path)
    if whole is None:
        raise StoreError(f"{run.path} is gone")
    tables = {
        name: read_arrow(whole, name) for name in TABLES if (run.path / f"{name}.parquet").exists()
    }
    places = {seed: place for place, seed in enumerate(tables["final"]["seed"].to_pylist())}
    weights = _weights(run.path / "final_weights.npz")
    for seeds in map(tuple, consecutive(spans(run.seeds))):
        rows = [places[seed] for seed in seeds]
        share = len(seeds) / len(places)
        yield Block(
            seeds,
            {
                name: table.filter(np.isin(table["seed"].to_numpy(), seeds))
                for name, table in tables.items()
            },
            {name: array[rows] for name, array in weights.items()},
            {kind: seconds * share for kind, seconds in run.seconds.items()},
            {
                "run_id": run.run_id,
                "seeds": spans(seeds),
                "code": run.code,
                "environment": run.environment,
            },
        )


def _weights(file: Path) -> dict[str, np.ndarray]:
    if not file.exists():
        return {}
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files}
