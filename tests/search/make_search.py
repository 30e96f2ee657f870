"""Small searches on a random table, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hpo_bench.running.checkpoint import Checkpoints
from hpo_bench.running.trainer import Trainer
from hpo_bench.settings.run import Settings
from hpo_bench.store.writer import Block
from tests.problems import make_method, make_settings, make_table

INNER = {"random": "random_validation", "ours": "ours_wd_lr_m"}
TIMED = ["seconds", "elapsed_s", "rows_in_block"]


def search_settings(folder: Path, search: Any, inner: str = "random", **changes: Any) -> Settings:
    """Settings of a search over trainings of 30 weight updates (T = 10)."""
    method = make_method(INNER[inner], search=search)
    return make_settings(folder, method, **{"hyperparameter_updates": 3, **changes})


def search_trainer(folder: Path, search: Any, inner: str = "random", **changes: Any) -> Trainer:
    """Ready to search."""
    settings = search_settings(folder, search, inner, **changes)
    return Trainer.of(settings, make_table(), torch.device("cpu"))


def searched(trainer: Trainer, seeds: Sequence[int] = (0, 1)) -> Block:
    """The block of some repetitions."""
    return trainer.block(list(seeds), lambda updates: None)


def frame(block: Block, table: str, seed: int | None = None) -> pd.DataFrame:
    """One of its tables without times, of one repetition or all."""
    found = block.tables[table].to_pandas().drop(columns=TIMED, errors="ignore")
    return found if seed is None else found[found["seed"] == seed].reset_index(drop=True)


class Enough(Exception):
    """Somebody pulled the plug."""


def interrupted(
    trainer: Trainer, seeds: Sequence[int], after: int, folder: Path
) -> tuple[Block, int]:
    """The block of a search that was killed at its ``after``-th report and taken up again, and its
    progress in sum.
    """
    kept = replace(trainer, checkpoints=Checkpoints(folder, 0.0))
    folder.mkdir(exist_ok=True)
    reports = []

    def until(updates: int) -> None:
        if updates == 0:
            return  # it only asks whether to go on
        reports.append(updates)
        if len(reports) == after:
            raise Enough

    try:
        kept.block(list(seeds), until)
    except Enough:
        assert kept.checkpoints is not None
        assert kept.checkpoints.path(seeds).exists()
    else:
        raise AssertionError(f"it was finished after {len(reports)} reports")
    again: list[int] = []
    return kept.block(list(seeds), again.append), sum(again)
