"""``hpo-bench merge``: stores of several machines joined into one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Results folders to take runs from.")
    ],
    results: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="Results folder to join them in.")
    ] = Path("results"),
) -> None:
    """Join the complete runs of several results folders.

    If repetitions disagree, nothing is copied.
    """
    from hpo_bench.store import merge as merging
    from hpo_bench.store.writer import tidy

    plan = merging.plan(folders, results)
    for run in plan.copies:
        merging.copy(run, results)
    tidy(results, [run.run_id for run in plan.identical])
    repetitions = sum(len(run.seeds) for run in plan.copies)
    print(
        f"copied {len(plan.copies)} runs ({repetitions} repetitions) to {results}; "
        f"left out: {len(plan.identical)} identical, "
        f"{len(plan.incomplete)} failed or unfinished, {len(plan.damaged)} damaged"
    )
    for name in plan.apart:
        print(
            f"note: {name} stands for different data in these runs; "
            "they are shown apart and never compared"
        )
    for path in plan.incomplete:
        print(f"not complete: {path}", file=sys.stderr)
    for error in plan.damaged:
        print(f"damaged: {error}", file=sys.stderr)
    if plan.damaged:
        raise typer.Exit(2)
