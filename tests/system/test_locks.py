"""Locks: one holder at a time, gone with it; where there are none the work goes on, and that is
said.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hpo_bench.cli import doctor
from hpo_bench.store import files
from hpo_bench.system import locks, notices

HOLD = """
import sys, time
from pathlib import Path
from hpo_bench.system import locks
lock = locks.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds ``tmp_path / ".lock"``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_another_holder_is_named_and_waited_for_until_it_dies(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TELL_EVERY", 0.1)
    with pytest.raises(locks.Busy, match=f"process {holder.pid} on "):
        locks.take(tmp_path / ".lock")
    said: list[str] = []

    def waiting(who: str) -> None:
        said.append(who)
        if len(said) == 2:
            os.kill(holder.pid, signal.SIGKILL)

    with locks.take(tmp_path / ".lock", waiting) as lock:
        assert lock.waited
    assert len(said) >= 2
    assert str(holder.pid) in said[0]
    assert list(tmp_path.iterdir()) == []


def test_a_thread_does_not_wait_for_itself_but_for_another(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    held = locks.take(path)
    with pytest.raises(locks.Busy):
        locks.take(path, lambda who: None)
    threading.Timer(0.3, held.release).start()
    found: list[bool] = []
    thread = threading.Thread(
        target=lambda: found.append(locks.take(path, lambda who: None).waited)
    )
    thread.start()
    thread.join()
    assert found == [True]


@pytest.mark.parametrize("reason", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, None])
def test_without_locks_everything_is_written_and_it_is_said_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: int | None,
) -> None:
    def refuse(*_: object) -> None:
        assert reason is not None
        raise OSError(reason, os.strerror(reason))

    if reason is None:
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr(locks.fcntl, "flock", refuse)
    monkeypatch.setattr(notices, "_lines", set())
    for _ in range(2):
        with locks.take(tmp_path / ".lock") as lock:
            assert not lock.exclusive
            files.write_json(tmp_path / "file.json", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
    said = capsys.readouterr().err
    assert said.count("files cannot be locked here") == 1
    check = doctor._writable("results", tmp_path, "")
    assert check.good is None
    assert "cannot be locked" in check.found


def test_the_package_works_without_fcntl(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import hpo_bench.store.index, hpo_bench.store.runs, hpo_bench.datasets.sources\n"
        "from pathlib import Path; from hpo_bench.store.writer import Writer\n"
        "with Writer(Path(sys.argv[1]), 'run') as writer: assert writer.complete() is None"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "this system has no fcntl" in done.stderr


def test_what_a_killed_process_left_is_taken_up(tmp_path: Path) -> None:
    """Its temporary file is the next one's, and its lock is nobody's."""
    (tmp_path / ".file.json.tmp").write_text(
        "half of what was to be written, and longer than what will be"
    )
    files.write_json(tmp_path / "file.json", {})
    assert (tmp_path / "file.json").read_text() == "{}\n"
    (tmp_path / ".lock").write_text("process 1 on another")
    locks.clear(tmp_path / ".lock")
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_two_may_write_one_file_at_once(tmp_path: Path) -> None:
    with files.atomic(tmp_path / "file") as first, files.atomic(tmp_path / "file") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "first"


def test_waiting_costs_no_processor(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    threading.Timer(0.5, holder.kill).start()
    begin = time.process_time()
    locks.take(tmp_path / ".lock", lambda who: None).release()
    assert time.process_time() - begin < 0.3
