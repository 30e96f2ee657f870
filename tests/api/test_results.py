"""`Results` and `load`: tidy tables of what is stored."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hpo_bench
from hpo_bench.analysis.closing import Closing
from hpo_bench.cli.closing import closing_numbers
from hpo_bench.store.runs import read_table
from tests.make_store import make_run

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "results"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for method in ("random", "ours_wd_lr_m"):
        for dataset in ("uci_energy", "uci_kin8nm"):
            make_run(tmp_path, method, dataset, [*rng.lognormal(size=3), np.nan])
    return tmp_path


def test_final_values_are_the_stored_ones(store: Path) -> None:
    results = hpo_bench.load(store, dataset="uci_energy", method="random")
    (run,) = results.runs
    stored = read_table(run, "final")
    assert list(results.final["test_metric"].dropna()) == list(stored["test_metric"].dropna())
    assert list(results.final["status"]) == ["ok", "ok", "ok", "diverged"]
    assert str(results.final["diverged_at"].dtype) == "Int64"
    assert set(results.final["method"]) == {"random"}
    assert results.run_ids == [run.run_id]
    assert len(results.curves) == len(read_table(run, "curves"))
    assert results.final is results.final


def test_names_are_kept_one_or_several(store: Path) -> None:
    assert len(hpo_bench.load(str(store))) == 4
    assert len(hpo_bench.load(store, dataset=["uci_energy", "uci_kin8nm"], method=None)) == 4
    assert len(hpo_bench.load(store, method=["random"])) == 2
    assert len(hpo_bench.load(store, where={"update_interval": 10})) == 4
    both = hpo_bench.load(store, method="random") + hpo_bench.load(store, dataset="uci_energy")
    assert len(both) == 3


def test_mistakes_are_one_line(store: Path) -> None:
    for given, told in (
        ({"dataset": "uci_enrgy"}, "did you mean uci_energy"),
        ({"method": "rndom"}, "did you mean random"),
        ({"where": {"update_intervall": 1}}, "did you mean update_interval"),
    ):
        with pytest.raises(hpo_bench.UserError, match=told) as error:
            hpo_bench.load(store, **given)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
    with pytest.raises(hpo_bench.UserError, match="no complete runs"):
        hpo_bench.load(store / "nowhere")
    with pytest.raises(hpo_bench.UserError, match="results_dir"):
        hpo_bench.load(3)  # type: ignore[arg-type]


def test_damage_is_named_when_it_is_read(store: Path) -> None:
    results = hpo_bench.load(store)
    file = results.runs[0].path / "final.parquet"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(hpo_bench.UserError, match=r"final\.parquet is damaged"):
        _ = results.final


def test_a_row_that_two_runs_hold_stands_once(store: Path) -> None:
    both = results_of(store, "random", "uci_energy")
    assert len((both + both).final) == len(both.final)
    assert len((both + both).run_ids) == 1


def results_of(store: Path, method: str, dataset: str) -> hpo_bench.Results:
    return hpo_bench.load(store, method=method, dataset=dataset)


def test_the_summary_is_the_closing_table(store: Path) -> None:
    results = hpo_bench.load(store)
    summary = results.summary()
    assert len(summary) == 4
    for row in summary.itertuples():
        (run,) = [
            run for run in results.runs if (run.method, run.dataset) == (row.method, row.dataset)
        ]
        final = read_table(run, "final", ("status", "test_metric"))
        scale = float(run.config["dataset"].get("metric_scale", 1.0))
        numbers = closing_numbers(final, scale)
        said = f"{row.median:.4g}" if np.isfinite(row.median) else "diverged"
        assert (said, f"{row.mean:.4g}", f"{row.best:.4g}") == numbers[:3]
        assert f"{row.ok}/{row.repetitions}" == numbers[3]
    assert "Results: 4 runs, 16 repetitions" in repr(results)
    assert "<table" in results._repr_html_()


def test_nothing_is_a_summary_too() -> None:
    empty = hpo_bench.Results([])
    assert repr(empty) == "Results: no runs"
    assert len(empty.final) == len(empty.curves) == len(empty.summary()) == 0
    assert empty.trials is None


def test_settings_of_a_grid_are_columns(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [1.0, 2.0], config={"hyper.lr": lr})
    results = hpo_bench.load(tmp_path)
    assert list(results.final["hyper.lr"]) == [0.1, 0.1, 0.2, 0.2]
    assert set(results.curves.groupby("run_id", observed=True)["hyper.lr"].first()) == {0.1, 0.2}
    assert list(results.summary()["hyper.lr"]) == [0.1, 0.2]


def test_columns_that_some_runs_have_are_missing_in_others(tmp_path: Path) -> None:
    make_run(tmp_path, "ours_wd_hdlr_m", "uci_energy", [1.0], lr_q05=[0.5])
    make_run(tmp_path, "random", "uci_energy", [1.0])
    curves = hpo_bench.load(tmp_path).curves
    assert curves.loc[curves["method"] == "random", "lr_q05"].isna().all()
    assert curves.loc[curves["method"] == "ours_wd_hdlr_m", "lr_q05"].notna().all()


def test_a_closing_of_diverged_repetitions_alone() -> None:
    final = pd.DataFrame({"status": ["diverged"], "test_metric": [np.nan]})
    numbers = Closing.of(final, 1.0)
    assert numbers.median == np.inf
    assert np.isnan(numbers.best)
    assert (numbers.ok, numbers.n) == (0, 1)


@pytest.mark.skipif(not (KEPT / "packed").is_dir(), reason="the stored runs are not part of this")
def test_the_kept_runs_are_loaded_quickly() -> None:
    import pyarrow.parquet  # noqa: F401

    begin = time.process_time()
    results = hpo_bench.load(KEPT)
    assert len(results.final) > 40_000
    assert time.process_time() - begin < 1.5  # 0.6 s where nothing else is computed
    curves = hpo_bench.load(KEPT, dataset="uci_energy")
    begin = time.process_time()
    assert len(curves.curves) > 100_000
    assert time.process_time() - begin < 2.0  # 0.5 s
    trials = results.trials
    assert trials is not None
    assert set(trials["method"]) >= {"asha_random", "bayesopt"}
