"""Batches of one row are refused before training where the model cannot take them, and only
there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hpo_bench.core.batches import smallest_batch
from hpo_bench.errors import UserError
from hpo_bench.models.custom import Custom
from hpo_bench.models.mlp import MLP
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer
from hpo_bench.search.asha import ASHA
from hpo_bench.store.runs import read_table
from tests.problems import make_method, make_settings, make_table

CPU = torch.device("cpu")
NORMED = MLP((6,), batch_norm=True)


@given(st.integers(1, 200), st.none() | st.integers(1, 250))
def test_the_smallest_batch_is_that_of_a_pass(rows: int, batch_size: int | None) -> None:
    size = batch_size or rows
    assert smallest_batch(rows, batch_size) == min(
        len(range(at, min(at + size, rows))) for at in range(0, rows, size)
    )


def trainer(
    tmp_path: Path,
    model: object = NORMED,
    method: str = "ours_wd_lr_m",
    rows: int = 60,
    **changes: object,
):
    """36 training rows of 60, 12 for validation and 12 for the test."""
    table = make_table("classification", rows=rows)
    settings = make_settings(tmp_path, method, table, model=model, **changes)
    return Trainer.of(settings, table, CPU)


@pytest.mark.parametrize(
    ("batch_size", "which", "works"),
    [
        (35, "the last batch of each pass over the 36 training rows has one row", 34),
        (5, "the last batch of each pass over the 36 training rows has one row", 4),
        (11, "the last batch of each pass over the 12 validation rows has one row", 10),
        (1, "every batch over the 36 training rows has one row", 2),
    ],
)
def test_a_batch_size_that_leaves_one_row_is_refused(
    tmp_path: Path, batch_size: int, which: str, works: int
) -> None:
    about = (
        rf"^batch_size={batch_size}: {which}, which the model cannot be trained with "
        r"\(Expected more than 1 value.*"
    )
    with pytest.raises(UserError, match=rf"{about} such as batch_size={works}$") as error:
        trainer(tmp_path, batch_size=batch_size)
    assert "\n" not in str(error.value)
    trainer(tmp_path, batch_size=works)


def test_the_batch_size_that_is_named_trains(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        trainer(tmp_path, batch_size=5)
    named = re.search(r"such as batch_size=(\d+)$", str(error.value))
    assert named is not None
    table = make_table("classification")
    settings = make_settings(
        tmp_path, table=table, model=NORMED, batch_size=int(named[1]), hyperparameter_updates=2
    )
    assert np.isfinite(read_table(execute(settings).run, "final").test_loss).all()


def test_parts_of_one_row_are_refused(tmp_path: Path) -> None:
    table = make_table("classification", rows=5)  # 3, 1 and 1
    settings = make_settings(tmp_path, table=table, model=NORMED)
    with pytest.raises(
        UserError, match=r"^validation_share: there is one validation row, which the model cannot"
    ):
        Trainer.of(settings, table, CPU)
    for name in ("random", "random_validation"):  # these do not train with it
        Trainer.of(make_settings(tmp_path, name, table, model=NORMED), table, CPU)


def test_models_that_take_one_row_are_left_alone(tmp_path: Path) -> None:
    for model in (MLP((6,)), MLP((6, 5))):
        trainer(tmp_path, model, batch_size=1)
        trainer(tmp_path, model, batch_size=35)


def test_a_search_is_checked_too(tmp_path: Path) -> None:
    method = make_method("random", search=ASHA(), data_for_weights="train")
    with pytest.raises(UserError, match=r"^batch_size=35: the last batch"):
        trainer(tmp_path, method=method, batch_size=35)


@dataclass(frozen=True)
class Made:
    """Makes a module around a layer."""

    layer: type[nn.Module]

    def __call__(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), self.layer(), nn.Linear(6, 3))


class BySpread(nn.Module):
    """Divides by the standard deviation over the batch: NaN for one row."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs / (inputs.std(0) + 1)


class WithoutStatistics(nn.BatchNorm1d):
    """Uses the batch's own statistics in evaluation, too."""

    def __init__(self) -> None:
        super().__init__(6, track_running_stats=False)


def test_modules_of_ones_own_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^batch_size=5: .*\(its loss is nan\)"):
        trainer(tmp_path, Custom(Made(BySpread)), batch_size=5)
    trainer(tmp_path, Custom(Made(BySpread)), batch_size=6)
    with pytest.raises(UserError, match=r"^batch_size=5: .*\(Expected more than 1 value"):
        trainer(tmp_path, Custom(Made(WithoutStatistics)), batch_size=5)


def test_rows_that_are_evaluated_in_parts_must_not_see_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Custom(Made(BySpread))
    trainer(tmp_path, own)  # all rows at once
    monkeypatch.setattr("hpo_bench.models.autograd.EVALUATION_BYTES", 0)
    trainer(tmp_path, NORMED)
    with pytest.raises(
        UserError, match=r"^model: (in evaluation mode the loss of two rows is|it cannot evaluate)"
    ):
        trainer(tmp_path, own)
    with pytest.raises(
        UserError, match=r"^model: it cannot evaluate one of the 12 test rows alone \(Expected more"
    ):
        trainer(tmp_path, Custom(Made(WithoutStatistics)))
