"""``hpo-bench export``: stored runs for other programs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from hpo_bench.cli.completion import runs as stored_runs


def export(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Run ids, their beginnings, or run folders; all.",
            autocompletion=stored_runs,
        ),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="csv|tensorboard", help="What to write.")
    ] = "csv",
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path(
        "exported"
    ),
    results: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="Folder of the results.")
    ] = Path("results"),
    schedule: Annotated[
        bool,
        typer.Option(
            "--schedule",
            help="Write the learned learning rate, weight decay and momentum by step instead.",
        ),
    ] = False,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            "--seed",
            min=0,
            help="Of one repetition, instead of medians (schedule) or beside them (tensorboard).",
        ),
    ] = None,
) -> None:
    """Write stored runs for other programs.

    As CSV (final values and curves), as TensorBoard event files, or as a schedule to replay.
    """
    from hpo_bench.errors import UserError, nearest
    from hpo_bench.store import export as exporting

    if format_ not in exporting.FORMATS:
        raise UserError(f"--format {format_}: {nearest(format_, exporting.FORMATS)}")
    if schedule and format_ != "csv":
        raise UserError("--schedule: is written as csv only")
    if seed and not schedule and format_ == "csv":
        raise UserError(
            "--seed: goes with --schedule or --format tensorboard; the CSV files hold every seed"
        )
    selection = exporting.choose(results, runs or [])
    if schedule:
        pairs = itertools.product(selection, seed or (None,))
        paths = [exporting.write_schedule(run, out, of_seed) for run, of_seed in pairs]
    elif format_ == "csv":
        paths = exporting.write_csv(selection, out)
    else:
        paths = exporting.write_tensorboard(selection, out, seed or [])
    for path in paths:
        print(path)
