"""Best configuration found so far (chosen by validation loss) against run time: one-pass methods and multi-pass search.

A one-pass method is restarted from k random initialisations; a multi-pass method stores one curve per repetition, a row
per finished trial, with the cumulative time in ``elapsed_s``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hpo_bench.analysis import load, summary
from hpo_bench.analysis import statistics as stats
from hpo_bench.analysis.load import Runs
from hpo_bench.analysis.summary import GROUP_SOURCE, Measure
from hpo_bench.figures.common import panels, paper, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, Selection
from hpo_bench.figures.common.templates import metric
from hpo_bench.store import Run

TITLE = "Incumbent against run time: one-pass methods and multi-pass search"
DATASETS = ("uci_energy", "uci_kin8nm", "uci_power", "fashion_mnist")
ONE_PASS = (GROUP_SOURCE, "ours_wd_lr_m", "ours_wd_hdlr_m", "diff_through_opt")  # that have a validation loss
SEARCHES = ("asha_random", "asha_ours_wd_lr_m", "pbt_random", "pbt_ours_wd_lr_m")
NEEDS = (
    Need(DATASETS, ONE_PASS, 200, role="one_pass"),
    Need(DATASETS, ("bayesopt",), 32, paper.START, role="search"),
    Need(DATASETS, SEARCHES, 1, paper.START, role="search"),
)
TIMES = 80
QUARTILES = (0.25, 0.75)


def points(selection: Selection, options: Options) -> Points:
    """Median and quartiles of the incumbent's test metric of every method, a panel a dataset."""
    frames: list[pd.DataFrame] = []
    counts: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    kept: list[Run] = []
    notes: list[str] = []
    for dataset in selection.datasets:
        one_pass, more = common.alike(selection.runs("one_pass", dataset))
        search = load.comparable(selection.runs("search", dataset))
        notes += [*more, *search.notes]
        runs = [*one_pass, *search.runs]
        measure = metric(runs)
        for name, group in summary.by(runs, "method").items():
            frame, n = (_searched if group[0] in search.runs else _restarted)(group, options.finals(group), measure)
            if frame.empty:
                notes.append(f"{dataset}, {name}: left out, it has no validation loss to choose by")
                continue
            frames.append(frame.assign(panel=dataset, dataset=dataset, method=name))
            counts.append({"panel": dataset, "method": name, "n": n})
            kept += group
        shown.append({"key": dataset, "title": common.label(runs), "label": measure.label})
    if not kept:
        return Points(pd.DataFrame(), {}, notes=tuple(notes))
    context = {"panels": shown, "methods": _styles(kept), "counts": counts}
    statistics = (
        "median and quartiles of the incumbent's test metric, chosen by validation loss",
        "one-pass: best of k trainings after one another, exactly over all subsets of k, their batch's time shared",
        "diverged runs lose, no resampling",
    )
    return Points(pd.concat(frames, ignore_index=True), context, kept, statistics, tuple(notes), by_mode=False)


def _styles(runs: Runs) -> list[dict[str, Any]]:
    """Styles; here the runs that elsewhere feed Random (3-batched) are Random, chosen by validation."""
    plain = {run.run_id: run.config["method"].get("label", run.method) for run in runs if run.method == GROUP_SOURCE}
    return [
        {**method, "name": GROUP_SOURCE, "label": next(iter(plain.values()))}
        if method["name"] == common.shown_name(GROUP_SOURCE) else method
        for method in common.styles(runs)
    ]  # fmt: skip


def _restarted(runs: Runs, finals: pd.DataFrame, measure: Measure) -> tuple[pd.DataFrame, int]:
    """Best of k independent trainings, k = 1 to n, at the time that k of them take."""
    validation = load.failure_aware(finals, "validation_loss")
    values = load.failure_aware(finals, measure.column) * measure.scale
    seconds = float(finals["seconds"].median())
    if not np.isfinite(validation).any():
        return pd.DataFrame(), len(finals)
    sizes = np.unique(np.geomspace(1, len(finals), min(len(finals), 40)).astype(int))
    rows = []
    for size in sizes:
        weights = stats.best_of_groups_weights(validation, int(size))
        low, y, high = (stats.weighted_quantile(values, weights, q) for q in (QUARTILES[0], 0.5, QUARTILES[1]))
        rows.append({"seconds": size * seconds, "k": size, "y": y, "low": low, "high": high})
    return pd.DataFrame(rows), len(finals)


def _searched(runs: Runs, finals: pd.DataFrame, measure: Measure) -> tuple[pd.DataFrame, int]:
    """Running best of every repetition's trials, summed up over the repetitions at common times."""
    curves = load.curves(runs, ["elapsed_s", "validation_loss", measure.column])
    rows = finals.set_index("seed")["rows_in_block"]
    paths = [
        _running_best(own, measure, float(rows.get(seed, 1))) for seed, own in curves.groupby("seed", observed=True)
    ]
    paths = [path for path in paths if len(path[0])]
    if not paths:
        return pd.DataFrame(), len(finals)
    known = np.concatenate([times[times > 0] for times, _ in paths])
    grid = np.geomspace(known.min(), known.max(), TIMES) if known.size else np.ones(1)
    matrix = np.stack([_at(times, values, grid) for times, values in paths])
    low, high = stats.quantile_band(matrix, *QUARTILES)
    frame = pd.DataFrame({"seconds": grid, "k": np.nan, "y": stats.survival_median(matrix), "low": low, "high": high})
    return frame, len(paths)


def _running_best(curve: pd.DataFrame, measure: Measure, rows: float) -> tuple[np.ndarray, np.ndarray]:
    """Times and test values of the trial with the least validation loss so far; those without one are passed over."""
    ordered = curve.sort_values("elapsed_s", kind="stable")
    validation = ordered["validation_loss"].to_numpy(dtype=float, na_value=np.nan)
    usable = np.isfinite(validation)
    validation, ordered = validation[usable], ordered[usable]
    best = np.flatnonzero(validation <= np.minimum.accumulate(validation)) if usable.any() else np.empty(0, int)
    holder = np.maximum.accumulate(np.where(np.isin(np.arange(len(validation)), best), np.arange(len(validation)), 0))
    values = ordered[measure.column].to_numpy(dtype=float, na_value=np.nan)[holder] * measure.scale
    return ordered["elapsed_s"].to_numpy(dtype=float) / rows, stats.as_failures(values)


def _at(times: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Value at the last time not after each point of the grid; +inf before the first."""
    place = np.searchsorted(times, grid * (1 + 1e-12), side="right") - 1
    return np.where(place >= 0, values[np.maximum(place, 0)], np.inf)


def draw(plotted: Plotted) -> Figure:
    """A panel a dataset with one legend."""
    shown = plotted.context["panels"]
    counts = pd.DataFrame(plotted.context["counts"])
    totals = counts.groupby("method")["n"].sum()
    entries = [style.entry(method, f"  n={totals[method['name']]}") for method in plotted.methods]
    figure, axes = panels.sheet_of_panels(len(shown), entries, plotted.footer)
    for ax, panel in zip(axes, shown, strict=True):
        panels.evolution(ax, plotted.of(panel=panel["key"]), plotted.methods, "seconds")
        ax.set(xscale="log", xlabel="Seconds", ylabel=panel["label"])
        panels.log_ticks(ax, "x")
    style.title(axes, [panel["title"] for panel in shown])
    return figure
