"""``hpo-bench data``: what datasets there are, and their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hpo_bench.cli.completion import datasets

if TYPE_CHECKING:
    from pathlib import Path

    from hpo_bench.datasets.sources import RemoteFile
    from hpo_bench.settings.catalogue import Dataset

app = typer.Typer(help="List, download and verify the datasets.", no_args_is_help=True)
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...", help="Datasets, as in dataset=NAME.", autocompletion=datasets
    ),
]


@app.command("list")
def list_() -> None:
    """Show every dataset: size, where it comes from, and whether it is here."""
    from rich.table import Table

    from hpo_bench.progress import console
    from hpo_bench.system.inherited import cache_folder

    table = Table("dataset", "task", box=None, pad_edge=False)
    for heading in ("rows", "inputs", "train/val/test"):
        table.add_column(heading, justify="right")
    table.add_column("from")
    table.add_column("files")
    for dataset in _datasets(None):
        size = dataset.summary
        parts = "/".join(map(str, size.parts)) if size.parts else "-"
        rows = "-" if size.rows is None else str(size.rows)
        inputs = "-" if size.inputs is None else str(size.inputs)
        presence = _presence(dataset)
        table.add_row(dataset.name, dataset.task, rows, inputs, parts, size.origin, presence)
    screen = console()
    screen.print(table)
    screen.print(f"cache: {cache_folder()} (HPO_BENCH_DATA)", soft_wrap=True)


@app.command()
def download(
    names: Names = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every dataset that has files to download.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Download again what is already there.")
    ] = False,
) -> None:
    """Download datasets into the cache and check them."""
    from hpo_bench.errors import UserError

    if bool(names) == all_:
        raise UserError("hpo-bench data download needs either dataset names or --all")
    failed = False
    fetched: set[Path] = set()
    for dataset in _datasets(names):
        try:
            _fetch(dataset, fetched, force)
        except UserError as error:
            if names:
                raise
            # Of --all the others are still wanted.
            typer.echo(f"bad  {error}")
            failed = True
        if names and not dataset.source.files:
            typer.echo(f"ok  {dataset.name}: nothing to download")
    if failed:
        raise typer.Exit(2)


def _fetch(dataset: Dataset, fetched: set[Path], force: bool) -> None:
    """Fetch a dataset's files and say so.

    Args:
        fetched: files that are here already, as another dataset shares them; these are added.
    """
    from hpo_bench.datasets.sources import cached_path, fetch

    for file in dataset.source.files:
        if cached_path(dataset.name, file) not in fetched:
            typer.echo(f"ok  {fetch(dataset.name, file, force=force)}")
            fetched.add(cached_path(dataset.name, file))


@app.command()
def verify(names: Names = None) -> None:
    """Check the SHA-256 of downloaded files; of the datasets named, every file must be there.

    Exit code 2 if not.
    """
    bad = 0
    lines: set[str] = set()
    for dataset in _datasets(names):
        for file in dataset.source.files:
            line, good = _verified(dataset.name, file, required=bool(names))
            if line not in lines:  # two datasets may share a file
                typer.echo(line)
            lines.add(line)
            bad += not good
        if names and not dataset.source.files:
            typer.echo(f"ok       {dataset.name}: no downloaded files")
    if bad:
        raise typer.Exit(2)


def _verified(dataset: str, file: RemoteFile, *, required: bool) -> tuple[str, bool]:
    """A line about a file, and whether all is well with it."""
    from hpo_bench.datasets.sources import cached_path, check, packaged
    from hpo_bench.errors import UserError

    try:
        path = check(dataset, file) or packaged(file)
    except UserError as error:
        return f"bad      {error}", False
    if path is not None:
        return f"ok       {path}", True
    place = cached_path(dataset, file)
    return f"missing  {place} (hpo-bench data download {dataset})", not required


def _presence(dataset: Dataset) -> str:
    """Say whether a dataset's files are there, by their size alone (`verify` reads them)."""
    from hpo_bench.datasets.sources import cached_path, damaged, present

    files = dataset.source.files
    if not files:
        return "bundled" if dataset.summary.rows else "-"
    if any(damaged(dataset.name, file) for file in files):
        return "damaged"
    if not all(present(dataset.name, file) for file in files):
        return "missing"
    if any(cached_path(dataset.name, file).is_file() for file in files):
        return "cached"
    return "packaged"


def _datasets(names: list[str] | None) -> list[Dataset]:
    from hpo_bench.settings.catalogue import dataset_names, read_dataset

    return [read_dataset(name) for name in (names or dataset_names())]
