"""``hpo-bench report``: one HTML page about what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[Path, typer.Option("--results", help="Folder of the results.")] = Path(
        "results"
    ),
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.html", help="File to write; default: RESULTS/report.html."
        ),
    ] = None,
    stats: Annotated[
        str,
        typer.Option(
            "--stats", help="default: diverged runs count as +inf; paper: as in the paper."
        ),
    ] = "default",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of bootstraps.")] = 0,
) -> None:
    """Write one HTML page about all stored runs.

    It shows verdicts on the paper's claims, figures, tables and provenance, opens from disk in any
    browser and loads nothing else. What is missing is named with the command that makes it.
    """
    from hpo_bench.analysis.statistics.interval import MODES
    from hpo_bench.errors import RunError, UserError, nearest
    from hpo_bench.report import page

    if stats not in MODES:
        raise UserError(f"--stats {stats}: {nearest(stats, MODES)}")
    file = out or results / "report.html"
    page.check_writable(file)
    content = page.build(results, "paper" if stats == "paper" else "default", seed, _say)
    page.write(content, file)
    figure_count = sum(bool(drawing.uri) for drawing in content.drawings)
    typer.echo(
        f"wrote {file}: {figure_count} of {len(content.drawings)} figures, "
        f"{len(content.finals)} tables of results"
    )
    failed = [drawing for drawing in content.drawings if drawing.error]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise RunError(f"{file} is complete but for {failed[0].name}: {failed[0].error}{more}")


def _say(line: str) -> None:
    typer.echo(line, err=True)
