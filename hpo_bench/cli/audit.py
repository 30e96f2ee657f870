"""``hpo-bench audit``: a method's hypergradients against exact ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo_bench.cli.completion import overrides as complete_overrides
from hpo_bench.core import checks

if TYPE_CHECKING:
    from hpo_bench.experiments.audit import Audit


def audit(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OVERRIDE]...",
            help="As of hpo-bench run: method=…, dataset=…, key=value.",
            autocompletion=complete_overrides,
        ),
    ] = None,
    intervals: Annotated[
        str,
        typer.Option(
            "--intervals", metavar="A..B|A,B,…", help="Weight updates per hyperparameter update, T."
        ),
    ] = "1..10",
    look_backs: Annotated[
        str,
        typer.Option(
            "--look-backs",
            metavar="A..B|A,B,…",
            help="Look-back distances i; cells with i ≤ T count.",
        ),
    ] = "1..10",
    hyper_update: Annotated[
        int,
        typer.Option("--hyper-update", metavar="N", help="At which hyperparameter update, from 1."),
    ] = 1,
    config_dir: Annotated[
        Path | None,
        typer.Option("--config-dir", "-cd", metavar="DIR", help="Also look for yamls in DIR."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compute again what is already stored.")
    ] = False,
) -> None:
    """Compare a method's hypergradients with exact ones and with finite differences.

    All are in float64 by default. Stores RESULTS_DIR/audits/ID/hypergradient_error.parquet, a row
    per repetition, cell and hyperparameter.
    """
    from hpo_bench.errors import UserError

    if hyper_update < 1:
        raise UserError(f"--hyper-update {hyper_update}: must be a whole number from 1 up")
    if config_dir is not None:
        checks.folder("--config-dir", config_dir)
    columns, rows = numbers("--look-backs", look_backs), numbers("--intervals", intervals)
    from hpo_bench.experiments import audit as audits
    from hpo_bench.progress import default_reporter

    at = audits.cells(overrides or [], hyper_update, config_dir)
    grid = audits.AuditGrid(rows, columns, hyper_update)
    _print(audits.run(at, grid, force=force, reporter=default_reporter()))


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Read ``1..10``, ``1,2,5`` or ``7`` as numbers in rising order.

    Raises:
        UserError: something else, or a number below 1.
    """
    from hpo_bench.errors import UserError

    values: set[int] = set()
    for part in text.split(","):
        low, dots, high = part.strip().partition("..")
        ends = [low, high] if dots else [low]
        are_numbers = all(end.isascii() and end.isdigit() for end in ends)
        if not are_numbers or not 1 <= int(low) <= int(ends[-1]):
            raise UserError(f"{option} {text}: must be whole numbers from 1 up, as 1..10 or 1,2,5")
        values.update(range(int(low), int(ends[-1]) + 1))
    return tuple(sorted(values))


def _print(audit: Audit) -> None:
    """Print a line per cell: of each hyperparameter the relative error and the share of signs."""
    from rich.table import Table

    from hpo_bench.experiments.audit import ALL, check_of_exact, summary
    from hpo_bench.progress import console

    frame = summary(audit.frame)
    names = [name for name in dict.fromkeys(frame["hyperparameter"]) if name != ALL]
    table = Table("T", "i", "cosine", box=None, pad_edge=False)
    for name in names:
        table.add_column(f"{name}: error", justify="right")
        table.add_column("signs", justify="right")
    for (interval, look_back), cell in frame.groupby(["update_interval", "look_back"]):
        values = cell.set_index("hyperparameter")
        texts = [str(interval), str(look_back), f"{values.cosine[ALL]:.4f}"]
        for name in names:
            texts += [f"{values.relative_error[name]:.2g}", f"{values.same_sign[name]:.0%}"]
        table.add_row(*texts)
    difference = check_of_exact(audit.frame)
    screen = console()
    screen.print(table)
    screen.print(
        f"{frame['n'].max()} repetitions against exact hypergradients through the last i of "
        "T weight updates: mean cosine of all as a vector; of each the median relative error "
        "and how often the signs agree",
        f"exact against finite differences: median relative difference {difference:.1g}",
        str(audit.path),
        sep="\n",
        soft_wrap=True,
    )
