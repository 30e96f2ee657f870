"""Horizons that do not end, over the discount of their tangents."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.selection import (
    Runs,
    Selection,
    by_dataset,
    comparable,
    grouped,
    over_setting,
    settings,
    weight_updates,
)
from hpo_bench.analysis.statistics.bootstrap import bootstrap
from hpo_bench.analysis.statistics.interval import RESAMPLES, Statistics
from hpo_bench.analysis.summary import measures, paper_keeps
from hpo_bench.analysis.tables.cells import Cells, Parts, estimate, frames, interval_data
from hpo_bench.store.runs import Run

DISCOUNT = "method.estimator.discount"
COLUMN_OF_DISCOUNTS = "Method"


def all_discounts(runs: Runs, methods: Collection[str] = ()) -> Selection:
    """Every value of the discount beside each other, and other methods of the same length."""
    with_discount = [run for run in runs if DISCOUNT in settings(run)]
    cells, notes = over_setting(with_discount, DISCOUNT)
    chosen = [run for cell in cells.values() for run in cell]
    lengths = {(run.dataset, weight_updates(run)) for run in chosen}
    others = [
        run
        for run in runs
        if DISCOUNT not in settings(run) and (run.dataset, weight_updates(run)) in lengths
    ]
    beside = comparable(others, methods)
    return Selection([*chosen, *beside.runs], (*notes, *beside.notes))


def _discount_of(run: Run) -> float | None:
    value = settings(run).get(DISCOUNT)
    return None if value is None else float(value)


def make(runs: Runs, mode: Statistics, seed: int) -> Parts:
    """A row for each method and discount, columns for each dataset."""
    records = []
    for of_dataset in by_dataset(runs).values():
        measure = measures(of_dataset)[-1]
        groups = grouped(of_dataset, lambda run: (run.method, _discount_of(run)))
        for (method, discount), group in groups.items():
            frame = finals(group)
            values = failure_aware(frame, measure.column) * measure.scale
            counting = values[paper_keeps(frame, measure.column)] if mode == "paper" else values
            name = group[0].method_label
            records.append(
                {
                    "dataset": group[0].dataset,
                    "dataset_label": group[0].dataset_label,
                    "measure": measure.label,
                    "method": method,
                    "label": name if discount is None else f"{name}, γ = {discount:g}",
                    "discount": np.nan if discount is None else discount,
                    "order": group[0].config["method"].get("order", 0),
                    **interval_data(bootstrap(counting, "median", seed=seed)),
                    "n_ok": int(np.isfinite(values).sum()),
                    "n": len(values),
                }
            )
    data = pd.DataFrame(records)
    least = data.groupby("dataset")["estimate"].transform("min")
    cells: Cells = {}
    for record, lowest in zip(records, data["estimate"] == least, strict=True):
        title = f"{record['dataset_label']}: {record['measure']}"
        cells.setdefault((title, "Median"), {})[record["label"]] = (estimate(record), bool(lowest))
        ok = f"{record['n_ok']}/{record['n']}"
        cells.setdefault((title, "n_ok/n"), {})[record["label"]] = (ok, False)
    ordered = data.sort_values(["order", "discount", "label"], na_position="first")
    body, bold = frames(cells, list(dict.fromkeys(ordered["label"])), [COLUMN_OF_DISCOUNTS])
    label = (
        f"statistics: {mode}; median final test metric with 95 % bootstrap intervals, {RESAMPLES} "
        f"resamples, seed {seed}, diverged = +inf; γ: discount of the tangents at each weight "
        "update; bold: least of a column"
    )
    return body, bold, data.drop(columns="order").assign(statistics=mode, seed=seed), label
