"""Inputs on their way to the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hpo_bench.core.batches import Rows, Stream
from hpo_bench.core.model import TakesPlaces
from hpo_bench.core.seeds import permutation
from hpo_bench.models.mlp import MLP
from hpo_bench.running import inputs as loading
from hpo_bench.running.inputs import inputs_on
from tests.problems import make_table

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("block", [1, 50, 1 << 22])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_standardised_in_float64_whatever_the_block(
    monkeypatch: pytest.MonkeyPatch, block: int, kind: type, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(loading, "BLOCK", block)
    inputs = RANDOM.integers(0, 256, (23, 3, 2, 2)).astype(kind)
    before = inputs.copy()
    centre, scale = RANDOM.uniform(50, 200, (3, 1, 1)), RANDOM.uniform(1, 90, (3, 1, 1))
    table = replace(make_table(), inputs=inputs, centre=centre, scale=scale)
    expected = torch.from_numpy((inputs.astype(np.float64) - centre) / scale).to(dtype)
    found = inputs_on(table, dtype, CPU)
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    assert (inputs == before).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standardised_inputs_are_cast_and_tokens_are_not(dtype: torch.dtype) -> None:
    table = make_table()
    assert torch.equal(inputs_on(table, dtype, CPU), torch.from_numpy(table.inputs).to(dtype))
    tokens = RANDOM.integers(0, 10_000, (9, 4))
    found = inputs_on(replace(table, inputs=tokens), dtype, CPU)
    assert found.dtype == torch.int64
    assert torch.equal(found, torch.from_numpy(tokens))


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("size", [7, 12, 36])
def test_a_batch_is_the_permutations_rows(size, in_place):
    table = make_table("classification")
    model = MLP((7,), closed_form=in_place).build(table, torch.float64, CPU)
    if in_place != isinstance(model, TakesPlaces):
        pytest.skip("no compiled kernels")
    rows = Rows(
        torch.from_numpy(table.inputs[:36]), torch.from_numpy(table.targets[:36]), "training"
    )
    stream = Stream(rows, model, size, shuffled=True, dataset="d", name="training", seeds=(3, 5))
    for number in range(2 * stream.per_pass):
        passes, index = divmod(number, stream.per_pass)
        batch = stream.batch(number)
        for row, seed in enumerate((3, 5)):
            order = permutation(seed, "d", "training", 36, passes) if size < 36 else np.arange(36)
            chosen = order[index * size : (index + 1) * size]
            own = batch.inputs, batch.targets
            if not batch.shared:
                own = tuple(
                    values[row if batch.places is None else batch.places[row]] for values in own
                )
            assert np.array_equal(own[0], table.inputs[chosen])
            assert np.array_equal(own[1], table.targets[chosen])


def test_a_table_that_lies_column_by_column_is_turned_once():
    table = make_table("classification")
    columns = replace(table, inputs=np.asfortranarray(table.inputs))
    inputs = inputs_on(columns, torch.float64, CPU)
    assert inputs.is_contiguous()
    assert np.array_equal(inputs, table.inputs)
