"""The best configuration so far, chosen by validation loss, against what it cost.

One-pass methods are started again and again; searches choose by themselves. Costs are weight
updates, gradient-equivalents and seconds of a repetition. A gradient-equivalent is one forward and
backward pass over a batch; a Hessian-vector product counts as `PRODUCT` of them. Evaluations count
by their time alone. A block's wall time is shared among its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo_bench.analysis.frames import curves, failure_aware
from hpo_bench.analysis.selection import Runs, weight_updates
from hpo_bench.analysis.statistics.best_of_groups import (
    best_of_groups_bootstrap,
    best_of_groups_weights,
)
from hpo_bench.analysis.statistics.bootstrap import bootstrap, quantile_band
from hpo_bench.analysis.statistics.distributions import weighted_quantile
from hpo_bench.analysis.statistics.interval import Interval, as_failures, survival_median
from hpo_bench.analysis.summary import Measure
from hpo_bench.store.runs import Run

Array = NDArray[np.float64]
PRODUCT = 2  # gradients that a Hessian-vector product costs: it goes through one, back and forth
AXES: Mapping[str, str] = {
    "weight_updates": "Weight updates",
    "gradient_equivalents": "Gradient-equivalents",
    "seconds": "Seconds",
}
QUARTILES = (0.25, 0.75)
POINTS = 80  # budgets at which a search's curve is shown
RESTARTS = 40  # numbers of restarts that a curve shows
UP_TO_ROUNDING = 1 + 1e-12  # so that a budget pays for all of a whole number of trainings
NO_VALUE = Interval(np.nan, np.nan, np.nan, np.nan, 0, "none", None)


def gradient_equivalents(gradients: Any, hessian_products: Any) -> Any:
    """Gradients and Hessian-vector products as one number."""
    return gradients + PRODUCT * hessian_products


def is_search(run: Run) -> bool:
    """Whether a repetition of a run is a whole search."""
    return run.config["method"].get("search") is not None


# --- methods of one pass, started again and again ---


def of_one_training(runs: Runs, finals: pd.DataFrame) -> dict[str, float]:
    """What one repetition costs by `AXES`; NaN where the runs do not tell (those of before 0.2)."""
    recorded = [run.costs for run in runs if run.costs]
    work = np.nan
    if recorded:
        counts = recorded[0]
        work = float(gradient_equivalents(counts["gradients"], counts["hessian_products"]))
    return {
        "weight_updates": float(weight_updates(runs[0])),
        "gradient_equivalents": work,
        "seconds": float(finals["seconds"].median()),
    }


def restarted(runs: Runs, finals: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Median and quartiles of the best of k trainings one after the other, k = 1 … n.

    They are exact, over all subsets of k trainings.

    Returns:
        ``part`` (one of `AXES`), ``x``, ``k``, ``y``, ``low``, ``high``; empty without a validation
        loss to choose by.
    """
    validation = failure_aware(finals, "validation_loss")
    values = failure_aware(finals, measure.column) * measure.scale
    if not np.isfinite(validation).any():
        return pd.DataFrame()
    rows = []
    sizes = np.geomspace(1, len(finals), min(len(finals), RESTARTS)).astype(int)
    for size in np.unique(sizes):
        weights = best_of_groups_weights(validation, int(size))
        rows.append(
            {
                "k": size,
                "y": weighted_quantile(values, weights),
                "low": weighted_quantile(values, weights, QUARTILES[0]),
                "high": weighted_quantile(values, weights, QUARTILES[1]),
            }
        )
    frame = pd.DataFrame(rows)
    parts = []
    for axis, cost in of_one_training(runs, finals).items():
        if np.isfinite(cost):
            parts.append(frame.assign(part=axis, x=frame["k"] * cost))
    return pd.concat(parts, ignore_index=True)


# --- searches ---


@dataclass(frozen=True)
class Path:
    """The incumbent of one repetition of a search.

    Args:
        costs: at which the incumbent changes, by `AXES`, (changes,) each.
        values: of the metric from each of these costs on, (changes,).
    """

    costs: Mapping[str, Array]
    values: Array

    def at(self, axis: str, budgets: Array) -> Array:
        """Value of the incumbent when a budget is spent; +inf before there is one."""
        costs = self.costs[axis]
        place = np.searchsorted(costs, np.asarray(budgets) * UP_TO_ROUNDING, side="right") - 1
        return np.where(place >= 0, self.values[np.maximum(place, 0)], np.inf)


def paths(runs: Runs, finals: pd.DataFrame, measure: Measure) -> list[Path]:
    """Incumbents of all repetitions of a search that ever had one."""
    columns = ["elapsed_s", "validation_loss", measure.column, "gradients", "hessian_products"]
    rows = finals.set_index("seed")["rows_in_block"]
    incumbents = []
    for seed, curve in curves(runs, columns).groupby("seed", observed=True):
        incumbent = path(curve, measure, float(rows.get(seed, 1)))
        if incumbent.values.size:
            incumbents.append(incumbent)
    return incumbents


def path(curve: pd.DataFrame, measure: Measure, rows: float) -> Path:
    """The incumbent along one repetition's curve: the least validation loss so far.

    Points without a validation loss are passed over.

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
    metric = ordered[measure.column].to_numpy(dtype=float, na_value=np.nan) * measure.scale
    gradients = ordered["gradients"].to_numpy(float)
    products = ordered["hessian_products"].to_numpy(float)
    costs = {
        "weight_updates": ordered["step"].to_numpy(float),
        "gradient_equivalents": gradient_equivalents(gradients, products),
        "seconds": ordered["elapsed_s"].to_numpy(float) / rows,
    }
    return Path(costs, as_failures(metric[holder]))


def searched(incumbents: Sequence[Path]) -> pd.DataFrame:
    """Median and quartiles over a search's repetitions, in the columns of `restarted`."""
    parts = []
    for axis in AXES:
        costs = np.concatenate([path.costs[axis] for path in incumbents])
        positive = costs[costs > 0]
        grid = np.ones(1)
        if positive.size:
            grid = np.geomspace(positive.min(), positive.max(), POINTS)
        matrix = np.stack([path.at(axis, grid) for path in incumbents])
        low, high = quantile_band(matrix, *QUARTILES)
        columns = {"x": grid, "k": np.nan, "y": survival_median(matrix), "low": low, "high": high}
        parts.append(pd.DataFrame({"part": axis, **columns}))
    return pd.concat(parts, ignore_index=True)


# --- at equal budgets ---


def restarted_at(
    runs: Runs, finals: pd.DataFrame, measure: Measure, axis: str, budget: float, seed: int
) -> Interval:
    """Median metric of the best of as many trainings as the budget pays for.

    It has a bootstrap interval, and no value where the budget pays for none or for more trainings
    than there are, or where there is no validation loss to choose by.
    """
    cost = of_one_training(runs, finals)[axis]
    count = int(budget / cost * UP_TO_ROUNDING) if np.isfinite(cost) and cost > 0 else 0
    validation = failure_aware(finals, "validation_loss")
    if not 1 <= count <= len(finals) or not np.isfinite(validation).any():
        return NO_VALUE
    values = failure_aware(finals, measure.column) * measure.scale
    return best_of_groups_bootstrap(validation, values, count, "median", seed=seed)


def searched_at(incumbents: Sequence[Path], axis: str, budget: float, seed: int) -> Interval:
    """Median over repetitions of the incumbent when the budget is spent.

    It has no value where a search was over before, or where none has an incumbent yet.
    """
    if not incumbents:
        return NO_VALUE
    ends = [path.costs[axis][-1] for path in incumbents]
    if min(ends) < budget * (1 - 1e-12):
        return NO_VALUE
    values = np.array([path.at(axis, np.array([budget]))[0] for path in incumbents])
    if not np.isfinite(values).any():
        return NO_VALUE
    return bootstrap(values, "median", seed=seed)


# --- how they compare with the paper's ---


def scaled_down(runs: Runs) -> str:
    """What searches have less of than in the paper, for the small print; or nothing.

    The paper's numbers are ``method.search.published``.
    """
    labels: dict[str, dict[str, None]] = {}
    for run in runs:
        if not is_search(run):
            continue
        search = run.config["method"]["search"]
        numbers = {**search, "weight_updates": weight_updates(run)}
        differences = [
            f"{key.replace('_', ' ')} {numbers[key]} instead of {published}"
            for key, published in (search.get("published") or {}).items()
            if numbers.get(key) != published
        ]
        if differences:
            labels.setdefault(", ".join(differences), {})[run.method_label] = None
    return "; ".join(f"{', '.join(names)}: {differences}" for differences, names in labels.items())
