"""``hpo-bench pack``: an experiment as one file to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpo_bench.cli.completion import experiments, scales
from hpo_bench.cli.completion import overrides as complete_overrides


def pack(
    experiment: Annotated[
        str,
        typer.Argument(
            help="Which one; hpo-bench list experiments shows all.", autocompletion=experiments
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OVERRIDE]...",
            help="As of hpo-bench reproduce.",
            autocompletion=complete_overrides,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.zip", help="File to write; default: EXPERIMENT.zip."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            help="smoke, small, cpu or paper; default: as it was begun here, else paper.",
            autocompletion=scales,
        ),
    ] = None,
    results: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="Folder of the results.")
    ] = Path("results"),
) -> None:
    """Bundle an experiment's stored runs into one file.

    With figures, tables, report, configuration, checksums, and the command that makes them again.
    The same runs give the same bytes. hpo-bench merge FILE.zip takes the runs in.
    """
    from hpo_bench.experiments import pack as packing
    from hpo_bench.report import page
    from hpo_bench.system.inherited import tell

    file = out or Path(f"{experiment}.zip")
    page.check_writable(file)
    choice = packing.choose(experiment, results, scale, overrides or ())
    bundle = packing.pack(choice, results, file, tell)
    if bundle.missing:
        names = ", ".join(bundle.missing[:3]) + ", …" * (len(bundle.missing) > 3)
        tell(f"not stored, and not in it: {len(bundle.missing)} runs ({names}); {choice.command}")
    for line in choice.missing:
        tell(f"missing: {line}")
    repetitions = sum(len(run.seeds) for run in bundle.runs)
    print(
        f"packed {len(bundle.runs)} runs ({repetitions} repetitions) into {file}, "
        f"{bundle.bytes / 2**20:.1f} MiB"
    )
