"""``hpo-bench plot``: draw the figures from stored runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo_bench.settings.conditions import condition

if TYPE_CHECKING:
    from hpo_bench.figures.common.make import Made, Request


def plot(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIGURE]...", help="hpo-bench list figures shows all; default: all."
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="A figure of this dataset alone; may be repeated."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="Method to compare instead of the figure's own; may be repeated."
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
    """Draw figures from stored runs: the images, the plotted points (CSV) and a manifest (JSON) for
    each.

    Without names: every figure that the store can feed. Says what is missing, and the command that
    makes it."""
    from hpo_bench.figures.common.artefact import check_formats

    asked = format_ if format_ is not None else "pdf,png"
    formats = check_formats([part.strip() for part in asked.split(",") if part.strip()])
    if from_ is not None:
        _redraw(
            from_,
            out,
            formats if format_ is not None else (),
            [*(names or []), *(dataset or []), *(method or []), *(where or [])],
        )
        return
    chosen = _figures(names or [], dataset or [])
    request = _request(
        chosen, dataset or [], method or [], where or [], results, out, formats, stats, seed
    )
    _draw(chosen, request, named=bool(names))


def _redraw(
    manifest: Path, out: Path | None, formats: tuple[str, ...], others: Sequence[str]
) -> None:
    from hpo_bench.errors import UserError
    from hpo_bench.figures.common.artefact import redraw

    if others:
        raise UserError(f"--from {manifest}: draws that figure as it is; leave out {others[0]}")
    files, changed = redraw(manifest, out or manifest.parent, formats)
    typer.echo(f"{manifest.stem}: {_paths(files)}")
    if changed:
        typer.echo(f"  other versions than then, the bytes may differ: {', '.join(changed)}")


def _figures(names: Sequence[str], datasets: Sequence[str]) -> list[str]:
    """Figures that were asked for; all where none was named.

    Raises:
        UserError: an unknown figure, or an illustration of a dataset.
    """
    from hpo_bench import figures
    from hpo_bench.errors import UserError

    if not names:
        return [name for name in figures.names() if not datasets or figures.find(name).NEEDS]
    chosen = list(dict.fromkeys(figures.resolve(name) for name in names))
    for name in chosen:
        if datasets and not figures.find(name).NEEDS:
            raise UserError(
                f"--dataset {datasets[0]}: {name} is an illustration and has no dataset"
            )
    return chosen


def _request(
    chosen: Sequence[str],
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
    from hpo_bench.figures.common.needs import check_names
    from hpo_bench.settings.catalogue import dataset_names

    if stats not in MODES:
        raise UserError(f"--stats {stats}: {nearest(stats, MODES)}")
    runs = find(results) if any(figures.find(name).NEEDS for name in chosen) else []
    datasets = each_data(runs, datasets)
    check_names("dataset", datasets, {*dataset_names(), *(run.dataset for run in runs)})
    wanted = {
        method
        for name in figures.names()
        for need in figures.find(name).NEEDS
        for method in need.methods
    }
    check_names("method", methods, wanted | {run.method for run in runs})
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


def _draw(chosen: Sequence[str], request: Request, *, named: bool) -> None:
    """Draw figure after figure and say so; where a named one cannot be drawn at all, fail in the
    end.
    """
    from hpo_bench.errors import UserError
    from hpo_bench.figures.common.make import make

    undrawn: list[Made] = []
    begin = time.perf_counter()
    for made in make(chosen, request):
        if made.files:
            seconds = time.perf_counter() - begin
            typer.echo(f"{made.name}: {made.drawn} -> {_paths(made.files)} ({seconds:.1f} s)")
            _explain(made)
        else:
            undrawn.append(made)
        begin = time.perf_counter()
    if named and len(undrawn) == 1:
        missing = "; ".join(map(str, undrawn[0].missing))
        raise UserError(f"{undrawn[0].name}: no stored run fits; missing {missing}")
    for made in undrawn:
        typer.echo(f"{made.name}: not drawn, no stored run fits")
        _explain(made)
    if named and undrawn:
        raise UserError(
            f"not drawn: {', '.join(made.name for made in undrawn)}; see above for what makes the runs"
        )


def _explain(made: Made) -> None:
    for missing in made.missing:
        typer.echo(f"  missing {missing}")
    if made.notes:
        more = f" and {len(made.notes) - 1} more, see the manifest" if len(made.notes) > 1 else ""
        typer.echo(f"  note: {made.notes[0]}{more}")


def _paths(files: Sequence[Path]) -> str:
    """Files of one artefact: the first whole, of the others the suffix."""
    return ", ".join([str(files[0]), *(file.suffix for file in files[1:])])
