"""``hpo-bench plot`` as a user calls it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hpo_bench import figures
from hpo_bench.analysis.selection import find
from hpo_bench.cli.plot import plot
from hpo_bench.errors import UserError
from tests.make_store import make_run

app = typer.Typer()
app.command()(plot)


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> str:
    """What a successful call prints."""
    result = call(*arguments)
    assert result.exit_code == 0, result.exception
    return result.stdout


def refused(*arguments: object) -> str:
    """The one line with which a call is refused."""
    result = call(*arguments)
    assert isinstance(result.exception, UserError), result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture
def results(tmp_path):
    make_run(tmp_path, "random", "uci_energy", [3.0, 2.0, np.nan])
    make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [0.3, 0.2, 0.4])
    return tmp_path


def test_writes_images_points_and_manifest_for_one_dataset(results, tmp_path):
    out = tmp_path / "deep" / "out"
    stdout = done(
        "fig09",
        "--dataset",
        "uci_energy",
        "--results",
        results,
        "--out",
        out,
        "--format",
        "pdf,png",
    )
    assert sorted(path.name for path in out.iterdir()) == [
        f"fig09-uci_energy.{kind}" for kind in ("csv", "json", "pdf", "png")
    ]
    assert (out / "fig09-uci_energy.pdf").read_bytes().startswith(b"%PDF")
    assert "2 methods, 1 dataset, 6 repetitions" in stdout
    assert "missing random_lr_schedule, lorraine" in stdout
    assert f"dataset=uci_energy repetitions=200 results_dir={results}" in stdout


def test_the_default_folder_is_within_the_results(results):
    done("9", "--results", results, "--format", "svg")
    assert (results / "figures" / "fig09.svg").read_text().startswith("<?xml")


def test_without_names_draws_what_it_can_and_names_the_rest(results):
    stdout = done("--results", results, "--format", "png")
    drawn = {path.stem for path in (results / "figures").glob("*.png")}
    assert drawn == {
        "fig01",
        "fig02",
        "fig04",
        "fig06",
        "fig08",
        "fig09",
        "fig10",
        "fig18",
        "incumbent",
    }
    for name in figures.names():
        assert f"{name}: " in stdout
    assert "fig12: not drawn, no stored run fits\n  missing random" in stdout
    assert "hpo-bench run -m method=random" in stdout


def test_an_illustration_needs_no_store(tmp_path):
    assert "illustration" in done(
        "fig02", "--results", tmp_path / "none", "--out", tmp_path, "--format", "png"
    )


def test_draws_again_from_the_manifest_alone(results, tmp_path):
    done("fig09", "--results", results, "--format", "png,svg")
    first = {path.name: path.read_bytes() for path in (results / "figures").iterdir()}
    shutil.rmtree(results / "runs")
    done("--from", results / "figures" / "fig09.json", "--out", tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first
    done(
        "--from", results / "figures" / "fig09.json", "--out", tmp_path / "other", "--format", "pdf"
    )
    assert sorted(path.suffix for path in (tmp_path / "other").iterdir()) == [
        ".csv",
        ".json",
        ".pdf",
    ]


def test_options_reach_the_manifest(results, tmp_path):
    done(
        "fig08",
        "--results",
        results,
        "--format",
        "png",
        "--stats",
        "paper",
        "--seed",
        "5",
        "--method",
        "random",
    )
    document = json.loads((results / "figures" / "fig08.json").read_text())
    assert document["statistics"]["mode"] == "paper"
    assert document["statistics"]["seed"] == 5
    assert "seed 5" in document["footer"]
    assert [method["name"] for method in document["context"]["methods"]] == ["random"]


def test_settings_choose_other_runs(results):
    make_run(results, "random", "uci_energy", [9.0, 8.0], look_back=3)
    done("fig09", "--results", results, "--format", "png", "--where", "look_back=3")
    document = json.loads((results / "figures" / "fig09.json").read_text())
    assert [run["repetitions"] for run in document["runs"]] == [2]


def test_a_dataset_of_ones_own_is_drawn(results):
    make_run(results, "random", "my_table", [9.0, 8.0])
    done(
        "fig09",
        "--results",
        results,
        "--dataset",
        "my_table",
        "--dataset",
        "uci_energy",
        "--format",
        "png",
    )
    assert {path.stem for path in (results / "figures").glob("*.png")} == {
        "fig09-my_table",
        "fig09-uci_energy",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fig99"], r"no figure 'fig99': did you mean"),
        (["fig09", "--format", "pfd"], r"--format pfd: did you mean pdf"),
        (["fig09", "--format", ","], r"--format: needs at least one"),
        (
            ["fig09", "--dataset", "uci_enrgy"],
            r"--dataset uci_enrgy: no such dataset; did you mean uci_energy",
        ),
        (["fig09", "--method", "baydni"], r"--method baydni: no such method; did you mean baydin"),
        (["fig09", "--stats", "papr"], r"--stats papr: did you mean paper"),
        (["fig09", "--where", "look_back"], r"--where look_back: must be KEY=VALUE"),
        (["fig01", "--dataset", "uci_energy"], r"fig01 is an illustration"),
        (["fig12"], r"fig12: no stored run fits; missing .*hpo-bench run -m method="),
        (["fig12", "fig13"], r"not drawn: fig12, fig13"),
        (
            ["fig09", "--dataset", "uci_wine"],
            r"fig09-uci_wine: no stored run fits; missing .* on uci_wine: hpo-bench run",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, said, results):
    import re

    assert re.search(said, refused(*arguments, "--results", results))


def test_an_empty_store_is_one_line_with_a_command(tmp_path):
    assert "no complete runs in" in refused("--results", tmp_path)
    assert "hpo-bench run" in refused("fig09", "--results", tmp_path)


def test_a_damaged_run_is_named(results):
    (find(results, methods=["random"])[0].path / "final.parquet").write_bytes(b"PAR1 no")
    assert "final.parquet is damaged" in refused("fig09", "--results", results)


def test_an_unwritable_folder_is_named(results, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write figures to" in refused(
        "fig09", "--results", results, "--out", tmp_path / "file" / "out"
    )


def test_from_stands_alone(results, tmp_path):
    assert "leave out fig09" in refused("fig09", "--from", tmp_path / "fig09.json")
    assert "cannot read" in refused("--from", tmp_path / "fig09.json")
