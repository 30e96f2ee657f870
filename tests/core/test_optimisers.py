"""Hyperparameter optimisers against PyTorch's, row by row."""

from __future__ import annotations

import math

import pytest
import torch

from hpo_bench.core.optimisers import SGD, Adam


def test_a_step_of_adam_does_not_depend_on_the_place_among_the_rows():
    optimiser, hypergradient = Adam(0.05), torch.full((50, 1), 0.3, dtype=torch.float64)
    memory = optimiser.init({"lr": hypergradient})
    for _ in range(60):
        steps, memory = optimiser.update({"lr": hypergradient}, memory)
        assert torch.equal(steps["lr"], steps["lr"][:1].expand(50, 1))


@pytest.mark.parametrize("shape", [(3, 1), (3, 5)])
def test_adam_is_torchs_adam_and_sgd_is_torchs_sgd(shape):
    random = torch.Generator().manual_seed(0)
    gradients = [
        torch.randn(shape, dtype=torch.float64, generator=random) * 10.0**-k for k in range(12)
    ]
    pairs = (
        (Adam(0.05, (0.8, 0.99)), lambda p: torch.optim.Adam([p], 0.05, (0.8, 0.99))),
        (SGD(0.3), lambda p: torch.optim.SGD([p], 0.3)),
    )
    for ours, theirs in pairs:
        raw = {"lr": torch.zeros(shape, dtype=torch.float64)}
        parameter = torch.nn.Parameter(raw["lr"].clone())
        optimiser, memory = theirs(parameter), ours.init(raw)
        for gradient in gradients:
            steps, memory = ours.update({"lr": gradient}, memory)
            raw = {"lr": raw["lr"] + steps["lr"]}
            parameter.grad = gradient.clone()
            optimiser.step()
        torch.testing.assert_close(raw["lr"], parameter.detach(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("make", [Adam, SGD])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_an_update_that_would_not_be_finite_is_left_out_row_by_row(make, bad):
    """As if that row had not been asked; without the option its memory is spoilt for ever."""
    skipping = make(0.05, skip_not_finite=True)
    start = {"lr": torch.zeros(2, 1, dtype=torch.float64)}
    memory, undisturbed = skipping.init(start), make(0.05).init(start)
    for number in range(4):
        hypergradient = torch.full((2, 1), 0.3 + number, dtype=torch.float64)
        wanted, undisturbed = make(0.05).update({"lr": hypergradient}, undisturbed)
        found, memory = skipping.update({"lr": hypergradient}, memory)
        assert torch.equal(found["lr"], wanted["lr"])
        if make is SGD and math.isfinite(bad):
            continue  # large, and no more than that
        spoilt = torch.tensor([[bad], [bad]], dtype=torch.float64)
        found, memory = skipping.update({"lr": spoilt}, memory)
        assert not found["lr"].any()
    mixed = torch.tensor([[0.5], [math.nan]], dtype=torch.float64)
    found, _ = skipping.update({"lr": mixed}, memory)
    wanted, _ = make(0.05).update({"lr": torch.full_like(mixed, 0.5)}, undisturbed)
    assert found["lr"].tolist() == [wanted["lr"][0].tolist(), [0.0]]
