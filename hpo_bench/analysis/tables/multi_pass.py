"""One-pass methods and searches at the cost of so many plain trainings."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from hpo_bench.analysis import incumbent
from hpo_bench.analysis.costs import of_several_machines
from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.paper import GROUP_SOURCE
from hpo_bench.analysis.selection import Runs, by_dataset, by_method, weight_updates
from hpo_bench.analysis.statistics.interval import RESAMPLES, Statistics
from hpo_bench.analysis.summary import Measure, measures
from hpo_bench.analysis.tables.cells import Cells, Marked, Parts, estimate, frames, interval_data
from hpo_bench.errors import UserError

BUDGETS = (1, 5, 30, 100, 200)  # in plain trainings


def make(runs: Runs, mode: Statistics, seed: int) -> Parts:
    """A row for each dataset, axis of costs and method, a column for each budget.

    Raises:
        UserError: no run has a validation loss.
    """
    order: dict[str, float] = {}
    records: list[dict[str, Any]] = []
    for of_dataset in by_dataset(runs).values():
        measure, units = measures(of_dataset)[-1], _units(of_dataset)
        for method in by_method(of_dataset).values():
            order[method[0].method_label] = method[0].config["method"].get("order", 0)
            records += _at_budgets(method, measure, units, seed)
    data = pd.DataFrame(records)
    if data.empty:
        raise UserError("table multi_pass: no run has a validation loss to choose by")

    cells: Cells = {}
    counts: dict[Any, Marked] = {}
    within = ["dataset_label", "measure", "axis", "budget"]
    least = data.groupby(within)["estimate"].transform("min")
    for record, best in zip(data.to_dict("records"), data["estimate"] == least, strict=True):
        dataset = f"{record['dataset_label']}: {record['measure']}"
        row = (dataset, incumbent.AXES[record["axis"]], record["label"])
        cells.setdefault(str(record["budget"]), {})[row] = (estimate(record), bool(best))
        counts[row] = (str(record["n"]), False)

    def place(row: tuple[str, str, str]) -> tuple[str, int, float, str]:
        dataset, axis, label = row
        return dataset, list(incumbent.AXES.values()).index(axis), order[label], label

    rows = sorted(counts, key=place)
    body, bold = frames({**cells, "n": counts}, rows, ["Dataset", "Budget in", "Method"])
    label = (
        "median test metric of the incumbent, chosen by validation loss, when as much is spent as "
        "a number of plain trainings (columns) costs; gradient-equivalents: gradients + "
        f"{incumbent.PRODUCT} × Hessian-vector products; one-pass methods: best of as many "
        "trainings as that pays for, over all subsets; brackets: 95 % bootstrap intervals over n "
        f"repetitions, {RESAMPLES} resamples, seed {seed}; diverged = +inf; bold: least of a column"
    )
    less = incumbent.scaled_down(runs)
    if less:
        label += f"; scaled down from the paper: {less}"
    label = "; ".join([label, *of_several_machines(runs)])
    return body, bold, data.assign(statistics=mode, seed=seed), label


def _units(runs: Runs) -> dict[str, float]:
    """What a plain training costs, by axis: weight updates, as many gradients, and seconds.

    The seconds are those of a Random training that looks at its validation loss, NaN without such.
    """
    updates = float(weight_updates(runs[0]))
    plain = by_method(runs).get(GROUP_SOURCE)
    seconds = float(finals(plain)["seconds"].median()) if plain else np.nan
    return {"weight_updates": updates, "gradient_equivalents": updates, "seconds": seconds}


def _at_budgets(
    runs: Runs, measure: Measure, units: Mapping[str, float], seed: int
) -> list[dict[str, Any]]:
    """A row for each axis and budget of one method; none without a validation loss to choose by."""
    frame = finals(runs)
    if not np.isfinite(failure_aware(frame, "validation_loss")).any():
        return []
    first, searches = frame.iloc[0], incumbent.is_search(runs[0])
    incumbents = incumbent.paths(runs, frame, measure) if searches else []
    records = []
    payable = {axis: unit for axis, unit in units.items() if np.isfinite(unit)}
    for (axis, unit), budget in product(payable.items(), BUDGETS):
        cost = budget * unit
        if searches:
            value = incumbent.searched_at(incumbents, axis, cost, seed)
        else:
            value = incumbent.restarted_at(runs, frame, measure, axis, cost, seed)
        records.append(
            {
                "dataset": first["dataset"],
                "dataset_label": first["dataset_label"],
                "method": first["method"],
                "label": first["label"],
                "measure": measure.label,
                "axis": axis,
                "budget": budget,
                "cost": cost,
                **interval_data(value),
                "n": len(frame),
            }
        )
    return records
