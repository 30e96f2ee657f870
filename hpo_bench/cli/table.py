"""``hpo-bench table``: a table made from stored runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hpo_bench.cli.completion import datasets, methods, tables
from hpo_bench.settings.conditions import condition


def table(
    name: Annotated[
        str,
        typer.Argument(help="Which table; hpo-bench list tables shows all.", autocompletion=tables),
    ],
    results: Annotated[Path, typer.Option("--results", help="Folder of the results.")] = Path(
        "results"
    ),
    format_: Annotated[
        str, typer.Option("--format", help="latex, markdown or csv (unrounded).")
    ] = "markdown",
    stats: Annotated[
        str,
        typer.Option(
            "--stats", help="default: diverged runs count as +inf; paper: as the paper's tables."
        ),
    ] = "default",
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            help="Dataset instead of the table's own; may be repeated.",
            autocompletion=datasets,
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="Only this method; may be repeated.", autocompletion=methods),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where", metavar="KEY=VALUE", help="Only runs with this setting; may be repeated."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write instead of printing.")
    ] = None,
) -> None:
    """Print a table made from stored runs, as LaTeX (booktabs), Markdown or CSV."""
    from hpo_bench.analysis.render import FORMATS
    from hpo_bench.analysis.statistics.interval import MODES
    from hpo_bench.analysis.tables import build
    from hpo_bench.errors import UserError, nearest

    if format_ not in FORMATS:
        raise UserError(f"--format {format_}: {nearest(format_, FORMATS)}")
    if stats not in MODES:
        raise UserError(f"--stats {stats}: {nearest(stats, MODES)}")
    _check_datasets(dataset or [], results)
    conditions = dict(condition(text) for text in where or [])
    content = build(
        name,
        results,
        mode="paper" if stats == "paper" else "default",
        datasets=dataset,
        methods=method,
        where=conditions,
        seed=seed,
    )
    text = FORMATS[format_](content)
    # The other formats show the notes below the table.
    notes = content.notes if format_ == "csv" else ()
    for line in (*notes, *content.missing):
        typer.echo(line, err=True)
    if out is None:
        sys.stdout.write(text)
    else:
        _write(out, text)
        typer.echo(f"wrote {out}", err=True)


def _check_datasets(names: list[str], results: Path) -> None:
    """Refuse names that neither the configuration nor the store knows."""
    from hpo_bench.errors import UserError, nearest
    from hpo_bench.settings.catalogue import dataset_names
    from hpo_bench.store.runs import complete_runs

    allowed = set(dataset_names())
    if not allowed.issuperset(names):  # the store is read only where it may tell more
        for run in complete_runs(results):
            allowed |= {run.dataset, run.dataset_name}
    for name in names:
        if name not in allowed:
            raise UserError(f"--dataset {name}: no such dataset; {nearest(name, allowed)}")


def _write(path: Path, text: str) -> None:
    from hpo_bench.errors import UserError
    from hpo_bench.store.files import atomic

    try:
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {path}: cannot write there ({error.strerror or error})") from None
