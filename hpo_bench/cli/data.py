"""``hpo-bench data``: what datasets there are, and their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from hpo_bench.datasets.sources import RemoteFile
    from hpo_bench.settings.catalogue import Dataset

app = typer.Typer(help="List, download and verify the datasets.", no_args_is_help=True)
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Datasets, as in dataset=NAME.")
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
        numbers = [
            str(number) if number is not None else "-" for number in (size.rows, size.inputs)
        ]
        table.add_row(dataset.name, dataset.task, *numbers, parts, size.origin, _presence(dataset))
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
    done: set[Path] = set()
    for dataset in _datasets(names):
        try:
            _fetch(dataset, done, force)
        except UserError as error:
            if names:
                raise
            typer.echo(f"bad  {error}")
            failed = True
        if names and not dataset.source.files:
            typer.echo(f"ok  {dataset.name}: nothing to download")
    if failed:
        raise typer.Exit(2)


def _fetch(dataset: Dataset, done: set[Path], force: bool) -> None:
    """Fetch a dataset's files, but for those ``done``, which it shares with another, and say so."""
    from hpo_bench.datasets.sources import cached_path, fetch

    for file in dataset.source.files:
        if cached_path(dataset.name, file) not in done:
            typer.echo(f"ok  {fetch(dataset.name, file, force=force)}")
            done.add(cached_path(dataset.name, file))


@app.command()
def verify(names: Names = None) -> None:
    """Check the SHA-256 of downloaded files; of the datasets named, every file must be there.

    Exit code 2 if not.
    """
    bad = 0
    told: set[str] = set()
    for dataset in _datasets(names):
        for file in dataset.source.files:
            line, good = _verified(dataset.name, file, required=bool(names))
            if line not in told:  # two datasets may share a file
                typer.echo(line)
            told.add(line)
            bad += not good
        if names and not dataset.source.files:
            typer.echo(f"ok       {dataset.name}: no downloaded files")
    if bad:
        raise typer.Exit(2)


def _verified(dataset: str, file: RemoteFile, *, required: bool) -> tuple[str, bool]:
    """One line about a file, and whether that is fine."""
    from hpo_bench.datasets.sources import cached_path, check, packaged
    from hpo_bench.errors import UserError

    try:
        path = check(dataset, file) or packaged(file)
    except UserError as error:
        return f"bad      {error}", False
    if path is not None:
        return f"ok       {path}", True
    return (
        f"missing  {cached_path(dataset, file)} (hpo-bench data download {dataset})",
        not required,
    )


def _presence(dataset: Dataset) -> str:
    """Whether the files are there, by their size alone (`verify` reads them)."""
    from hpo_bench.datasets.sources import cached_path, damaged, present

    files = dataset.source.files
    if not files:
        return "bundled" if dataset.summary.rows else "-"
    if any(damaged(dataset.name, file) for file in files):
        return "damaged"
    if not all(present(dataset.name, file) for file in files):
        return "missing"
    return (
        "cached" if any(cached_path(dataset.name, file).is_file() for file in files) else "packaged"
    )


def _datasets(names: list[str] | None) -> list[Dataset]:
    from hpo_bench.settings.catalogue import dataset_names, read_dataset

    return [read_dataset(name) for name in (names or dataset_names())]
