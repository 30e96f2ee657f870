"""The schemas say what the program says: of every yaml that there is, and of values that are
wrong.
"""

from __future__ import annotations

import copy
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

from hpo_bench.cli import app
from hpo_bench.errors import UserError
from hpo_bench.experiments import definition
from hpo_bench.settings import schema
from hpo_bench.settings.compose import compose
from hpo_bench.settings.identity import flat
from hpo_bench.settings.parse import (
    HYPER_KEYS,
    INIT_KEYS,
    METHOD_KEYS,
    OF_RULES,
    SETTINGS_KEYS,
    parse,
)
from hpo_bench.settings.yamls import configs_folder, read_yaml

jsonschema = pytest.importorskip("jsonschema")
CONFIGS = configs_folder()
YAMLS = [CONFIGS / "config.yaml", *sorted(CONFIGS.glob("*/*.yaml"))]


@cache
def schemas() -> dict[str, Any]:
    return schema.schemas()


def errors(group: str, content: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(schemas()[group])
    return [error.message for error in validator.iter_errors(content)]


def group_of(file: Path) -> str:
    return "config" if file.parent == CONFIGS else file.parent.name


@pytest.mark.parametrize("name", ["config", *schema.GROUPS, "experiment"])
def test_they_are_schemas(name: str) -> None:
    content = json.loads(json.dumps(schemas()[name], allow_nan=False))
    jsonschema.Draft202012Validator.check_schema(content)
    assert content["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert content["$id"] == f"{name}.schema.json"


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_yaml_of_the_package_fits(file: Path) -> None:
    assert errors(group_of(file), read_yaml(file)) == []


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_misspelt_key_is_refused_wherever_it_stands(file: Path) -> None:
    content = read_yaml(file)
    places = [(), *sections(content)]
    for place in places:
        changed = copy.deepcopy(content)
        section = changed
        for key in place:
            section = section[key]
        section["misspelt_key"] = 1
        assert errors(group_of(file), changed), place


def sections(content: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Places of the sections whose keys are known; not of what is free (names of a grid)."""
    free = {"hydra", "labels", "published", "grid", "data", "order", "parts"}
    found = []
    for key, value in content.items():
        # one without a _target_ changes what another yaml names, whose arguments are not known here
        of_another = above == ("method",) and isinstance(value, dict) and "_target_" not in value
        if isinstance(value, dict) and not (key in free or of_another or is_file(value)):
            found += [(*above, key), *sections(value, (*above, key))]
    return found


def is_file(value: dict[str, Any]) -> bool:
    return str(value.get("_target_", "")).endswith("RemoteFile")


def test_every_setting_is_known_with_its_comment_and_default() -> None:
    properties = schemas()["config"]["properties"]
    assert set(properties) == {*SETTINGS_KEYS, "defaults", "hydra"}
    for name, keys in (
        ("hyper", HYPER_KEYS),
        ("init", (*INIT_KEYS, *OF_RULES)),
        ("method", METHOD_KEYS),
    ):
        assert set(properties[name]["properties"]) == set(keys)
    assert properties["update_interval"]["default"] == 10
    said = properties["update_interval"]["description"]
    assert said.startswith("T: weight updates per hyperparameter update. It decides numbers")
    assert "seed + r" in properties["seed"]["description"]
    assert "npz" in properties["init"]["properties"]["file"]["description"]


def test_every_plain_setting_has_a_kind_of_its_own() -> None:
    content = read_yaml(CONFIGS / "config.yaml")
    own = {key: value for key, value in content.items() if key not in ("defaults", "hydra")}
    assert {key for key, _ in flat(own)} <= {*schema.KINDS, *schema.ROOMS}


# Values of all kinds: of each setting the program and the schema have to agree about each.
CANDIDATES: list[Any] = [
    None, True, False, 0, 1, 7, -1, 0.5, 1.5, 1e300, "", "auto", "train", "shuffled", "float64",
    "cuda:1", "cuda:", "wandb", "tensorboard", "a b", "#ff0000", "--", "warmup_cosine", [], [0.5],
    [0, 1], [0.1, 0.9], [-3, -1], [1, 2, 3], ["lr"], ["lr", "lr"], ["x"], ["a", "b"],
]  # fmt: skip
# What only the program can tell: order of a pair, names of files, colours; and what depends on
# others.
BEYOND = {"init.file", "method.colour", "tuned", "method.per_weight", "method.name", "device"}


# and what a dataset's section says beside its labels, which is its source's to check
BEYOND |= {key for key in schema.KINDS if key.startswith("dataset.") and "label" not in key}
BEYOND |= {"dataset.labels", "method.fixed"}


@pytest.mark.parametrize("key", sorted(set(schema.KINDS) - BEYOND))
def test_program_and_schema_agree_about_values(key: str) -> None:
    base = compose()
    for value in CANDIDATES:
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        fits = not errors("config", nested)
        cfg = base.copy()
        OmegaConf.update(cfg, key, value, merge=False)
        try:
            parse(cfg)
            accepted = True
        except UserError as error:
            told_of = str(error).partition(":")[0]  # a component may complain of what it is passed
            accepted = f"{key.rpartition('.')[2]}=" not in told_of
        assert fits == accepted, (key, value)


@pytest.mark.parametrize(
    ("group", "change", "told"),
    [
        ("method", {"method": {"estimator": {"look_back": "five"}}}, "five"),
        ("method", {"method": {"estimator": {"look_bakc": 5}}}, "look_bakc"),
        ("method", {"method": {"optimiser": {"betas": [0.9]}}}, "betas"),
        ("method", {"tuned": ["lr", "alpha"]}, "alpha"),
        ("method", {"method": {"colour": 3}}, "3"),
        ("dataset", {"dataset": {"source": {"inputs": "eight"}}}, "eight"),
        ("dataset", {"dataset": {"metric_scale": "large"}}, "large"),
        ("experiment", {"parts": {"main": {"repetitions": "many"}}}, "many"),
        ("experiment", {"figures": "fig09"}, "fig09"),
        ("experiment", {"scales": {"smoke": {"repetition": 3}}}, "repetition"),
    ],
    ids=str,
)
def test_wrong_arguments_of_components_are_refused(
    group: str, change: dict[str, Any], told: str
) -> None:
    name = {"method": "ours_wd_lr_m", "dataset": "uci_energy", "experiment": "uci_main"}[group]
    content = read_yaml(CONFIGS / group / f"{name}.yaml")
    assert errors(group, content) == []
    merged = updated(content, change)
    assert told in " ".join(errors(group, merged))


def updated(content: Any, change: Any) -> Any:
    if not isinstance(change, dict) or not isinstance(content, dict):
        return change
    return {**content, **{key: updated(content.get(key), value) for key, value in change.items()}}


def test_what_a_yaml_must_say_is_asked_for() -> None:
    assert errors("method", {"method": {"label": "Mine"}})
    assert errors("dataset", {"dataset": {"name": "mine"}})
    assert errors("model", {"batch_size": 5})
    assert not errors("method", {"defaults": ["ours_wd_lr_m"], "look_back": 3})
    assert not errors("method", {"method": {"name": "mine", "label": "Mine"}})
    assert not errors("method", {"method": {"name": "m", "label": "M", "schedule": "linear"}})


def test_experiments_that_the_program_refuses_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    (folder / "experiment").mkdir(parents=True)
    source = CONFIGS / "experiment" / "sensitivity.yaml"
    for place, value in (
        (("title",), 3),
        (("figures",), "fig04"),
        (("parts", "random", "methods"), "random"),
        (("parts", "random", "repetitions"), 0),
        (("parts", "ours", "grid", "look_back"), []),
        (("scales", "smoke", "grid", "look_back"), 3),
        (("scales",), {"smoke": {}}),
    ):
        content = read_yaml(source)
        section = content
        for key in place[:-1]:
            section = section[key]
        section[place[-1]] = value
        (folder / "experiment" / "x.yaml").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(UserError):
            definition.read("x", "smoke", folder)
        assert errors("experiment", content), place


def test_the_command_writes_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["schema", "--out", str(tmp_path / "s")])
    files = [Path(line) for line in done.stdout.splitlines()]
    names = {"config", *schema.GROUPS, "experiment"}
    assert {file.name for file in files} == {f"{name}.schema.json" for name in names}
    for file in files:
        assert (
            json.loads(file.read_text(encoding="utf-8"))
            == schemas()[file.name.removesuffix(".schema.json")]
        )
    shutil.rmtree(tmp_path / "s")
    (tmp_path / "s").write_text("", encoding="utf-8")
    refused = CliRunner().invoke(app, ["schema", "--out", str(tmp_path / "s")])
    assert isinstance(refused.exception, UserError)


def test_comments_are_found_behind_and_above() -> None:
    text = "# what a is\na: 1\nb: 2  # of b\nc:  # a section\n  d: 3 # deep\n  e: 4\nf: 5\n"
    assert dict(schema.comments(text)) == {
        "a": "what a is",
        "b": "of b",
        "c": "a section",
        "c.d": "deep",
    }
