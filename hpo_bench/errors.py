"""Errors that a user can act on: each is printed as one line, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what was asked for or in a file that was given. The CLI prints it and exits with code 2."""


class RunError(RuntimeError):
    """A run that had begun and could not finish. The CLI prints it and exits with code 1."""


class StoreError(UserError):
    """A stored result that cannot be read: truncated, edited by hand, or from another version."""


def nearest(name: str, allowed: Iterable[str], count: int = 3) -> str:
    """Say what is allowed instead of ``name``: `` (nearest: a, b; allowed: …)``, nearest first."""
    options = sorted(str(option) for option in allowed)
    spelt = {option.casefold(): option for option in reversed(options)}  # capitals are the least of differences
    close = [spelt[found] for found in difflib.get_close_matches(str(name).casefold(), spelt, n=count, cutoff=0.5)]
    if close:
        return f"did you mean {' or '.join(close)}? Allowed: {', '.join(options)}"
    return f"allowed: {', '.join(options)}"
