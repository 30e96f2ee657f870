"""Coordinates: derivatives, and values that do not depend on their place."""

from __future__ import annotations

import pytest
import torch

from hpo_bench.core.sgd import COORDINATES
from tests.problems import in_force


@pytest.mark.parametrize("name", sorted(COORDINATES))
def test_slopes_are_derivatives(name):
    raw = torch.tensor([[-3.0], [-0.5], [1.2]], dtype=torch.float64, requires_grad=True)
    natural = COORDINATES[name].space.natural(raw)
    (expected,) = torch.autograd.grad(natural.sum(), raw)
    torch.testing.assert_close(in_force({name: raw}).slope(name), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(COORDINATES))
def test_a_natural_value_does_not_depend_on_its_place(name, dtype):
    raw = torch.linspace(-9, 2, 4001, dtype=dtype).unsqueeze(-1)
    together = COORDINATES[name].space.natural(raw)
    for start in range(0, 4001, 7):
        for size in (1, 3, 13):
            part = slice(start, start + size)
            assert torch.equal(COORDINATES[name].space.natural(raw[part]), together[part])
