"""``hpo-bench status``: what a results folder holds."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo_bench import documents, identity
from hpo_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hpo_bench.index import Entry, Listing

Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Folder of the results.")]


def status(
    experiment: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT]", help="Only this experiment's runs.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Show the stored runs by dataset and method: complete, failed, and begun but not finished."""
    from rich.console import Console

    from hpo_bench import index

    folder = results / "runs"
    listing = index.read(folder)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if experiment is not None:
        _experiment(experiment, results, listing, console)
        _damaged(listing.damaged)
        return
    runs = list(listing.entries.values())
    unfinished = unfinished_runs(folder, listing.unfinished)
    if runs:
        console.print(_table(runs))
        _failures(runs, console)
    elif not unfinished and not listing.damaged:
        console.print(f"{folder}: no runs yet; hpo-bench run makes one", soft_wrap=True, markup=False)
    for name, count in unfinished.items():
        console.print(f"unfinished: {name}: {count} repetitions so far", soft_wrap=True, markup=False)
    _damaged(listing.damaged)


def _damaged(damaged: Mapping[str, str]) -> None:
    for text in damaged.values():
        print(f"left out: {text}", file=sys.stderr)
    if damaged:
        raise typer.Exit(2)


def _failures(runs: Iterable[Entry], console: Console) -> None:
    for run in runs:
        if run.status != "complete":
            console.print(f"failed: {run.run_id}: {run.error}", soft_wrap=True, markup=False)


def _table(runs: Iterable[Entry]) -> Table:
    from rich.table import Table

    entries = list(runs)
    variants = identity.variants((run.dataset, run.data) for run in entries)
    counts: dict[tuple[str, str], Counter[str]] = {}
    held: dict[tuple[str, str], set[tuple[str, int]]] = {}
    for run in entries:
        variant = variants[run.dataset, run.data]
        key = (f"{run.dataset}@{variant}" if variant else run.dataset, run.method)
        counts.setdefault(key, Counter())[run.status] += 1
        if run.status == "complete":  # a repetition that two runs hold is one
            held.setdefault(key, set()).update((run.config_hash, seed) for seed in run.seeds)
    for key, repetitions in held.items():
        counts[key]["repetitions"] = len(repetitions)
    table = Table("dataset", "method", box=None, pad_edge=False)
    for heading in ("complete", "repetitions", "failed"):
        table.add_column(heading, justify="right")
    for (dataset, method), cell in sorted(counts.items()):
        table.add_row(dataset, method, *(str(cell[key]) for key in ("complete", "repetitions", "failed")))
    return table


def _experiment(name: str, results: Path, listing: Listing, console: Console) -> None:
    """What is stored of an experiment, for each of the ways in which it was begun here."""
    from rich.table import Table

    from hpo_bench import held, plan

    if name not in plan.names():
        raise UserError(f"status {name}: no such experiment; {nearest(name, plan.names())}")
    records = [record for record in map(_record, sorted((results / "experiments").glob(f"{name}-*.json"))) if record]
    if not records:
        console.print(f"{name}: not begun in {results}; hpo-bench reproduce {name} begins it", soft_wrap=True)
        return
    table = Table("experiment", "scale", "overrides", box=None, pad_edge=False)
    for heading in ("runs", "complete", "repetitions", "failed", "unfinished", "not begun"):
        table.add_column(heading, justify="right")
    begun = {*listing.unfinished, *listing.damaged}
    failed: list[Entry] = []
    for record in records:
        found = [listing.entries[run_id] for run_id in record["run_ids"] if run_id in listing.entries]
        complete = {entry.run_id: entry.repetitions for entry in found if entry.status == "complete"}
        wanted = {each.run_id: each for each in held.recorded(record)}
        missing = held.missing(listing, list(wanted.values()))
        complete |= {name: len(each.seeds) for name, each in wanted.items() if not missing[name]}
        not_complete = [entry for entry in found if entry.run_id not in complete]
        failed += not_complete
        unfinished = len(begun.intersection(record["run_ids"]) - set(complete))
        rest = len(record["run_ids"]) - len(complete) - len(not_complete) - unfinished
        numbers = (len(record["run_ids"]), len(complete), sum(complete.values()), len(not_complete), unfinished, rest)
        table.add_row(name, record["scale"], " ".join(record["overrides"]), *map(str, numbers))
    console.print(table)
    _failures({entry.run_id: entry for entry in failed}.values(), console)
    for line in dict.fromkeys(line for record in records for line in record["missing"]):
        console.print(f"missing: {line}", soft_wrap=True, markup=False)


def _record(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = documents.read(file)
    except (OSError, ValueError) as error:
        print(f"left out: {file}: {error}", file=sys.stderr)
        return None
    lists = all(isinstance(content.get(name), list) for name in ("run_ids", "overrides", "missing"))
    return content if lists and isinstance(content.get("scale"), str) else None


def unfinished_runs(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """How many repetitions the finished blocks of run folders without ``run.json`` hold."""
    return {name: sum(_block_rows(block) for block in (folder / name).glob("blocks/block-*")) for name in names}


def _block_rows(block: Path) -> int:
    try:
        return len(documents.read(block / "block.json")["seeds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
