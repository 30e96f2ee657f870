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
    """Join the complete runs of several results folders; if repetitions disagree, nothing is
    copied.
    """
    from hpo_bench.store import merge as merging
    from hpo_bench.store.writer import tidy

    made = merging.plan(folders, results)
    for run in made.copies:
        merging.copy(run, results)
    tidy(results, [run.run_id for run in made.identical])
    repetitions = sum(len(run.seeds) for run in made.copies)
    print(
        f"copied {len(made.copies)} runs ({repetitions} repetitions) to {results}; left out: {len(made.identical)} "
        f"identical, {len(made.incomplete)} failed or unfinished, {len(made.damaged)} damaged"
    )
    for name in made.apart:
        print(
            f"note: {name} stands for different data in these runs; they are shown apart and never compared"
        )
    for path in made.incomplete:
        print(f"not complete: {path}", file=sys.stderr)
    for error in made.damaged:
        print(f"damaged: {error}", file=sys.stderr)
    if made.damaged:
        raise typer.Exit(2)
