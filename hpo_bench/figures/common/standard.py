"""Settings of the runs that the paper's figures are made from."""

from __future__ import annotations

from typing import Any

from hpo_bench.analysis.paper import LARGER_VALIDATION_SHARES
from hpo_bench.figures.common.conditions import Except, Preferably

UPDATE_INTERVAL, LOOK_BACK = 10, 5
STARTS: dict[str, Any] = {  # ranges of initial hyperparameters, and the usual validation part
    "init.file": None,
    "init.log10_lr": [-6, -1],
    "init.log10_weight_decay": [-7, -2],
    "init.momentum": [0, 1],
    "validation_share": Except(LARGER_VALIDATION_SHARES),
    "hyper.clip_log10_lr": [-10, 0],
}
STANDARD: dict[str, Any] = {
    "update_interval": Preferably(UPDATE_INTERVAL),
    "look_back": LOOK_BACK,
    **STARTS,
}
GRID = range(1, 11)  # of T and of i
