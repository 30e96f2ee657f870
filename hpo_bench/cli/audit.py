"""``hpo-bench audit``: a method's hypergradients against exact ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo_bench.cli.completion import overrides as complete_overrides
from hpo_bench.core import checks

if TYPE_CHECKING:
    from hpo_bench.experiments.audit import AuditGrid
    from hpo_bench.experiments.stored_audit import Audit


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
        str | None,
        typer.Option(
            "--intervals",
            metavar="A..B|A,B,…",
            help="Weight updates per hyperparameter update, T; default: 1..10.",
        ),
    ] = None,
    look_backs: Annotated[
        str | None,
        typer.Option(
            "--look-backs",
            metavar="A..B|A,B,…",
            help="Look-back distances i of the exact hypergradient; default: 1..10. Cells with "
            "i ≤ T count, of a method that carries tangents on those up to all updates until then.",
        ),
    ] = None,
    discounts: Annotated[
        str | None,
        typer.Option(
            "--discounts", metavar="γ,γ,…", help="Of such a method; default: the method's own."
        ),
    ] = None,
    hyper_update: Annotated[
        int | None,
        typer.Option(
            "--hyper-update",
            metavar="N",
            help="At which hyperparameter update, from 1; default: 1.",
        ),
    ] = None,
    over_time: Annotated[
        bool,
        typer.Option(
            "--over-time", help="Compare with the derivative over the next n weight updates."
        ),
    ] = False,
    moments: Annotated[
        str | None,
        typer.Option(
            "--moments",
            metavar="A,B,…",
            help="At which hyperparameter updates, from 1; default: five over the training.",
        ),
    ] = None,
    horizons: Annotated[
        str | None,
        typer.Option("--horizons", metavar="A,B,…", help="Values of n; default: 1,10,100,1000."),
    ] = None,
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

    With --over-time: with the exact derivative of the validation loss over the next n weight
    updates, at chosen moments of a training; over_time.parquet, a row per repetition, moment,
    horizon and hyperparameter. The figure horizon draws it.
    """
    from hpo_bench.progress import default_reporter

    of_cells = {
        "--intervals": intervals,
        "--look-backs": look_backs,
        "--discounts": discounts,
        "--hyper-update": hyper_update,
    }
    ahead = {"--moments": moments, "--horizons": horizons}
    _refuse(of_cells if over_time else ahead, over_time=over_time)
    if config_dir is not None:
        checks.folder("--config-dir", config_dir)
    if over_time:
        from hpo_bench.experiments import over_time as audits_over_time

        when = audits_over_time.Outlook(
            numbers("--moments", moments) if moments is not None else (),
            numbers("--horizons", horizons if horizons is not None else "1,10,100,1000"),
        )
        settings = audits_over_time.settings_of(overrides or [], config_dir)
        found = audits_over_time.run(settings, when, force=force, reporter=default_reporter())
        _print_over_time(found)
        return
    grid = _grid(intervals, look_backs, discounts, 1 if hyper_update is None else hyper_update)
    from hpo_bench.experiments import audit as audits

    at = audits.cells(overrides or [], grid.hyper_update, config_dir)
    _print(audits.run(at, grid, force=force, reporter=default_reporter()))


def _refuse(others: Mapping[str, object], *, over_time: bool) -> None:
    """Refuse options that the other kind of audit has.

    Raises:
        UserError: one of ``others`` was given.
    """
    from hpo_bench.errors import UserError

    for option, value in others.items():
        if value is not None:
            where = "not with --over-time" if over_time else "only with --over-time"
            raise UserError(f"{option} {value}: {where}")


def _grid(
    intervals: str | None, look_backs: str | None, discounts: str | None, hyper_update: int
) -> AuditGrid:
    """What is compared, read from the options.

    Raises:
        UserError: one of them is not what it must be.
    """
    from hpo_bench.errors import UserError

    if hyper_update < 1:
        raise UserError(f"--hyper-update {hyper_update}: must be a whole number from 1 up")
    columns = numbers("--look-backs", look_backs if look_backs is not None else "1..10")
    rows = numbers("--intervals", intervals if intervals is not None else "1..10")
    shares = factors("--discounts", discounts) if discounts is not None else ()
    from hpo_bench.experiments.audit import AuditGrid

    return AuditGrid(rows, columns, hyper_update, shares)


def factors(option: str, text: str) -> tuple[float, ...]:
    """Read ``0,0.95,1`` as numbers from 0 to 1 in rising order.

    Raises:
        UserError: something else.
    """
    from hpo_bench.errors import UserError

    try:
        values = {float(part) for part in text.split(",")}
    except ValueError:
        values = {-1.0}
    if not all(0 <= value <= 1 for value in values):
        raise UserError(f"{option} {text}: must be numbers from 0 to 1, as 0,0.95,1")
    return tuple(sorted(values))


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
    keys = [name for name in ("discount", "update_interval", "look_back") if name in frame]
    titles = {"discount": "γ", "update_interval": "T", "look_back": "i"}
    table = Table(*[titles[key] for key in keys], "cosine", box=None, pad_edge=False)
    for name in names:
        table.add_column(f"{name}: error", justify="right")
        table.add_column("signs", justify="right")
    for place, cell in frame.groupby(keys):
        values = cell.set_index("hyperparameter")
        texts = [*(f"{value:g}" for value in place), f"{values.cosine[ALL]:.4f}"]
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


def _print_over_time(audit: Audit) -> None:
    """Print a line per moment and horizon: of each hyperparameter the share of signs, and size."""
    from rich.table import Table

    from hpo_bench.experiments.over_time import summary
    from hpo_bench.progress import console

    frame = summary(audit.frame)
    names = list(dict.fromkeys(frame["hyperparameter"]))
    table = Table("update", "next n", "of", box=None, pad_edge=False)
    for name in names:
        table.add_column(f"{name}: signs", justify="right")
        table.add_column("size", justify="right")
    for (step, horizon), cell in frame.groupby(["step", "horizon"]):
        values = cell.set_index("hyperparameter")
        texts = [str(step), str(horizon), str(values["n"].max())]
        for name in names:
            if name in values.index:
                texts += [f"{values.same_sign[name]:.0%}", f"{values['size'][name]:.2g}"]
            else:
                texts += ["-", "-"]
        table.add_row(*texts)
    screen = console()
    screen.print(table)
    screen.print(
        "the method's hypergradient after so many weight updates against the exact derivative "
        "over the next n, hyperparameters held: how often the signs agree, and the median of how "
        "many times as large it is, of the repetitions that have not diverged",
        str(audit.path),
        sep="\n",
        soft_wrap=True,
    )
