"""Where a command touches the disk: every place recorded, then killed or made to fail, in forks of
a warm process.

`sys.addaudithook` sees what Python opens, renames, removes and makes; `os.fsync` has no event and
is wrapped. pyarrow
and numpy write to files that Python has opened, or that are renamed by Python: no result appears
without one of these."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

UNCHANGED = " -"  # ends the name of a place that leaves the disk as it is
EVENTS = (
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "shutil.rmtree",
    "fcntl.flock",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Act = Callable[[int, str], None]
_root: Path | None = None
_act: Act | None = None
_count = 0
_guard = threading.Lock()
_own = threading.local()


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _act is not None and event in EVENTS and not getattr(_own, "busy", False):
        _seen(event, arguments)


def _seen(event: str, arguments: tuple[object, ...]) -> None:
    """Count a place below the root, and act on it."""
    global _count
    name = arguments[0] if event not in ("fcntl.flock", "fsync") else _root
    if not isinstance(name, str | os.PathLike) or not str(name).startswith(str(_root)):
        return
    if event == "open" and not int(arguments[2]) & WRITING:  # type: ignore[call-overload]
        return
    with _guard:
        _count += 1
        number = _count
    _own.busy = True  # what it does itself is no place
    try:
        assert _act is not None
        _act(number, _named(event, Path(str(name))))
    finally:
        _own.busy = False


def _named(event: str, path: Path) -> str:
    """A place by its event and its path below the root; locks and fsync have none, they are of the
    file before.
    """
    if event in ("fcntl.flock", "fsync"):
        return f"{event}{UNCHANGED}"
    made = event == "os.mkdir" and path.exists()
    gone = event in ("os.remove", "os.rmdir", "shutil.rmtree") and not path.exists()
    return (
        f"{event} {path.relative_to(_root) if _root else path}{UNCHANGED if made or gone else ''}"
    )


_fsync = os.fsync


def _watched_fsync(descriptor: int) -> None:
    if _act is not None:
        _seen("fsync", ())
    _fsync(descriptor)


sys.addaudithook(_hook)


def _in_a_fork(root: Path, command: Callable[[], None], act: Act, report: Path) -> int:
    """Run a command in a fork that acts on every place below ``root``; the wait status."""
    global _root, _act, _count
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 70
    try:
        with open(report, "w", encoding="utf-8") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout = sys.stderr = said
            os.fsync, _root, _act, _count = _watched_fsync, root, act, 0
            try:
                command()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                _act = None
    finally:
        os._exit(code)


def recorded(root: Path, command: Callable[[], None], report: Path) -> list[str]:
    """The places that an undisturbed command comes to, in order; those that change nothing end in
    `UNCHANGED`.
    """
    log = report.with_suffix(".places")

    def write(number: int, place: str) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{place}\n")

    log.unlink(missing_ok=True)
    status = _in_a_fork(root, command, write, report)
    assert status == 0, report.read_text()
    return log.read_text().splitlines()


def killed(root: Path, command: Callable[[], None], at: int, report: Path) -> bool:
    """Run the command and kill it just before its ``at``-th place; whether it came there."""

    def kill(number: int, place: str) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return os.WIFSIGNALED(_in_a_fork(root, command, kill, report))


def failing(root: Path, command: Callable[[], None], at: int, error: int, report: Path) -> int:
    """Run the command; from its ``at``-th place on every one that writes fails like the first.

    The exit code.
    """

    def fail(number: int, place: str) -> None:
        if number == at:
            raise OSError(error, os.strerror(error))

    return os.waitstatus_to_exitcode(_in_a_fork(root, command, fail, report))


def undisturbed(root: Path, command: Callable[[], None], report: Path) -> int:
    """Run the command to its end. The exit code."""
    return os.waitstatus_to_exitcode(_in_a_fork(root, command, lambda number, place: None, report))


def files(root: Path) -> set[str]:
    """All files and folders below a folder, by their paths."""
    found = set()
    with suppress(FileNotFoundError):
        found = {str(path.relative_to(root)) for path in root.rglob("*")}
    return found
