"""Points that several figures plot, computed from stored runs with `hpo_bench.analysis`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpo_bench.analysis import frames as tabular
from hpo_bench.analysis import selection as selecting
from hpo_bench.analysis import summary
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics import best_of_groups, bootstrap, distributions
from hpo_bench.analysis.summary import GROUP_SIZE, GROUP_SOURCE, GROUPED, Measure
from hpo_bench.figures.common import paper
from hpo_bench.figures.common.base import Options
from hpo_bench.store.runs import Run

POINTS_A_CURVE = 200
LEGEND = "legend: n_ok/n, summed over panels"


def of_any_length(runs: Runs) -> tuple[list[Run], tuple[str, ...]]:
    """One configuration per dataset and method, and a note on each that was passed over."""
    selection = selecting.comparable(runs)
    return selection.runs, selection.notes


def alike(runs: Runs) -> tuple[list[Run], tuple[str, ...]]:
    """`of_any_length` without methods that were trained longer or shorter than most."""
    comparable, passed_over = of_any_length(runs)
    kept: list[Run] = []
    notes = list(passed_over)
    for dataset in summary.by(comparable, "dataset").values():
        updates = [selecting.weight_updates(run) for run in dataset]
        usual = max(set(updates), key=lambda length: (updates.count(length), length))
        kept += [run for run, length in zip(dataset, updates, strict=True) if length == usual]
        notes += [
            f"{run.dataset}, {run.method}: left out {len(run.seeds)} repetitions of {length} updates (kept: {usual})"
            for run, length in zip(dataset, updates, strict=True)
            if length != usual
        ]
    return kept, tuple(notes)


def shared_seeds(groups: Sequence[Runs]) -> set[int]:
    """Seeds that every group of runs has; all seeds where they share none."""
    sets = [{seed for run in group for seed in run.seeds} for group in groups]
    shared = set.intersection(*sets) if sets else set()
    return shared or set().union(*sets)


def styles(runs: Runs) -> list[dict[str, Any]]:
    """Name, label, colour and line style of the methods of some runs, in the legend's order."""
    found = {run.method: {**run.config["method"], "label": run.method_label} for run in runs}
    ordered = sorted(found.items(), key=lambda item: (item[1].get("order", 0), item[0]))
    return [
        {
            "name": shown_name(name),
            "label": GROUPED[1] if name == GROUP_SOURCE else method["label"],
            "colour": method.get("colour", "#000000"),
            "line_style": method.get("line_style", "-"),
        }
        for name, method in ordered
    ]


def shown_name(method: str) -> str:
    """What stands for a method in a figure: Random (3-batched) for the runs that it is made of."""
    return GROUPED[0] if method == GROUP_SOURCE else method


def method_label(run: Run) -> str:
    """Label of a run's method."""
    return run.method_label


def label(runs: Runs) -> str:
    """Name of the dataset of some runs."""
    return runs[0].dataset_label


def training(runs: Runs) -> str:
    """Length of the trainings, for the small print: of each dataset, where they differ; other
    methods are named.
    """
    lengths: dict[str, dict[str, str]] = {}
    for run in runs:
        updates, interval = selecting.weight_updates(run), int(run.config["update_interval"])
        odd = (
            f" (T = {interval})"
            if run.config["method"].get("estimator") and interval != paper.UPDATE_INTERVAL
            else ""
        )
        lengths.setdefault(label([run]), {})[method_label(run)] = f"{updates}{odd}"
    told = {dataset: _usual_and_others(methods) for dataset, methods in lengths.items()}
    if len(set(told.values())) == 1:
        return f"weight updates: {next(iter(told.values()))}"
    return "weight updates: " + ", ".join(f"{dataset} {text}" for dataset, text in told.items())


def _usual_and_others(lengths: Mapping[str, str]) -> str:
    usual = Counter(lengths.values()).most_common(1)[0][0]
    others = [f"{name} {length}" for name, length in lengths.items() if length != usual]
    return usual + (f" ({', '.join(others)})" if others else "")


def _finals(runs: Runs, options: Options, seeds: Collection[int] | None) -> pd.DataFrame:
    finals = options.finals(runs)
    return finals if seeds is None else finals[finals["seed"].isin(seeds)].reset_index(drop=True)


# --- empirical CDFs ---


def cdf(
    runs: Runs, measure: Measure, options: Options, panel: str, seeds: Collection[int] | None = None
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Empirical CDFs of the final values of every method, and how many runs are ok.

    Args:
        runs: comparable ones of one dataset.
        seeds: only these; all by default.

    Returns:
        a row per point (``panel``, ``dataset``, ``method``, ``x``, ``y``, ``low``, ``high``:
        P(value ≤ x) with its confidence band, NaN without one), and per method ``n_ok``, ``n`` and
        a ``text`` for the legend.
    """
    frames, counts = [], []
    for name, group in summary.by(runs, "method").items():
        finals = _finals(group, options, seeds)
        values = tabular.failure_aware(finals, measure.column) * measure.scale
        text = ""
        if name == GROUP_SOURCE:
            x, y, text, values = _grouped(finals, values, options)
            low = high = np.full(len(x), np.nan)
        else:
            x, y, low, high = distributions.ecdf(values, options.confidence)
        band = (
            {"low": low, "high": high} if options.failure_aware else {"low": np.nan, "high": np.nan}
        )
        frames.append(
            pd.DataFrame(
                {
                    "panel": panel,
                    "dataset": runs[0].dataset,
                    "method": shown_name(name),
                    "x": x,
                    "y": y,
                    **band,
                }
            )
        )
        counts.append(_count(panel, name, values, text))
    return pd.concat(frames, ignore_index=True), counts


def _grouped(
    finals: pd.DataFrame, values: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray, str, np.ndarray]:
    """CDF of Random (3-batched): exactly over all groups, or as in the paper over one random
    grouping.
    """
    if not options.failure_aware:
        validation = (
            finals["validation_loss"]
            .where(finals["status"] == "ok")
            .to_numpy(dtype=float, na_value=np.nan)
        )
        winners = best_of_groups.best_of_groups_random(
            validation, values, GROUP_SIZE, options.seed, paper=True
        )
        x, y, _, _ = distributions.ecdf(winners)
        return x, y, "", winners
    if len(values) < GROUP_SIZE:
        return np.empty(0), np.empty(0), f"needs {GROUP_SIZE} runs", values
    weights = best_of_groups.best_of_groups_weights(
        tabular.failure_aware(finals, "validation_loss"), GROUP_SIZE
    )
    x, y = distributions.weighted_ecdf(values, weights)
    return x, y, "all triples", values


def _count(panel: str, method: str, values: np.ndarray, text: str = "") -> dict[str, Any]:
    ok = int(np.isfinite(values).sum())
    return {
        "panel": panel,
        "method": shown_name(method),
        "n_ok": ok,
        "n": len(values),
        "text": text,
    }


def cdf_statistics(runs: Runs, options: Options) -> tuple[str, ...]:
    """Small print of a figure of empirical CDFs."""
    if options.failure_aware:
        bands = f"CDF bands: pointwise {100 * options.confidence:g} % intervals (Greenwood, log-log; no resampling)"
        return training(runs), bands, LEGEND
    grouped = any(run.method == GROUP_SOURCE for run in runs)
    return (
        training(runs),
        "CDFs without bands",
        *([f"random triples: seed {options.seed}"] if grouped else []),
        LEGEND,
    )


# --- evolutions ---


def evolution(
    runs: Runs, measure: Measure, options: Options, panel: str, seeds: Collection[int] | None = None
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Bootstrapped median of every method at every recorded step (thinned), and how many runs are
    ok.

    Args:
        runs: one configuration per method, of one dataset; those that feed Random (3-batched) are
            left out.
        seeds: only these; all by default.

    Returns:
        a row per point (``panel``, ``dataset``, ``method``, ``step``, ``seconds``, ``y``, ``low``,
        ``high``): median ± its bootstrap SD, +inf where more than half of the runs have failed;
        ``seconds`` is the mean time of the runs until then, a block's wall time shared among its
        rows. Methods that put their weights back are shown at the last recorded step before.
    """
    frames, counts = [], []
    for name, group in summary.by(runs, "method").items():
        if name == GROUP_SOURCE:
            continue
        finals = _finals(group, options, seeds)
        points = _medians(group, finals, measure.column, options)
        points[["y", "low", "high"]] *= measure.scale
        frames.append(points.assign(panel=panel, dataset=runs[0].dataset, method=name))
        counts.append(_count(panel, name, tabular.failure_aware(finals, measure.column)))
    columns = ["panel", "dataset", "method", "step", "seconds", "y", "low", "high"]
    return (
        pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
    ), counts


def _medians(group: Runs, finals: pd.DataFrame, column: str, options: Options) -> pd.DataFrame:
    reset = bool(group[0].config["method"].get("reset_weights"))
    curves = tabular.curves(group, [column, "elapsed_s"], None if reset else thinning(group))
    curves = curves[curves["seed"].isin(finals["seed"])].reset_index(drop=True)
    rows = finals.set_index("seed")["rows_in_block"].reindex(curves["seed"]).to_numpy(dtype=float)
    curves["seconds"] = curves["elapsed_s"].to_numpy(dtype=float, na_value=np.nan) / rows
    steps, seeds, values = tabular.matrix(curves, column, finals)
    _, _, seconds = tabular.matrix(curves, "seconds")
    if not options.failure_aware:
        kept = finals.loc[summary.paper_keeps(finals, column), "seed"]
        values = values[np.isin(seeds, kept)]
    shown = (
        before_resets(steps, int(group[0].config["update_interval"]))
        if reset
        else np.arange(len(steps))
    )
    median, deviation = bootstrap.bootstrap_curve(
        values[:, shown], "median", options.resamples, options.seed
    )
    with np.errstate(invalid="ignore"):
        low, high = median - deviation, median + deviation
    return pd.DataFrame(
        {
            "step": steps[shown],
            "seconds": _mean(seconds)[shown],
            "y": median,
            "low": low,
            "high": high,
        }
    )


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over rows of what is there; NaN where nothing is."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0.0).sum(axis=0) / there.sum(axis=0)


def before_resets(steps: np.ndarray, interval: int) -> np.ndarray:
    """Indices of the last recorded step before each multiple of ``interval``, where weights go
    back, and the last.
    """
    window = np.where(steps == steps[-1], (steps - 1) // interval, steps // interval)
    return np.flatnonzero(np.append(window[1:] != window[:-1], True))


def thinning(runs: Runs) -> int:
    """Steps between plotted points: a multiple of `record_every` that leaves about `POINTS_A_CURVE`
    of them.
    """
    recorded = int(runs[0].config.get("record_every") or 1)
    return recorded * max(1, round(selecting.weight_updates(runs[0]) / POINTS_A_CURVE / recorded))


def evolution_statistics(runs: Runs, options: Options) -> tuple[str, ...]:
    """Small print of a figure of evolutions."""
    return (
        training(runs),
        f"median ± its bootstrap SD, {options.resamples} resamples of runs, seed {options.seed}",
        LEGEND,
    )


def extent(counts: Iterable[int]) -> str:
    """One number, or from where to where."""
    found = sorted({int(count) for count in counts}) or [0]
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
