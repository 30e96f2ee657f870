"""Locks on files, each held by one process at a time.

A lock is gone with its process, so that a killed one leaves none behind. Not every system has locks
(`fcntl` is missing on Windows), and not every file system (some Lustre and NFS mounts). The work
then goes on without, after a warning: what is written is atomic with or without a lock, so that two
processes at most do the same work twice.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import IO

from hpo_bench.system import notices

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

PATIENCE = 0.2  # seconds between looks at a lock that another process holds
TELL_EVERY = 5.0  # seconds between lines about it

_of_thread = threading.local()


class Busy(Exception):
    """Another process holds the lock; the text says which one, as far as is known."""


class Lock:
    """A lock that is held, or that stands for one where there are no locks.

    It is a context, or is given back by `release`.

    Args:
        path: of its file, which is removed with it.
        exclusive: whether it keeps others out.
        waited: whether another process held it before.
    """

    def __init__(self, path: Path, file: IO[str], exclusive: bool, waited: bool = False) -> None:
        self.path, self.exclusive, self.waited = path, exclusive, waited
        self._file = file
        self._key, self._threads = path.absolute(), _locked_files()
        self._threads.add(self._key)

    def release(self) -> None:
        """Remove the file and let go."""
        # In this order: otherwise another could lock the file just before it is removed.
        self._threads.discard(self._key)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.release()


def take(path: Path, waiting: Callable[[str], None] | None = None) -> Lock:
    """Take the lock whose file is ``path``.

    A thread that holds it already would wait for itself.

    Args:
        waiting: where another process holds it, wait until that lets go or ends, and tell this
            function about it every `TELL_EVERY` seconds.

    Raises:
        Busy: another process holds it and ``waiting`` is not given, or this very thread holds it.
        OSError: the file cannot be made.
    """
    last_line = -TELL_EVERY
    waited = False
    while True:
        try:
            lock = _attempt(path)
        except Busy as busy:
            if waiting is None or path.absolute() in _locked_files():
                raise
            waited = True
            if time.monotonic() - last_line >= TELL_EVERY:
                last_line = time.monotonic()
                waiting(str(busy))
            time.sleep(PATIENCE)
            continue
        except FileNotFoundError:
            if not waited:
                raise
            # The other process left nothing, not even the folder.
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        if lock is not None:
            lock.waited = waited
            return lock


def clear(path: Path) -> None:
    """Remove the file of a lock that a killed process left, if there is one and nobody holds it."""
    if path.exists():
        with contextlib.suppress(Busy, OSError):
            take(path).release()


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file without waiting.

    Returns:
        Whether it is ours; None where there are no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def unsupported(folder: Path) -> str | None:
    """Say why files in an existing ``folder`` cannot be locked; None if they can.

    Raises:
        OSError: nothing can be written there.
    """
    import tempfile

    if fcntl is None:
        return "this system has no fcntl"
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.strerror or str(error)
    return None


def _attempt(path: Path) -> Lock | None:
    """Take the lock once; None if its file was removed between opening and locking."""
    file = path.open("a+", encoding="utf-8")
    try:
        exclusive = _exclusive(path, file)
        if exclusive and not _is_still(path, file):
            file.close()
            return None
        with contextlib.suppress(OSError):  # a full disk: nobody will learn who holds it
            file.truncate(0)
            file.write(_holder())
            file.flush()
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        raise
    return Lock(path, file, exclusive)


def _locked_files() -> set[Path]:
    """The files of the locks that this thread holds."""
    if not hasattr(_of_thread, "files"):
        _of_thread.files = set()
    files: set[Path] = _of_thread.files
    return files


def _holder() -> str:
    """What the file of a lock says about this process."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _exclusive(path: Path, file: IO[str]) -> bool:
    """Lock the open file; False where that is impossible."""
    if fcntl is None:
        _warn("this system has no fcntl")
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise Busy(file.read(200).strip() or "another process") from None
    except OSError as error:
        _warn(error.strerror or str(error))
        return False
    return True


def _warn(reason: str) -> None:
    """Warn once a process for each reason."""
    # The text names no folder: a store has thousands, and each would be warned of.
    notices.warn(
        f"files cannot be locked here ({reason}); "
        "going on without: do not start the same command twice at once"
    )


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
