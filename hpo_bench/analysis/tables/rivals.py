"""What one would take today beside what tunes by hypergradients, at their costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from hpo_bench.analysis import incumbent, rivals
from hpo_bench.analysis.costs import of_several_machines
from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.rivals import as_meant, best_on_a_seed, data_for_weights
from hpo_bench.analysis.rounding import NOTHING, rounded
from hpo_bench.analysis.selection import (
    Runs,
    Selection,
    by_dataset,
    by_method,
    comparable,
    of_usual_length,
)
from hpo_bench.analysis.statistics.bootstrap import bootstrap
from hpo_bench.analysis.statistics.interval import RESAMPLES, Statistics
from hpo_bench.analysis.summary import measures, paper_keeps
from hpo_bench.analysis.tables.cells import Cells, Marked, Parts, estimate, frames, interval_data
from hpo_bench.errors import UserError
from hpo_bench.store.runs import Run

VERSIONS: Mapping[str, str] = {  # of the comparison, by which rows train the weights
    "as meant": "each method's own rows",
    rivals.TRAIN: "training rows alone",
}
ROWS_OF_WEIGHTS: Mapping[str, str] = {
    rivals.TRAIN: "no",
    "train_and_validation": "yes",
}


def versions(runs: Runs) -> dict[str, list[Run]]:
    """Runs by the version of the comparison that they are in; tuned methods are in both."""
    return {
        "as meant": [run for run in runs if as_meant(run)],
        rivals.TRAIN: [run for run in runs if data_for_weights(run) == rivals.TRAIN],
    }


def comparable_in_versions(runs: Runs, methods: Collection[str] = ()) -> Selection:
    """Comparable runs of each version."""
    chosen: dict[str, Run] = {}
    notes: dict[str, None] = {}
    for of_version in versions(runs).values():
        selection = comparable(of_version, methods)
        alike, other_lengths = of_usual_length(selection.runs)  # at equal cost
        chosen |= {run.run_id: run for run in alike}
        notes |= dict.fromkeys(other_lengths)
        # That some say `train` and others need not is what makes the version.
        told = [note for note in selection.notes if "data_for_weights=" not in note]
        notes |= dict.fromkeys(told)
    return Selection(list(chosen.values()), tuple(notes))


def make(runs: Runs, mode: Statistics, seed: int) -> Parts:
    """A row for each dataset, version and method.

    Raises:
        UserError: no run can be compared.
    """
    order: dict[str, float] = {}
    records: list[dict[str, Any]] = []
    for of_dataset in by_dataset(runs).values():
        for version, of_version in versions(of_dataset).items():
            records += _of_version(of_version, version, mode, seed)
            for run in of_version:
                order[run.method_label] = run.config["method"].get("order", 0)
    data = pd.DataFrame(records)
    if data.empty:
        raise UserError("table rivals: no run that can be compared")

    cells: Cells = {}
    rows = []
    within = ["dataset", "version"]
    least = data.groupby(within)["estimate"].transform("min")
    likeliest = data.groupby(within)["probability_estimate"].transform("max")
    for position, record in enumerate(records):
        row = (record["dataset_label"], VERSIONS[record["version"]], record["label"])
        rows.append(row)
        lowest = record["estimate"] == least[position] and np.isfinite(least[position])
        most_likely = record["probability_estimate"] == likeliest[position]
        texts: dict[str, Marked] = {
            "Validation rows train": (ROWS_OF_WEIGHTS[record["data_for_weights"]], False),
            "Median": (estimate(record), bool(lowest)),
            "P(best)": (_probability(record), bool(most_likely)),
            "n_ok/n": (f"{record['n_ok']}/{record['n']}", False),
            "Weight updates": (f"{record['weight_updates']:.0f}", False),
            "Gradient-equivalents": (_count(record["gradient_equivalents"]), False),
            "Seconds": (rounded(record["seconds"]).text, False),
        }
        for column, marked in texts.items():
            cells.setdefault(column, {})[row] = marked

    def place(row: tuple[str, str, str]) -> tuple[str, int, float, str]:
        dataset, version, label = row
        return dataset, list(VERSIONS.values()).index(version), order[label], label

    body, bold = frames(cells, sorted(rows, key=place), ["Dataset", "Weights see", "Method"])
    label = (
        f"statistics: {mode}; median final test metric with 95 % bootstrap intervals, {RESAMPLES} "
        f"resamples, seed {seed}, diverged = +inf; P(best): share of the seeds that all methods of "
        "a version have on which a method ends lowest, ties shared, with 95 % Wilson intervals; "
        f"gradient-equivalents: gradients + {incumbent.PRODUCT} × Hessian-vector products; bold: "
        "best of a dataset and version"
    )
    label = "; ".join([label, *of_several_machines(runs)])
    return body, bold, data.assign(statistics=mode, seed=seed), label


def _of_version(runs: Runs, version: str, mode: Statistics, seed: int) -> list[dict[str, Any]]:
    """A row for each method of one dataset and version."""
    if not runs:
        return []
    best = best_on_a_seed(runs)
    measure = measures(runs)[-1]
    records = []
    for method, group in by_method(runs).items():
        frame = finals(group)
        values = failure_aware(frame, measure.column) * measure.scale
        counting = values[paper_keeps(frame, measure.column)] if mode == "paper" else values
        first = frame.iloc[0]
        records.append(
            {
                "dataset": first["dataset"],
                "dataset_label": first["dataset_label"],
                "measure": measure.label,
                "version": version,
                "data_for_weights": data_for_weights(group[0]),
                "method": method,
                "label": first["label"],
                **interval_data(bootstrap(counting, "median", seed=seed)),
                **interval_data(best[method], "probability_"),
                "seeds_of_all": best[method].n,
                **incumbent.of_one_training(group, frame),
                "n_ok": int(np.isfinite(values).sum()),
                "n": len(values),
            }
        )
    return records


def _probability(record: Mapping[Any, Any]) -> str:
    estimate, low, high = (record[f"probability_{key}"] for key in ("estimate", "low", "high"))
    return NOTHING if np.isnan(estimate) else f"{estimate:.2f} [{low:.2f}, {high:.2f}]"


def _count(value: float) -> str:
    return NOTHING if np.isnan(value) else f"{value:.0f}"
