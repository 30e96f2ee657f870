"""Streams of batches: every row once a pass, and a place that can be entered anywhere."""

from __future__ import annotations

import pytest
import torch

from hpo_bench.core.batches import Rows, Stream
from hpo_bench.models.mlp import MLP
from tests.problems import make_table


@pytest.fixture
def rows():
    return Rows(torch.arange(10.0).reshape(10, 1), torch.arange(10.0).reshape(10, 1), "training")


def stream(rows, size, seeds=(0, 1), **changes):
    table = make_table(features=1)
    model = MLP((3,), closed_form=False).build(table, torch.float32, torch.device("cpu"))
    values = {"shuffled": True, "dataset": "d", "name": "training", "seeds": seeds, **changes}
    return Stream(rows, model, size, **values)


def test_every_pass_has_each_row_once_and_its_own_order(rows):
    batches = stream(rows, 4)
    passes = [
        torch.cat([batches.batch(3 * p + k).inputs for k in range(3)], 1).squeeze(-1)
        for p in range(3)
    ]
    for taken in passes:
        assert (taken.sort(1).values == torch.arange(10.0)).all()
    orders = {tuple(row.tolist()) for taken in passes for row in taken}
    assert len(orders) == 6  # three passes of two repetitions
    assert [batches.batch(k).count for k in range(4)] == [4, 4, 2, 4]
    assert [batches.batch(k).first for k in range(4)] == [True, False, False, True]


def test_a_stream_can_be_entered_anywhere_and_does_not_depend_on_its_neighbours(rows):
    whole, late, alone = stream(rows, 4, (5, 6, 7)), stream(rows, 4, (6, 7)), stream(rows, 4, (7,))
    for number in (0, 1, 2, 7):
        reference = whole.batch(number).inputs
        assert torch.equal(late.batch(number).inputs, reference[1:])
        assert torch.equal(alone.batch(number).inputs, reference[2:])


def test_streams_of_two_names_differ(rows):
    assert not torch.equal(
        stream(rows, 4).batch(0).inputs, stream(rows, 4, name="second").batch(0).inputs
    )


def test_sequential_and_full_batches_are_shared(rows):
    ordered, full = stream(rows, 4, shuffled=False), stream(rows, None)
    assert ordered.batch(1).shared
    assert ordered.batch(1).inputs.squeeze(-1).tolist() == [4, 5, 6, 7]
    assert ordered.batch(4).inputs.squeeze(-1).tolist() == [4, 5, 6, 7]
    assert full.batch(0) is full.batch(9)
    assert full.batch(0).count == 10
