"""The tables of ``hpo-bench table``, each made from stored runs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo_bench.analysis import frames as tabular
from hpo_bench.analysis import incumbent
from hpo_bench.analysis.costs import PLAIN, Cost, costs
from hpo_bench.analysis.render import RenderedTable
from hpo_bench.analysis.rounding import NOTHING, Rounded, rounded, within_error_of_best
from hpo_bench.analysis.selection import Runs, comparable, find, weight_updates
from hpo_bench.analysis.statistics import distributions
from hpo_bench.analysis.statistics import interval as intervals
from hpo_bench.analysis.statistics import pairs as paired
from hpo_bench.analysis.statistics.interval import Interval, Statistics
from hpo_bench.analysis.statistics.pairs import Comparison
from hpo_bench.analysis.summary import (
    GROUP_SOURCE,
    Measure,
    Summary,
    by,
    measures,
    paper_keeps,
    summarise,
)
from hpo_bench.errors import UserError, nearest
from hpo_bench.system.quoting import override

# Methods of the paper's tables; Random (3-batched) is made of random_validation.
ONE_PASS = (
    "random",
    "random_lr_schedule",
    GROUP_SOURCE,
    "lorraine",
    "baydin",
    "ours_wd_lr",
    "ours_wd_lr_m",
    "ours_wd_hdlr_m",
    "diff_through_opt",
)
# Methods that choose by validation loss, and the searches they are compared with.
MULTI_PASS = (
    GROUP_SOURCE,
    "ours_wd_lr_m",
    "ours_wd_hdlr_m",
    "diff_through_opt",
    "bayesopt",
    "asha_random",
    "asha_ours_wd_lr_m",
    "pbt_random",
    "pbt_ours_wd_lr_m",
)
Frames = tuple[pd.DataFrame, pd.DataFrame]  # body and bold of a `Table`
Parts = tuple[
    pd.DataFrame, pd.DataFrame, pd.DataFrame, str
]  # body, bold, data and label of a `Table`


@dataclass(frozen=True)
class TableKind:
    """A table that can be asked for.

    Args:
        title: what it shows.
        make: from comparable runs, the statistics and the seed.
        datasets, methods: what it is about unless asked otherwise; empty = all that is stored.
        repetitions: how many the paper has.
    """

    title: str
    make: Callable[[Runs, Statistics, int], Parts]
    datasets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    repetitions: int = 200


def build(
    name: str,
    results_dir: str | Path = "results",
    *,
    mode: Statistics = "default",
    datasets: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> RenderedTable:
    """Make a table from the runs of a store.

    Args:
        name: one of `TABLES`.
        datasets, methods: ids; the table's own by default.
        where: settings that the runs must have, see `load.find`.
        seed: of the bootstrap.

    Raises:
        UserError: no such table, or no runs for it (with the command that makes them), or damaged
            files.
    """
    if name not in TABLES:
        raise UserError(f"no table {name}; {nearest(name, TABLES)}")
    kind = TABLES[name]
    wanted = tuple(datasets or kind.datasets)
    chosen = tuple(methods or ())
    command = run_command(chosen or kind.methods or ONE_PASS, wanted, kind.repetitions, results_dir)
    runs = find(
        results_dir, datasets=wanted or None, methods=chosen or None, where=where, command=command
    )
    selection = comparable(runs)
    body, bold, data, label = kind.make(selection.runs, mode, seed)
    lacking = missing(selection.runs, wanted, chosen or kind.methods, kind.repetitions, results_dir)
    return RenderedTable(name, kind.title, body, bold, data, label, selection.notes, lacking)


def run_command(
    methods: Sequence[str], datasets: Sequence[str], repetitions: int, results_dir: str | Path
) -> str:
    """The ``hpo-bench run`` line that makes these runs."""
    several = " -m" if len(methods) > 1 or len(datasets) > 1 else ""
    names = dict.fromkeys(name.partition("@")[0] for name in datasets)
    dataset = f" dataset={','.join(names)}" if names else ""
    folder = (
        f" {override('results_dir', str(results_dir))}" if str(results_dir) != "results" else ""
    )
    return f"hpo-bench run{several} method={','.join(methods)}{dataset} repetitions={repetitions}{folder}"


def missing(
    runs: Runs,
    datasets: Sequence[str],
    methods: Sequence[str],
    repetitions: int,
    results_dir: str | Path,
) -> tuple[str, ...]:
    """A line for each set of methods that datasets have no runs of, with the command that makes
    them.
    """
    stored = {(name, run.method) for run in runs for name in (run.dataset, run.dataset_name)}
    lacking: dict[tuple[str, ...], list[str]] = {}
    for dataset in datasets:
        absent = tuple(method for method in methods if (dataset, method) not in stored)
        if absent:
            lacking.setdefault(absent, []).append(dataset)
    return tuple(
        f"no runs of {', '.join(absent)} on {', '.join(names)}; make them with: "
        f"{run_command(absent, names, repetitions, results_dir)}"
        for absent, names in lacking.items()
    )


def _frames(
    cells: Mapping[Any, Mapping[Any, tuple[str, bool]]], rows: Sequence[Any], names: Sequence[str]
) -> Frames:
    """Body and bold from columns of {row: (text, bold)}; a row that a column lacks shows
    nothing.
    """
    index = pd.Index(rows) if len(names) == 1 else pd.MultiIndex.from_tuples(rows)
    index.names = list(names)
    body = {
        key: [column.get(row, (NOTHING, False))[0] for row in rows] for key, column in cells.items()
    }
    bold = {
        key: [column.get(row, (NOTHING, False))[1] for row in rows] for key, column in cells.items()
    }
    return pd.DataFrame(body, index=index), pd.DataFrame(bold, index=index)


def _ordered(labels: Mapping[str, float]) -> list[str]:
    return sorted(labels, key=lambda label: (labels[label], label))


# --- mean, median, best ---


def _main(runs: Runs, mode: Statistics, seed: int) -> Parts:
    found = summarise(runs, mode, seed)
    cells: dict[tuple[str, str], dict[str, tuple[str, bool]]] = {}
    for dataset, measure in dict.fromkeys(
        (summary.dataset_label, summary.measure) for summary in found
    ):
        rows = [
            summary
            for summary in found
            if (summary.dataset_label, summary.measure) == (dataset, measure)
        ]
        for statistic, numbers in _shown(rows).items():
            marked = zip(rows, numbers, within_error_of_best(numbers), strict=True)
            cells[f"{dataset}: {measure}", statistic] = {
                row.label: (number.text, mark) for row, number, mark in marked
            }
        cells[f"{dataset}: {measure}", "n_ok/n"] = {
            row.label: (f"{row.n_ok}/{row.n}", False) for row in rows
        }
    body, bold = _frames(
        cells, _ordered({summary.label: summary.order for summary in found}), ["Method"]
    )
    label = intervals.label(
        mode,
        sum(row.n_ok for row in found),
        sum(row.n for row in found),
        seed,
        "mean ± SD over the resamples",
    )
    means = "; means are of the runs that are ok" if mode == "default" else ""
    return body, bold, _summary_data(found, mode, seed), label + means


def _shown(rows: Sequence[Summary]) -> dict[str, list[Rounded]]:
    return {
        "Mean": [rounded(row.mean.estimate, row.mean.standard_deviation) for row in rows],
        "Median": [rounded(row.median.estimate, row.median.standard_deviation) for row in rows],
        "Best": [rounded(row.best) for row in rows],
    }


def _summary_data(found: Sequence[Summary], mode: Statistics, seed: int) -> pd.DataFrame:
    """A row per dataset, measure, method and statistic."""
    rows = []
    for row in found:
        identity = {
            key: getattr(row, key) for key in ("dataset", "column", "measure", "method", "label")
        }
        counts = {"n_ok": row.n_ok, "n": row.n, "statistics": mode, "seed": seed}
        best = Interval(row.best, np.nan, np.nan, np.nan, row.n, "none", None)
        for statistic, interval in (("mean", row.mean), ("median", row.median), ("best", best)):
            rows.append({**identity, "statistic": statistic, **_interval_data(interval), **counts})
    return pd.DataFrame(rows)


def _interval_data(interval: Interval, prefix: str = "") -> dict[str, Any]:
    data = {
        "estimate": interval.estimate,
        "standard_deviation": interval.standard_deviation,
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
    }
    return {prefix + key: value for key, value in data.items()}


# --- pairs of methods ---


@dataclass(frozen=True)
class Pair:
    """Two methods on one dataset by its metric, compared on shared seeds;

    ``holm`` is adjusted within the dataset.
    """

    dataset: str
    dataset_label: str
    methods: tuple[str, str]
    labels: tuple[str, str]
    comparison: Comparison
    holm: float


def pairs(runs: Runs, mode: Statistics = "default", seed: int = 0) -> list[Pair]:
    """Compare all pairs of methods of each dataset on shared seeds, differences in the metric's
    shown unit.

    Args:
        runs: one configuration per dataset and method.
        mode: with ``paper`` only seeds that both keep.
    """
    found = []
    for group in by(runs, "dataset").values():
        scale = measures(group)[-1].scale
        frames = [
            _by_seed(tabular.finals(method), mode, scale) for method in by(group, "method").values()
        ]
        compared = [(a, b, _compare(a, b, seed)) for a, b in combinations(frames, 2)]
        adjusted = paired.holm([comparison.p_value for _, _, comparison in compared])
        for (a, b, comparison), p in zip(compared, adjusted, strict=True):
            first = a.iloc[0]
            found.append(
                Pair(
                    dataset=first["dataset"],
                    dataset_label=first["dataset_label"],
                    methods=(first["method"], b["method"].iloc[0]),
                    labels=(first["label"], b["label"].iloc[0]),
                    comparison=comparison,
                    holm=float(p),
                )
            )
    return found


def _by_seed(frame: pd.DataFrame, mode: Statistics, scale: float) -> pd.DataFrame:
    kept = paper_keeps(frame) if mode == "paper" else np.ones(len(frame), bool)
    values = np.where(kept, tabular.failure_aware(frame) * scale, np.nan)
    return frame.assign(value=values).set_index("seed")


def _compare(a: pd.DataFrame, b: pd.DataFrame, seed: int) -> Comparison:
    shared = pd.concat({"a": a["value"], "b": b["value"]}, axis=1, join="inner").dropna()
    return paired.paired_comparison(shared["a"], shared["b"], seed=seed)


def _pairs(runs: Runs, mode: Statistics, seed: int) -> Parts:
    found = pairs(runs, mode, seed)
    if not found:
        raise UserError("table pairs: needs runs of two methods on one dataset")
    cells: dict[str, dict[Any, tuple[str, bool]]] = {}
    for pair in found:
        row, result, significant = (
            (pair.dataset_label, *pair.labels),
            pair.comparison,
            pair.holm < 0.05,
        )
        texts = {
            "n": str(result.n),
            "P(A better)": _with_bounds(result.probability),
            "Median A − median B": _with_bounds(result.difference),
            "p (Wilcoxon)": _p(result.p_value),
            "p (Holm)": _p(pair.holm),
        }
        for column, text in texts.items():
            cells.setdefault(column, {})[row] = (text, significant and column == "p (Holm)")
    body, bold = _frames(
        cells, [(pair.dataset_label, *pair.labels) for pair in found], ["Dataset", "A", "B"]
    )
    label = (
        f"statistics: {mode}; pairs by shared seeds, lower is better, ties count half; brackets: 95 % intervals "
        f"(Wilson; paired bootstrap, {intervals.RESAMPLES} resamples, seed {seed}); Holm within a dataset; bold: p < 0.05"
    )
    return body, bold, pd.DataFrame([_pair_data(pair, mode, seed) for pair in found]), label


def _pair_data(pair: Pair, mode: Statistics, seed: int) -> dict[str, Any]:
    result = pair.comparison
    return {
        "dataset": pair.dataset,
        "method_a": pair.methods[0],
        "method_b": pair.methods[1],
        "n": result.n,
        **_interval_data(result.probability, "probability_"),
        **_interval_data(result.difference, "difference_"),
        "p_wilcoxon": result.p_value,
        "p_holm": pair.holm,
        "statistics": mode,
        "seed": seed,
    }


def _with_bounds(interval: Interval) -> str:
    estimate, low, high = (
        rounded(value).text for value in (interval.estimate, interval.low, interval.high)
    )
    return estimate if np.isnan(interval.low) else f"{estimate} [{low}, {high}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else rounded(value).text


# --- divergence ---


def _divergence(runs: Runs, mode: Statistics, seed: int) -> Parts:
    cells: dict[tuple[str, str], dict[str, tuple[str, bool]]] = {}
    rows, order = [], {}
    for method in (
        group for runs_ in by(runs, "dataset").values() for group in by(runs_, "method").values()
    ):
        frame = tabular.finals(method)
        first, diverged = frame.iloc[0], frame[frame["status"] != "ok"]
        rate = distributions.wilson(len(diverged), len(frame))
        at = float(diverged["diverged_at"].median())
        shown = f"{100 * rate.estimate:.3g} % [{100 * rate.low:.3g}, {100 * rate.high:.3g}]"
        order[first["label"]] = first["order"]
        for column, text in (
            ("diverged", f"{len(diverged)}/{len(frame)}"),
            ("rate", shown),
            ("at step", _step(at)),
        ):
            cells.setdefault((first["dataset_label"], column), {})[first["label"]] = (text, False)
        identity = {key: first[key] for key in ("dataset", "method", "label")}
        counts = {"diverged": len(diverged), "n": len(frame), "median_diverged_at": at}
        rows.append({**identity, **counts, **_interval_data(rate)})
    body, bold = _frames(cells, _ordered(order), ["Method"])
    label = "diverged/n; rate with 95 % Wilson interval; median step of divergence among those that diverged"
    return body, bold, pd.DataFrame(rows), label


def _step(value: float) -> str:
    return NOTHING if np.isnan(value) else f"{value:.0f}"


# --- run time ---


def _runtime(runs: Runs, mode: Statistics, seed: int) -> Parts:
    found = costs(runs, seed)
    cells: dict[str, dict[Any, tuple[str, bool]]] = {}
    for cost in found:
        texts = {
            "Runs": str(cost.repetitions),
            "Blocks": str(cost.blocks),
            "Rows in a block": str(cost.rows_in_block),
            "s per run": rounded(cost.seconds).text,
            "ms per update": rounded(cost.milliseconds_per_update).text,
            "× Random": _times(cost),
            "Machine": cost.machine,
        }
        for column, text in texts.items():
            cells.setdefault(column, {})[cost.dataset_label, cost.label] = (text, False)
    body, bold = _frames(
        cells, [(cost.dataset_label, cost.label) for cost in found], ["Dataset", "Method"]
    )
    label = (
        "medians over blocks of (wall time ÷ rows in the block), test evaluation included, diverged runs too; × Random "
        f"compares equal machines and block sizes alone, bootstrap over blocks 95 %, seed {seed}"
    )
    return body, bold, pd.DataFrame([_cost_data(cost) for cost in found]), label


def _times(cost: Cost) -> str:
    if cost.times_plain is None:
        return "1" if cost.method == PLAIN else NOTHING
    return _with_bounds(cost.times_plain)


def _cost_data(cost: Cost) -> dict[str, Any]:
    data = {
        key: value
        for key, value in vars(cost).items()
        if key not in ("dataset_label", "times_plain")
    }
    ratio = cost.times_plain or Interval(np.nan, np.nan, np.nan, np.nan, 0, "none", None)
    return {**data, **_interval_data(ratio, "times_plain_")}


# --- equal budgets ---

BUDGETS = (1, 5, 30, 100, 200)  # in plain trainings


def _multi_pass(runs: Runs, mode: Statistics, seed: int) -> Parts:
    order: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for group in by(runs, "dataset").values():
        measure, units = measures(group)[-1], _units(group)
        for method in by(group, "method").values():
            order[method[0].method_label] = method[0].config["method"].get("order", 0)
            rows += _at_budgets(method, measure, units, seed)
    data = pd.DataFrame(rows)
    if data.empty:
        raise UserError("table multi_pass: no run has a validation loss to choose by")
    cells: dict[str, dict[Any, tuple[str, bool]]] = {}
    keys = ["dataset_label", "measure", "axis"]
    least = data.groupby([*keys, "budget"])["estimate"].transform("min")
    for row, best in zip(data.to_dict("records"), data["estimate"] == least, strict=True):
        key = (
            f"{row['dataset_label']}: {row['measure']}",
            incumbent.AXES[row["axis"]],
            row["label"],
        )
        interval = Interval(
            row["estimate"], np.nan, row["low"], row["high"], row["n"], row["interval"], None
        )
        text = NOTHING if np.isnan(row["estimate"]) else _with_bounds(interval)
        cells.setdefault(f"{row['budget']}", {})[key] = (text, bool(best))
        cells.setdefault("n", {})[key] = (str(row["n"]), False)
    named = sorted(
        {key for column in cells.values() for key in column}, key=lambda key: _place(key, order)
    )
    body, bold = _frames(
        {**{name: cells[name] for name in cells if name != "n"}, "n": cells["n"]},
        named,
        ["Dataset", "Budget in", "Method"],
    )
    less = incumbent.scaled_down(runs)
    label = (
        "median test metric of the incumbent, chosen by validation loss, when as much is spent as a number of plain "
        f"trainings (columns) costs; gradient-equivalents: gradients + {incumbent.PRODUCT} × Hessian-vector products; "
        "one-pass methods: best of as many trainings as that pays for, over all subsets; brackets: 95 % bootstrap "
        f"intervals over n repetitions, {intervals.RESAMPLES} resamples, seed {seed}; diverged = +inf; bold: least of a "
        "column" + f"; scaled down from the paper: {less}" * bool(less)
    )
    return body, bold, data.assign(statistics=mode, seed=seed), label


def _place(key: tuple[str, str, str], order: Mapping[str, float]) -> tuple[Any, ...]:
    return key[0], list(incumbent.AXES.values()).index(key[1]), order[key[2]], key[2]


def _units(runs: Runs) -> dict[str, float]:
    """What a plain training costs: its weight updates, as many gradients, the time of a Random one
    if there are any.
    """
    updates = float(weight_updates(runs[0]))
    plain = by(runs, "method").get(GROUP_SOURCE)
    seconds = float(tabular.finals(plain)["seconds"].median()) if plain else np.nan
    return {"weight_updates": updates, "gradient_equivalents": updates, "seconds": seconds}


def _at_budgets(
    runs: Runs, measure: Measure, units: Mapping[str, float], seed: int
) -> list[dict[str, Any]]:
    """A row for each axis and budget of one method; none without a validation loss to choose by."""
    finals, search = tabular.finals(runs), incumbent.is_search(runs[0])
    if not np.isfinite(tabular.failure_aware(finals, "validation_loss")).any():
        return []
    found = incumbent.paths(runs, finals, measure) if search else []
    identity = {key: finals.iloc[0][key] for key in ("dataset", "dataset_label", "method", "label")}
    rows = []
    for axis, unit in units.items():
        for budget in BUDGETS if np.isfinite(unit) else ():
            at = (
                incumbent.searched_at(found, axis, budget * unit, seed)
                if search
                else incumbent.restarted_at(runs, finals, measure, axis, budget * unit, seed)
            )
            rows.append(
                {
                    **identity,
                    "measure": measure.label,
                    "axis": axis,
                    "budget": budget,
                    "cost": budget * unit,
                    **_interval_data(at),
                    "n": len(finals),
                }
            )
    return rows


_UCI = ("uci_energy", "uci_kin8nm", "uci_power")
_TITLE = "Final test performance"
TABLES: dict[str, TableKind] = {
    "uci_main": TableKind(f"{_TITLE} on UCI sets", _main, _UCI, ONE_PASS),
    "fashion_mnist": TableKind(
        f"{_TITLE} on Fashion-MNIST", _main, ("fashion_mnist",), ONE_PASS, 100
    ),
    "batchnorm": TableKind(
        f"{_TITLE} with batch norm", _main, ("fashion_mnist_batchnorm",), ONE_PASS, 100
    ),
    "cifar10": TableKind(f"{_TITLE} on CIFAR-10", _main, ("cifar10",), ONE_PASS, 50),
    "penn_treebank": TableKind(
        f"{_TITLE} on Penn Treebank", _main, ("penn_treebank",), ONE_PASS, 50
    ),
    "larger_scale": TableKind(
        f"{_TITLE} on the larger sets",
        _main,
        ("fashion_mnist", "cifar10", "penn_treebank"),
        ONE_PASS,
        50,
    ),
    "summary": TableKind(f"{_TITLE} on everything stored", _main),
    "pairs": TableKind("Methods compared on shared seeds", _pairs),
    "divergence": TableKind("Runs that diverged", _divergence),
    "runtime": TableKind("Run time", _runtime),
    "multi_pass": TableKind(
        "One-pass methods and multi-pass searches at equal budgets",
        _multi_pass,
        (*_UCI, "fashion_mnist"),
        MULTI_PASS,
    ),
}
