"""Settings in one table: each has a role, spellings of one value are one run, and what is stored keeps its name."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hpo_bench import config, experiment, identity
from hpo_bench.analysis import load
from hpo_bench.compare import compare
from hpo_bench.datasets.base import Table
from hpo_bench.datasets.catalogue import configs_folder
from hpo_bench.datasets.preparation import fingerprint, split
from hpo_bench.datasets.uci import LOADER
from hpo_bench.identity import DECISIVE, Role
from tests.make_store import make_run

RESULTS = Path(__file__).parents[1] / "results" / "runs"
ANY = Table("any", "regression", np.zeros((3, 1)), np.zeros((3, 1)), 1, 1, 1, 1, 1.0, "f" * 64)


def yamls() -> Iterator[dict[str, Any]]:
    """What every yaml of the package says."""
    for file in configs_folder().rglob("*.yaml"):
        if file.parent.name != "experiment":
            yield yaml.safe_load(file.read_text(encoding="utf-8"))


def run_id(*overrides: str) -> str:
    """The id that a run would have on some table."""
    return experiment.identify(config.parse(config.compose(overrides)), ANY)[0]


# --- the table ---


def test_every_setting_of_the_configuration_has_a_role() -> None:
    content = yaml.safe_load((configs_folder() / "config.yaml").read_text(encoding="utf-8"))
    settings = set(content) - {"defaults", "hydra"} | {"method", "dataset", "model"}
    assert settings == {key for key in identity.ROLES if "." not in key}


def test_the_table_names_nothing_that_is_not_there() -> None:
    keys = {key for content in yamls() for key in config._with_sections(key for key, _ in identity.flat(content))}
    assert {key for key in identity.ROLES if key not in keys} <= {"method", "dataset", "model"}


def test_what_the_yamls_say_although_it_is_the_default_is_listed() -> None:
    said: dict[str, list[set[str]]] = {}

    def walk(node: Any) -> None:
        if isinstance(node, Mapping):
            if "_target_" in node:
                said.setdefault(node["_target_"], []).append(set(node))
            for value in node.values():
                walk(value)

    for content in yamls():
        walk({key: value for key, value in content.items() if key in ("method", "model")})
    for target, keys in said.items():
        module, _, name = target.rpartition(".")
        defaults = identity._defaults(getattr(importlib.import_module(module), name))
        always = set.intersection(*keys) & set(defaults)
        assert always == set(identity.ALWAYS_SAID.get(target, ())), target


# --- values, not spellings ---

EQUAL = (
    ("init.log10_lr=[-6.0,-1.0]", "init.log10_lr=[-6,-1]"),
    ("init.log10_lr=[-6,-1]", "seed=0"),
    ("tuned=[momentum,lr,weight_decay]", "tuned=[lr,weight_decay,momentum]"),
    ("tuned=[momentum,lr]", "tuned=[lr,momentum]"),
    ("gradient_clip_norm=1.0", "gradient_clip_norm=1"),
    ("gradient_clip_norm=null", "seed=0"),
    ("hyper.lr=1e-3", "hyper.lr=0.001"),
    ("hyper.lr=1.0", "hyper.lr=1"),
    ("hyper.betas=[0.90,0.999]", "seed=0"),
    ("hyper.betas=[0.0,0]", "hyper.betas=[0,-0.0]"),
    ("hyper.clip_log10_lr=[-10.0,0.0]", "seed=0"),
    ("validation_share=2e-1", "validation_share=0.2"),
    ("save_weights=True", "save_weights=true"),
    ("save_weights=False", "seed=0"),
    ("data_for_weights=train", "data_for_weights=method"),
    ("model.hidden=[50]", "seed=0"),
    ("+model.batch_norm=false", "seed=0"),
    ("+model.closed_form=true", "seed=0"),
    ("~method.per_weight", "seed=0"),
    ("~method.full_validation", "seed=0"),
    ("+method.optimiser.eps=1e-8", "seed=0"),
    ("method.optimiser.lr=0.05", "seed=0"),
    ("~method.optimiser.betas", "seed=0"),
    ("+method.estimator.second_batch=validation", "seed=0"),
    ("method=pbt_random method.search.quantile=.25", "method=pbt_random"),
    ("method=pbt_random ~method.search.quantile", "method=pbt_random"),
    ("model=mlp_batchnorm model.batch_norm=false", "model=mlp"),
)


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_spellings_of_one_value_are_one_run(one: str, other: str) -> None:
    assert run_id(*one.split(" ")) == run_id(*other.split(" "))


def test_other_values_are_other_runs() -> None:
    overrides = (
        "seed=0", "seed=1", "repetitions=2", "init.log10_lr=[-6,-2]", "tuned=[lr]", "gradient_clip_norm=1",
        "hyper.lr=0.01", "hyper.clip_log10_lr=null", "+model.batch_norm=true", "data_for_weights=train_and_validation",
        "save_weights=true", "record_every=2", "+method.optimiser.eps=1e-7", "method.full_validation=true",
        "precision=float64",
    )  # fmt: skip
    assert len({run_id(override) for override in overrides}) == len(overrides)


@pytest.mark.parametrize("key", [key for key, role in identity.ROLES.items() if role in (Role.PLACE, Role.SHOWN)])
def test_what_moves_no_number_makes_no_other_run(key: str) -> None:
    composed = config.compose()
    settings = config.parse(composed)
    changed = {**settings.config}
    section, _, leaf = key.rpartition(".")
    if section:
        changed[section] = {**changed[section], leaf: "other"}
    else:
        changed[key] = "other"
    assert identity.decisive(changed) == identity.decisive(settings.config)


# --- comparisons ---


@pytest.mark.parametrize("key", [key for key, role in identity.ROLES.items() if role not in DECISIVE])
def test_what_moves_no_number_is_no_difference(tmp_path: Path, key: str) -> None:
    changed = {key: "other"} if key not in ("seed", "repetitions") else {}
    changed |= {key: 2} if key in ("dataset.metric_scale", "method.order") else {}
    first = make_run(tmp_path, "random", "uci_energy", [1.0, 2.0, 3.0])
    make_run(tmp_path, "lorraine", "uci_energy", [1.0, 2.0, 3.0])
    third = make_run(tmp_path, "ours_wd_lr", "uci_energy", [1.0, 2.0, 3.0], config=changed)
    assert load.comparable(load.find(tmp_path)).notes == ()
    assert {each.key for each in compare(first, third).differences} == {"method.name"}


def test_spellings_of_one_value_are_no_difference(tmp_path: Path) -> None:
    spelt: tuple[dict[str, Any], ...] = (
        {"tuned": ["lr", "momentum"], "init.momentum": [0.0, 1.0], "gradient_clip_norm": 1.0},
        {"tuned": ["momentum", "lr"], "init.momentum": [0, 1], "gradient_clip_norm": 1},
    )
    runs = [make_run(tmp_path, name, "uci_energy", [1.0, 2.0], config=settings)
            for name, settings in zip(("random", "lorraine"), spelt, strict=True)]  # fmt: skip
    assert load.comparable(load.find(tmp_path)).notes == ()
    assert {each.key for each in compare(*runs).differences} == {"method.name"}
    found = load.find(tmp_path, where={"tuned": ["momentum", "lr"], "gradient_clip_norm": 1.0})
    assert len(found) == 2


# --- what is stored ---


@pytest.mark.skipif(not RESULTS.is_dir(), reason="results/ is not part of an installed package")
def test_stored_runs_keep_their_names() -> None:
    checked = 0
    for file in RESULTS.glob("uci_*/run.json"):
        document = json.loads(file.read_text(encoding="utf-8"))
        source = document["config"]["dataset"]["source"]
        rows = split(source["training_and_validation"], document["config"]["validation_share"])
        files = [source["data"]["sha256"], source["order"]["sha256"]]
        content = {"files": files, "drop": source.get("drop", []), "parts": (*rows, source["test"])}
        name = document["config"]["dataset"]["name"]
        decisive = {
            **identity.decisive(document["config"]),
            "dataset": {"name": name, "fingerprint": fingerprint(LOADER, content)},
            "numbers": document["code"]["numbers"],
        }
        assert experiment._digest(decisive) == document["config_hash"]
        checked += 1
    assert checked > 600
