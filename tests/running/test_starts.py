"""Starts: drawn from seeds, or read from a file that may be wrong."""

import numpy as np
import pytest
import torch

from hpo_bench.core.sgd import COORDINATES
from hpo_bench.errors import UserError
from hpo_bench.models.mlp import MLP
from hpo_bench.running import starts as start
from hpo_bench.settings import run as settings
from tests.problems import in_force, make_method, make_table

PAPER = settings.StartRanges(None, (-6.0, -1.0), (-7.0, -2.0), (0.0, 1.0), (0.95, 1.01))


@pytest.fixture
def model():
    return MLP((7,)).build(make_table(), torch.float64, torch.device("cpu"))


def test_draws_fill_the_papers_ranges(model):
    drawn = start.draw(range(2000), "uci_energy", model, PAPER, COORDINATES)
    momentum = 1 / (1 + np.exp(-drawn["momentum"]))
    columns = (drawn["lr"], drawn["weight_decay"], momentum, drawn["lr_multiplier"])
    for values, (low, high) in zip(
        columns, ((-6, -1), (-7, -2), (0, 1), (0.95, 1.01)), strict=True
    ):
        assert low <= values.min() <= low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) <= values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
    assert abs(np.corrcoef(columns)[np.triu_indices(4, 1)]).max() < 0.08


def test_a_fixed_range_fixes_the_value(model):
    ranges = settings.StartRanges(None, (-2, -2), (-3, -3), (0.622, 0.622), (1, 1))
    begun = start.to_device(
        start.draw([7], "d", model, ranges, COORDINATES),
        make_method("random_lr_schedule"),
        COORDINATES,
        torch.empty(0),
    )
    natural = in_force(begun.raw).natural
    assert [round(natural[n].item(), 5) for n in ("lr", "weight_decay", "momentum")] == [
        0.01,
        0.001,
        0.622,
    ]
    assert begun.log10_multiplier.item() == 0


def test_no_momentum_can_be_asked_for(model):
    ranges = settings.StartRanges(None, (-2, -2), (-3, -3), (0.0, 0.0), (1, 1))
    begun = start.to_device(
        start.draw([0], "d", model, ranges, COORDINATES),
        make_method("random"),
        COORDINATES,
        torch.empty(0),
    )
    assert in_force(begun.raw)["momentum"].item() == 0


def arrays(model, rows=2):
    values = {
        f"w0/{n}": np.zeros((rows, *s))
        for n, s in zip(model.layout.names, model.layout.shapes, strict=True)
    }
    return {
        **values,
        "raw/lr": np.full(rows, -1.0),
        "raw/weight_decay": np.full(rows, -3.0),
        "raw/momentum": np.zeros(rows),
    }


def test_a_file_gives_the_rows_asked_for(model, tmp_path):
    values = {
        name: np.random.default_rng(0).standard_normal(array.shape)
        for name, array in arrays(model, 5).items()
    }
    np.savez(tmp_path / "init.npz", **values)
    read = start.read(tmp_path / "init.npz", [3, 1], model, COORDINATES)
    np.testing.assert_array_equal(read["lr"], values["raw/lr"][[3, 1]])
    flat = model.layout.flatten({n: values[f"w0/{n}"] for n in model.layout.names})
    np.testing.assert_array_equal(read["weights"], flat[[3, 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raw/lr": None}, "array raw/lr is missing"),
        ({"w0/layers.0.bias": None}, "array w0/layers.0.bias is missing"),
        ({"raw/lr": np.zeros((2, 2))}, r"raw/lr has shape \(2, 2\), needed \(R\)"),
        ({"raw/lr": np.zeros(1)}, "with R at least 2"),
        ({"raw/lr": np.float64(1.0)}, "needed"),
        ({"w0/layers.0.weight": np.zeros((2, 7, 9))}, r"needed \(R, 7, 4\)"),
        ({"raw/lr": np.array([1.0, np.nan])}, "not finite"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(model, tmp_path, change, message):
    values = {
        name: array for name, array in {**arrays(model), **change}.items() if array is not None
    }
    np.savez(tmp_path / "init.npz", **values)
    with pytest.raises(UserError, match=message) as caught:
        start.read(tmp_path / "init.npz", [0, 1], model, COORDINATES)
    assert str(caught.value).startswith("init.file=")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not an archive"])
def test_a_file_that_is_no_archive_is_named(model, tmp_path, content):
    (tmp_path / "init.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"not a readable \.npz"):
        start.read(tmp_path / "init.npz", [0], model, COORDINATES)


def test_a_schedule_needs_multipliers(model, tmp_path):
    np.savez(tmp_path / "init.npz", **arrays(model))
    values = start.read(tmp_path / "init.npz", [0], model, COORDINATES)
    with pytest.raises(UserError, match="lr_multiplier"):
        start.to_device(values, make_method("random_lr_schedule"), COORDINATES, torch.empty(0))
