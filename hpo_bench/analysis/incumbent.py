"""The best configuration so far, chosen by validation loss, against what it cost: one-pass methods
and searches.

Costs are weight updates, gradient-equivalents and seconds of a repetition. A gradient-equivalent is
one forward and backward pass over a batch; a Hessian-vector product counts as `PRODUCT` of them.
Evaluations count by their time alone. A block's wall time is shared among its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo_bench.analysis import frames, selection
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics import best_of_groups, bootstrap, distributions, interval
from hpo_bench.analysis.statistics.interval import Interval
from hpo_bench.analysis.summary import Measure
from hpo_bench.store.runs import Run

Array = NDArray[np.float64]
# Gradients that a Hessian-vector product costs: a backward pass through a forward and backward
# pass.
PRODUCT = 2
AXES: Mapping[str, str] = {
    "weight_updates": "Weight updates",
    "gradient_equivalents": "Gradient-equivalents",
    "seconds": "Seconds",
}
QUARTILES = (0.25, 0.75)
POINTS = 80
RESTARTS = 40  # numbers of restarts that a curve shows
NOTHING = Interval(np.nan, np.nan, np.nan, np.nan, 0, "none", None)


def gradient_equivalents(gradients: Any, hessian_products: Any) -> Any:
    """Gradients and Hessian-vector products as one number."""
    return gradients + PRODUCT * hessian_products


def is_search(run: Run) -> bool:
    """Whether a repetition of a run is a whole search."""
    return run.config["method"].get("search") is not None


# --- methods of one pass, started again and again ---


def of_one_training(runs: Runs, finals: pd.DataFrame) -> dict[str, float]:
    """What one repetition costs by `AXES`; NaN where the runs do not tell (those of before 0.2)."""
    told = next((run.costs for run in runs if run.costs), None)
    work = (
        np.nan
        if told is None
        else float(gradient_equivalents(told["gradients"], told["hessian_products"]))
    )
    return {
        "weight_updates": float(selection.weight_updates(runs[0])),
        "gradient_equivalents": work,
        "seconds": float(finals["seconds"].median()),
    }


def restarted(runs: Runs, finals: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Median and quartiles of the best of k trainings one after the other, k = 1 … n, exactly over
    all subsets of k.

    Returns:
        ``part`` (one of `AXES`), ``x``, ``k``, ``y``, ``low``, ``high``; empty without a validation
        loss to choose by.
    """
    validation = frames.failure_aware(finals, "validation_loss")
    values = frames.failure_aware(finals, measure.column) * measure.scale
    if not np.isfinite(validation).any():
        return pd.DataFrame()
    rows = []
    for size in np.unique(np.geomspace(1, len(finals), min(len(finals), RESTARTS)).astype(int)):
        weights = best_of_groups.best_of_groups_weights(validation, int(size))
        low, y, high = (
            distributions.weighted_quantile(values, weights, q)
            for q in (QUARTILES[0], 0.5, QUARTILES[1])
        )
        rows.append({"k": size, "y": y, "low": low, "high": high})
    frame, costs = pd.DataFrame(rows), of_one_training(runs, finals)
    parts = [
        frame.assign(part=axis, x=frame["k"] * cost)
        for axis, cost in costs.items()
        if np.isfinite(cost)
    ]
    return pd.concat(parts, ignore_index=True)


# --- searches ---


@dataclass(frozen=True)
class Path:
    """The incumbent of one repetition:

    ``values`` of the metric from each of its ``costs`` (by `AXES`) on.
    """

    costs: Mapping[str, Array]
    values: Array

    def at(self, axis: str, budgets: Array) -> Array:
        """Value of the incumbent when a budget is spent; +inf before there is one."""
        costs = self.costs[axis]
        place = np.searchsorted(costs, np.asarray(budgets) * (1 + 1e-12), side="right") - 1
        return np.where(place >= 0, self.values[np.maximum(place, 0)], np.inf)


def paths(runs: Runs, finals: pd.DataFrame, measure: Measure) -> list[Path]:
    """Incumbents of all repetitions of a search that ever had one."""
    columns = ["elapsed_s", "validation_loss", measure.column, "gradients", "hessian_products"]
    curves = frames.curves(runs, columns)
    rows = finals.set_index("seed")["rows_in_block"]
    found = [
        path(own, measure, float(rows.get(seed, 1)))
        for seed, own in curves.groupby("seed", observed=True)
    ]
    return [path for path in found if path.values.size]


def path(curve: pd.DataFrame, measure: Measure, rows: float) -> Path:
    """The incumbent along one repetition's curve: the least validation loss so far; points without
    one are passed over.

    Args:
        rows: repetitions that shared the wall time.
    """
    ordered = curve.sort_values("step", kind="stable")
    validation = ordered["validation_loss"].to_numpy(dtype=float, na_value=np.nan)
    usable = np.isfinite(validation)
    validation, ordered = validation[usable], ordered[usable]
    best = np.minimum.accumulate(validation)
    new = np.append(True, best[1:] < best[:-1])[: len(best)]
    holder = np.maximum.accumulate(np.where(new, np.arange(len(best)), 0))
    values = ordered[measure.column].to_numpy(dtype=float, na_value=np.nan)[holder] * measure.scale
    work = gradient_equivalents(
        ordered["gradients"].to_numpy(float), ordered["hessian_products"].to_numpy(float)
    )
    costs = {
        "weight_updates": ordered["step"].to_numpy(float),
        "gradient_equivalents": work,
        "seconds": ordered["elapsed_s"].to_numpy(float) / rows,
    }
    return Path(costs, interval.as_failures(values))


def searched(found: Sequence[Path]) -> pd.DataFrame:
    """Median and quartiles of the incumbents of a search's repetitions, in the columns of
    `restarted`.
    """
    parts = []
    for axis in AXES:
        known = np.concatenate([path.costs[axis][path.costs[axis] > 0] for path in found])
        grid = np.geomspace(known.min(), known.max(), POINTS) if known.size else np.ones(1)
        matrix = np.stack([path.at(axis, grid) for path in found])
        low, high = bootstrap.quantile_band(matrix, *QUARTILES)
        y = interval.survival_median(matrix)
        parts.append(
            pd.DataFrame({"part": axis, "x": grid, "k": np.nan, "y": y, "low": low, "high": high})
        )
    return pd.concat(parts, ignore_index=True)


# --- at equal budgets ---


def restarted_at(
    runs: Runs, finals: pd.DataFrame, measure: Measure, axis: str, budget: float, seed: int
) -> Interval:
    """Median metric of the best of as many trainings as the budget pays for, with its bootstrap
    interval.
    """
    cost = of_one_training(runs, finals)[axis]
    count = int(budget / cost * (1 + 1e-12)) if np.isfinite(cost) and cost > 0 else 0
    validation = frames.failure_aware(finals, "validation_loss")
    if not 1 <= count <= len(finals) or not np.isfinite(validation).any():
        return NOTHING
    values = frames.failure_aware(finals, measure.column) * measure.scale
    return best_of_groups.best_of_groups_bootstrap(validation, values, count, "median", seed=seed)


def searched_at(found: Sequence[Path], axis: str, budget: float, seed: int) -> Interval:
    """Median over repetitions of the incumbent when the budget is spent; nothing if the searches
    were over before.
    """
    if not found or min(path.costs[axis][-1] for path in found) < budget * (1 - 1e-12):
        return NOTHING
    values = np.array([path.at(axis, np.array([budget]))[0] for path in found])
    return (
        bootstrap.bootstrap(values, "median", seed=seed) if np.isfinite(values).any() else NOTHING
    )


# --- how they compare with the paper's ---


def scaled_down(runs: Runs) -> str:
    """What searches have less of than in the paper (``method.search.published``), for the small
    print; or nothing.
    """
    told: dict[str, list[str]] = {}
    for run in (run for run in runs if is_search(run)):
        search = run.config["method"]["search"]
        own = {**search, "weight_updates": selection.weight_updates(run)}
        differences = [
            f"{key.replace('_', ' ')} {own[key]} instead of {published}"
            for key, published in (search.get("published") or {}).items()
            if own.get(key) != published
        ]
        if differences:
            told.setdefault(", ".join(differences), []).append(run.method_label)
    return "; ".join(f"{', '.join(dict.fromkeys(labels))}: {said}" for said, labels in told.items())
