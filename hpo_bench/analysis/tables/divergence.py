"""How many repetitions of a method diverged, and when."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hpo_bench.analysis.frames import finals
from hpo_bench.analysis.rounding import NOTHING
from hpo_bench.analysis.selection import Runs, by_dataset, by_method
from hpo_bench.analysis.statistics.distributions import wilson
from hpo_bench.analysis.statistics.interval import Statistics
from hpo_bench.analysis.tables.cells import Cells, Parts, frames, interval_data, ordered


def make(runs: Runs, mode: Statistics, seed: int) -> Parts:
    """A row for each method, columns for each dataset."""
    cells: Cells = {}
    order: dict[str, float] = {}
    data = []
    methods = [method for part in by_dataset(runs).values() for method in by_method(part).values()]
    for method in methods:
        frame = finals(method)
        first, diverged = frame.iloc[0], frame[frame["status"] != "ok"]
        rate = wilson(len(diverged), len(frame))
        at = float(diverged["diverged_at"].median())
        texts = {
            "diverged": f"{len(diverged)}/{len(frame)}",
            "rate": f"{100 * rate.estimate:.3g} % [{100 * rate.low:.3g}, {100 * rate.high:.3g}]",
            "at step": NOTHING if np.isnan(at) else f"{at:.0f}",
        }
        for column, text in texts.items():
            cells.setdefault((first["dataset_label"], column), {})[first["label"]] = (text, False)
        order[first["label"]] = first["order"]
        data.append(
            {
                "dataset": first["dataset"],
                "method": first["method"],
                "label": first["label"],
                "diverged": len(diverged),
                "n": len(frame),
                "median_diverged_at": at,
                **interval_data(rate),
            }
        )
    body, bold = frames(cells, ordered(order), ["Method"])
    label = (
        "diverged/n; rate with 95 % Wilson interval; median step of divergence among those that "
        "diverged"
    )
    return body, bold, pd.DataFrame(data), label
