"""Run times of several machines are told apart wherever they stand side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo_bench import figures
from hpo_bench.analysis import tables
from hpo_bench.analysis.costs import of_several_machines
from hpo_bench.analysis.selection import find
from hpo_bench.figures.common.base import Options
from hpo_bench.figures.common.needs import Store, select
from hpo_bench.store.runs import Run
from tests.make_store import make_run

CPU = {"device": "cpu", "cpu": "AMD EPYC"}
GPU = {"device": "NVIDIA H100", "cpu": "Intel Xeon"}
SAID = "seconds of several machines: UCI Energy (AMD EPYC, NVIDIA H100)"


def store(folder: Path, other: dict[str, str]) -> list[Run]:
    """Two methods on Energy, the second one computed on ``other``; and one on Power."""
    make_run(folder, "prodigy", "uci_energy", [1.0] * 4, environment=CPU)
    make_run(folder, "ours_adamw", "uci_energy", [2.0] * 4, environment=other)
    make_run(folder, "prodigy", "uci_power", [1.0] * 4, environment=GPU)
    return find(folder)


def test_each_set_is_told_whose_run_times_are_of_several_machines(tmp_path: Path) -> None:
    assert of_several_machines(store(tmp_path / "two", GPU)) == (SAID,)
    assert of_several_machines(store(tmp_path / "one", CPU)) == ()
    assert of_several_machines([]) == ()


@pytest.mark.parametrize(("other", "count"), [(GPU, 1), (CPU, 0)])
def test_the_figure_and_the_table_say_so(tmp_path: Path, other: dict[str, str], count: int) -> None:
    runs = store(tmp_path, other)
    module = figures.find("rivals")
    chosen = select(module.NEEDS, lambda folder: Store.of(runs), str(tmp_path))
    points = module.points(chosen, Options(resamples=10))
    assert sum(line == SAID for line in points.statistics) == count
    assert tables.build("rivals", tmp_path).label.count(SAID) == count
