"""``hpo-bench status``: what a results folder holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo_bench.errors import UserError, nearest
from hpo_bench.settings import identity
from hpo_bench.store import documents
from hpo_bench.system.inherited import tell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hpo_bench.store.index import Entry, Listing

Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Folder of the results.")]


def status(
    experiment: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT]", help="Only this experiment's runs.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Show the stored runs by dataset and method: complete, failed, and begun but not finished."""
    from hpo_bench.progress import console
    from hpo_bench.store import index

    folder = index.runs_folder(results)
    listing = index.read(folder)
    screen = console()
    if experiment is not None:
        _experiment(experiment, results, listing, screen)
        _damaged(listing.damaged)
        return
    runs = list(listing.entries.values())
    unfinished = unfinished_runs(folder, listing.unfinished)
    if runs:
        screen.print(_table(runs))
        _failures(runs, screen)
    elif not unfinished and not listing.damaged:
        screen.print(f"{folder}: no runs yet; hpo-bench run makes one", soft_wrap=True)
    for name, count in unfinished.items():
        screen.print(f"unfinished: {name}: {count} repetitions so far", soft_wrap=True)
    _damaged(listing.damaged)


def _damaged(damaged: Mapping[str, str]) -> None:
    for text in damaged.values():
        tell(f"left out: {text}")
    if damaged:
        raise typer.Exit(2)


def _failures(runs: Iterable[Entry], screen: Console) -> None:
    for run in runs:
        if run.status != "complete":
            screen.print(f"failed: {run.run_id}: {run.error}", soft_wrap=True)


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
        table.add_row(
            dataset, method, *(str(cell[key]) for key in ("complete", "repetitions", "failed"))
        )
    return table


def _experiment(name: str, results: Path, listing: Listing, screen: Console) -> None:
    """What is stored of an experiment, for each of the ways in which it was begun here."""
    from rich.table import Table

    from hpo_bench.experiments import definition as plan
    from hpo_bench.store import held

    if name not in plan.names():
        raise UserError(f"status {name}: no such experiment; {nearest(name, plan.names())}")
    records = [
        record
        for record in map(_record, sorted((results / "experiments").glob(f"{name}-*.json")))
        if record
    ]
    if not records:
        screen.print(
            f"{name}: not begun in {results}; hpo-bench reproduce {name} begins it", soft_wrap=True
        )
        return
    table = Table("experiment", "scale", "overrides", box=None, pad_edge=False)
    for heading in ("runs", "complete", "repetitions", "failed", "unfinished", "not begun"):
        table.add_column(heading, justify="right")
    begun = {*listing.unfinished, *listing.damaged}
    failed: list[Entry] = []
    for record in records:
        found = [
            listing.entries[run_id] for run_id in record["run_ids"] if run_id in listing.entries
        ]
        complete = {
            entry.run_id: entry.repetitions for entry in found if entry.status == "complete"
        }
        wanted = {each.run_id: each for each in held.recorded(record)}
        missing = held.missing(listing, list(wanted.values()))
        complete |= {name: len(each.seeds) for name, each in wanted.items() if not missing[name]}
        not_complete = [entry for entry in found if entry.run_id not in complete]
        failed += not_complete
        unfinished = len(begun.intersection(record["run_ids"]) - set(complete))
        rest = len(record["run_ids"]) - len(complete) - len(not_complete) - unfinished
        numbers = (
            len(record["run_ids"]),
            len(complete),
            sum(complete.values()),
            len(not_complete),
            unfinished,
            rest,
        )
        table.add_row(name, record["scale"], " ".join(record["overrides"]), *map(str, numbers))
    screen.print(table)
    _failures({entry.run_id: entry for entry in failed}.values(), screen)
    for line in dict.fromkeys(line for record in records for line in record["missing"]):
        screen.print(f"missing: {line}", soft_wrap=True)


def _record(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = documents.read(file)
    except (OSError, ValueError) as error:
        tell(f"left out: {file}: {error}")
        return None
    lists = all(isinstance(content.get(name), list) for name in ("run_ids", "overrides", "missing"))
    return content if lists and isinstance(content.get("scale"), str) else None


def unfinished_runs(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """How many repetitions the finished blocks of run folders without ``run.json`` hold."""
    return {
        name: sum(_block_rows(block) for block in (folder / name).glob("blocks/block-*"))
        for name in names
    }


def _block_rows(block: Path) -> int:
    try:
        return len(documents.read(block / "block.json")["seeds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
