"""Several weight updates in one call of the model: the numbers of the plain loop, bit by bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hpo_bench.core import native
from hpo_bench.core.loop import Eager
from hpo_bench.running import graphs
from hpo_bench.running.stretches import Stretches
from hpo_bench.settings.run import StartRanges
from tests.problems import METHODS, make_method, make_settings, make_table, trained

pytestmark = pytest.mark.skipif(
    native.kernels().library is None or native.kernels().variant == "plain",
    reason="no kernels, or a processor for which torch multiplies and adds with two roundings",
)


def same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def compared(settings):
    """What makes the updates, and the record, after both ways gave the same."""
    end, record, _ = trained(settings)
    other, written, (engine,) = trained(settings, graphs.of)
    for one, two in (
        (end.state.weights, other.state.weights),
        (end.state.buffer, other.state.buffer),
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)
    same(record.curves(), written.curves())
    same(record.hypergradients(), written.hypergradients())
    np.testing.assert_array_equal(record.diverged_at(), written.diverged_at())
    return engine, record


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("record_every", [1, 4])
@pytest.mark.parametrize("method", METHODS)
def test_stretches_are_the_loop_bit_by_bit(tmp_path, method, record_every, precision):
    settings = make_settings(
        tmp_path,
        method,
        precision=precision,
        record_every=record_every,
        save_hypergradients=True,
        repetitions=3,
    )
    engine, _ = compared(settings)
    assert isinstance(engine, Stretches)


@pytest.mark.parametrize("record_every", [1, 4, 10])
@pytest.mark.parametrize("method", METHODS)
def test_minibatches_of_a_classifier_are_the_loop_bit_by_bit(tmp_path, method, record_every):
    table = make_table("classification", rows=70, features=13)
    settings = make_settings(
        tmp_path,
        method,
        table=table,
        batch_size=7,
        precision="float32",
        record_every=record_every,
        save_hypergradients=True,
        repetitions=3,
    )
    engine, _ = compared(settings)
    assert isinstance(engine, Stretches)


def test_divergence_is_noted_at_the_same_update(tmp_path):
    start = StartRanges(None, (0.0, 3.0), (-7.0, -2.0), (0.0, 1.0), (0.95, 1.01))
    settings = make_settings(tmp_path, "random", precision="float32", repetitions=6, start=start)
    _, record = compared(settings)
    assert (record.diverged_at() >= 0).any()


def test_a_snapshot_keeps_its_numbers(tmp_path):
    kept = []

    def keep(snapshot):
        kept.append((snapshot.state.weights, snapshot.state.weights.clone()))

    trained(make_settings(tmp_path, "ours_wd_lr_m"), graphs.of, on_interval=keep)
    assert len(kept) == 5
    for weights, copy in kept:
        torch.testing.assert_close(weights, copy, rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 12},
        {"gradient_clip_norm": 1.0},
        {
            "method": replace(make_method("random"), rule=None),
            "batch_size": 7,
            "data_order": "sequential",
        },
    ],
)
def test_what_is_not_plain_goes_update_by_update(tmp_path, changes):
    method = changes.pop("method", "ours_wd_lr_m")
    engine, _ = compared(make_settings(tmp_path, method, precision="float32", **changes))
    assert isinstance(engine, Eager)
