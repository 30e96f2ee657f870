"""``hpo-bench compare``: what differs, the statistics of the analysis on shared seeds, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hpo_bench.analysis import beside
from hpo_bench.analysis import compare as comparing
from hpo_bench.analysis.compare import compare
from hpo_bench.analysis.statistics import pairs
from hpo_bench.cli import app
from hpo_bench.errors import UserError
from hpo_bench.store.runs import Run
from tests.make_store import make_run

ENERGY = "uci_energy"


def call(results: Path, *arguments: str) -> str:
    """Standard output of ``hpo-bench compare``."""
    done = CliRunner().invoke(app, ["compare", *arguments, "--results", str(results)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def two(results: Path, **changes: Any) -> tuple[Run, Run]:
    """Two methods on eight shared seeds, one of A's diverged, B lower on all others."""
    random = np.random.default_rng(0)
    a, b = 2 + random.random(8), random.random(8)
    a[3] = np.nan
    return make_run(results, "random", ENERGY, a, seconds=1.0), make_run(
        results, "ours_wd_lr_m", ENERGY, b, seconds=2.0, **changes
    )


def finals(run: Run) -> np.ndarray:
    import pandas as pd

    frame = pd.read_parquet(run.path / "final.parquet")
    return np.where(frame.status == "ok", frame.test_metric, np.inf)


def test_the_numbers_are_the_statistics_of_the_paired_final_values(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    found = compare(a, b, seed=5)
    expected = pairs.paired_comparison(finals(a), finals(b), seed=5)
    (result,) = found.results
    assert (found.shared, found.diverged) == (8, (0, 1, 0))
    assert result.paired == expected
    assert result.difference == expected.difference
    assert result.a.estimate == np.median(finals(a))
    assert result.a.estimate - result.b.estimate == pytest.approx(result.difference.estimate)
    assert comparing.verdict(result) == "B is lower (better)"
    assert found.time.estimate == pytest.approx(0.5)
    assert found.notes == ()


def test_the_other_way_round_is_the_mirror_image(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    one, other = compare(a, b), compare(b, a)
    assert one.results[0].difference.estimate == -other.results[0].difference.estimate
    assert one.results[0].paired is not None
    assert other.results[0].paired is not None
    assert (
        one.results[0].paired.probability.estimate
        == 1 - other.results[0].paired.probability.estimate
    )
    assert comparing.verdict(other.results[0]) == "A is lower (better)"
    assert other.diverged == (0, 0, 1)
    assert one.time.estimate == pytest.approx(1 / other.time.estimate)
    assert [(each.key, each.b, each.a) for each in one.differences] == [
        (each.key, each.a, each.b) for each in other.differences
    ]


def test_equal_numbers_are_no_difference(tmp_path: Path) -> None:
    values = [0.5, np.nan, 0.7, 0.1]
    found = compare(
        make_run(tmp_path, "random", ENERGY, values), make_run(tmp_path, "lorraine", ENERGY, values)
    )
    (result,) = found.results
    assert found.diverged == (1, 0, 0)
    assert (
        result.difference.estimate,
        result.paired.probability.estimate,
        result.paired.p_value,
    ) == (0, 0.5, 1)  # type: ignore[union-attr]
    assert comparing.verdict(result) == "no clear difference"


def test_what_differs_leaves_out_place_and_presentation(tmp_path: Path) -> None:
    a, b = two(
        tmp_path, config={"chunk": 4, "hyper.lr": 0.1, "extra": 1}, environment={"cpu": "other"}
    )
    keys = {each.key: (each.a, each.b) for each in compare(a, b).differences}
    assert keys["method.name"] == ("random", "ours_wd_lr_m")
    assert keys["hyper.lr"] == (0.05, 0.1)
    assert keys["extra"] == (None, 1)
    assert keys["environment.cpu"] == ("test", "other")
    assert not {"chunk", "method.label", "method.colour", "seed"} & set(keys)


def test_seeds_without_a_partner_are_left_out(tmp_path: Path) -> None:
    a = make_run(tmp_path, "random", ENERGY, [1.0, 2.0, 3.0])
    b = make_run(tmp_path, "lorraine", ENERGY, [5.0, 1.0, 9.0, 9.0], first_seed=1)
    found = compare(a, b)
    assert found.shared == 2
    assert found.results[0].a.estimate == 2.5
    assert found.results[0].b.estimate == 3.0
    assert found.notes[0] == "the 1 repetitions of A and 2 of B without a partner are left out"


def test_without_shared_seeds_all_repetitions_are_two_samples(tmp_path: Path) -> None:
    a = make_run(tmp_path, "random", ENERGY, np.linspace(5, 6, 9))
    b = make_run(tmp_path, "random", ENERGY, np.linspace(1, 2, 9), first_seed=100)
    found = compare(a, b)
    assert (found.shared, found.results[0].paired) == (0, None)
    assert comparing.verdict(found.results[0]) == "B is lower (better)"
    assert "two samples" in found.notes[0]
    assert found.differences == ()


def test_runs_on_other_datasets_are_refused(tmp_path: Path) -> None:
    a = make_run(tmp_path, "random", ENERGY, [1.0, 2.0])
    b = make_run(tmp_path, "random", "uci_power", [1.0, 2.0])
    with pytest.raises(
        UserError,
        match=r"of UCI Energy, .* of UCI Power: runs on different data cannot be compared",
    ):
        compare(a, b)


def test_what_the_numbers_should_be_read_with(tmp_path: Path) -> None:
    a = make_run(tmp_path, "random", ENERGY, [1.0, 2.0], rows=5)
    b = make_run(tmp_path, "lorraine", ENERGY, [1.0, 2.0], rows=9, environment={"cpu": "other"})
    notes = compare(a, b).notes
    assert notes[0] == "trainings differ in length: 40 and 80 weight updates"
    assert notes[1].startswith(
        "times are of different conditions: A cpu/test/1/1, blocks of 2; B cpu/other"
    )


def test_classification_is_compared_by_both_of_its_measures_and_scales_are_applied(
    tmp_path: Path,
) -> None:
    a = make_run(tmp_path, "random", "fashion_mnist", [0.2, 0.3], test_loss=[1.0, 2.0])
    b = make_run(tmp_path, "lorraine", "fashion_mnist", [0.1, 0.2], test_loss=[1.5, 2.5])
    loss, error = compare(a, b).results
    assert (loss.measure, error.measure) == ("Test cross-entropy", "Test error")
    assert loss.difference.estimate == pytest.approx(-0.5)
    assert error.difference.estimate == pytest.approx(0.1)
    c, d = (
        make_run(tmp_path, method, "uci_kin8nm", [0.001 * n] * 2)
        for n, method in ((3, "random"), (5, "lorraine"))
    )
    assert compare(c, d).results[0].difference.estimate == pytest.approx(-2)


def test_it_is_printed_for_readers_and_for_programs(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    shown = call(tmp_path, a.run_id[:18], str(b.path))
    for words in (
        f"A: {a.run_id} (Random, seeds 0 to 7)",
        "method.name",
        "Test MSE, 8 shared seeds: B is lower (better)",
        "P(A beats B)",
        "diverged       A 1/8, B 0/8 (shared seeds: both 0, A alone 1, B alone 0)",
        "time of A ÷ B  0.500",
        "bootstrap of 1000 resamples, seed 0",
    ):
        assert words in shown
    content = json.loads(call(tmp_path, a.run_id, b.run_id, "--format", "json"))
    assert content["shared"] == 8
    assert content["results"][0]["verdict"] == "B is lower (better)"
    assert content["results"][0]["paired"]["probability"]["estimate"] == 0


def test_all_diverged_is_infinite_in_both_forms(tmp_path: Path) -> None:
    make_run(tmp_path, "random", ENERGY, [np.nan] * 3)
    make_run(tmp_path, "lorraine", ENERGY, [1.0, 2.0, 3.0])
    arguments = ("uci_energy-random", "uci_energy-lorraine")
    assert "median A      ∞ [∞, ∞]" in call(tmp_path, *arguments)
    assert (
        json.loads(call(tmp_path, *arguments, "--format", "json"))["results"][0]["a"]["estimate"]
        == "inf"
    )


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    make_run(tmp_path, "random", "fashion_mnist", [0.1])
    for arguments, words in {
        ("uci_energy-randon", b.run_id): "no such run in",
        ("uci_energy", b.run_id): "fits 2 runs",
        (a.run_id, a.run_id): "named twice",
        (a.run_id, "fashion_mnist"): "runs of different metrics cannot be compared",
        (a.run_id, b.run_id, "--format", "jsn"): "--format jsn: did you mean json",
    }.items():
        with pytest.raises(UserError, match=words) as caught:
            call(tmp_path, *arguments)
        assert "\n" not in str(caught.value)


# --- more than two ---


def three(results: Path) -> list[Run]:
    """Three methods on eight shared seeds."""
    a, b = two(results)
    return [a, b, make_run(results, "baydin", ENERGY, np.arange(8) + 5.0)]


def test_of_three_runs_all_stand_in_one_table_and_each_pair_is_that_of_two(
    tmp_path: Path,
) -> None:
    a, b, c = three(tmp_path)
    found = beside.beside([a, b, c], seed=3)
    assert [run.run_id for run in found.runs] == [a.run_id, b.run_id, c.run_id]
    assert [(pair.a, pair.b) for pair in found.pairs] == [(1, 2), (1, 3), (2, 3)]
    assert found.pairs[1].compared == compare(a, c, seed=3)
    (medians,) = found.medians.values()
    assert [median.estimate for median in medians] == [np.median(finals(run)) for run in (a, b, c)]
    methods = next(each for each in found.differences if each.key == "method.name")
    assert methods.values == ("random", "ours_wd_lr_m", "baydin")


def test_three_runs_are_printed_as_columns_then_pair_by_pair(tmp_path: Path) -> None:
    names = [run.run_id for run in three(tmp_path)]
    lines = call(tmp_path, *names).splitlines()
    assert [line.partition(" ")[0] for line in lines[:3]] == ["1:", "2:", "3:"]
    assert any(line.split() == ["n_ok/n", "7/8", "8/8", "8/8"] for line in lines)
    pairs = [line for line in lines if line.startswith(("1 and", "2 and"))]
    assert [line.split("  ")[0] for line in pairs] == ["1 and 2", "1 and 3", "2 and 3"]
    assert pairs[2].endswith("2 is lower (better)")
    content = json.loads(call(tmp_path, *names, "--format", "json"))
    assert [pair["compared"]["shared"] for pair in content["pairs"]] == [8, 8, 8]
    assert content["pairs"][2]["compared"]["results"][0]["verdict"] == "A is lower (better)"


def test_one_run_alone_one_named_twice_and_other_data_are_refused(tmp_path: Path) -> None:
    names = [run.run_id for run in three(tmp_path)]
    other = make_run(tmp_path, "random", "uci_kin8nm", [1.0, 2.0]).run_id
    for arguments, message in (
        (names[:1], "name two or more"),
        ([*names, names[0]], "named twice"),
        ([*names, other], "different data"),
    ):
        with pytest.raises(UserError, match=message):
            call(tmp_path, *arguments)
