"""Verdicts on hand-made stores."""

from __future__ import annotations

import numpy as np
import pytest

from hpo_bench.analysis import claims, selection
from tests.make_store import make_run

RNG = np.random.default_rng(2)
FULL = {"hyperparameter_updates": 400}


def make(folder, method, median, n=24, **options):
    values = median * np.exp(0.1 * RNG.normal(size=n))
    return make_run(
        folder, method, "uci_energy", values, config=options.pop("config", FULL), **options
    )


def verdicts(folder):
    return {claim.text: claim for claim in claims.claims(selection.find(folder))}


def one(folder, text):
    return next(claim for name, claim in verdicts(folder).items() if text in name)


def test_a_store_as_the_paper_says_supports_every_ordering(tmp_path):
    for method, median in claims.EXPECTED.items():
        make(tmp_path, method, median)
    found = list(verdicts(tmp_path).values())
    count = len(claims.ORDERINGS) + len(claims.SIMILAR) + len(claims.ROBUST) + len(claims.EXPECTED)
    assert len(found) == count + 1
    assert {claim.verdict for claim in found[:-1]} == {"supported"}
    assert {claim.n for claim in found[:-1]} == {24}


def test_the_opposite_ordering_contradicts(tmp_path):
    make(tmp_path, "ours_wd_lr", 0.3)
    make(tmp_path, "ours_wd_lr_m", 0.9)
    claim = one(tmp_path, "Tuning momentum")
    assert claim.verdict == "contradicted"
    assert claim.interval is not None
    assert claim.interval.low > 0
    assert "0 % [0, 14]" in claim.measured


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.2, "supported"), (5.0, "contradicted"), (0.2, "contradicted")]
)
def test_similar_medians(tmp_path, ratio, verdict):
    make(tmp_path, "diff_through_opt", 0.5)
    make(tmp_path, "ours_wd_lr_m", 0.5 * ratio)
    assert one(tmp_path, "approximate hypergradient").verdict == verdict


@pytest.mark.parametrize(("factor", "verdict"), [(1.03, "supported"), (2.0, "contradicted")])
def test_medians_of_the_authors_code(tmp_path, factor, verdict):
    make(tmp_path, "baydin", claims.EXPECTED["baydin"] * factor, n=100)
    claim = one(tmp_path, ": the median")
    assert claim.verdict == verdict
    assert claim.interval is not None
    assert claim.interval.low < claim.interval.estimate < claim.interval.high


def test_a_wide_spread_is_not_robust(tmp_path):
    make(tmp_path, "random", 7.0)
    make_run(tmp_path, "ours_wd_lr_m", "uci_energy", np.geomspace(0.01, 100, 24), config=FULL)
    assert one(tmp_path, "depend less").verdict == "contradicted"


def test_other_sets_have_orderings_of_their_own(tmp_path):
    for method, median in (("random", 2.0), ("ours_wd_lr_m", 1.0)):
        values = median * np.exp(0.1 * RNG.normal(size=24))
        make_run(tmp_path, method, "uci_yacht", values, config=FULL)
    about = [claim for name, claim in verdicts(tmp_path).items() if name.startswith("uci_yacht: ")]
    assert [claim.verdict for claim in about] == ["supported"]


def test_each_length_of_a_larger_set_is_judged_by_itself(tmp_path):
    for updates, ours in ((5000, 1.0), (1000, 3.0), (100, 1.0)):
        for method, median in (("random", 2.0), ("ours_wd_lr_m", ours)):
            values = median * np.exp(0.1 * RNG.normal(size=24))
            config = {"hyperparameter_updates": updates}
            make_run(tmp_path, method, "fashion_mnist", values, config=config)
    found = verdicts(tmp_path).items()
    about = {name: claim.verdict for name, claim in found if name.startswith("Fashion")}
    text = "Tuning weight decay, learning rate and momentum improves on random hyperparameters"
    assert about == {
        f"Fashion-MNIST, 50000 updates: {text}": "supported",
        f"Fashion-MNIST, 10000 updates: {text}": "contradicted",
    }


def test_few_runs_or_none_leave_it_open(tmp_path):
    make(tmp_path, "ours_wd_lr", 2.0, n=5)
    make(tmp_path, "ours_wd_lr_m", 0.5, n=5)
    few, none = one(tmp_path, "Tuning momentum"), one(tmp_path, "Baydin)")
    assert (few.verdict, few.n) == ("not enough runs", 5)
    assert (none.verdict, none.n, none.interval) == ("not enough runs", 0, None)
    assert "no runs of baydin, random" in none.measured


def test_overlapping_intervals_leave_it_open(tmp_path):
    make(tmp_path, "ours_wd_lr", 2.0)
    make(tmp_path, "ours_wd_lr_m", 2.0)
    assert one(tmp_path, "Tuning momentum").verdict == "undecided"


def test_shorter_trainings_do_not_count(tmp_path):
    make(tmp_path, "ours_wd_lr", 2.0, config={"hyperparameter_updates": 20})
    make(tmp_path, "ours_wd_lr_m", 0.5, config={"hyperparameter_updates": 20})
    claim = one(tmp_path, "Tuning momentum")
    assert claim.verdict == "not enough runs"
    assert "4000 weight updates" in claim.measured


def test_diverged_runs_count_against_a_method(tmp_path):
    values = np.full(24, 0.1)
    values[:20] = np.nan
    make(tmp_path, "ours_wd_lr", 2.0)
    make_run(tmp_path, "ours_wd_lr_m", "uci_energy", values, config=FULL)
    assert one(tmp_path, "Tuning momentum").verdict == "contradicted"


@pytest.mark.parametrize(
    ("times", "verdict"), [(1.5, "supported"), (2.6, "supported"), (6.0, "contradicted")]
)
def test_cost_of_one_pass(tmp_path, times, verdict):
    for block in range(4):
        noise = 1 + 0.01 * block
        make(tmp_path, "random", 7.0, n=4, first_seed=4 * block, seconds=noise)
        make(tmp_path, "ours_wd_lr_m", 0.5, n=4, first_seed=4 * block, seconds=times * noise)
    claim = one(tmp_path, "One pass costs")
    assert (claim.verdict, claim.n) == (verdict, 4)
    assert claim.interval is not None
    assert claim.interval.estimate == pytest.approx(times)


def test_cost_needs_blocks_and_equal_machines(tmp_path):
    make(tmp_path, "random", 7.0)
    make(tmp_path, "ours_wd_lr_m", 0.5, environment={"device": "another"})
    assert one(tmp_path, "One pass costs").verdict == "not enough runs"
    assert "no runs of random and ours_wd_lr_m" in one(tmp_path, "One pass costs").measured


@pytest.mark.parametrize(("other", "verdict"), [(17, "supported"), (4, "not enough runs")])
def test_cost_compares_blocks_of_about_one_size(tmp_path, other, verdict):
    for block in range(4):
        make(
            tmp_path,
            "random",
            7.0,
            n=4,
            first_seed=4 * block,
            seconds=1 + block / 100,
            rows_in_block=15,
        )
        make(
            tmp_path,
            "ours_wd_lr_m",
            0.5,
            n=4,
            first_seed=4 * block,
            seconds=1.2 + block / 100,
            rows_in_block=other,
        )
    assert one(tmp_path, "One pass costs").verdict == verdict
