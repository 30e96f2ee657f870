"""Which runs the paper's figures are made from (its Section 4 and appendices): datasets, methods,
settings.
"""

from __future__ import annotations

from typing import Any

from hpo_bench.analysis.selection import SHARES as SHARES
from hpo_bench.analysis.summary import GROUP_SOURCE
from hpo_bench.figures.common.conditions import Except, Preferably

UCI = (
    "uci_energy",
    "uci_kin8nm",
    "uci_power",
    "uci_boston",
    "uci_concrete",
    "uci_naval",
    "uci_wine",
    "uci_yacht",
)
REPETITIONS = {"uci": 200, "fashion_mnist": 100, "cifar10": 50, "penn_treebank": 50}

TRAINED = (
    "random",
    "random_lr_schedule",
    "lorraine",
    "baydin",
    "ours_wd_lr",
    "ours_wd_lr_m",
    "ours_wd_hdlr_m",
    "diff_through_opt",
)
ONE_PASS = (*TRAINED, GROUP_SOURCE)  # whose runs give Random (3-batched)

UPDATE_INTERVAL, LOOK_BACK = 10, 5
START: dict[str, Any] = {
    "init.file": None,
    "init.log10_lr": [-6, -1],
    "init.log10_weight_decay": [-7, -2],
    "init.momentum": [0, 1],
    "validation_share": Except(SHARES),
    "hyper.clip_log10_lr": [-10, 0],
}
STANDARD: dict[str, Any] = {
    "update_interval": Preferably(UPDATE_INTERVAL),
    "look_back": LOOK_BACK,
    **START,
}
GRID = range(1, 11)  # of T and of i
