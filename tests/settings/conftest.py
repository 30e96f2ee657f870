"""Shared by the tests of settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hpo_bench.settings.yamls import configs_folder


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    """A folder whose dataset, method and pair each set keys that the next of them sets too."""
    for group, name, keys in (
        (
            "dataset",
            "mine",
            {"update_interval": 2, "look_back": 2, "hyperparameter_updates": 2, "seed": 2},
        ),
        ("method", "mine", {"update_interval": 3, "look_back": 3, "hyperparameter_updates": 3}),
        ("method_dataset", "mine__mine", {"update_interval": 4, "look_back": 4}),
    ):
        (tmp_path / group).mkdir()
        head = "# @package _global_\n"
        (tmp_path / group / f"{name}.yaml").write_text(
            head + yaml.safe_dump(keys), encoding="utf-8"
        )
    for group, base in (("dataset", "diabetes"), ("method", "random")):
        own = tmp_path / group / "mine.yaml"
        own.write_text(
            own.read_text()
            + (configs_folder() / group / f"{base}.yaml").read_text().replace("hyper", "#")
        )
    return tmp_path
