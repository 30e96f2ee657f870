"""Structures as leaves and back."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from hpo_bench.core import tree
from hpo_bench.core.optimisers import Adam


@dataclass(frozen=True)
class Pair:
    left: Any
    right: Any


def structure():
    weights = torch.arange(6.0).reshape(3, 2)
    memory = Adam(0.1).init({"lr": weights[:, :1], "momentum": weights})
    return Pair({"a": weights, "b": [None, (3, 2.5)]}, memory)


def test_leaves_come_back_in_their_places():
    value = structure()
    leaves = tree.leaves(value)
    again = tree.rebuilt(value, leaves)
    assert again.left["b"] == [None, (3, 2.5)]
    assert again.right.count.tolist() == [[0], [0], [0]]
    assert all(a is b for a, b in zip(leaves, tree.leaves(again), strict=True))
    other = tree.rebuilt(value, range(len(leaves)))
    assert tree.leaves(other) == list(range(len(leaves)))


@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_leaves_is_refused(change):
    value = structure()
    with pytest.raises(ValueError, match="leaves"):
        tree.rebuilt(value, range(len(tree.leaves(value)) + change))


def test_rows_are_taken_of_every_tensor_and_may_repeat():
    taken = tree.take_rows(structure(), torch.tensor([2, 0, 2]))
    assert taken.left["a"].tolist() == [[4, 5], [0, 1], [4, 5]]
    assert taken.left["b"] == [None, (3, 2.5)]
    assert taken.right.first["lr"].shape == (3, 1)
