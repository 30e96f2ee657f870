"""``hpo-bench compare``: two or more stored runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpo_bench.cli.completion import runs

FORMATS = ("text", "json")


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN…",
            help="Two or more, each by its run id, the beginning of it, or its folder.",
            autocompletion=runs,
            show_default=False,
        ),
    ],
    results: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="Folder of the results.")
    ] = Path("results"),
    format_: Annotated[
        str, typer.Option("--format", metavar="text|json", help="How to print it.")
    ] = "text",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Print what differs between runs, and compare their final values on shared seeds.

    Of more than two, all stand in one table, and each pair is compared.
    """
    import json

    from hpo_bench.analysis import beside
    from hpo_bench.analysis import compare as comparing
    from hpo_bench.errors import UserError, nearest
    from hpo_bench.store.export import choose
    from hpo_bench.system.notices import leaving_out_nothing

    if format_ not in FORMATS:
        raise UserError(f"--format {format_}: {nearest(format_, FORMATS)}")
    if len(names) < 2:
        raise UserError(f"RUN: names one run ({names[0]}); name two or more to compare")
    with leaving_out_nothing():
        chosen = choose(results, names)
        if len(chosen) == 2:
            two = comparing.compare(chosen[0], chosen[1], seed)
            content, text = comparing.plain(two), comparing.text(two)
        else:
            several = beside.beside(chosen, seed)
            content, text = beside.plain(several), beside.text(several)
    if format_ == "json":
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo(text, nl=False)
