"""What the repository keeps of its own runs: complete, small, and what its pages say of them."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpo_bench.analysis import claims, frames, selection
from hpo_bench.experiments.definition import narrow, read
from hpo_bench.experiments.expand import expand
from hpo_bench.experiments.records import remember
from hpo_bench.running.execute import execute
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.store.packing import same_bits
from hpo_bench.store.runs import (
    read_arrow,
    read_document,
    read_run,
    read_table,
    runs_folder,
    scan,
)
from tests.make_store import make_run

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "results" / "packed").is_dir(), reason="results are not part of what is installed"
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
    folders = [folder / "packed" / "diabetes" for folder in (once, twice)]
    for name in ("runs.jsonl", "final.parquet", "curves.parquet"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1
    (kept,) = scan(once)
    assert kept.thinned
    assert kept.config == {**run.config, "results_dir": "results"}
    assert same_bits(read_arrow(kept, "final"), read_arrow(run, "final"))
    before, after = (read_table(each, "curves") for each in (run, kept))
    assert len(after) < len(before) / 10
    assert set(after.columns[after.isna().all()]) == {"train_loss", "validation_loss", "test_loss"}
    shown = ["seed", "step", "test_metric", "lr", "weight_decay"]
    pd.testing.assert_frame_equal(after[shown], before.merge(after[["seed", "step"]])[shown])
    ends = after.groupby("seed")["step"].agg(["min", "max"])
    assert (ends == [0, settings.weight_updates]).all(axis=None)


def test_runs_are_added_to_the_pack_of_their_experiment(keep_results, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    chosen = narrow(read("uci_main", "smoke"), ["dataset=diabetes", "method=random,ours_wd_lr"])
    remember(source, expand(chosen, source), [])
    one, other = (job.settings for job in expand(chosen, source).jobs)
    execute(one)
    keep_results.main(source, target)
    (first,) = scan(target)
    assert first.place == target / "packed" / "uci_main"
    execute(other)
    make_run(source, "random", "uci_energy", [0.5, 0.4])
    keep_results.main(source, target)
    assert {run.place.name: run.method for run in scan(target)}["uci_energy"] == "random"
    assert [run.place.name for run in scan(target)] == ["uci_main", "uci_main", "uci_energy"]
    # what is there is left alone, unless it is asked for again
    changed = runs_folder(source) / first.run_id / "run.json"
    changed.write_text(changed.read_text().replace('"git_commit": "', '"git_commit": "x'))
    keep_results.main(source, target)
    assert read_run(first.path).code == first.code
    keep_results.main(source, target, name="elsewhere", again=True)
    assert read_run(first.path).code != first.code
    assert read_run(first.path).place == first.place


def test_a_search_keeps_its_curve_and_of_many_trials_what_found_a_lower_loss(
    keep_results, tmp_path
):
    search = {"method.search": {"_target_": "hpo_bench.search.asha.ASHA"}, "chunk": 1}
    run = make_run(tmp_path / "whole", "asha_random", "uci_energy", [0.3, 0.2], config=search)
    rng = np.random.default_rng(0)
    losses = rng.lognormal(size=2 * keep_results.MANY)
    losses[[0, 7]] = np.nan
    seeds = np.repeat([0, 1], keep_results.MANY)
    trials = pa.table({"seed": seeds, "trial": np.arange(len(seeds)), "validation_loss": losses})
    pq.write_table(trials, run.path / "trials.parquet")
    keep_results.main(tmp_path / "whole", tmp_path / "kept")
    (kept,) = scan(tmp_path / "kept")
    assert same_bits(read_arrow(kept, "curves"), read_arrow(run, "curves"))
    assert kept.thinned
    stays = read_table(kept, "trials")
    assert read_document(kept)["trials_thinned_to"] == len(stays) < 50
    for seed, rows in trials.to_pandas().groupby("seed"):
        lowest = rows["validation_loss"].cummin()
        expected = rows[
            (rows["validation_loss"] == lowest) | (rows["trial"] == rows["trial"].max())
        ]
        found = stays[stays["seed"] == seed].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected.reset_index(drop=True))


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
