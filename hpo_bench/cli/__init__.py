"""The command ``hpo-bench``: one module a command, imported when it is called."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hpo_bench import __version__
from hpo_bench.errors import RunError, UserError, nearest, of_the_system
from hpo_bench.system import notices, signals
from hpo_bench.system.inherited import (
    Careful,
    careful_streams,
    drop_empty_variables,
    expanded,
    is_closed_pipe,
    is_terminal,
    tell,
    variable,
    working_directory_is_gone,
)
from hpo_bench.system.quoting import in_one_line

# Command: where its Typer app or its function is. These modules import nothing heavy before their
# command runs.
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
    "pack": "pack:pack",
    "schema": "schema:schema",
}
EXPECTED = (UserError, RunError)
# Commands that store what they make: it is no failure if they cannot talk of it. Of the others text
# is the product.
STORING = (
    "run",
    "reproduce",
    "audit",
    "plot",
    "report",
    "merge",
    "export",
    "pack",
    "schema",
    "data",
)


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
        target = getattr(import_module(f"hpo_bench.cli.{module}"), attribute)
        typer_app = target if isinstance(target, typer.Typer) else _single(target)
        command = typer.main.get_command(typer_app)
        command.name = cmd_name
        _prepare(command)
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _usage_in_one_line():
            return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        try:
            with _usage_in_one_line(), signals.handled(), notices.leaving_out() as left_out:
                result = super().invoke(ctx)
            if left_out.folders:  # what was made is good, but not of all that was meant
                raise typer.Exit(2)
            return result
        except signals.Terminated:
            tell("terminated; run the same command again to go on")
            raise typer.Exit(signals.EXIT_CODE) from None
        except KeyboardInterrupt:
            tell("interrupted; run the same command again to go on")
            raise typer.Exit(130) from None


@contextlib.contextmanager
def _usage_in_one_line() -> Iterator[None]:
    """Make a `UserError` of options and arguments that a command does not take."""
    try:
        yield
    except Exception as error:
        # Typer carries a Click of its own, or uses another: its classes have no fixed place.
        names = [kind.__name__ for kind in type(error).__mro__]
        if "UsageError" not in names or "NoArgsIsHelpError" in names:
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "hpo-bench"
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        raise UserError(f"{message}; see {command} --help") from None


def _prepare(command: Any) -> None:
    """Let every option and argument of a command that is a path know the home folder by ``~``.

    A command that finds a damaged run late is called again without it.
    """
    for below in getattr(command, "commands", {}).values():
        _prepare(below)
    if command.callback is not None:
        command.callback = _prepared(command.callback)


def _prepared(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def called(**values: Any) -> Any:
        arguments = {name: _expanded(value) for name, value in values.items()}
        return notices.started_again(lambda: function(**arguments))

    return called


def _expanded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_expanded(item) for item in value)
    return expanded(value) if isinstance(value, Path) else value


def _single(function: Callable[..., None]) -> typer.Typer:
    """An app with one command."""
    single = typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    single.command()(function)
    return single


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Reproducible experiments in one-pass, gradient-based hyperparameter optimisation.",
    epilog=(
        "hpo-bench run is the place to start: "
        "without arguments it trains 20 repetitions on embedded data."
    ),
)


def _version(requested: bool) -> None:
    if requested:
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
    """Run the program: mistakes and failures are one line each, exit code 2 or 1.

    It works with whatever it inherits: streams that are closed, full or cannot carry a letter,
    variables that are set to nothing, a backend of Matplotlib that needs a screen.
    """
    drop_empty_variables()
    # Figures go to files; a backend that there is not would stop Matplotlib's import.
    os.environ["MPLBACKEND"] = "agg"
    with careful_streams() as (out, _):
        code = _code()
        if code == 0 and out.lost is not None and not _stores(sys.argv):
            code = _tell_of_loss(out)
    sys.exit(code)


def _code() -> int | str | None:
    """Run the program; returns its exit code."""
    try:
        if len(sys.argv) > 1 and sys.argv[1] in COMMANDS and working_directory_is_gone():
            raise UserError("the working directory has been deleted; change to one that there is")
        app(prog_name="hpo-bench")
    except SystemExit as end:
        if end.code == signals.EXIT_CODE:
            signals.leave()
        return end.code or 0
    except Exception as error:
        unexpected = not isinstance(error, EXPECTED) or error.__cause__ is not None
        if os.environ.get("HPO_BENCH_DEBUG") == "1" and unexpected:
            raise
        return print_error(error)
    return 0


def _stores(arguments: list[str]) -> bool:
    return len(arguments) > 1 and arguments[1] in STORING


def _tell_of_loss(out: Careful) -> int:
    """Say that what was asked for could not be printed; returns the exit code."""
    assert out.lost is not None
    if not is_closed_pipe(out.lost):  # a reader that has gone (``| head``) knows it
        reason = getattr(out.lost, "strerror", None) or out.lost
        tell(f"error: cannot write to standard output: {reason}")
    return 1


def print_error(error: Exception) -> int:
    """Print an error as one line on standard error.

    Returns:
        The exit code: 2 for a mistake of the user, 1 for a failure.
    """
    text = in_one_line(" ".join(str(error).split()))
    if isinstance(error, OSError):
        # A disk that is full, a folder of somebody else's, no file descriptor left.
        text = in_one_line(" ".join(of_the_system(error).split()))
    elif not isinstance(error, EXPECTED):
        kind = type(error).__name__
        text = f"internal error: {kind}: {text} (set HPO_BENCH_DEBUG=1 to see where)"
    line = f"error: {text}"
    if is_terminal(sys.stderr) and variable("NO_COLOR") is None:
        line = f"\033[31m{line}\033[0m"  # red
    tell(line)
    return 2 if isinstance(error, UserError) else 1
