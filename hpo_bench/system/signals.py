"""Handling SIGTERM, which batch systems send some time before they kill, as Ctrl-C is handled."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

PATIENCE = 4.0  # seconds for workers: batch systems kill after 30 or less
EXIT_CODE = 128 + int(signal.SIGTERM)  # as a shell says that a signal ended a process


class Terminated(KeyboardInterrupt):
    """SIGTERM asked the process to end.

    Blocks in training write a checkpoint on its way up.
    """


def leave() -> NoReturn:
    """End the process now, with what was registered for its end done and its streams flushed."""
    # Taking the interpreter apart may take longer than a batch system waits.
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(EXIT_CODE)


def _ask_workers() -> None:
    """Ask the processes that compute for this one (joblib's) to end too, and wait a moment.

    They write their checkpoints meanwhile.
    """
    if "multiprocessing" not in sys.modules:  # nobody has started any
        return
    workers = sys.modules["multiprocessing"].active_children()
    for worker in workers:
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.kill(worker.pid, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and any(worker.is_alive() for worker in workers):
        time.sleep(0.02)


class _State:
    """What the handler knows of the signal.

    Attributes:
        sections: how many there are now that must not be interrupted.
        come: whether the signal has come.
        raised: whether `Terminated` has been raised.
    """

    def __init__(self) -> None:
        self.sections = 0
        self.come = False
        self.raised = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal: raise once, and not in the middle of a section."""
        # Checkpoints take their time afterwards, and are not to be interrupted by a second signal.
        if not self.come:
            # First of all: a pool kills its workers where what waits for them is interrupted.
            _ask_workers()
        self.come = True
        self.raise_if_due()

    def raise_if_due(self) -> None:
        """Raise `Terminated` if the signal has come and nothing was raised yet."""
        if self.come and not self.raised and not self.sections:
            self.raised = True
            raise Terminated


_state = _State()


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in the main thread while the context lasts.

    Nothing is changed in other threads, nor where somebody else handles the signal already
    (submitit, Ray's workers).
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    ):
        yield
        return
    _state.come = _state.raised = False
    signal.signal(signal.SIGTERM, _state.ask)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) == _state.ask:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Finish what is being written in the context before `Terminated` is raised."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.sections += 1
    try:
        yield
    finally:
        _state.sections -= 1
    _state.raise_if_due()
