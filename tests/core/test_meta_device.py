"""Trainings on torch's ``meta`` device, whose tensors have no values: each method, on each kind of
model.

There any tensor on another device is an error, and so is every wait for the device (``.item()``,
``.cpu()``, a branch on a value), which a CPU would not notice and a GPU would pay for at every
weight update."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from hpo_bench.core.loop import train
from hpo_bench.core.table import Table
from hpo_bench.errors import UserError
from hpo_bench.running.provenance import costs
from hpo_bench.running.trainer import Trainer
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.run import Settings
from hpo_bench.settings.yamls import configs_folder

META = torch.device("meta")
SEEDS = (0, 1, 2)
SMALL: dict[str, Any] = {"hidden": [7], "embedding": 4, "layers": 1, "blocks": [1, 1], "width": 2}


def table(task: str, *shape: int) -> Table:
    """Random rows of a shape: features, an image, or words read side by side."""
    random, rows, words = np.random.default_rng(0), 60, 11
    inputs: np.ndarray = random.standard_normal((rows, *shape)).astype(np.float32)
    targets: np.ndarray = random.standard_normal((rows, 1)).astype(np.float32)
    outputs = {"regression": 1, "classification": 3, "language": words}[task]
    if task == "classification":
        targets = random.integers(0, outputs, rows)
    if task == "language":
        text = random.integers(0, words, (rows + 1, *shape))
        inputs, targets = text[:-1], text[1:]
    return Table(
        name=task,
        task=task,
        inputs=inputs,
        targets=targets,
        training=36,
        validation=12,
        test=12,
        outputs=outputs,
        target_scale=1.0,
        fingerprint="meta",
    )


TABLES = (
    table("regression", 4),
    table("classification", 4),
    table("classification", 3, 8, 8),
    table("language", 5),
)


def contents(group: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and contents of each yaml of a group."""
    for file in sorted((configs_folder() / group).glob("*.yaml")):
        yield file.stem, yaml.safe_load(file.read_text(encoding="utf-8"))


def small(name: str, model: dict[str, Any]) -> list[str]:
    """Overrides that make a model small; an argument that is called otherwise is left as it is."""
    given = {key: value for key, value in SMALL.items() if key in model["model"]}
    if isinstance(model["model"].get("hidden"), int):
        given["hidden"] = 7
    return [
        f"model={name}",
        *(f"model.{key}={str(value).replace(' ', '')}" for key, value in given.items()),
    ]


# Searches decide by numbers which training goes on: a method that has one waits for them, and is
# left out.
METHODS = [name for name, method in contents("method") if method["method"].get("search") is None]
MODELS = [(name, small(name, model)) for name, model in contents("model")]


def settings_of(method: str, model: list[str], tmp_path: Path) -> Settings:
    overrides = [
        f"method={method}",
        "dataset=digits",
        *model,
        "update_interval=2",
        "look_back=2",
        "hyperparameter_updates=2",
        "batch_size=9",
        "repetitions=3",
        f"results_dir={tmp_path}",
        "save_hypergradients=true",
        "gradient_clip_norm=1",
    ]
    return parse(compose(overrides))


def trainers(settings: Settings) -> list[Trainer]:
    """On each of the tables that the model fits."""
    found = []
    for each in TABLES:
        try:
            found.append(Trainer.of(settings, each, META))
        except UserError as error:
            if "does not fit dataset" not in str(error):
                raise
    return found


@pytest.mark.parametrize(("model", "overrides"), MODELS, ids=[name for name, _ in MODELS])
@pytest.mark.parametrize("method", METHODS)
def test_no_training_waits_for_the_device(
    method: str, model: str, overrides: list[str], tmp_path: Path
) -> None:
    settings = settings_of(method, overrides, tmp_path)
    possible = trainers(settings)
    assert possible, f"no table here fits model={model}: add one to TABLES"
    for trainer in possible:
        start = trainer.start(SEEDS)
        assert start.weights.device == META
        end = train(trainer.problem(SEEDS), trainer.plan, start, trainer.recorder(len(SEEDS)))
        assert end.number == settings.weight_updates
        assert end.state.weights.device == META
        assert all(value.device == META for value in end.raw.values())


@pytest.mark.parametrize("method", METHODS)
def test_what_a_training_costs_is_told_wherever_it_was_made(method: str, tmp_path: Path) -> None:
    _, overrides = MODELS[0]
    settings = settings_of(method, overrides, tmp_path)
    table = next(trainer.table for trainer in trainers(settings))
    told = [costs(Trainer.of(settings, table, torch.device(name))) for name in ("meta", "cpu")]
    assert told[0] == told[1]


def test_the_device_tells_of_a_wait() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        torch.zeros(1, device=META).item()
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.zeros(1, device=META).cpu()
