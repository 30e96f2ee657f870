"""scripts/replicate_store.py makes a store that loads, of the size asked for, with the numbers of
the source.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hpo_bench.analysis import frames, selection
from tests.make_store import make_run

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "scripts" / "replicate_store.py"))


@pytest.mark.parametrize(("per_run", "folders"), [(7, 2), (3, 6), (1, 14)])
def test_replicated_store(tmp_path, per_run, folders):
    make_run(tmp_path / "small", "random", "uci_energy", [1.0, np.nan, 3.0], first_seed=5)
    lines = list(
        SCRIPT["replicate"](
            tmp_path / "small", tmp_path / "large", 7, per_run, ["uci_energy", "uci_wine"]
        )
    )
    assert len(lines) == 2
    runs = selection.find(tmp_path / "large")
    assert len(runs) == folders
    frame = frames.finals(runs)
    for _, group in frame.groupby("dataset"):
        assert_array_equal(group["seed"].sort_values(), range(7))
        values = frames.failure_aware(group.sort_values("seed"))
        assert_array_equal(values, [1, np.inf, 3, 1, np.inf, 3, 1])
    assert frame["dataset"].nunique() == frame["configuration"].nunique() == 2
    assert len(frames.curves(runs, ["test_metric"])) == 2 * (5 * 5 + 2 * 1)
    assert len(list(SCRIPT["measure"](tmp_path / "large"))) == 6
