"""What a user should know although the work goes on: lines on standard error, each said once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from hpo_bench.errors import StoreError
from hpo_bench.system.inherited import tell

T = TypeVar("T")
_lines: set[str] = set()  # warnings of this process


class LeftOut:
    """The runs that a command leaves out of what it makes, because they cannot be read."""

    def __init__(self) -> None:
        self.folders: set[Path] = set()

    def add(self, folder: Path, error: StoreError) -> None:
        """Leave a run out, and say so once."""
        if folder not in self.folders:
            self.folders.add(folder)
            say(f"left out: {error}")


class FoundLate(BaseException):
    """A run that was chosen proved damaged when its tables were read: choose again, without it.

    What is half made of the runs that were chosen first would lack it in places. No ``except
    Exception`` stops it.
    """


_left_out: ContextVar[LeftOut | None] = ContextVar("left_out", default=None)


@contextlib.contextmanager
def leaving_out() -> Iterator[LeftOut]:
    """Name damaged runs and leave them out of what is made; they would be errors otherwise."""
    runs = LeftOut()
    token = _left_out.set(runs)
    try:
        yield runs
    finally:
        _left_out.reset(token)


def leave_out(folder: Path, error: StoreError) -> None:
    """Leave a damaged run out of what is made.

    Raises:
        StoreError: ``error``, where nothing may be left out.
    """
    runs = _left_out.get()
    if runs is None:
        raise error
    runs.add(folder, error)


def leave_out_late(errors: Mapping[Path, StoreError]) -> None:
    """Leave runs out that had been chosen already.

    Args:
        errors: what is wrong with each, by its folder; nothing is done without one.

    Raises:
        FoundLate: to make everything again without them (`started_again`).
        StoreError: the first of ``errors``, where nothing may be left out, or one that was left out
            was chosen again.
    """
    again = [error for folder, error in errors.items() if is_left_out(folder)]
    if again:
        raise again[0]
    for folder, error in errors.items():
        leave_out(folder, error)
    if errors:
        raise FoundLate


def started_again(make: Callable[[], T]) -> T:
    """Call a function, and call it again whenever a run that it had chosen proves damaged."""
    while True:
        with contextlib.suppress(FoundLate):
            return make()


@contextlib.contextmanager
def leaving_out_nothing() -> Iterator[None]:
    """Make a damaged run an error again, as it is where runs are named."""
    token = _left_out.set(None)
    try:
        yield
    finally:
        _left_out.reset(token)


def is_left_out(folder: Path) -> bool:
    """Whether a run was left out before."""
    runs = _left_out.get()
    return runs is not None and folder in runs.folders


def may_leave_out() -> bool:
    """Whether runs may be left out, so that they are looked at before they are used."""
    return _left_out.get() is not None


def say(text: str) -> None:
    """Print a line on standard error; whatever becomes of it, nothing is raised."""
    tell(text)


def warn(text: str) -> None:
    """Print ``warning: TEXT`` on standard error, unless this process has printed it before.

    Whatever becomes of it, nothing is raised.
    """
    if text in _lines:
        return
    _lines.add(text)
    say(f"warning: {text}")
