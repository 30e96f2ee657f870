"""What the repository keeps of its own runs: complete, small, and what its pages say of them."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hpo_bench.analysis import claims, frames, selection
from hpo_bench.running.execute import execute
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.store.runs import runs_folder, scan

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "results" / "runs").is_dir(), reason="results are not part of what is installed"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results that are in the repository, without what a user put beside them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip(
            f"needs a git checkout to know which results are part of it: {listed.stderr.strip()}"
        )
    folder = tmp_path_factory.mktemp("repository")
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder / "results"


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def reproduction():
    yield from script("reproduction")


@pytest.fixture(scope="module")
def keep_results():
    yield from script("keep_results")


def test_what_is_kept_has_whole_finals_and_fewer_rows_of_curves_and_keeping_again_changes_nothing(
    keep_results, tmp_path
):
    settings = parse(
        compose(
            ["method=ours_wd_lr", "dataset=diabetes", "repetitions=2", f"results_dir={tmp_path}"]
        )
    )
    run = execute(settings).run
    once, twice = tmp_path / "once", tmp_path / "twice"
    keep_results.main(tmp_path, once)
    keep_results.main(once, twice)
    whole, kept, again = (runs_folder(folder) / run.run_id for folder in (tmp_path, once, twice))
    for name in ("run.json", "final.parquet", "curves.parquet"):
        assert (again / name).read_bytes() == (kept / name).read_bytes()
    assert (kept / "final.parquet").read_bytes() == (whole / "final.parquet").read_bytes()
    before, after = (pd.read_parquet(folder / "curves.parquet") for folder in (whole, kept))
    assert len(after) < len(before) / 10
    assert set(after.columns[after.isna().all()]) == {"train_loss", "validation_loss", "test_loss"}
    shown = ["seed", "step", "test_metric", "lr", "weight_decay"]
    pd.testing.assert_frame_equal(after[shown], before.merge(after[["seed", "step"]])[shown])
    ends = after.groupby("seed")["step"].agg(["min", "max"])
    assert (ends == [0, settings.weight_updates]).all(axis=None)


def test_the_kept_runs_are_readable_clean_and_small(results):
    runs = list(scan(results))
    assert {run.status for run in runs} == {"complete"}
    assert not any(run.code["dirty"] for run in runs)
    assert set(frames.finals(runs)["status"]) <= {"ok", "diverged"}
    assert sum(path.stat().st_size for path in results.rglob("*") if path.is_file()) < 60e6


def test_the_pages_say_what_the_kept_runs_say(reproduction, results):
    texts = [page.read_text(encoding="utf-8") for page in reproduction.PAGES]
    assert {name for text in texts for _, name, _ in reproduction.BLOCK.findall(text)} == set(
        reproduction.BLOCKS
    )
    for text in texts:
        assert reproduction.written(text, results) == text


def test_medians_on_uci_energy_are_those_of_the_authors_code(results):
    found = [
        claim
        for claim in claims.claims(selection.find(results))
        if "the authors' code" in claim.text
    ]
    assert len(found) == len(claims.EXPECTED)
    assert {claim.verdict for claim in found} == {"supported"}
