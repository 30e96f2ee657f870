"""``hpo-bench merge``: stores of several machines, and bundles of colleagues, joined into one."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hpo_bench.errors import RunError, UserError


def merge(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="DIR|FILE.zip...", help="Results folders, or files of pack."),
    ],
    results: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="Results folder to join them in.")
    ] = Path("results"),
) -> None:
    """Join the complete runs of several results folders, or of files that hpo-bench pack made.

    If repetitions disagree, nothing is copied. A file is checked before anything of it is taken in:
    names, sizes, checksums.
    """
    from hpo_bench.store import bundle
    from hpo_bench.store import merge as merging
    from hpo_bench.store.writer import tidy

    with contextlib.ExitStack() as stack:
        names: dict[str, str] = {}
        folders: dict[Path, Path] = {}  # of each source, once: the folder to read
        for source in sources:
            place = Path(os.path.realpath(source))  # of a link that leads to itself, too
            if place in folders:
                continue
            folders[place] = source
            if source.is_file() or (source.suffix == ".zip" and not source.is_dir()):
                folders[place] = stack.enter_context(bundle.unpacked(source, results))
                names[str(folders[place])] = str(source)

        def told(text: object) -> str:
            """A message about files of a bundle, which lie in a folder that will be gone."""
            line = str(text)
            for folder, name in names.items():
                line = line.replace(folder, name)
            return line

        try:
            plan = merging.plan([*folders.values()], results)
            for run in plan.copies:
                merging.copy(run, results)
        except UserError as refused:
            raise UserError(told(refused)) from None
        except RunError as failed:
            raise RunError(told(failed)) from None
        tidy(results, [run.run_id for run in plan.identical])
    repetitions = sum(len(run.seeds) for run in plan.copies)
    print(
        f"copied {len(plan.copies)} runs ({repetitions} repetitions) to {results}; left out: "
        f"{len(plan.identical)} identical, {len(plan.incomplete)} failed or unfinished, "
        f"{len(plan.damaged)} damaged"
    )
    for name in plan.apart:
        print(
            f"note: {name} stands for different data in these runs; "
            "they are shown apart and never compared"
        )
    for path in plan.incomplete:
        print(f"not complete: {told(path)}", file=sys.stderr)
    for error in plan.damaged:
        print(f"damaged: {told(error)}", file=sys.stderr)
    if plan.damaged:
        raise typer.Exit(2)
