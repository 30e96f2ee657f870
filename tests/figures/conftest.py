"""Shared by the tests of the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo_bench.analysis.selection import find
from hpo_bench.figures.common.needs import NeededRuns, Store, select
from tests.figures import every_figure


@pytest.fixture(scope="session")
def store_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that feeds every figure."""
    return every_figure.build(tmp_path_factory.mktemp("results"))


@pytest.fixture
def selected(tmp_path: Path):
    """The runs that a figure selects from the results folder ``tmp_path``."""

    def of(module, results: Path = tmp_path) -> NeededRuns:
        stored = Store.of(find(results))
        return select(module.NEEDS, lambda folder: stored, str(results))

    return of
