"""Conditions of ``--where``, and the check that searches share."""

from __future__ import annotations

from typing import Any

import pytest

from hpo_bench.errors import UserError
from hpo_bench.settings.conditions import check_whole, condition

VALUES = {
    "update_interval=10": 10,
    "gradient_clip_norm=null": None,
    "init.momentum=[0, 1]": [0, 1],
    "validation_share=.5": 0.5,
    "tuned=[lr,momentum]": ["lr", "momentum"],
    "dataset.path=a=b": "a=b",
    "dataset.label=Own table": "Own table",
    "seed=1,2": "1,2",
    "dataset.name=": "",
}


@pytest.mark.parametrize("text", VALUES)
def test_a_value_is_what_a_run_s_configuration_holds(text: str) -> None:
    expected: Any = VALUES[text]
    assert condition(text) == (text.partition("=")[0], expected)


@pytest.mark.parametrize("text", ["seed", "=1", ""])
def test_a_condition_without_key_or_value_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="must be KEY=VALUE"):
        condition(text)


def test_an_argument_of_a_search_is_named_by_its_key() -> None:
    check_whole({"trials": 3, "grace": 1})
    with pytest.raises(UserError, match=r"^method\.search\.reduction=1: .*2"):
        check_whole({"trials": 3, "reduction": 1}, 2)
