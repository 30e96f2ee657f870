"""How failures count in a median, and what an artefact says about its statistics."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_array_equal

from hpo_bench.analysis.statistics.interval import label, survival_median


def test_survival_median_counts_failures_as_infinite():
    assert survival_median([3.0, 1.0, np.nan]) == 3.0
    assert survival_median([1.0, np.nan]) == np.inf
    assert np.isnan(survival_median([]))
    assert_array_equal(survival_median([[1.0, np.nan], [2.0, 5.0], [3.0, np.inf]]), [2.0, np.inf])


def test_label_names_mode_counts_interval_and_seed():
    text = label("paper", 180, 200, 7, "95 % percentile")
    for part in ("paper", "diverged runs dropped", "180/200", "95 % percentile", "seed 7", "1000"):
        assert part in text
    assert "seed" not in label("default", 1, 1, seed=None)
