"""Replayed intervals: the numbers of the plain loop bit by bit, on a device that can only repeat a
program.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hpo_bench.core import tree
from hpo_bench.core.loop import Eager
from hpo_bench.models.mlp import MLP
from hpo_bench.running import graphs
from tests.models.test_lstm import words_settings
from tests.problems import METHODS, make_settings, make_table, trained


class Repeated:
    """A graph for devices that have none: runs the program again and puts the results where they
    were.
    """

    replaying = False

    def capture(self, program, carried):
        before = [tensor.clone() for tensor in carried]
        self.program, self.written = program, program()
        for tensor, value in zip(carried, before, strict=True):
            tensor.copy_(value)
        return self.written

    def replay(self):
        Repeated.replaying = True
        for place, value in zip(
            tree.leaves(self.written), tree.leaves(self.program()), strict=True
        ):
            place.copy_(value)
        Repeated.replaying = False


class Allocations(TorchDispatchMode):
    """Names of the operations outside of a replay that make a tensor of new memory."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        given = {
            leaf.untyped_storage().data_ptr()
            for leaf in arguments
            if isinstance(leaf, torch.Tensor)
        }
        fresh = (
            isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in given
        )
        if fresh and not Repeated.replaying:
            self.names.append(str(function))
        return result


def replays(training):
    return graphs.Graphs(training, Eager(training), Repeated)


def same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


@pytest.mark.parametrize("batch_size", [None, 12, 7])
@pytest.mark.parametrize("method", METHODS)
def test_replays_are_the_loop_bit_by_bit(tmp_path, method, batch_size):
    table = make_table()
    settings = make_settings(
        tmp_path,
        method,
        table,
        batch_size=batch_size,
        precision="float32",
        hyperparameter_updates=16,
        save_hypergradients=True,
        record_every=5,
    )
    end, record, _ = trained(settings)
    replayed, written, (engine,) = trained(settings, replays)
    assert engine._programs
    torch.testing.assert_close(replayed.state.weights, end.state.weights, rtol=0, atol=0)
    same(record.curves(), written.curves())
    same(record.hypergradients(), written.hypergradients())
    np.testing.assert_array_equal(record.diverged_at(), written.diverged_at())


@pytest.mark.parametrize("model", [MLP((7,), closed_form=False), MLP((7,), batch_norm=True)])
def test_any_module_can_be_replayed(tmp_path, model):
    table = make_table("classification")
    settings = make_settings(
        tmp_path, "ours_wd_lr_m", table, batch_size=9, model=model, hyperparameter_updates=12
    )
    end, record, _ = trained(settings)
    replayed, written, (engine,) = trained(settings, replays)
    assert engine._programs
    torch.testing.assert_close(replayed.state.weights, end.state.weights, rtol=0, atol=0)
    same(record.curves(), written.curves())


@pytest.mark.parametrize("method", ["random", "ours_wd_lr_m"])
def test_batches_in_the_order_of_the_rows_are_replayed_with_the_states_they_carry(tmp_path, method):
    settings = words_settings(tmp_path, method, hyperparameter_updates=24, update_interval=3)
    end, record, _ = trained(settings)
    replayed, written, (engine,) = trained(settings, replays)
    assert len(engine._programs) > 1, "passes begin at different places of an interval"
    torch.testing.assert_close(replayed.state.weights, end.state.weights, rtol=0, atol=0)
    same(record.curves(), written.curves())


def test_nothing_is_allocated_between_replays(tmp_path):
    settings = make_settings(
        tmp_path, "ours_wd_lr_m", make_table(), hyperparameter_updates=9, record_every=5
    )
    counted = []

    def on_pause(snapshot):
        counted.append(len(mode.names))

    with Allocations() as mode:
        _, _, (engine,) = trained(settings, replays, on_pause=on_pause)
    assert len(engine._programs) == 1
    assert counted[1] > counted[0], "the first interval runs as it is"
    assert counted[3] == counted[-1], mode.names[counted[3] :]


def test_a_module_that_cannot_be_captured_is_said_and_trained(tmp_path):
    class Refusing(Repeated):
        def capture(self, program, carried):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    settings = make_settings(tmp_path, "ours_wd_lr_m", make_table())
    end, _, _ = trained(settings)
    with pytest.warns(
        UserWarning, match="without CUDA graphs.*operation not permitted when stream is capturing$"
    ):
        other, _, _ = trained(
            settings, lambda training: graphs.Graphs(training, Eager(training), Refusing)
        )
    torch.testing.assert_close(other.state.weights, end.state.weights, rtol=0, atol=0)


def test_memory_that_runs_out_while_capturing_is_not_swallowed(tmp_path):
    class Exhausted(Repeated):
        def capture(self, program, carried):
            raise torch.OutOfMemoryError("CUDA out of memory")

    settings = make_settings(tmp_path, "ours_wd_lr_m", make_table())
    with pytest.raises(torch.OutOfMemoryError):
        trained(settings, lambda training: graphs.Graphs(training, Eager(training), Exhausted))


def test_a_replayed_training_goes_on_from_a_snapshot(tmp_path):
    settings = make_settings(
        tmp_path, "ours_wd_lr_m", make_table(), batch_size=7, hyperparameter_updates=8
    )
    end, _, _ = trained(settings)
    half, _, _ = trained(settings, replays, until=40)
    after, _, _ = trained(settings, replays, snapshot=replace(half, raw=dict(half.raw)))
    torch.testing.assert_close(after.state.weights, end.state.weights, rtol=0, atol=0)
