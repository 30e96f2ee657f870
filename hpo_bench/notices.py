"""What a user should know although the work goes on: one line on standard error, each once in a process."""

from __future__ import annotations

import contextlib
import sys

_told: set[str] = set()


def warn(text: str) -> None:
    """Print ``warning: TEXT``, unless this process has printed it before. Whatever becomes of it, nothing is raised."""
    if text in _told:
        return
    _told.add(text)
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # closed, or full: nobody is listening
            print(f"warning: {text}", file=sys.stderr, flush=True)
