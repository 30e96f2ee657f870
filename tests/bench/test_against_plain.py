"""Methods in units of plain training: what is measured, and how it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hpo_bench.bench.against_plain import METHODS, PAIRS, MethodTimes, method_times, page
from hpo_bench.cli.bench import app
from hpo_bench.errors import UserError
from tests.problems import make_settings


def test_every_method_is_trained_in_every_round(tmp_path: Path) -> None:
    settings = {name: make_settings(tmp_path, name) for name in METHODS}
    found = method_times(settings, updates=20, rounds=2)
    assert set(found.rows) == set(METHODS)
    assert all(len(times) == 2 and min(times) > 0 for times in found.times.values())
    assert not list(tmp_path.iterdir()), "nothing is stored"


def test_the_page_tells_medians_and_ratios_of_rounds() -> None:
    times = dict.fromkeys(METHODS, (4.0, 10.0, 12.0))
    times["random"] = (2.0, 2.0, 4.0)
    found = MethodTimes("some_set", dict.fromkeys(METHODS, 50), times)
    np.testing.assert_array_equal(found.ratios("ours_discounted", "random"), [2, 5, 3])
    text = page([found], {"cpu": "a processor", "threads": 1})
    row = "| some_set | ours_discounted | 50 | 10.0 | random | 50 | 2.0 | **3.00** (2.00 to 5.00) |"
    assert row in text
    assert "a processor" in text
    assert text.count("| some_set |") == len(PAIRS)


def test_another_way_to_measure_is_refused() -> None:
    answer = CliRunner().invoke(app, ["--against", "numpy"])
    assert isinstance(answer.exception, UserError)
    assert str(answer.exception) == "--against numpy: must be sequential, plain or jax"


@pytest.mark.parametrize(("method", "plain"), PAIRS)
def test_the_methods_are_there(method: str, plain: str) -> None:
    folder = Path(__file__).parents[2] / "configs" / "method"
    for name in (method, plain):
        assert (folder / f"{name}.yaml").exists()
