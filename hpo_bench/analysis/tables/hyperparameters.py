"""Where hyperparameters begin and end."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hpo_bench.analysis.frames import finals
from hpo_bench.analysis.rounding import rounded
from hpo_bench.analysis.selection import Runs, by_dataset, by_method
from hpo_bench.analysis.statistics.interval import Statistics
from hpo_bench.analysis.tables.cells import Cells, Marked, Parts, frames
from hpo_bench.settings.run import in_order
from hpo_bench.store.runs import STARTED, hyperparameters_of


def make(runs: Runs, mode: Statistics, seed: int) -> Parts:
    """Medians of where each hyperparameter begins and ends, of those that a rule has."""
    cells: Cells = {}
    counted: dict[tuple[str, str], Marked] = {}
    rows = []
    records = []
    for of_dataset in by_dataset(runs).values():
        for method, group in by_method(of_dataset).items():
            frame = finals(group)
            ok = frame[frame["status"] == "ok"]
            row = (group[0].dataset_label, group[0].method_label)
            rows.append(row)
            counted[row] = (f"{len(ok)}/{len(frame)}", False)
            for name in hyperparameters_of(frame.columns):
                start, end = (_median_of(ok, f"{prefix}{name}") for prefix in (STARTED, ""))
                if np.isnan(start) and np.isnan(end):
                    continue
                text = f"{rounded(start).text} → {rounded(end).text}"
                cells.setdefault(name, {})[row] = (text, False)
                identity = {"dataset": group[0].dataset, "method": method, "hyperparameter": name}
                records.append({**identity, "initial": start, "final": end, "n_ok": len(ok)})
    columns = {name: cells[name] for name in in_order(cells)}
    body, bold = frames({**columns, "n_ok/n": counted}, rows, ["Dataset", "Method"])
    label = "medians over the repetitions that did not diverge, at the start → at the end"
    return body, bold, pd.DataFrame(records), label


def _median_of(frame: pd.DataFrame, column: str) -> float:
    """The median of a column, NaN where a rule has no such hyperparameter."""
    if column not in frame.columns:
        return np.nan
    return float(pd.to_numeric(frame[column]).median())
