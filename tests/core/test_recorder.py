"""What is recorded: first and last steps, and divergence."""

from __future__ import annotations

import math

import pytest
import torch

from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.recorder import Recorder, recorded_steps
from hpo_bench.core.sgd import COORDINATES
from hpo_bench.core.update import State


@pytest.mark.parametrize(("updates", "every"), [(10, 1), (10, 3), (10, 10), (7, 100)])
def test_first_and_last_steps_are_always_recorded(updates, every):
    steps = recorded_steps(updates, every)
    assert (steps[0], steps[-1]) == (0, updates)
    assert all(step % every == 0 for step in steps[:-1])
    assert len(steps) == math.ceil(updates / every) + 1


@pytest.mark.parametrize("where", ["loss", "weights", "lr"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_divergence_is_seen_in_loss_weights_and_hyperparameters(where, bad):
    recorder = Recorder(2, 3, 100, False, torch.empty(0))
    for step in range(4):
        loss, weights, lr = torch.ones(2), torch.ones(2, 3), torch.full((2, 1), 0.1)
        if step >= 2:
            {"loss": loss, "weights": weights[:, 1], "lr": lr[:, 0]}[where][1] = bad
        hyper = Hyperparameters({}, {"lr": lr}, COORDINATES)
        recorder.watch(step, State(weights, weights), loss, hyper)
    assert recorder.diverged_at().tolist() == [-1, 2]


def test_huge_but_finite_weights_have_not_diverged():
    recorder = Recorder(1, 0, 1, False, torch.empty(0))
    recorder.watch(
        0,
        State(torch.full((1, 9), 3e38), torch.zeros(1, 9)),
        torch.full((1,), 3e38),
        Hyperparameters({}, {"lr": torch.ones(1, 1)}, COORDINATES),
    )
    assert recorder.diverged_at().tolist() == [-1]
