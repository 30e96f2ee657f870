"""Shared by the tests of the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.make_store import make_run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A store of three runs on Energy, of three repetitions each."""
    for method in ("random", "baydin", "ours_wd_lr_m"):
        make_run(tmp_path / "results", method, "uci_energy", [0.5, 0.4, 0.3])
    return tmp_path / "results"
