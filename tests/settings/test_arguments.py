"""No argument of a component takes a value of another type: each class that a yaml of the package
names.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from hpo_bench.errors import UserError
from hpo_bench.running.trainer import Trainer, pick_device
from hpo_bench.settings import arguments
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.yamls import configs_folder


def targets(content: Any) -> Iterator[str]:
    """Every ``_target_`` of a yaml."""
    if isinstance(content, dict):
        if "_target_" in content:
            yield content["_target_"]
        for value in content.values():
            yield from targets(value)
    if isinstance(content, list):
        for value in content:
            yield from targets(value)


def named() -> list[str]:
    """By all yamls of the package."""
    files = configs_folder().rglob("*.yaml")
    return sorted(
        {
            name
            for file in files
            for name in targets(yaml.safe_load(file.read_text(encoding="utf-8")))
        }
    )


def cases() -> Iterator[tuple[str, str, Any]]:
    """Class, argument, and a value that it cannot be."""
    for target in named():
        module, _, name = target.rpartition(".")
        found = getattr(import_module(module), name)
        assert is_dataclass(found), target
        hints = typing.get_type_hints(found)
        for field in fields(found):
            values = [{"a": 1}] if hints[field.name] is str else ["nonsense", {"a": 1}, math.nan]
            if arguments.fits({}, hints[field.name]):
                continue  # a section, or something that only the class itself can judge
            yield from (
                (target, field.name, value)
                for value in values
                if not _is_choice(hints[field.name], value)
            )


def _is_choice(wanted: Any, value: Any) -> bool:
    """Whether text is a type's own."""
    return isinstance(value, str) and arguments.fits("text", wanted)


@pytest.mark.parametrize(("target", "name", "value"), list(cases()))
def test_a_value_of_another_type_is_one_line(target: str, name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^part\.{name}=") as caught:
        arguments.check("part", {"_target_": target, name: value})
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Made:
    """A class that says what it wants in all the ways there are."""

    whole: int = 1
    number: float = 1.0
    flag: bool = False
    text: str = "a"
    path: Path | None = None
    several: Sequence[int] = (1,)
    pair: tuple[float, float] = (0.0, 1.0)
    any_number: tuple[float, ...] = ()
    word: Literal["a", "b"] = "a"
    table: dict[str, Any] | None = None
    either: int | str = 1
    anything: Any = None


@pytest.mark.parametrize(
    ("name", "good", "wrong"),
    [
        ("whole", [3], [3.0, True, "3", None]),
        ("number", [3, 0.5], [math.inf, False, "3", [1]]),
        ("flag", [True], [1, "true"]),
        ("text", ["b"], [3, None]),
        ("path", ["a.csv", None], [3]),
        ("several", [[1, 2], []], [64, "64", [1.5]]),
        ("pair", [[0, 1]], [[0], [0, 1, 2], 0.5]),
        ("any_number", [[], [1, 2.5]], [1, ["a"]]),
        ("word", ["b"], ["c", 1]),
        ("table", [{"a": 1}, None], [[1]]),
        ("either", ["a", 2], [2.5]),
        ("anything", [2.5, {"_target_": "x.Y"}], []),
    ],
)
def test_what_fits_and_what_does_not(name: str, good: list[Any], wrong: list[Any]) -> None:
    hint = typing.get_type_hints(Made)[name]
    assert all(arguments.fits(value, hint) for value in good)
    assert not any(arguments.fits(value, hint) for value in wrong)
    for value in wrong:
        with pytest.raises(UserError, match=rf"^part\.{name}=.*(must be|allowed|did you mean)"):
            arguments.check("part", {"_target_": f"{__name__}.Made", name: value})


SETTINGS = {
    "model.hidden=64": r"^model\.hidden=64: must be a list of whole numbers",
    "model.hidden=[0]": r"^model\.hidden=\[0\]: widths must be",
    "+model.batch_norm=2": r"^model\.batch_norm=2: must be true or false",
    "method.estimator.look_back=-3": r"^method\.estimator\.look_back=-3: must be a whole number, "
    r"1 or more",
    "method.estimator.look_back=2.5": r"^method\.estimator\.look_back=2\.5: must be a whole number",
    "method.optimiser.lr=-1": r"^method\.optimiser\.lr=-1: must be at least 0",
    "+method.optimiser.eps=0": r"^method\.optimiser\.eps=0: must be above 0",
    "method.optimiser.betas=[0.9,1]": r"^method\.optimiser\..*=1: must be at least 0 and below 1",
    "method.optimiser.betas=0.9": r"^method\.optimiser\.betas=0\.9: must be a list of 2 numbers",
}


def made(override: str) -> Trainer:
    settings = parse(compose([override]))
    return Trainer.of(settings, settings.source.load(0.2), pick_device("cpu"))


@pytest.mark.parametrize("override", SETTINGS)
def test_a_setting_of_a_component_is_one_line(override: str) -> None:
    with pytest.raises(UserError, match=SETTINGS[override]) as caught:
        made(override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("random_adam", "eps=-1"),
        ("schedule_free_adamw", "beta2=-1"),
        ("prodigy", "first_step_size=0"),
        ("prodigy", "eps=0"),
        ("nadamw", "beta2=1"),
        ("nadamw", "momentum_decay=-1"),
        ("dog", "first_distance=0"),
        ("dog", "gamma=-1"),
        ("momo", "lr=0"),
        ("momo", "beta=1"),
        ("mechanic", "first_scale=0"),
        ("mechanic", "decay=-1"),
        ("hypergradient_adam", "hypergradient_lr=-1"),
    ],
)
def test_rules_say_their_ranges(method: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"^method\.rule\.{key}: must be"):
        parse(compose([f"method={method}", f"+method.rule.{key}"]))


def test_every_yaml_of_the_package_passes() -> None:
    for file in sorted((configs_folder() / "method").glob("*.yaml")):
        parse(compose([f"method={file.stem}"]))
