"""``hpo-bench status``: showing what a results folder holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo_bench.cli.completion import experiments
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
        str | None,
        typer.Argument(
            metavar="[EXPERIMENT]",
            help="Only this experiment's runs.",
            autocompletion=experiments,
        ),
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
    repetitions_of: dict[tuple[str, str], set[tuple[str, int]]] = {}
    for run in entries:
        variant = variants[run.dataset, run.data]
        key = (f"{run.dataset}@{variant}" if variant else run.dataset, run.method)
        counts.setdefault(key, Counter())[run.status] += 1
        if run.status == "complete":  # a repetition that two runs hold is one
            repetitions_of.setdefault(key, set()).update(
                (run.config_hash, seed) for seed in run.seeds
            )
    for key, repetitions in repetitions_of.items():
        counts[key]["repetitions"] = len(repetitions)
    table = Table("dataset", "method", box=None, pad_edge=False)
    for heading in ("complete", "repetitions", "failed"):
        table.add_column(heading, justify="right")
    for (dataset, method), cell in sorted(counts.items()):
        numbers = [str(cell[key]) for key in ("complete", "repetitions", "failed")]
        table.add_row(dataset, method, *numbers)
    return table


def _experiment(name: str, results: Path, listing: Listing, screen: Console) -> None:
    """Show what is stored of an experiment, for each of the ways in which it was begun here."""
    from rich.table import Table

    from hpo_bench.experiments import definition as plan
    from hpo_bench.store import experiment_records, held

    if name not in plan.names():
        raise UserError(f"status {name}: no such experiment; {nearest(name, plan.names())}")
    records = experiment_records.read_all(results, name, _left_out)
    if not records:
        hint = f"hpo-bench reproduce {name} begins it"
        screen.print(f"{name}: not begun in {results}; {hint}", soft_wrap=True)
        return
    table = Table("experiment", "scale", "overrides", box=None, pad_edge=False)
    for heading in ("runs", "complete", "repetitions", "failed", "unfinished", "not begun"):
        table.add_column(heading, justify="right")
    unfinished_names = {*listing.unfinished, *listing.damaged}
    failed: list[Entry] = []
    for record in records:
        run_ids = record.run_ids
        entries = [listing.entries[run_id] for run_id in run_ids if run_id in listing.entries]
        complete = {each.run_id: each.repetitions for each in entries if each.status == "complete"}
        requests = {each.run_id: each for each in record.wanted}
        lacking = held.missing(listing, list(requests.values()))
        for run_id, request in requests.items():
            if not lacking[run_id]:  # other runs hold its repetitions
                complete[run_id] = len(request.seeds)
        not_complete = [entry for entry in entries if entry.run_id not in complete]
        failed += not_complete
        unfinished = len(unfinished_names.intersection(run_ids) - set(complete))
        rest = len(run_ids) - len(complete) - len(not_complete) - unfinished
        table.add_row(
            name,
            record.scale,
            " ".join(record.overrides),
            str(len(run_ids)),
            str(len(complete)),
            str(sum(complete.values())),
            str(len(not_complete)),
            str(unfinished),
            str(rest),
        )
    screen.print(table)
    # Records of one experiment share runs, and what they lack.
    _failures({entry.run_id: entry for entry in failed}.values(), screen)
    for line in dict.fromkeys(line for record in records for line in record.missing):
        screen.print(f"missing: {line}", soft_wrap=True)


def _left_out(file: Path, error: Exception) -> None:
    tell(f"left out: {file}: {error}")


def unfinished_runs(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """How many repetitions the finished blocks of run folders without ``run.json`` hold."""
    counts = {}
    for name in names:
        blocks = (folder / name).glob("blocks/block-*")
        counts[name] = sum(_block_rows(block) for block in blocks)
    return counts


def _block_rows(block: Path) -> int:
    try:
        return len(documents.read(block / "block.json")["seeds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
