"""Shared by all tests: a cache of their own, the mirror, the reference traces, quick tests first.

CI names a file with ``HPO_BENCH_ALLOWED_SKIPS``: a test that is skipped for a reason that is not in
there fails it, so that what users install is tried there and not skipped."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


ALLOWED_SKIPS = os.environ.get("HPO_BENCH_ALLOWED_SKIPS")
skipped: dict[str, str] = {}  # tests that were skipped for a reason that is not allowed


def _note_skip(report: Any) -> None:
    """Keep a skip that CI does not allow."""
    if not ALLOWED_SKIPS or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    lines = (ROOT / ALLOWED_SKIPS).read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    reason = reason.removeprefix("Skipped: ")
    if not any(fnmatch(reason, pattern) for pattern in patterns):
        skipped[report.nodeid] = reason


pytest_runtest_logreport = pytest_collectreport = _note_skip


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a test was skipped that CI has to run."""
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name them."""
    if skipped:
        terminalreporter.section(f"skipped, and not allowed to be ({ALLOWED_SKIPS})")
        for test, reason in sorted(skipped.items()):
            terminalreporter.line(f"{test}: {reason}", red=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests last; those for a GPU are skipped where there is none."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    for item in items:
        if item.get_closest_marker("gpu") is not None and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data cache that the tests of one worker share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("HPO_BENCH_DATA", str(session_cache))


@pytest.fixture
def mirror() -> Path:
    """The folder with the public data files; skips where there is none."""
    folder = os.environ.get("HPO_BENCH_DATA_MIRROR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("HPO_BENCH_DATA_MIRROR is not set to a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder with all reference traces (`HPO_BENCH_GOLDEN`); skips where there is none."""
    folder = Path(os.environ.get("HPO_BENCH_GOLDEN") or ROOT.parent / "shared" / "golden")
    if not folder.is_dir():
        pytest.skip("HPO_BENCH_GOLDEN is not set to a folder")
    return folder
