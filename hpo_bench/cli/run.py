"""``hpo-bench run``: Hydra's command line in front of `hpo_bench.running.execute.execute`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo_bench.cli import completion
from hpo_bench.core import checks
from hpo_bench.errors import (
    Failed,
    RunError,
    UserError,
    described,
    nearest,
    of_the_system,
    sendable,
)
from hpo_bench.system import signals
from hpo_bench.system.inherited import careful_streams, expanded, tell

if TYPE_CHECKING:
    from omegaconf import DictConfig

TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHORT = {
    "-h": "--help",
    "-c": "--cfg",
    "-p": "--package",
    "-r": "--run",
    "-m": "--multirun",
    "-cp": "--config-path",
    "-cn": "--config-name",
    "-cd": "--config-dir",
    "-i": "--info",
    "-sc": "--shell-completion",
}
SWITCHES = (
    "--help",
    "--hydra-help",
    "--version",
    "--resolve",
    "--run",
    "--multirun",
    "--shell-completion",
    "--force",
)
WITH_VALUE = (
    "--on",
    "--cfg",
    "--package",
    "--config-path",
    "--config-name",
    "--config-dir",
    "--experimental-rerun",
)
OURS = ("--force", "--on")
# Packages whose own errors tell of a lost process.
LAUNCHERS = ("concurrent", "joblib", "submitit")
MODES = ("--run", "--multirun", "--cfg", "--info", "--shell-completion")

run_app = typer.Typer(add_completion=False)


@dataclass
class CommandLine:
    """The arguments of ``run`` taken apart; Hydra wants overrides first, then flags."""

    overrides: list[str] = field(default_factory=list)
    flags: dict[str, str | None] = field(default_factory=dict)

    @property
    def force(self) -> bool:
        """Whether to compute again what is stored."""
        return "--force" in self.flags

    @property
    def on(self) -> str | None:
        """The place where blocks are computed (`hpo_bench.running.places.open_pool`)."""
        return self.flags.get("--on")

    @property
    def config_dir(self) -> Path | None:
        """A further folder of yamls."""
        folder = self.flags.get("--config-dir")
        return expanded(folder) if folder else None

    @property
    def for_hydra(self) -> list[str]:
        """The arguments that Hydra is given."""
        from hpo_bench.settings.isolated import with_home

        parts = list(map(with_home, self.overrides))
        for name, value in self.flags.items():
            if name in OURS:
                continue
            parts.append(name)
            if name == "--config-dir":
                parts.append(str(self.config_dir))
            elif value:
                parts.append(value)
        return parts


def split(arguments: Sequence[str]) -> CommandLine:
    """Take the arguments apart, in any order.

    Raises:
        UserError: a flag that there is not, or flags that do not go together.
    """
    line, rest = CommandLine(), list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            line.overrides.append(argument)
            continue
        name, equals, value = argument.partition("=")
        name = SHORT.get(name, name)
        if name in SWITCHES and not equals:
            line.flags[name] = None
        elif name == "--info":
            if not equals:
                value = rest.pop(0) if rest and rest[0] in TOPICS else "all"
            line.flags[name] = value
        elif name in WITH_VALUE:
            if not equals and not rest:
                raise UserError(f"{name}: needs a value")
            line.flags[name] = value if equals else rest.pop(0)
            if not line.flags[name]:
                raise UserError(f"{name}: needs a value")
        else:
            raise UserError(
                f"{argument}: no such flag; {nearest(name, (*SWITCHES, *WITH_VALUE, '--info'))}"
            )
    _check(line)
    return line


def _check(line: CommandLine) -> None:
    modes = [name for name in MODES if name in line.flags]
    if len(modes) > 1:
        raise UserError(f"{modes[0]} and {modes[1]} do not go together")
    if "--resolve" in line.flags and "--cfg" not in line.flags:
        raise UserError("--resolve goes with --cfg only")
    for name, allowed in (("--cfg", ("job", "hydra", "all")), ("--info", TOPICS)):
        value = line.flags.get(name)
        if value is not None and value not in allowed:
            raise UserError(f"{name} {value}: {nearest(value, allowed)}")
    if line.config_dir is not None:
        checks.folder("--config-dir", line.config_dir)


@run_app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
    short_help="Train and store one run.",
)
def run(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OVERRIDE|FLAG]...", autocompletion=completion.overrides),
    ] = None,
) -> None:
    """Train repetitions of one method on one dataset and store the results (--help tells all)."""
    line = split(overrides or [])
    # Flags that say themselves what is wanted, and train nothing unless told to.
    sufficient = {*MODES[1:], "--help", "--hydra-help", "--version"}
    if not line.overrides and not sufficient.intersection(line.flags):
        from hpo_bench.settings.compose import DEFAULT

        tell(f"no arguments: running {' '.join(DEFAULT)}")
        line.overrides.extend(DEFAULT)
    if any(override.startswith("experiment=") for override in line.overrides):
        _experiments(line)
        return
    if line.on is not None:
        from hpo_bench.running.places import open_pool

        open_pool(line.on)  # a mistake in it is told once, before any job starts
    failures = call_hydra(line)
    if failures:
        raise _worst(failures)


def _experiments(line: CommandLine) -> None:
    """``run experiment=a,b scale=smoke …``: the same as ``reproduce a`` and ``reproduce b``."""
    from hpo_bench.cli.reproduce import reproduce

    other = [name for name in line.flags if name not in ("--force", "--multirun", "--config-dir")]
    if other:
        raise UserError(
            f"{other[0]}: does not go with experiment=…; see hpo-bench reproduce --help"
        )
    named_settings = {"experiment": "", "scale": "paper"}
    rest = []
    for override in line.overrides:
        key, _, value = override.partition("=")
        if key in named_settings:
            named_settings[key] = value
        else:
            rest.append(override)
    for name in named_settings["experiment"].split(","):
        reproduce(
            name, rest, scale=named_settings["scale"], force=line.force, config_dir=line.config_dir
        )


def call_hydra(line: CommandLine) -> list[Exception]:
    """Let Hydra compose the configuration and start the jobs in this or other processes.

    Returns:
        Failures of jobs in this process.

    Raises:
        UserError: what was asked for does not compose.
    """
    import logging

    import hydra

    from hpo_bench.settings.explain import EXPLAINED, check_names, explain
    from hpo_bench.settings.isolated import VERSION_BASE, hydra_to_ourselves
    from hpo_bench.settings.yamls import check_yamls, configs_folder

    check_yamls(line.config_dir)
    check_names(line.overrides)
    # What --info prints goes through logging, which complains about | head.
    logging.raiseExceptions = False
    failures: list[Exception] = []
    task = _task(line.force, line.on, failures)
    try:
        with hydra_to_ourselves(), _arguments(["hpo-bench run", *line.for_hydra]):
            hydra.main(
                config_path=str(configs_folder()), config_name="config", version_base=VERSION_BASE
            )(task)()
    except Failed as several:
        failures += several.failures
    except EXPLAINED as error:
        raise explain(error, line.config_dir, line.overrides) from None
    except OSError as error:
        # Of the folder that Hydra makes for a multirun; a full disk does not name it.
        what = "" if error.filename else "the configuration of this multirun (hydra.sweep.dir): "
        raise UserError(f"cannot write to {what}{of_the_system(error)}") from None
    except Exception as error:
        if type(error) is RuntimeError and "srun" in str(error):
            raise UserError(
                "hydra/launcher=submitit_slurm: there is no srun here, "
                "so this machine belongs to no Slurm cluster; "
                "hydra/launcher=submitit_local starts the jobs on this machine"
            ) from None
        if type(error).__module__.partition(".")[0] in LAUNCHERS:
            raise RunError(
                f"a job ended without a word, killed or for want of memory ({described(error)}); "
                "what was finished is kept, the same command goes on"
            ) from None
        raise
    return failures


def _task(force: bool, on: str | None, failures: list[Exception]) -> Callable[[DictConfig], None]:
    """Make the function that Hydra calls for each job.

    Failures are collected where that is possible, since Hydra adds a line of its own to what is
    raised. From another process an error comes back as text in a class of ours (`sendable`): one of
    a user's own class may not survive the way.
    """
    process = os.getpid()

    def task(cfg: DictConfig) -> None:
        try:
            with careful_streams(), signals.handled():  # of whatever process the job was sent to
                execute(cfg, force, on)
        except signals.Terminated:
            if os.getpid() != process:
                signals.leave()
            raise
        except (Exception, SystemExit) as error:
            if os.getpid() != process:
                raise sendable(error) from None
            failures.append(error if isinstance(error, Exception) else RunError(described(error)))

    return task


def execute(cfg: DictConfig, force: bool, on: str | None = None) -> None:
    """Check the configuration, run it where ``on`` says, and print the closing table."""
    from hpo_bench.cli.closing import print_closing
    from hpo_bench.progress import default_reporter
    from hpo_bench.running import execute as engine
    from hpo_bench.running.places import open_pool
    from hpo_bench.settings.parse import parse

    settings = parse(cfg, force=force)
    print_closing(engine.execute(settings, default_reporter(), open_pool(on)).run)


@contextmanager
def _arguments(arguments: list[str]) -> Iterator[None]:
    """Put arguments where Hydra reads them, and let it raise its errors instead of printing."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = arguments, "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


def _worst(failures: list[Exception]) -> Exception:
    """The failure that decides the exit code; the others are printed here."""
    from hpo_bench.cli import print_error

    ordered = sorted(failures, key=lambda error: isinstance(error, UserError))
    for error in reversed(ordered[1:]):
        print_error(error)
    return ordered[0]
