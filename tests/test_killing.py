"""A kill, or an error of the disk, at every place at which a command touches it: the same command then goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIOS = ("run", "again", "search", "joined", "listed", "fetched", "reproduced")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a warm process")


def disturbed(*scenarios: str) -> list[str]:
    """Lines of `tests.killing`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", *scenarios], cwd=Path(__file__).parents[1], text=True,
        capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_or_disturbed_at_any_place_it_goes_on(scenario: str) -> None:
    *wrong, last = disturbed(scenario)
    assert wrong == []
    assert int(last.split()[1]) >= 3
