"""``hpo-bench pack``: an experiment as one file, the same for the same runs."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hpo_bench.cli import app
from hpo_bench.errors import UserError
from hpo_bench.experiments import expand
from hpo_bench.experiments import pack as packing
from hpo_bench.settings.yamls import citation_file, configs_folder
from hpo_bench.store import bundle
from hpo_bench.store.files import write_json
from hpo_bench.store.held import Wanted
from hpo_bench.store.runs import Run, read_run, scan
from tests.make_store import make_run

NAME = "uci_main"


def begin(results: Path, runs: list[Run], scale: str = "smoke", *overrides: str) -> None:
    """The record that ``reproduce`` would have left of these runs."""
    wanted = [Wanted(run.run_id, run.config_hash, run.seeds) for run in runs]
    content = {
        "format": 1,
        "experiment": NAME,
        "scale": scale,
        "overrides": list(overrides),
        "key": "",
        "run_ids": [run.run_id for run in runs],
        "wanted": [each.plain() for each in wanted],
        "missing": [],
    }
    write_json(results / "experiments" / f"{NAME}-{scale}{len(overrides)}.json", content)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    results = tmp_path / "results"
    runs = [
        make_run(results, method, "uci_energy", [0.5, 0.4, 0.7])
        for method in ("random", "ours_wd_lr_m")
    ]
    make_run(results, "lorraine", "uci_kin8nm", [0.1])  # of no experiment
    begin(results, runs, "smoke", "repetitions=3")
    return results


def pack(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["pack", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.mark.slow
def test_a_bundle_holds_what_a_colleague_needs(store: Path, tmp_path: Path) -> None:
    output = pack(NAME, "--results", store, "--out", tmp_path / "a.zip")
    assert "packed 2 runs (6 repetitions)" in output
    assert "fig09: 2 methods, 1 dataset, 6 repetitions\n" in output
    assert "hpo-bench-pack" not in output
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = set(archive.namelist())
        manifest = json.loads(archive.read("manifest.json"))
        report = archive.read("report.html").decode()
        readme = archive.read("README.md").decode()
        for name in names - {"manifest.json"}:
            assert len(archive.read(name)) == manifest["files"][name]["bytes"]
    assert manifest["command"] == "hpo-bench reproduce uci_main repetitions=3 --scale smoke"
    assert manifest["command"] in readme
    assert len(manifest["runs"]) == 2
    assert {f"figures/fig09.{kind}" for kind in ("pdf", "png", "csv", "json")} <= names
    assert {"tables/uci_main.md", "tables/uci_main.tex", "CITATION.cff"} <= names
    assert {"configs/config.yaml", f"configs/experiment/{NAME}.yaml"} <= names
    assert not any("lorraine" in name for name in names if name.startswith("runs/"))
    assert "hpo-bench-pack" not in report
    assert str(tmp_path) not in report
    # once more, from a copy of the runs at another place and time
    for run in scan(store):
        (run.path / "run.json").touch()
    shutil.copytree(store, tmp_path / "other" / "results")
    pack(NAME, "--results", tmp_path / "other" / "results", "--out", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    # and taken in elsewhere
    done = CliRunner().invoke(
        app, ["merge", str(tmp_path / "a.zip"), "--results", str(tmp_path / "theirs")]
    )
    assert done.stdout.startswith("copied 2 runs (6 repetitions)")
    for run in scan(tmp_path / "theirs"):
        assert (
            bundle.files_of(run.path).keys() == bundle.files_of(store / "runs" / run.run_id).keys()
        )


def test_runs_that_are_not_stored_are_told(store: Path, tmp_path: Path) -> None:
    (gone, *kept) = [run for run in scan(store) if run.dataset == "uci_energy"]
    shutil.rmtree(gone.path)
    chosen = packing.choose(NAME, store)
    made = packing.pack(chosen, store, tmp_path / "a.zip")
    assert made.missing == (gone.run_id,)
    assert [run.run_id for run in made.runs] == [run.run_id for run in kept]
    shutil.rmtree(store / "runs")
    with pytest.raises(UserError, match="no run of it is stored"):
        packing.pack(chosen, store, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def test_the_way_in_which_it_was_begun_is_meant(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = packing.choose(NAME, store)
    assert (chosen.experiment.scale, chosen.overrides) == ("smoke", ("repetitions=3",))
    (run,) = [run for run in scan(store) if run.dataset == "uci_kin8nm"]
    begin(store, [run], "small")
    with pytest.raises(UserError, match="say which: --scale small; --scale smoke repetitions=3"):
        packing.choose(NAME, store)
    asked: list[str] = []

    def planned(experiment: expand.Experiment, results: Path) -> expand.Expansion:
        asked.append(experiment.scale)
        return expand.Expansion(experiment, (), ())

    monkeypatch.setattr(packing, "expand", planned)
    packing.choose(NAME, store, "small")
    packing.choose("sensitivity", store)
    assert asked == ["small", "paper"]


def test_mistakes_are_one_line(store: Path, tmp_path: Path) -> None:
    for arguments, told in (
        (("uci_mian",), "no such experiment"),
        ((NAME, "--scale", "smal"), "did you mean small"),
        ((NAME, "--out", tmp_path), "is a folder"),
        ((NAME, "--out", "/proc/nowhere/a.zip"), "cannot write"),
    ):
        with pytest.raises(UserError, match=told):
            pack(*arguments, "--results", store)


def test_what_to_cite_is_said_in_the_format_of_citation_files() -> None:
    content = yaml.safe_load(citation_file().read_text(encoding="utf-8"))
    assert content["cff-version"] == "1.2.0"
    assert [author["name"] for author in content["authors"]] == ["the hpo-bench developers"]
    (paper,) = content["references"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Clarke",
        "Oldewage",
        "Hernández-Lobato",
    ]
    assert paper["year"] == 2022
    assert paper["identifiers"][0]["value"] == "arXiv:2110.10461"
    assert citation_file().parent == configs_folder().parent


def test_a_run_that_holds_more_is_packed_whole(tmp_path: Path) -> None:
    results = tmp_path / "results"
    run = make_run(results, "random", "uci_energy", [0.5, 0.4, 0.7])
    begin(results, [run])
    file = results / "experiments" / f"{NAME}-smoke0.json"
    content = json.loads(file.read_text())
    content["wanted"] = [["some-other-id", run.config_hash, "0-1"]]
    write_json(file, content)
    made = packing.pack(packing.choose(NAME, results), results, tmp_path / "a.zip")
    assert [one.run_id for one in made.runs] == [run.run_id]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        name = f"runs/{run.run_id}/final.parquet"
        whole = read_run(run.path)
        assert whole is not None
        assert archive.read(name) == (whole.path / "final.parquet").read_bytes()
