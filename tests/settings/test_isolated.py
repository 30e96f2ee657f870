"""Hydra beside a Hydra of the caller's, and the home folder in overrides."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from packaging.version import Version

from hpo_bench.errors import UserError
from hpo_bench.settings.compose import compose
from hpo_bench.settings.isolated import with_home
from hpo_bench.settings.parse import parse


def test_a_tilde_is_the_home_folder_quoted_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for override in ("results_dir=~/my results", "results_dir='~/my results'"):
        assert parse(compose([override])).results_dir == tmp_path / "my results"
    assert with_home("method~x") == "method~x"
    assert with_home("results_dir=~/a,~/b") == "results_dir=~/a,~/b"


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[GlobalHydra]:
    """A process that has initialised Hydra for itself."""
    (tmp_path / "config.yaml").write_text("own: 1\n", encoding="utf-8")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        yield GlobalHydra.instance()


def test_compose_leaves_the_callers_hydra_as_it_was(theirs: GlobalHydra) -> None:
    inside = theirs.hydra
    assert compose(["seed=3"]).seed == 3
    with pytest.raises(UserError):
        compose(["nothing=1"])
    assert GlobalHydra.instance() is theirs
    assert theirs.hydra is inside
    assert hydra.version.getbase() == Version("1.2")
    assert hydra.compose("config").own == 1


def test_compose_in_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: compose([f"seed={seed}"]).seed, range(8)))
    assert found == list(range(8))
