"""Keywords become overrides that Hydra reads as the very values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hpo_bench.api import overrides
from hpo_bench.errors import UserError
from hpo_bench.settings.compose import compose, values_of

VALUES = [
    None,
    True,
    0,
    -3,
    0.1,
    1e-9,
    "plain",
    "two words",
    "a,b",
    'it\'s "both"',
    "null",
    "3",
    "${x}",
    "x=y",
    "",
    "back\\slash\\",
    "ünï",
    [],
    [1, 2.5, None],
    ["lr", "a b"],
    [[1, 2], ["x"]],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_read_as_what_they_are(value: object) -> None:
    (word,) = overrides.written({"key": value})
    (read,) = values_of(word)
    assert read == value or (value == "${x}" and read == r"\${x}")
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Path("a b") / "c.csv", "a b/c.csv"),
        ((1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        ({"b", "a"}, ["a", "b"]),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([1, 2]), [1, 2]),
        (torch.tensor(2.0), 2.0),
        ((n for n in (1, 2)), [1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pythons_values_become_plain_ones(value: object, plain: object) -> None:
    found = overrides.plain("key", value)
    assert found == plain
    assert type(found) is type(plain)


def test_sections_are_mappings_or_dotted_keys() -> None:
    assert overrides.written({"hyper": {"lr": 0.1, "betas": (0.9, 0.99)}}) == [
        "hyper.lr=0.1",
        "hyper.betas=[0.9,0.99]",
    ]
    assert overrides.written({"hyper.lr": 0.1}) == ["hyper.lr=0.1"]
    cfg = compose(overrides.written({"hyper": {"lr": 0.1}, "init": {"momentum": [0, 0.5]}}))
    assert cfg.hyper.lr == 0.1
    assert list(cfg.init.momentum) == [0, 0.5]


def test_a_home_folder_is_known_by_its_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert overrides.plain("results_dir", "~/r") == "/home/me/r"
    assert overrides.plain("results_dir", Path("~/r")) == "/home/me/r"
    assert overrides.plain("dataset.target", "a~b") == "a~b"


@pytest.mark.parametrize("value", [object(), b"bytes", [1, object()], {"_target_": object()}])
def test_what_no_yaml_could_hold_is_refused_with_its_key(value: object) -> None:
    with pytest.raises(UserError, match=r"^key"):
        overrides.written({"key": value})


@pytest.mark.parametrize(("word", "told"), [("--force", "force=True"), (3, "must be text")])
def test_what_is_no_override_is_refused(word: object, told: str) -> None:
    with pytest.raises(UserError, match=told):
        overrides.check([word])
