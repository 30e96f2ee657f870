"""How long a training took."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hpo_bench.analysis import incumbent
from hpo_bench.analysis.compare import bounds
from hpo_bench.analysis.costs import Cost, costs
from hpo_bench.analysis.paper import PLAIN
from hpo_bench.analysis.rounding import NOTHING, rounded
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics.interval import Statistics
from hpo_bench.analysis.tables.cells import Cells, Parts, frames, interval_data


def make(runs: Runs, mode: Statistics, seed: int) -> Parts:
    """A row for each dataset, method and machine."""
    all_costs = costs(runs, seed)
    cells: Cells = {}
    rows = []
    for cost in all_costs:
        row = (cost.dataset_label, cost.label)
        texts = {
            "Runs": str(cost.repetitions),
            "Blocks": str(cost.blocks),
            "Rows in a block": str(cost.rows_in_block),
            "s per run": rounded(cost.seconds).text,
            "ms per update": rounded(cost.milliseconds_per_update).text,
            "× Random": _times(cost),
            "Machine": cost.machine,
        }
        rows.append(row)
        for column, text in texts.items():
            cells.setdefault(column, {})[row] = (text, False)
    body, bold = frames(cells, rows, ["Dataset", "Method"])
    data = pd.DataFrame([_cost_data(cost) for cost in all_costs])
    label = (
        "medians over blocks of (wall time ÷ rows in the block), test evaluation included, "
        "diverged runs too; × Random compares equal machines and block sizes alone, "
        f"bootstrap over blocks 95 %, seed {seed}"
    )
    return body, bold, data, label


def _times(cost: Cost) -> str:
    if cost.times_plain is None:
        return "1" if cost.method == PLAIN else NOTHING
    return bounds(cost.times_plain)


def _cost_data(cost: Cost) -> dict[str, Any]:
    data = dict(vars(cost))
    del data["dataset_label"], data["times_plain"]
    return {**data, **interval_data(cost.times_plain or incumbent.NO_VALUE, "times_plain_")}
