"""What a user should know although the work goes on: one line on standard error, each once in a process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from hpo_bench.errors import StoreError
from hpo_bench.inherited import tell

_told: set[str] = set()


class LeftOut:
    """What a command leaves out of what it makes, because it cannot be read."""

    def __init__(self) -> None:
        self.folders: set[Path] = set()

    def add(self, folder: Path, error: StoreError) -> None:
        """Name a run's folder, once."""
        if folder not in self.folders:
            self.folders.add(folder)
            say(f"left out: {error}")


_left_out: ContextVar[LeftOut | None] = ContextVar("left_out", default=None)


@contextlib.contextmanager
def leaving_out() -> Iterator[LeftOut]:
    """Context: a damaged run is named and left out of what is made, where it would be an error otherwise."""
    found = LeftOut()
    token = _left_out.set(found)
    try:
        yield found
    finally:
        _left_out.reset(token)


def leave_out(folder: Path, error: StoreError) -> None:
    """Leave a run out.

    Raises:
        StoreError: ``error``, where nothing may be left out.
    """
    found = _left_out.get()
    if found is None:
        raise error
    found.add(folder, error)


def is_left_out(folder: Path) -> bool:
    """Whether a run was found to be damaged before."""
    found = _left_out.get()
    return found is not None and folder in found.folders


def may_leave_out() -> bool:
    """Whether runs may be left out, so that they are looked at before they are used."""
    return _left_out.get() is not None


def say(text: str) -> None:
    """Print a line on standard error. Whatever becomes of it, nothing is raised."""
    tell(text)


def warn(text: str) -> None:
    """Print ``warning: TEXT``, unless this process has printed it before. Whatever becomes of it, nothing is raised."""
    if text in _told:
        return
    _told.add(text)
    say(f"warning: {text}")
