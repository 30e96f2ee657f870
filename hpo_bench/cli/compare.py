"""``hpo-bench compare``: two stored runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpo_bench.cli.completion import runs

FORMATS = ("text", "json")


def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Run id, its beginning, or run folder.", autocompletion=runs
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="RUN", help="The other one.", autocompletion=runs)],
    results: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="Folder of the results.")
    ] = Path("results"),
    format_: Annotated[
        str, typer.Option("--format", metavar="text|json", help="How to print it.")
    ] = "text",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Print what differs between two runs, and compare their final values on shared seeds."""
    import json

    from hpo_bench.analysis import compare as comparing
    from hpo_bench.errors import UserError, nearest
    from hpo_bench.store.export import choose
    from hpo_bench.system.notices import leaving_out_nothing

    if format_ not in FORMATS:
        raise UserError(f"--format {format_}: {nearest(format_, FORMATS)}")
    with leaving_out_nothing():
        runs = choose(results, [a, b])
        comparison = comparing.compare(runs[0], runs[1], seed)
    if format_ == "json":
        content = comparing.plain(comparison)
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(comparing.text(comparison), nl=False)
