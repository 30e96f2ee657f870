"""Composing: which of several places wins, and the values of an override."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo_bench.errors import UserError
from hpo_bench.settings.compose import compose, values_of
from hpo_bench.settings.parse import parse
from hpo_bench.settings.yamls import configs_folder
from tests.composing import resolved


def test_command_line_over_pair_over_method_over_dataset_over_base(layers: Path) -> None:
    both = ("method=mine", "dataset=mine")
    config = resolved(*both, "update_interval=5", config_dir=layers)
    keys = ("update_interval", "look_back", "hyperparameter_updates", "seed", "repetitions")
    assert [config[key] for key in keys] == [5, 4, 3, 2, 1]
    assert resolved("method=mine", config_dir=layers)["look_back"] == 3
    assert resolved("dataset=mine", config_dir=layers)["look_back"] == 2
    assert resolved(*reversed(both), config_dir=layers) == resolved(*both, config_dir=layers)


def test_a_dataset_can_choose_its_model_and_the_command_line_another(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "model").mkdir()
    own = (configs_folder() / "dataset" / "diabetes.yaml").read_text(encoding="utf-8")
    (tmp_path / "dataset" / "wide.yaml").write_text(
        own + "defaults: [override /model: wide]\n", encoding="utf-8"
    )
    (tmp_path / "model" / "wide.yaml").write_text(
        "# @package _global_\nmodel: {_target_: a.b, width: 9}\n"
    )
    assert resolved("dataset=wide", config_dir=tmp_path)["model"] == {"_target_": "a.b", "width": 9}
    assert (
        resolved("dataset=wide", "model=mlp", config_dir=tmp_path)["model"] == resolved()["model"]
    )


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("a=5e-1", [0.5]),
        ("a=1,2", [1, 2]),
        ("a=range(1,4)", [1, 2, 3]),
        ("a=.5", [0.5]),
        ("a=+1", [1]),
        ("a=1_000", [1000]),
        ("a='x',y", ["x", "y"]),
        ("a=[1,'b']", [[1, "b"]]),
        ("a=null", [None]),
        ("a=1e3", [1000.0]),
        ("a={b: 'c'}", [{"b": "c"}]),
    ],
)
def test_values_are_read_alike_by_every_command(override: str, values: list[Any]) -> None:
    assert values_of(override) == values
    assert [type(value) for value in values_of(override)] == [type(value) for value in values]


@pytest.mark.parametrize("override", ["a", "a=x(", "a=interval(0,1)"])
def test_values_that_cannot_be_listed_are_one_line(override: str) -> None:
    with pytest.raises(UserError) as caught:
        values_of(override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["cfg-ü", "a,b", "p (1)", "e=q", "it's", 'q"x', "[a]", "{a}", "a: b", "back\\"]
)
def test_any_folder_of_yamls_is_searched(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "method" / "mine.yaml"
    file.parent.mkdir(parents=True)
    text = (configs_folder() / "method" / "random.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("name: random", "name: mine"), encoding="utf-8")
    assert parse(compose(["method=mine"], tmp_path / name)).method.name == "mine"
