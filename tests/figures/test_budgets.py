"""Panels of trainings that were smaller than the paper's: which there are, and what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpo_bench import figures
from hpo_bench.analysis.selection import find
from hpo_bench.figures.common import artefact, style
from hpo_bench.figures.common.base import Options, Plotted
from hpo_bench.figures.common.make import Request, make
from hpo_bench.figures.common.needs import NeededRuns
from tests.analysis.test_budget import OF_CIFAR10, OF_PENN_TREEBANK, at_scale
from tests.make_store import make_run

METHODS = ("random", "ours_wd_lr_m")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the larger sets: the paper's Fashion-MNIST, both budgets of Penn Treebank."""
    tmp_path = tmp_path_factory.mktemp("results")
    for method in METHODS:
        at_scale(tmp_path, "fashion_mnist", "paper", method)
        at_scale(tmp_path, "cifar10", "cpu", method)
        at_scale(tmp_path, "penn_treebank", "cpu", method)
        at_scale(tmp_path, "penn_treebank", "paper", method, 3)
    return tmp_path


def drawn(name: str, selection: NeededRuns) -> tuple[Plotted, style.Figure]:
    points = figures.find(name).points(selection, Options(resamples=20))
    plotted = Plotted(points.frame, points.context, artefact.footer(points, Options()))
    return plotted, artefact.draw(name, plotted)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fig12", ["", OF_CIFAR10, OF_PENN_TREEBANK, ""]),
        ("evolution", ["", OF_CIFAR10, OF_PENN_TREEBANK, ""]),
        ("fig13", ["", OF_CIFAR10]),
    ],
)
def test_each_budget_has_a_panel_of_its_own_that_says_it(
    results: Path, selected, name: str, said: list[str]
) -> None:
    selection = selected(figures.find(name), results)
    plotted, figure = drawn(name, selection)
    panels = sorted(plotted.context["panels"], key=lambda panel: "(part)" not in panel["title"])
    titles = [panel["title"] for panel in plotted.context["panels"]]
    assert titles[:2] == ["Fashion-MNIST", "CIFAR-10 (subset)"]
    assert sorted(panel.get("budget", "") for panel in panels) == sorted(said)
    for dataset in {run.dataset for run in selection.runs()}:
        budgets = {
            (run.config["hyperparameter_updates"], run.config["batch_size"])
            for run in selection.runs(dataset=dataset)
        }
        assert len(budgets) == 1
    assert not [line for line in selection.missing if set(METHODS) & set(line.methods)]

    canvas = figure.bbox
    for ax, panel in zip(figure.axes, plotted.context["panels"], strict=False):
        texts = [text for text in ax.texts if text.get_size() == style.FOOTER_SIZE]
        assert " ".join("\n".join(text.get_text() for text in texts).split()) == panel.get(
            "budget", ""
        )
        for text in texts:
            box, name_of_panel = text.get_window_extent(), ax.title.get_window_extent()
            assert canvas.x0 <= box.x0
            assert box.x1 <= canvas.x1
            assert ax.bbox.y1 <= box.y0
            assert box.y1 <= name_of_panel.y0


def test_run_times_say_it_too(tmp_path: Path) -> None:
    for experiment in ("penn_treebank", "cifar10"):
        run = at_scale(tmp_path, experiment, "cpu", "random", 2)
        for record_every in (10, 10**9):
            kept = {key: run.config[key] for key in ("dataset", "model", "hyperparameter_updates")}
            make_run(
                tmp_path / "runtime",
                "random",
                experiment,
                np.ones((2, 3)),
                config={**kept, "chunk": 1, "record_every": record_every, "batch_size": 20},
                rows_in_block=1,
            )
    request = Request(str(tmp_path), find(tmp_path), tmp_path / "out")
    (made,) = make(["fig14"], request)
    assert made.files
    content = (tmp_path / "out" / "fig14.json").read_text(encoding="utf-8")
    assert content.count("of 23910 weight updates, n = 2") == 1
    assert content.count("of 32400 weight updates, n = 2") == 1
