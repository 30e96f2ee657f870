"""A kill, or an error of the disk, at every place at which a command touches it: the same command
then goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SEARCHES = ("halving", "population", "bayesian")
SCENARIOS = ("run", "again", "held", *SEARCHES, "joined", "listed", "fetched", "reproduced")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a warm process")


def disturbed(*scenarios: str) -> list[str]:
    """Lines of `tests.killing`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", *scenarios],
        cwd=Path(__file__).parents[1],
        text=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_or_disturbed_at_any_place_it_goes_on(scenario: str) -> None:
    if scenario == "bayesian":
        pytest.importorskip("optuna")
    *wrong, last = disturbed(scenario)
    assert wrong == []
    assert int(last.split()[1]) >= 3


def test_which_places_are_tried() -> None:
    from tests.killing import ERRORS, disturbances

    found = [
        "os.mkdir runs/a-0123456789ab",
        "fsync -",
        "open runs/b/.x.tmp",
        "fcntl.flock -",
        "os.mkdir runs/a -",
    ]
    every = list(disturbances(found * 2, True))
    assert len(every) == 10 * (1 + len(ERRORS))
    chosen = list(disturbances(found * 2, False))
    assert [at for at, error in chosen if error is None] == [
        1,
        2,
        4,
        7,
        9,
    ]  # each state of the disk once
    assert [at for at, error in chosen if error is not None] == [1, 2, 3, 4, 5]  # each kind once
