"""Learned schedules: what they leave out, and which cannot be told."""

from __future__ import annotations

import numpy as np
import pytest

from hpo_bench.errors import UserError
from hpo_bench.store import export as exporting
from tests.make_store import make_run

ENERGY = "uci_energy"


def test_a_median_schedule_leaves_out_what_diverged(tmp_path):
    lr = np.array([[1.0, 2.0, 2.0, 4.0], [3.0, 6.0, 6.0, 8.0], [9.0, 9.0, 9.0, 9.0]])
    metric = np.ones((3, 4))
    metric[2, 3] = np.nan
    run = make_run(tmp_path, "ours_wd_lr", ENERGY, metric, lr=lr)
    made = exporting.schedule(run)
    assert made.to_dict("list") == {
        "step": [0, 10],
        "lr": [2.0, 4.0],
        "weight_decay": [1e-4] * 2,
        "momentum": [0.9] * 2,
    }
    assert exporting.schedule(run, 2).lr.tolist() == [9.0]


def test_a_schedule_that_cannot_be_told_is_refused(tmp_path):
    sparse = make_run(tmp_path, "ours_wd_lr", ENERGY, [0.5], record_every=30)
    lost = make_run(tmp_path, "random", ENERGY, [np.nan])
    rule = {"_target_": "hpo_bench.rules.adam.AdamW"}
    other = make_run(tmp_path, "random_adam", ENERGY, [0.5], config={"method.rule": rule})
    cosine = {"method.schedule": {"_target_": "hpo_bench.core.schedules.WarmupCosine"}}
    scheduled = make_run(tmp_path, "random_cosine", ENERGY, [0.5], record_every=5, config=cosine)
    unroll = {"_target_": "hpo_bench.hypergradients.ultimate.Ultimate"}
    ultimate = make_run(
        tmp_path, "ultimate", ENERGY, [0.5], record_every=5, config={"method.estimator": unroll}
    )
    always = "record_every=5 leaves out changes made after every weight update"
    for run, text in (
        (scheduled, always),
        (ultimate, always),
        (sparse, "record_every=30 leaves out changes"),
        (lost, "all repetitions diverged"),
        (other, "a schedule is for torch.optim.SGD; this method's weights are updated by AdamW"),
    ):
        with pytest.raises(UserError) as caught:
            exporting.write_schedule(run, tmp_path / "out")
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)
