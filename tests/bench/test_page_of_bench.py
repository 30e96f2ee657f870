"""The page of ``hpo-bench bench``, and what stands on it beside the comparison."""

import pytest

from hpo_bench.bench.compare import SpeedComparison
from hpo_bench.bench.cores import Cores, several_cores
from hpo_bench.bench.machine import Ceilings
from hpo_bench.bench.memory_use import MIB, MemoryUse, memory_use
from hpo_bench.bench.page import page
from tests.problems import make_settings


def test_the_page_says_ratios_with_their_spread():
    random = SpeedComparison("d", "random", 8, (0.1, 0.2, 0.1), (0.7, 1.0, 0.9), 1e6)
    ours = SpeedComparison("d", "ours", 8, (0.2, 0.2, 0.2), (0.8, 1.2, 1.0), 2e6)
    text = page(
        [random, ours],
        [random],
        Ceilings(1e11, 2e10),
        300 * MIB,
        {"torch": "2", "threads": 1},
        {"d": 100},
        [Cores("ours on d", 2, (1.8, 1.9))],
        [MemoryUse("dataset=d", 4, 90 * MIB, 100 * MIB)],
    )
    assert "| d | random | 100 | 8 | 0.100 | 0.900 | **7.0** (5.0 to 9.0) | 10.0 |" in text
    assert "One pass on d, engine, in units of random: ours 2.00 ×." in text
    assert "ours on d **1.9** (1.8 to 1.9) × with 2 workers" in text
    assert "| dataset=d | 4 | 90 | 100 | 0.90 |" in text
    assert "100 GFLOP/s" in text


def test_several_workers_are_timed_against_one(tmp_path):
    found = several_cores(make_settings(tmp_path), updates=20, rounds=2)
    assert len(found.ratios) == 2
    assert all(ratio > 0 for ratio in found.ratios)
    assert found.name == "ours_wd_lr_m on random_regression"


@pytest.mark.slow
def test_memory_is_foretold():
    """Within a factor of 2 here, whatever allocator and compiler there are;

    `hpo-bench bench` shows how near it is.
    """
    use = memory_use(["dataset=diabetes", "hyperparameter_updates=40"], 1000)
    assert use.measured > 20 * MIB
    assert 0.5 < use.ratio < 2
