"""What a user should know although the work goes on: one line on standard error, each once in a
process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from hpo_bench.errors import StoreError
from hpo_bench.system.inherited import tell

T = TypeVar("T")
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


class FoundLate(BaseException):
    """A run turned out to be damaged when its tables were read, after it was chosen: choose again,
    without it.

    What is half made of the runs that were chosen first would lack it in places. No ``except
    Exception`` stops it."""


_left_out: ContextVar[LeftOut | None] = ContextVar("left_out", default=None)


@contextlib.contextmanager
def leaving_out() -> Iterator[LeftOut]:
    """Context: a damaged run is named and left out of what is made, where it would be an error
    otherwise.
    """
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


def leave_out_late(errors: Mapping[Path, StoreError]) -> None:
    """Leave runs out that had been chosen already.

    Args:
        errors: what is wrong with each, by its folder; nothing is done without one.

    Raises:
        FoundLate: to make everything again without them (`started_again`).
        StoreError: the first of ``errors``, where nothing may be left out, or one that was left out
            was chosen again.
    """
    known = [error for folder, error in errors.items() if is_left_out(folder)]
    if known:
        raise known[0]
    for folder, error in errors.items():
        leave_out(folder, error)
    if errors:
        raise FoundLate


def started_again(make: Callable[[], T]) -> T:
    """Call a function, and once more whenever it finds a damaged run after it had chosen its
    runs.
    """
    while True:
        with contextlib.suppress(FoundLate):
            return make()


@contextlib.contextmanager
def leaving_out_nothing() -> Iterator[None]:
    """Context: a damaged run is an error, as where runs are named."""
    token = _left_out.set(None)
    try:
        yield
    finally:
        _left_out.reset(token)


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
    """Print ``warning:

    TEXT``, unless this process has printed it before. Whatever becomes of it, nothing is raised.
    """
    if text in _told:
        return
    _told.add(text)
    say(f"warning: {text}")
