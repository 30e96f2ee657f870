"""``hpo-bench plot``: draw the figures from stored runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo_bench.cli.completion import datasets, methods
from hpo_bench.cli.completion import figures as complete_figures
from hpo_bench.settings.conditions import condition

if TYPE_CHECKING:
    from hpo_bench.figures.common.make import Made, Request


def plot(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIGURE]...",
            help="hpo-bench list figures shows all; default: all.",
            autocompletion=complete_figures,
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            help="A figure of this dataset alone; may be repeated.",
            autocompletion=datasets,
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="Method to compare instead of the figure's own; may be repeated.",
            autocompletion=methods,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where", metavar="KEY=VALUE", help="Only runs with this setting; may be repeated."
        ),
    ] = None,
    results: Annotated[Path, typer.Option("--results", help="Folder of the results.")] = Path(
        "results"
    ),
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to; default: RESULTS/figures.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Of pdf, png and svg, with commas; default: pdf,png."),
    ] = None,
    stats: Annotated[
        str,
        typer.Option(
            "--stats", help="default: diverged runs count as +inf; paper: as in the paper."
        ),
    ] = "default",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of bootstraps.")] = 0,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="MANIFEST", help="Draw again from a figure's .json and .csv alone."
        ),
    ] = None,
) -> None:
    """Draw figures from stored runs.

    For each the images, the plotted points (CSV) and a manifest (JSON). Without names: every figure
    that the store can feed. Says what is missing, and the command that makes it.
    """
    from hpo_bench.figures.common.artefact import check_formats

    formats_text = format_ if format_ is not None else "pdf,png"
    formats = check_formats([part.strip() for part in formats_text.split(",") if part.strip()])
    if from_ is not None:
        # Without --format: those that the manifest tells of.
        formats = formats if format_ is not None else ()
        others = [*(names or []), *(dataset or []), *(method or []), *(where or [])]
        _redraw(from_, out, formats, others)
        return
    figure_names = _figures(names or [], dataset or [])
    request = _request(
        figure_names, dataset or [], method or [], where or [], results, out, formats, stats, seed
    )
    _draw(figure_names, request, named=bool(names))


def _redraw(
    manifest: Path, out: Path | None, formats: tuple[str, ...], others: Sequence[str]
) -> None:
    from hpo_bench.errors import UserError
    from hpo_bench.figures.common.artefact import redraw

    if others:
        raise UserError(f"--from {manifest}: draws that figure as it is; leave out {others[0]}")
    files, versions = redraw(manifest, out or manifest.parent, formats)
    typer.echo(f"{manifest.stem}: {_paths(files)}")
    if versions:
        typer.echo(f"  other versions than then, the bytes may differ: {', '.join(versions)}")


def _figures(names: Sequence[str], datasets: Sequence[str]) -> list[str]:
    """The figures that were asked for; all where none was named.

    Raises:
        UserError: an unknown figure, or an illustration of a dataset.
    """
    from hpo_bench import figures
    from hpo_bench.errors import UserError

    if not names:
        return [name for name in figures.names() if not datasets or figures.find(name).NEEDS]
    figure_names = list(dict.fromkeys(figures.resolve(name) for name in names))
    for name in figure_names:
        if datasets and not figures.find(name).NEEDS:
            raise UserError(
                f"--dataset {datasets[0]}: {name} is an illustration and has no dataset"
            )
    return figure_names


def _request(
    figure_names: Sequence[str],
    datasets: Sequence[str],
    methods: Sequence[str],
    where: Sequence[str],
    results: Path,
    out: Path | None,
    formats: tuple[str, ...],
    stats: str,
    seed: int,
) -> Request:
    from hpo_bench import figures
    from hpo_bench.analysis.selection import each_data, find
    from hpo_bench.analysis.statistics.interval import MODES
    from hpo_bench.errors import UserError, nearest
    from hpo_bench.figures.common.base import Options
    from hpo_bench.figures.common.make import Request
    from hpo_bench.figures.common.needs import AUDITS, check_names
    from hpo_bench.settings.catalogue import dataset_names

    if stats not in MODES:
        raise UserError(f"--stats {stats}: {nearest(stats, MODES)}")
    needed = [need for name in figure_names for need in figures.find(name).NEEDS]
    runs = find(results) if any(need.folder != AUDITS for need in needed) else []
    datasets = each_data(runs, datasets)
    check_names("dataset", datasets, {*dataset_names(), *(run.dataset for run in runs)})
    known_methods = {run.method for run in runs}
    for name in figures.names():
        for need in figures.find(name).NEEDS:
            known_methods.update(need.methods)
    check_names("method", methods, known_methods)
    return Request(
        results=str(results),
        runs=runs,
        out=out or results / "figures",
        formats=formats,
        options=Options(statistics="paper" if stats == "paper" else "default", seed=seed),
        datasets=tuple(dict.fromkeys(datasets)),
        methods=tuple(dict.fromkeys(methods)),
        where=dict(condition(text) for text in where),
    )


def _draw(figure_names: Sequence[str], request: Request, *, named: bool) -> None:
    """Draw figure after figure and say so.

    Raises:
        UserError: in the end, where a figure that was named cannot be drawn at all.
    """
    from hpo_bench.errors import UserError
    from hpo_bench.figures.common.make import make

    undrawn: list[Made] = []
    begin = time.perf_counter()
    for drawing in make(figure_names, request):
        if drawing.files:
            seconds = time.perf_counter() - begin
            paths = _paths(drawing.files)
            typer.echo(f"{drawing.name}: {drawing.drawn} -> {paths} ({seconds:.1f} s)")
            _explain(drawing)
        else:
            undrawn.append(drawing)
        begin = time.perf_counter()
    if named and len(undrawn) == 1:
        needs = "; ".join(map(str, undrawn[0].missing))
        raise UserError(f"{undrawn[0].name}: no stored run fits; missing {needs}")
    for drawing in undrawn:
        typer.echo(f"{drawing.name}: not drawn, no stored run fits")
        _explain(drawing)
    if named and undrawn:
        names = ", ".join(drawing.name for drawing in undrawn)
        raise UserError(f"not drawn: {names}; see above for what makes the runs")


def _explain(drawing: Made) -> None:
    for need in drawing.missing:
        typer.echo(f"  missing {need}")
    if drawing.notes:
        others = len(drawing.notes) - 1
        more = f" and {others} more, see the manifest" if others else ""
        typer.echo(f"  note: {drawing.notes[0]}{more}")


def _paths(files: Sequence[Path]) -> str:
    """Write the files of one artefact in a line: the first whole, of the others the suffix."""
    return ", ".join([str(files[0]), *(file.suffix for file in files[1:])])
