"""Figures and tables of an experiment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpo_bench.experiments import artefacts
from hpo_bench.running.execute import execute
from tests.experiments.make_jobs import SMALL, experiment
from tests.problems import make_settings, make_table


def test_figures_that_fail_are_told(tmp_path: Path) -> None:
    chosen = replace(experiment(SMALL), figures=("fig99", "fig08"), tables=("nothing",))
    run = execute(make_settings(tmp_path, "random", make_table())).run
    lines = list(artefacts.draw(chosen, [run], tmp_path, tmp_path / "out"))
    assert [made for made, _ in lines] == [False] * 3
    assert "fig99" in lines[0][1]
    assert "no run of this experiment fits" in lines[1][1]
