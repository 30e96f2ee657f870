"""Several weight updates in one call of the model: the numbers of the plain loop, bit by bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hpo_bench.core import native, tree
from hpo_bench.core.loop import Eager
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.running import graphs
from hpo_bench.running.stretches import Stretches
from hpo_bench.settings.run import StartRanges
from tests.problems import BEYOND, METHODS, make_method, make_settings, make_table, trained

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
    for one, two in zip(tree.leaves(end), tree.leaves(other), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)
    same(record.curves(), written.curves())
    same(record.hypergradients(), written.hypergradients())
    np.testing.assert_array_equal(record.diverged_at(), written.diverged_at())
    return engine, record


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("record_every", [1, 4])
@pytest.mark.parametrize("method", [*METHODS, *BEYOND])
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


@pytest.mark.parametrize("change", [{"cap": 0.3}, {"discount": 0.0}, {"discount": 1.0}])
def test_tangents_of_every_horizon_are_those_of_the_loop(tmp_path, change):
    method = make_method("ours_discounted", estimator=Forward(**change))
    compared(make_settings(tmp_path, method, precision="float32", save_hypergradients=True))


def test_tangents_go_on_from_a_snapshot_amid_an_interval_and_begin_anew_with_the_weights(tmp_path):
    settings = make_settings(tmp_path, "ours_discounted", hyperparameter_updates=4)
    whole, _, _ = trained(settings, graphs.of)
    amid, _, _ = trained(settings, graphs.of, until=13)
    after, _, _ = trained(settings, graphs.of, snapshot=amid)
    for one, two in zip(tree.leaves(whole), tree.leaves(after), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    resetting = make_method("ours_discounted", reset_weights=True)
    compared(make_settings(tmp_path, resetting, hyperparameter_updates=4))


def test_tangents_that_are_not_finite_begin_anew_as_in_the_loop(tmp_path):
    start = StartRanges(None, (0.5, 2.5), (-7.0, -2.0), (0.0, 1.0), (0.95, 1.01))
    settings = make_settings(
        tmp_path, "ours_discounted", precision="float32", repetitions=6, start=start
    )
    _, record = compared(settings)
    assert (record.diverged_at() >= 0).any()


def test_adamw_with_values_of_its_own_for_each_weight(tmp_path):
    method = make_method("ours_adamw", per_weight=("lr",))
    engine, _ = compared(make_settings(tmp_path, method, save_hypergradients=True))
    assert isinstance(engine, Stretches)
    method = make_method("ours_adamw", per_weight=("beta1",))
    engine, _ = compared(make_settings(tmp_path, method, save_hypergradients=True))
    assert isinstance(engine, Eager)


def test_rows_with_look_backs_of_their_own_have_the_bits_of_one_look_back(tmp_path):
    found = []
    for estimator in (Neumann(3), Neumann(1).with_look_backs((1, 3, 6))):
        method = make_method("ours_adamw", estimator=estimator)
        end, _, _ = trained(make_settings(tmp_path, method, hyperparameter_updates=4), graphs.of)
        found.append(end.state.weights[1])
    assert torch.equal(*found)


@pytest.mark.parametrize("method", BEYOND)
def test_without_kernels_the_numbers_are_the_same_to_rounding(tmp_path, method, monkeypatch):
    settings = make_settings(tmp_path, method, hyperparameter_updates=4, save_hypergradients=True)
    end, record, _ = trained(settings, graphs.of)
    monkeypatch.setattr(native, "kernels", lambda: native.Kernels(None, "none"))
    other, written, (engine,) = trained(settings, graphs.of)
    assert isinstance(engine, Eager)
    for one, two in zip(tree.leaves(end.state), tree.leaves(other.state), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)
    for name, values in record.hypergradients().items():
        np.testing.assert_allclose(
            written.hypergradients()[name], values, rtol=1e-7, atol=1e-11, err_msg=name
        )


def test_divergence_is_noted_at_the_same_update(tmp_path):
    start = StartRanges(None, (0.0, 3.0), (-7.0, -2.0), (0.0, 1.0), (0.95, 1.01))
    settings = make_settings(tmp_path, "random", precision="float32", repetitions=6, start=start)
    _, record = compared(settings)
    assert (record.diverged_at() >= 0).any()


def test_a_snapshot_keeps_its_numbers(tmp_path):
    kept = []

    def keep(snapshot):
        kept.append((snapshot.state.weights, snapshot.state.weights.clone()))

    trained(make_settings(tmp_path, "ours_wd_lr_m"), graphs.of, on_pause=keep)
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
