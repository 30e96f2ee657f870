"""What the paper printed: every number is read and judged, by runs like theirs alone."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hpo_bench.analysis import selection, submission, tables
from hpo_bench.analysis.submission import (
    PROTOCOLS,
    expected_to_differ,
    judge,
    judge_best,
    judge_estimate,
    printed,
    rank_of_bound,
)
from hpo_bench.errors import UserError
from tests.make_store import make_run

MIRROR = Path(os.environ.get("HPO_BENCH_DATA_MIRROR", ""))
COPY = MIRROR.parent / "reference" / "submission_tables.csv"
RNG = np.random.default_rng(3)
MATCHING = RNG.lognormal(0.0, 0.1, 60)


def like_theirs(folder, method, dataset, values, **config):
    """A run with the settings that the product gives theirs, curves of two rows."""
    wanted = dict(submission._settings_of(dataset, method))
    for key in ("seed", "repetitions", "record_every"):
        del wanted[key]
    metric = np.column_stack([2 * np.asarray(values), values])
    return make_run(
        folder,
        method,
        dataset,
        metric,
        test_loss=np.log(metric) if dataset == "penn_treebank" else metric,
        record_every=PROTOCOLS[dataset].weight_updates,
        config={**wanted, **config},
    )


def cells_of(folder, dataset, method):
    """The cells of one method by statistic."""
    return {
        cell.statistic: cell
        for cell in judge(selection.find(folder))
        if (cell.dataset, cell.method) == (dataset, method)
    }


# --- what they printed ---


def test_every_number_is_there() -> None:
    numbers = printed()
    assert len(numbers) == 144
    assert len({(each.dataset, each.method, each.statistic) for each in numbers}) == 144
    assert Counter(each.dataset for each in numbers) == {
        "uci_energy": 27,
        "uci_kin8nm": 27,
        "uci_power": 9,
        "fashion_mnist": 27,
        "penn_treebank": 27,
        "cifar10": 27,
    }
    for each in numbers:
        assert each.value > 0
        assert math.isnan(each.error) == (each.statistic == "best")
        assert each.metric in submission.COLUMNS


@pytest.mark.skipif(not COPY.is_file(), reason="HPO_BENCH_DATA_MIRROR is not set, or has no tables")
def test_they_are_those_of_the_copy() -> None:
    with COPY.open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    lines = submission.FILE.read_text(encoding="utf-8").splitlines()
    ours = [tuple(line.split(",")) for line in lines if not line.startswith("#")]
    assert ours[1:] == rows


def test_the_product_makes_runs_as_long_as_theirs() -> None:
    for dataset, protocol in PROTOCOLS.items():
        wanted = submission._settings_of(dataset, "random")
        updates = wanted["update_interval"] * wanted["hyperparameter_updates"]
        assert updates == protocol.weight_updates


# --- verdicts ---


def test_a_number_agrees_with_itself_unless_its_error_is_as_large() -> None:
    for each in printed():
        if each.statistic != "best":
            verdict, _ = judge_estimate(each.value, each.error, each.value, each.error)
            large = 2 * math.sqrt(2) * each.error >= each.value
            assert verdict == ("cannot be said" if large else "agrees"), each


@pytest.mark.parametrize(
    "values", [(1.0, 0.1, 1.2, 0.1), (1.0, 0.1, 1.5, 0.2), (1.0, 2.0, 9.0, 3.0)]
)
def test_it_does_not_matter_who_is_who(values) -> None:
    theirs, their_error, ours, our_error = values
    there = judge_estimate(theirs, their_error, ours, our_error)[0]
    assert judge_estimate(ours, our_error, theirs, their_error)[0] == there


def test_the_scale_does_not_matter() -> None:
    for factor in (1e-3, 1.0, 1e3):
        assert judge_estimate(*np.multiply(factor, (0.9, 0.2, 0.39, 0.06)))[0] == "differs"


def test_two_standard_errors_of_the_difference_decide() -> None:
    assert judge_estimate(10.0, 0.3, 10.99, 0.4)[0] == "agrees"
    assert judge_estimate(10.0, 0.3, 11.01, 0.4)[0] == "differs"
    assert judge_estimate(10.0, math.nan, 10.0, 0.4)[0] == "cannot be said"
    assert judge_estimate(3000.0, 3000.0, 3500.0, 100.0)[0] == "cannot be said"
    assert judge_estimate(3000.0, 3000.0, 30000.0, 100.0)[0] == "differs"


def test_as_many_means_of_one_distribution_differ_as_chance_says() -> None:
    draws = RNG.normal(10.0, 1.0, (2000, 2, 50))
    means, errors = draws.mean(axis=-1), draws.std(axis=-1, ddof=1) / math.sqrt(50)
    judged = [
        judge_estimate(*pair)[0]
        for pair in np.stack([means, errors], axis=-1).reshape(-1, 4).tolist()
    ]
    assert judged.count("differs") / len(judged) == pytest.approx(submission.CHANCE, abs=0.015)


def test_as_many_best_values_of_one_distribution_differ_as_their_bound_says() -> None:
    n, m = 40, 20
    rank = rank_of_bound(n, m)
    assert rank is not None
    level = math.prod((n - place) / (n + m - place) for place in range(rank))
    assert level <= submission.CHANCE < level * (n + m - rank + 1) / (n - rank + 1)
    draws = RNG.lognormal(size=(4000, n + m))
    judged = [judge_best(float(row[:m].min()), m, row[m:])[0] for row in draws]
    assert judged.count("differs") / len(judged) == pytest.approx(level, abs=0.012)
    below = judged.count("cannot be said") / len(judged)
    assert below == pytest.approx(m / (n + m), abs=0.03)


def test_a_best_value_is_judged_from_above_alone() -> None:
    lowest = np.linspace(1.0, 3.0, 50)
    assert judge_best(1.0, 50, lowest)[0] == "agrees"
    assert judge_best(1.0, 50, lowest + 0.004)[0] == "agrees", "it is printed with three digits"
    assert judge_best(0.5, 50, lowest)[0] == "cannot be said"
    assert judge_best(1.5, 50, lowest)[0] == "differs"
    assert judge_best(1.5, 2, lowest[:3])[0] == "cannot be said"
    assert judge_best(1.5, 50, [])[0] == "cannot be said"


# --- which runs they are judged by ---


def test_every_number_has_a_verdict_and_a_reason_whatever_is_stored(tmp_path) -> None:
    make_run(tmp_path, "random", "uci_wine", [1.0, 2.0])
    cells = judge(selection.find(tmp_path))
    assert len(cells) == 144
    assert {cell.verdict for cell in cells} == {"cannot be said"}
    assert all(cell.reason and cell.n == 0 and math.isnan(cell.ours) for cell in cells)
    assert expected_to_differ(cells) == 0


def test_a_run_like_theirs_is_judged(tmp_path) -> None:
    like_theirs(tmp_path, "ours_wd_lr", "uci_energy", 2.3 * MATCHING)
    cells = cells_of(tmp_path, "uci_energy", "ours_wd_lr")
    assert cells["median"].verdict == "agrees"
    assert cells["mean"].verdict == "agrees"
    assert cells["best"].verdict == "cannot be said"
    assert cells["median"].n == len(MATCHING)
    assert cells["best"].ours == pytest.approx(2.3 * MATCHING.min())
    others = judge(selection.find(tmp_path))
    assert sum(cell.n > 0 for cell in others) == 3


def test_kin8nm_is_judged_as_it_is_stored_and_shown_times_1000(tmp_path) -> None:
    like_theirs(tmp_path, "ours_wd_lr", "uci_kin8nm", 0.0076 * MATCHING**0.1)
    cell = cells_of(tmp_path, "uci_kin8nm", "ours_wd_lr")["median"]
    assert cell.verdict == "agrees"
    theirs, ours = submission.shown(cell)
    assert (theirs.text, ours.value) == ("7.6 ± 0.1", pytest.approx(7.6, rel=0.02))


@pytest.mark.parametrize(
    ("dataset", "config", "part"),
    [
        ("uci_energy", {"hyperparameter_updates": 20}, "200 weight updates, theirs 4000"),
        ("fashion_mnist", {"hyperparameter_updates": 5000}, "50000 weight updates, theirs 10000"),
        ("uci_energy", {"look_back": 6}, "look_back=6 (theirs: 5)"),
        ("uci_energy", {"validation_share": 0.5}, "validation_share=0.5"),
        ("uci_energy", {"hyper.lr": 0.1}, "hyper.lr=0.1 (theirs: 0.05)"),
        ("fashion_mnist", {"model.hidden": [100]}, "model.hidden=[100] (theirs: [50])"),
        ("penn_treebank", {"dataset.first_words": 9000}, "dataset.first_words=9000"),
        ("cifar10", {"dataset.subset": True}, "dataset.subset=True (theirs: False)"),
        ("cifar10", {"dataset.pixel_scale": "unit"}, "dataset.pixel_scale=unit (theirs: paper)"),
    ],
)
def test_other_runs_are_not_judged_by(tmp_path, dataset, config, part) -> None:
    like_theirs(tmp_path, "ours_wd_lr", dataset, MATCHING, **config)
    for cell in cells_of(tmp_path, dataset, "ours_wd_lr").values():
        assert (cell.verdict, cell.n) == ("cannot be said", 0)
        assert part in cell.reason


def test_rounding_and_what_is_kept_do_not_matter(tmp_path) -> None:
    like_theirs(tmp_path, "baydin", "uci_energy", 6.7 * MATCHING**0.1, precision="float64")
    assert cells_of(tmp_path, "uci_energy", "baydin")["median"].verdict == "agrees"


def test_a_run_like_theirs_is_found_among_others(tmp_path) -> None:
    like_theirs(tmp_path, "ours_wd_lr", "uci_energy", 9 * MATCHING, look_back=6)
    like_theirs(tmp_path, "ours_wd_lr", "uci_energy", 2.2 * MATCHING)
    assert cells_of(tmp_path, "uci_energy", "ours_wd_lr")["median"].verdict == "agrees"


def test_random_3_batched_is_made_of_random_validation(tmp_path) -> None:
    like_theirs(tmp_path, "random_validation", "uci_energy", 4.5 * MATCHING)
    cell = cells_of(tmp_path, "uci_energy", "random_3_batched")["mean"]
    assert cell.n == len(MATCHING) // 3


def test_diverged_runs_and_perplexities_above_1e5_are_dropped(tmp_path) -> None:
    perplexities = 300 * MATCHING
    perplexities[:5] = np.nan
    perplexities[5:9] = 2e5
    like_theirs(tmp_path, "ours_wd_lr", "penn_treebank", perplexities)
    cells = cells_of(tmp_path, "penn_treebank", "ours_wd_lr")
    assert {cell.n for cell in cells.values()} == {51}
    assert "9 dropped" in cells["mean"].reason


def test_where_all_are_dropped_the_reason_says_so(tmp_path) -> None:
    like_theirs(tmp_path, "ours_wd_lr", "penn_treebank", np.full(20, 2e5))
    for cell in cells_of(tmp_path, "penn_treebank", "ours_wd_lr").values():
        assert (cell.verdict, cell.reason) == ("cannot be said", "all 20 repetitions are dropped")


def test_few_repetitions_do_not_decide(tmp_path) -> None:
    like_theirs(tmp_path, "ours_wd_lr", "uci_energy", 9 * MATCHING[:9])
    for cell in cells_of(tmp_path, "uci_energy", "ours_wd_lr").values():
        assert (cell.verdict, cell.reason) == ("cannot be said", "9 repetitions are too few")
        assert cell.ours > 0


def test_what_is_doubtful_is_not_judged(tmp_path) -> None:
    like_theirs(tmp_path, "random_lr_schedule", "penn_treebank", 7000 * MATCHING)
    for cell in cells_of(tmp_path, "penn_treebank", "random_lr_schedule").values():
        assert cell.verdict == "cannot be said"
        assert "after every tenth" in cell.reason


# --- the table ---


def test_the_table_has_a_row_for_each_number_and_says_what_is_missing(tmp_path) -> None:
    like_theirs(tmp_path, "ours_wd_lr", "uci_energy", 9 * MATCHING)
    table = tables.build("submission", tmp_path)
    assert (len(table.body), len(table.data)) == (144, 144)
    assert table.bold["Verdict"].sum() == 2, "the mean and the median"
    assert set(table.data["statistics"]) == {"paper"}
    (fashion,) = [line for line in table.missing if "on fashion_mnist" in line]
    assert "repetitions=100 hyperparameter_updates=1000" in fashion
    (energy,) = [line for line in table.missing if "on uci_energy" in line]
    assert "ours_wd_lr," not in energy


def test_the_table_shows_what_is_asked_for(tmp_path) -> None:
    like_theirs(tmp_path, "ours_wd_lr", "uci_energy", 9 * MATCHING)
    like_theirs(tmp_path, "random_validation", "uci_energy", 9 * MATCHING)
    table = tables.build(
        "submission", tmp_path, datasets=["uci_energy"], methods=["ours_wd_lr", "random_validation"]
    )
    assert set(table.data["method"]) == {"ours_wd_lr", "random_3_batched"}
    assert len(table.body) == 6
    assert table.missing == ()
    make_run(tmp_path, "prodigy", "uci_energy", MATCHING)
    with pytest.raises(UserError, match="no number of prodigy on uci_energy"):
        tables.build("submission", tmp_path, datasets=["uci_energy"], methods=["prodigy"])
