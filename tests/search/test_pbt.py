"""What a copy takes from whom it copies, and what becomes of its hyperparameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from make_search import search_trainer

from hpo_bench.search.pbt import HIGHEST_MOMENTUM, PopulationBasedTraining, exploit, multiplied
from hpo_bench.search.rows import all_pairs, begin, to_raw

NAMES = ("lr", "weight_decay", "momentum")


def made(tmp_path, search, inner="ours"):
    """A population of two repetitions in the middle of its training, and its next generation."""
    trainer = search_trainer(tmp_path, search, inner, batch_size=7)
    rows = begin(trainer, (0, 1), *all_pairs(2, range(search.population)))
    random = torch.Generator().manual_seed(0)

    def noise(value: torch.Tensor) -> torch.Tensor:
        return torch.rand(value.shape, dtype=value.dtype, generator=random)

    state = replace(rows.snapshot.state, buffer=noise(rows.snapshot.state.buffer))
    memory = rows.snapshot.memory
    if memory is not None:
        first = {name: noise(value) for name, value in memory.first.items()}
        second = {name: noise(value) for name, value in memory.second.items()}
        memory = replace(memory, count=3, first=first, second=second)
    rows = replace(rows, snapshot=replace(rows.snapshot, number=20, state=state, memory=memory))
    validation = np.random.default_rng(0).normal(size=len(rows)) ** 2
    validation[2] = np.nan
    return rows, validation, *search._next(trainer, (0, 1), rows, validation, 1)


def test_a_copy_has_weights_buffers_and_memory_of_its_parent_and_batches_of_its_own(tmp_path):
    search = PopulationBasedTraining(population=8, interval=10, perturbs="raw")
    rows, validation, after, parent = made(tmp_path, search)
    source = np.where(parent < 0, np.arange(16), parent + 8 * rows.repetition)
    assert (parent >= 0).sum() == 4
    assert parent[2] >= 0
    old, new = rows.snapshot, after.snapshot
    for before, now in (
        (old.state.weights, new.state.weights),
        (old.state.buffer, new.state.buffer),
        *((old.memory.first[name], new.memory.first[name]) for name in NAMES),
        *((old.memory.second[name], new.memory.second[name]) for name in NAMES),
    ):
        assert torch.equal(now, before[source])
    assert (new.number, new.memory.count) == (20, 3)
    assert after.seeds == rows.seeds
    assert list(after.trial) == list(rows.trial)
    for repetition in (0, 1):
        own = slice(8 * repetition, 8 * repetition + 8)
        ranked = np.argsort(np.where(np.isnan(validation[own]), np.inf, validation[own]))
        assert set(np.flatnonzero(parent[own] >= 0)) == set(ranked[-2:])
        assert set(parent[own][parent[own] >= 0]) <= set(ranked[:2])


@pytest.mark.parametrize("perturbs", ["natural", "raw"])
def test_hyperparameters_of_a_copy_are_its_parents_times_a_factor(perturbs, tmp_path):
    search = PopulationBasedTraining(population=40, interval=10, resample=0.0, perturbs=perturbs)
    rows, _, after, parent = made(tmp_path, search, "random")
    copies = np.flatnonzero(parent >= 0)
    source = parent[copies] + 40 * rows.repetition[copies]
    for name in NAMES:
        old, new = (
            part.natural[name] if perturbs == "natural" else part.snapshot.raw[name][:, 0].numpy()
            for part in (rows, after)
        )
        ratio = new[copies] / old[source]
        free = (
            (new[copies] < HIGHEST_MOMENTUM - 1e-9)
            if (name, perturbs) == ("momentum", "natural")
            else after.snapshot.raw["lr"][copies, 0].numpy() < 0
        )
        assert set(np.round(ratio[free], 9)) == {0.8, 1.2}
        others = np.setdiff1d(np.arange(len(rows)), copies)
        assert np.array_equal(new[others], old[others])


def test_a_value_drawn_anew_is_in_the_range_of_random_starts(tmp_path):
    _, _, after, parent = made(
        tmp_path, PopulationBasedTraining(population=40, interval=10, resample=1.0)
    )
    raw = {name: after.snapshot.raw[name][parent >= 0, 0].numpy() for name in NAMES}
    assert (raw["lr"] >= -2).all()
    assert (raw["lr"] <= -1).all()
    assert (raw["weight_decay"] >= -5).all()
    assert (raw["weight_decay"] <= -3).all()
    assert np.unique(raw["lr"]).size == 20


def test_momentum_stays_below_one_and_lr_within_its_clamp():
    raw = to_raw("momentum", np.array([0.9]))
    assert 1 / (1 + np.exp(-multiplied("momentum", raw, np.array([1.2])))) == pytest.approx(
        HIGHEST_MOMENTUM
    )
    assert 1 / (1 + np.exp(-multiplied("momentum", raw, np.array([0.8])))) == pytest.approx(0.72)
    assert multiplied("lr", np.array([-2.0]), np.array([10.0]))[0] == pytest.approx(-1.0)


@pytest.mark.parametrize(("members", "copies"), [(1, 0), (2, 1), (5, 2), (8, 2), (200, 50)])
def test_ray_tunes_number_of_copies(members, copies):
    losses = np.arange(members, dtype=float)[::-1].copy()
    worst, best = exploit(losses, 0.25, np.random.default_rng(0))
    assert sorted(worst) == list(range(copies))
    assert set(best) <= set(range(members - copies, members))
