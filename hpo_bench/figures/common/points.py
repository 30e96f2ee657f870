"""Points that several figures plot, computed from stored runs with `hpo_bench.analysis`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo_bench.analysis.budget import less
from hpo_bench.analysis.frames import curves, failure_aware, matrix
from hpo_bench.analysis.paper import GROUP_SIZE, GROUP_SOURCE, shown_label, shown_name
from hpo_bench.analysis.selection import (
    Runs,
    by_method,
    comparable,
    of_usual_length,
    weight_updates,
)
from hpo_bench.analysis.statistics.best_of_groups import (
    best_of_groups_random,
    best_of_groups_weights,
)
from hpo_bench.analysis.statistics.bootstrap import bootstrap_curve
from hpo_bench.analysis.statistics.distributions import ecdf, weighted_ecdf
from hpo_bench.analysis.summary import Measure, paper_keeps
from hpo_bench.figures.common import standard
from hpo_bench.figures.common.base import Options
from hpo_bench.store.runs import Run

Array = NDArray[np.float64]
Counts = list[dict[str, Any]]  # per panel and method: n_ok, n and a text for the legend

POINTS_A_CURVE = 200
LEGEND = "legend: n_ok/n, summed over panels"


def of_any_length(runs: Runs) -> tuple[list[Run], tuple[str, ...]]:
    """One configuration per dataset and method, and a note on each that was passed over."""
    selection = comparable(runs)
    return selection.runs, selection.notes


def alike(runs: Runs) -> tuple[list[Run], tuple[str, ...]]:
    """`of_any_length` without methods that were trained longer or shorter than most."""
    of_all_lengths, passed_over = of_any_length(runs)
    of_usual, others = of_usual_length(of_all_lengths)
    return of_usual, (*passed_over, *others)


def shared_seeds(groups: Sequence[Runs]) -> set[int]:
    """Seeds that every group of runs has; all seeds where they share none."""
    sets = [{seed for run in group for seed in run.seeds} for group in groups]
    shared = set.intersection(*sets) if sets else set()
    return shared or set().union(*sets)


def styles(runs: Runs) -> list[dict[str, Any]]:
    """Name, label, colour and line style of the methods of some runs, in the legend's order."""
    last_of_each = {run.method: run for run in runs}
    ordered = sorted(
        last_of_each.items(), key=lambda item: (item[1].config["method"].get("order", 0), item[0])
    )
    looks = []
    for name, run in ordered:
        method = run.config["method"]
        looks.append(
            {
                "name": shown_name(name),
                "label": shown_label(name, run.method_label),
                "colour": method.get("colour", "#000000"),
                "line_style": method.get("line_style", "-"),
            }
        )
    return looks


def method_label(run: Run) -> str:
    """Label of a run's method."""
    return run.method_label


def label(runs: Runs) -> str:
    """Name of the dataset of some runs."""
    return runs[0].dataset_label


def budget(runs: Runs) -> dict[str, str]:
    """What a panel of some runs says of its budget, where that is less than the paper's."""
    said = less(runs) if runs else ""
    return {"budget": said} if said else {}


def training(runs: Runs) -> str:
    """Length of the trainings, for the small print.

    It is told of each dataset, where they differ, and methods of other lengths are named.
    """
    lengths: dict[str, dict[str, str]] = {}
    for run in runs:
        length = str(weight_updates(run))
        interval = int(run.config["update_interval"])
        if run.config["method"].get("estimator") and interval != standard.UPDATE_INTERVAL:
            length += f" (T = {interval})"
        lengths.setdefault(label([run]), {})[method_label(run)] = length
    texts = {dataset: _usual_and_others(methods) for dataset, methods in lengths.items()}
    if len(set(texts.values())) == 1:
        return f"weight updates: {next(iter(texts.values()))}"
    return "weight updates: " + ", ".join(f"{dataset} {text}" for dataset, text in texts.items())


def _usual_and_others(lengths: Mapping[str, str]) -> str:
    """The most frequent of some lengths, and in brackets the methods that have others."""
    usual = Counter(lengths.values()).most_common(1)[0][0]
    others = [f"{name} {length}" for name, length in lengths.items() if length != usual]
    return f"{usual} ({', '.join(others)})" if others else usual


def _finals(runs: Runs, options: Options, seeds: Collection[int] | None) -> pd.DataFrame:
    finals = options.finals(runs)
    if seeds is None:
        return finals
    return finals[finals["seed"].isin(seeds)].reset_index(drop=True)


# --- empirical CDFs ---


def cdf(
    runs: Runs, measure: Measure, options: Options, panel: str, seeds: Collection[int] | None = None
) -> tuple[pd.DataFrame, Counts]:
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
    for name, group in by_method(runs).items():
        finals = _finals(group, options, seeds)
        values = failure_aware(finals, measure.column) * measure.scale
        text = ""
        if name == GROUP_SOURCE:
            x, y, text, values = _of_groups(finals, values, options)
            low = high = np.full(len(x), np.nan)
        else:
            x, y, low, high = ecdf(values, options.confidence)
        frame = pd.DataFrame({"x": x, "y": y, "low": low, "high": high})
        frame.insert(0, "panel", panel)
        frame.insert(1, "dataset", runs[0].dataset)
        frame.insert(2, "method", shown_name(name))
        if not options.failure_aware:
            frame[["low", "high"]] = np.nan
        frames.append(frame)
        counts.append(_count(panel, name, values, text))
    return pd.concat(frames, ignore_index=True), counts


def _of_groups(
    finals: pd.DataFrame, values: Array, options: Options
) -> tuple[Array, Array, str, Array]:
    """CDF of Random (3-batched), x and P(value ≤ x), a text for the legend, and the values behind.

    It is exact over all groups, or as in the paper over one random grouping.
    """
    if not options.failure_aware:
        # With the paper's statistics a repetition that diverged wins its group, so it is no +inf.
        ok = finals["status"] == "ok"
        validation = finals["validation_loss"].where(ok).to_numpy(dtype=float, na_value=np.nan)
        winners = best_of_groups_random(validation, values, GROUP_SIZE, options.seed, paper=True)
        x, y, _, _ = ecdf(winners)
        return x, y, "", winners
    if len(values) < GROUP_SIZE:
        return np.empty(0), np.empty(0), f"needs {GROUP_SIZE} runs", values
    weights = best_of_groups_weights(failure_aware(finals, "validation_loss"), GROUP_SIZE)
    x, y = weighted_ecdf(values, weights)
    return x, y, "all triples", values


def _count(panel: str, method: str, values: Array, text: str = "") -> dict[str, Any]:
    return {
        "panel": panel,
        "method": shown_name(method),
        "n_ok": int(np.isfinite(values).sum()),
        "n": len(values),
        "text": text,
    }


def cdf_statistics(runs: Runs, options: Options) -> tuple[str, ...]:
    """Small print of a figure of empirical CDFs."""
    if options.failure_aware:
        intervals = f"{100 * options.confidence:g} % intervals"
        bands = f"CDF bands: pointwise {intervals} (Greenwood, log-log; no resampling)"
        return training(runs), bands, LEGEND
    lines = [training(runs), "CDFs without bands"]
    if any(run.method == GROUP_SOURCE for run in runs):
        lines.append(f"random triples: seed {options.seed}")
    return (*lines, LEGEND)


# --- evolutions ---


def evolution(
    runs: Runs, measure: Measure, options: Options, panel: str, seeds: Collection[int] | None = None
) -> tuple[pd.DataFrame, Counts]:
    """Bootstrapped median of every method at every recorded step, thinned.

    Args:
        runs: one configuration per method, of one dataset; those that feed Random (3-batched) are
            left out.
        seeds: only these; all by default.

    Returns:
        a row per point (``panel``, ``dataset``, ``method``, ``step``, ``seconds``, ``y``, ``low``,
        ``high``): median ± its bootstrap SD, +inf where more than half of the runs have failed;
        ``seconds`` is the mean time of the runs until then, a block's wall time shared among its
        rows. Methods that put their weights back are shown at the last recorded step before. And
        how many runs are ok, as in `cdf`.
    """
    frames, counts = [], []
    for name, group in by_method(runs).items():
        if name == GROUP_SOURCE:
            continue
        finals = _finals(group, options, seeds)
        points = _medians(group, finals, measure.column, options)
        points[["y", "low", "high"]] *= measure.scale
        frames.append(points.assign(panel=panel, dataset=runs[0].dataset, method=name))
        counts.append(_count(panel, name, failure_aware(finals, measure.column)))
    columns = ["panel", "dataset", "method", "step", "seconds", "y", "low", "high"]
    if not frames:
        return pd.DataFrame(columns=columns), counts
    return pd.concat(frames, ignore_index=True)[columns], counts


def _medians(group: Runs, finals: pd.DataFrame, column: str, options: Options) -> pd.DataFrame:
    """The evolution of one method, in the stored unit of a column."""
    resets = bool(group[0].config["method"].get("reset_weights"))
    frame = curves(group, [column, "elapsed_s"], None if resets else thinning(group))
    frame = frame[frame["seed"].isin(finals["seed"])].reset_index(drop=True)
    rows = finals.set_index("seed")["rows_in_block"].reindex(frame["seed"]).to_numpy(dtype=float)
    frame["seconds"] = frame["elapsed_s"].to_numpy(dtype=float, na_value=np.nan) / rows

    steps, seeds, values = matrix(frame, column, finals)
    _, _, seconds = matrix(frame, "seconds")
    if not options.failure_aware:
        counting = finals.loc[paper_keeps(finals, column), "seed"]
        values = values[np.isin(seeds, counting)]
    shown = np.arange(len(steps))
    if resets:
        shown = before_resets(steps, int(group[0].config["update_interval"]))
    median, deviation = bootstrap_curve(values[:, shown], "median", options.resamples, options.seed)
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


def _mean(values: Array) -> Array:
    """Mean over rows of what is there, (steps,); NaN where nothing is."""
    present = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(present, values, 0.0).sum(axis=0) / present.sum(axis=0)
    return mean


def before_resets(steps: NDArray[np.int64], interval: int) -> NDArray[np.int64]:
    """Indices of the last recorded step before each reset of the weights, and of the last step.

    Args:
        steps: recorded ones, (S,).
        interval: weights go back at each multiple of it.
    """
    window = np.where(steps == steps[-1], (steps - 1) // interval, steps // interval)
    return np.flatnonzero(np.append(window[1:] != window[:-1], True))


def thinning(runs: Runs) -> int:
    """Steps between plotted points.

    They are a multiple of ``record_every`` that leaves about `POINTS_A_CURVE` points.
    """
    recorded = int(runs[0].config.get("record_every") or 1)
    return recorded * max(1, round(weight_updates(runs[0]) / POINTS_A_CURVE / recorded))


def evolution_statistics(runs: Runs, options: Options) -> tuple[str, ...]:
    """Small print of a figure of evolutions."""
    return (
        training(runs),
        f"median ± its bootstrap SD, {options.resamples} resamples of runs, seed {options.seed}",
        LEGEND,
    )


def extent(counts: Iterable[int]) -> str:
    """Some counts in words: one number, or from the least to the largest."""
    sizes = sorted({int(count) for count in counts}) or [0]
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
