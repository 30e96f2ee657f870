"""Every module of the folder is a figure that draws, is written whole and comes back bit for
bit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from hpo_bench import figures
from hpo_bench.analysis.selection import find
from hpo_bench.errors import UserError
from hpo_bench.figures.common import artefact, style
from hpo_bench.figures.common.base import Options
from hpo_bench.figures.common.make import Made, Request, make

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def drawn(store_of_all: Path, tmp_path_factory: pytest.TempPathFactory):
    """Each figure of the store, drawn once as PNG."""
    out = tmp_path_factory.mktemp("figures")
    runs = find(store_of_all)

    @cache
    def of(name: str) -> Made:
        request = Request(str(store_of_all), runs, out, ("png",), Options(resamples=20))
        return next(iter(make([name], request)))

    return of


def ink(png: Path) -> float:
    """Share of an image's pixels that are not white."""
    return float((imread(png)[..., :3] < 0.99).any(axis=-1).mean())


@pytest.mark.parametrize("name", figures.names())
def test_is_drawn_at_print_size_labelled_and_comes_back_bit_for_bit(name, drawn, tmp_path):
    made = drawn(name)
    assert made.files, f"tests/figures/every_figure.py has no runs for {name}"
    png, csv, manifest = made.files
    image = imread(png)
    assert image.shape[1] / 300 <= style.PAGE_WIDTH + 0.01
    assert image.shape[0] / 300 < 9.5
    assert 0.005 < ink(png) < 0.9
    assert len(pd.read_csv(csv)) > 0
    labelled(json.loads(manifest.read_text()), name)
    for file in (csv, manifest):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    files, changed = artefact.redraw(tmp_path / manifest.name, tmp_path / "again")
    assert changed == []
    for first, second in zip(made.files, files, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def labelled(document: dict, name: str) -> None:
    """The manifest, and the small print, say how the numbers were made."""
    assert document["figure"] == name
    assert document["statistics"]["mode"] == "default"
    assert document["statistics"]["seed"] == 0
    assert set(document["versions"]) >= {"hpo-bench", "matplotlib", "numpy"}
    if figures.find(name).NEEDS:
        assert document["footer"]
        assert document["runs"]
        assert all(run["run_id"] and run["config_hash"] for run in document["runs"])


def test_vector_formats_are_the_same_in_another_process_with_other_settings(drawn, tmp_path):
    manifest = drawn("fig09").files[2]
    here, _ = artefact.redraw(manifest, tmp_path / "here", ("pdf", "svg", "png"))
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\naxes.grid: True\n")
    program = f"""
from pathlib import Path
from hpo_bench.figures.common import artefact
artefact.redraw(Path({str(manifest)!r}), Path({str(tmp_path / "there")!r}), ("pdf", "svg", "png"))
"""
    environment = {
        **os.environ,
        "MPLCONFIGDIR": str(tmp_path),
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(ROOT),
    }
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=tmp_path)
    for file in here:
        assert file.read_bytes() == (tmp_path / "there" / file.name).read_bytes(), file.name


def test_drawing_leaves_matplotlib_as_it_was(drawn, tmp_path):
    mpl.rcParams["lines.linewidth"] = 7.5
    before = dict(mpl.rcParams)
    artefact.redraw(drawn("fig02").files[2], tmp_path)
    assert dict(mpl.rcParams) == before
    mpl.rcdefaults()


@pytest.mark.parametrize("mode", ["paper"])
@pytest.mark.parametrize("name", ["fig06", "fig07", "fig08", "fig09", "fig16"])
def test_the_papers_statistics_are_drawn_and_named(name, mode, store_of_all, tmp_path):
    request = Request(
        str(store_of_all), find(store_of_all), tmp_path, ("png",), Options(mode, resamples=20)
    )
    made = next(iter(make([name], request)))
    assert "paper's statistics" in json.loads(made.files[2].read_text())["footer"]
    assert ink(made.files[0]) > 0.005


def test_names_are_found_without_importing_anything_heavy():
    program = (
        "import sys, hpo_bench.figures as figures; figures.names(); "
        "print(sorted({'matplotlib', 'pandas', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_numbered_figures_come_first_and_may_be_named_loosely():
    names = figures.names()
    numbered = [name for name in names if name.startswith("fig")]
    assert names[: len(numbered)] == numbered == sorted(numbered)
    assert {figures.resolve(name) for name in ("9", "fig9", "Figure 9", "fig09")} == {"fig09"}


def test_an_unknown_figure_names_the_nearest():
    with pytest.raises(UserError, match=r"no figure 'incumbant': did you mean incumbent\?"):
        figures.resolve("incumbant")


class TestRedraw:
    """Files that do not belong together, or are none."""

    def test_refuses_points_that_were_changed(self, drawn, tmp_path):
        _, csv, manifest = drawn("fig02").files
        (tmp_path / csv.name).write_text(csv.read_text().replace("loss", "lost", 1))
        (tmp_path / manifest.name).write_bytes(manifest.read_bytes())
        with pytest.raises(
            UserError, match=r"fig02\.csv: is not the file that fig02\.json describes"
        ):
            artefact.redraw(tmp_path / manifest.name, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "not json"])
    def test_refuses_what_is_no_manifest(self, text, tmp_path):
        (tmp_path / "some.json").write_text(text)
        with pytest.raises(UserError, match=r"some\.json: is not a figure's manifest"):
            artefact.redraw(tmp_path / "some.json", tmp_path)

    def test_names_a_missing_file(self, drawn, tmp_path):
        with pytest.raises(UserError, match=r"cannot read .*none\.json"):
            artefact.redraw(tmp_path / "none.json", tmp_path)
        (tmp_path / "fig02.json").write_bytes(drawn("fig02").files[2].read_bytes())
        with pytest.raises(UserError, match=r"cannot read .*fig02\.csv"):
            artefact.redraw(tmp_path / "fig02.json", tmp_path)

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("format", 99, "from another version"),
            ("csv", "../fig02.csv", "another folder"),
            ("figure", "fig99", "no figure"),
        ],
    )
    def test_refuses_other_formats_folders_and_figures(self, key, value, said, drawn, tmp_path):
        _, csv, manifest = drawn("fig02").files
        (tmp_path / csv.name).write_bytes(csv.read_bytes())
        (tmp_path / "fig02.json").write_text(
            json.dumps({**json.loads(manifest.read_text()), key: value})
        )
        with pytest.raises(UserError, match=said):
            artefact.redraw(tmp_path / "fig02.json", tmp_path / "out")

    def test_tells_of_other_versions(self, drawn, tmp_path):
        _, csv, manifest = drawn("fig02").files
        document = json.loads(manifest.read_text())
        document["versions"]["matplotlib"] = "1.0"
        (tmp_path / csv.name).write_bytes(csv.read_bytes())
        (tmp_path / "fig02.json").write_text(json.dumps(document))
        _, changed = artefact.redraw(tmp_path / "fig02.json", tmp_path)
        assert changed == [f"matplotlib 1.0 -> {mpl.__version__}"]


def test_points_survive_csv_but_for_rounding():
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [rng.lognormal(0, 50, size=200), [np.inf, -np.inf, np.nan, 0.1, 20.0, 1e-300]]
    )
    frame = pd.DataFrame({"method": "1", "x": values, "seed": np.arange(len(values))})
    written = artefact.csv_bytes(frame)
    back = artefact.read_csv(written)
    np.testing.assert_allclose(back["x"], values, rtol=0.5 * 10.0 ** (1 - artefact.DIGITS))
    assert artefact.csv_bytes(back) == written
    assert back["x"].dtype == values.dtype
    assert list(back["method"]) == list(frame["method"])
    assert back["seed"].dtype == frame["seed"].dtype


def test_points_are_the_same_where_processors_round_the_last_digits_otherwise():
    values = np.random.default_rng(0).lognormal(0, 5, size=200)
    here, there = (pd.DataFrame({"x": x}) for x in (values, values * (1 + 4 * np.finfo(float).eps)))
    assert artefact.csv_bytes(here) == artefact.csv_bytes(there)
