"""`plot`: the figures of runs at hand, in the house style."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

import hpo_bench
from hpo_bench.figures.common.make import Request, make
from tests.make_store import make_run


@pytest.fixture
def results(tmp_path: Path) -> hpo_bench.Results:
    rng = np.random.default_rng(0)
    for method in ("random", "ours_wd_lr_m"):
        for dataset in ("uci_energy", "uci_kin8nm"):
            make_run(tmp_path, method, dataset, rng.lognormal(size=6))
    return hpo_bench.load(tmp_path)


def test_it_is_the_picture_that_the_command_writes(
    results: hpo_bench.Results, tmp_path: Path
) -> None:
    with mpl.rc_context({"savefig.dpi": 30, "font.family": "monospace"}):
        figure = hpo_bench.plot("figure9", results)
        figure.savefig(tmp_path / "own.png", metadata={"Software": "hpo-bench"})
        before = dict(mpl.rcParams)
        assert mpl.rcParams["savefig.dpi"] == 30
    assert isinstance(figure, Figure)
    assert before["savefig.dpi"] == 30
    (made,) = make(["fig09"], Request(str(tmp_path), results.runs, tmp_path / "out", ("png",)))
    assert (tmp_path / "own.png").read_bytes() == made.files[0].read_bytes()
    assert len(figure.axes) == 2


def test_nothing_but_the_results_is_drawn(results: hpo_bench.Results, tmp_path: Path) -> None:
    energy = hpo_bench.Results(run for run in results.runs if run.dataset == "uci_energy")
    assert len(hpo_bench.plot("fig09", energy).axes) == 1
    assert len(hpo_bench.plot("fig09", results, dataset="uci_kin8nm").axes) == 1
    assert not (tmp_path / "figures").exists()


def test_a_dataset_of_ones_own_takes_the_place_of_the_figures(tmp_path: Path) -> None:
    make_run(tmp_path, "random", "fashion_mnist", [0.1, 0.2])
    results = hpo_bench.load(tmp_path)
    assert len(hpo_bench.plot("fig09", results).axes) == 1


def test_a_notebook_is_shown_a_picture(results: hpo_bench.Results) -> None:
    picture = hpo_bench.plot("fig09", results)._repr_png_()  # type: ignore[attr-defined]
    assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"figure": "fig99"}, "no figure 'fig99'"),
        ({"figure": "fig14"}, "none of these runs fits; missing"),
        ({"dataset": "uci_enrgy"}, "did you mean uci_energy"),
        ({"method": "rndom"}, "did you mean random"),
        ({"statistics": "papre"}, "did you mean paper"),
        ({"figure": "fig01", "dataset": "uci_energy"}, "is an illustration"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(
    given: dict[str, str], told: str, results: hpo_bench.Results
) -> None:
    with pytest.raises(hpo_bench.UserError, match=told) as error:
        hpo_bench.plot(given.pop("figure", "fig09"), results, **given)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_runs_are_results(tmp_path: Path) -> None:
    with pytest.raises(hpo_bench.UserError, match="must be Results"):
        hpo_bench.plot("fig09", [])  # type: ignore[arg-type]
