"""Errors that a user can act on: each is printed as one line, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from hpo_bench.system.quoting import in_one_line


class UserError(ValueError):
    """A mistake in what was asked for or in a file that was given.

    The CLI prints it and exits with code 2.
    """


class RunError(RuntimeError):
    """A run that had begun and could not finish. The CLI prints it and exits with code 1."""


class Failed(RunError):
    """Several jobs failed, each in its own way.

    Args:
        failures: what each of them raised.
    """

    def __init__(self, failures: Sequence[Exception]) -> None:
        super().__init__("; ".join(map(str, failures)))
        self.failures = list(failures)


class StoreError(UserError):
    """A stored result that cannot be read: truncated, edited by hand, or from another version."""


def described(error: BaseException) -> str:
    """Say in one line what went wrong: the error's message, after the name of its class unless the
    message is enough.

    Errors that cross a process boundary travel as this text. A user's own class may not survive
    being pickled, or may not be known on the other side."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # a class whose __str__ fails is still an error to tell of
        lines = []
    text, name = in_one_line(lines[0].strip()) if lines else "", type(error).__name__
    if not text:
        return name
    enough = isinstance(error, UserError | RunError) or type(error) is RuntimeError
    return text if enough else f"{name}: {text}"


def of_the_system(error: OSError) -> str:
    """Say in one line what the operating system refused: the files concerned, and why, as far as
    the error knows.
    """
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([*([" -> ".join(files)] if files else []), error.strerror or described(error)])


def sendable(error: BaseException) -> UserError | RunError:
    """The error as one of the two classes that every process knows, for what is sent to another
    process.
    """
    return (
        UserError(described(error)) if isinstance(error, UserError) else RunError(described(error))
    )


def nearest(name: str, allowed: Iterable[str], count: int = 3) -> str:
    """Say what is allowed instead of ``name``: `` (nearest: a, b; allowed: …)``, nearest first."""
    options = sorted(str(option) for option in allowed)
    spelt = {
        option.casefold(): option for option in reversed(options)
    }  # capitals are the least of differences
    close = [
        spelt[found]
        for found in difflib.get_close_matches(str(name).casefold(), spelt, n=count, cutoff=0.5)
    ]
    if close:
        return f"did you mean {' or '.join(close)}? Allowed: {', '.join(options)}"
    return f"allowed: {', '.join(options)}"


class Stopped(Exception):
    """Another block failed, or the user pressed Ctrl-C."""
