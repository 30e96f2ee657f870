"""The command ``hpo-bench``: one module a command, imported when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hpo_bench import __version__, notices, signals
from hpo_bench.errors import RunError, UserError, nearest

# Command: where its Typer app or its function is. These modules import nothing heavy before their command runs.
COMMANDS = {
    "run": "run:run_app",
    "reproduce": "reproduce:reproduce",
    "list": "info:list_",
    "status": "status:status",
    "data": "data:app",
    "doctor": "doctor:doctor",
    "plot": "plot:plot",
    "table": "table:table",
    "report": "report:report",
    "compare": "compare:compare",
    "audit": "audit:audit",
    "bench": "bench:app",
    "merge": "merge:merge",
    "export": "export:export",
}
EXPECTED = (UserError, RunError)


class _Commands(TyperGroup):
    """The commands of `COMMANDS`, each imported when asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            if ctx.resilient_parsing:
                return None
            raise UserError(f"{cmd_name}: no such command; {nearest(cmd_name, COMMANDS)}")
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        found = getattr(import_module(f"hpo_bench.cli.{module}"), attribute)
        command = typer.main.get_command(found if isinstance(found, typer.Typer) else _single(found))
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        try:
            with signals.handled(), notices.leaving_out() as left_out:
                result = super().invoke(ctx)
            if left_out.folders:
                raise typer.Exit(2)
            return result
        except signals.Terminated:
            print("terminated; run the same command again to go on", file=sys.stderr)
            raise typer.Exit(signals.EXIT_CODE) from None
        except KeyboardInterrupt:
            print("interrupted; run the same command again to go on", file=sys.stderr)
            raise typer.Exit(130) from None


def _single(function: Callable[..., None]) -> typer.Typer:
    """An app with one command."""
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    single.command()(function)
    return single


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Reproducible experiments in one-pass, gradient-based hyperparameter optimisation.",
    epilog="hpo-bench run is the place to start: without arguments it trains 20 repetitions on embedded data.",
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        print(f"hpo-bench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which one.")
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Run the program: mistakes and failures are one line each, exit code 2 or 1."""
    try:
        app(prog_name="hpo-bench")
    except SystemExit as end:
        if end.code == signals.EXIT_CODE:
            signals.leave()
        raise
    except Exception as error:
        unexpected = not isinstance(error, EXPECTED) or error.__cause__ is not None
        if os.environ.get("HPO_BENCH_DEBUG") == "1" and unexpected:
            raise
        sys.exit(print_error(error))


def print_error(error: Exception) -> int:
    """Print an error as one line on standard error.

    Returns:
        The exit code: 2 for a mistake of the user, 1 for a failure.
    """
    text = " ".join(str(error).split())
    if not isinstance(error, EXPECTED):
        text = f"internal error: {type(error).__name__}: {text} (set HPO_BENCH_DEBUG=1 to see where)"
    red, plain = ("\033[31m", "\033[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"{red}error: {text}{plain}", file=sys.stderr)
    return 2 if isinstance(error, UserError) else 1
