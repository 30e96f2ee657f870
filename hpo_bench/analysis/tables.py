"""The tables of ``hpo-bench table``, each made from stored runs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo_bench.analysis import incumbent, paper, rivals, submission
from hpo_bench.analysis.budget import of_each
from hpo_bench.analysis.compare import bounds
from hpo_bench.analysis.costs import Cost, costs, of_several_machines
from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.paper import GROUP_SOURCE, MULTI_PASS, ONE_PASS, PLAIN, shown_name
from hpo_bench.analysis.render import RenderedTable
from hpo_bench.analysis.rivals import METHODS as COMPARED
from hpo_bench.analysis.rivals import as_meant, best_on_a_seed, data_for_weights
from hpo_bench.analysis.rounding import NOTHING, Rounded, rounded, within_error_of_best
from hpo_bench.analysis.selection import (
    Runs,
    Selection,
    by_dataset,
    by_method,
    comparable,
    find,
    grouped,
    of_usual_length,
    over_setting,
    settings,
    weight_updates,
)
from hpo_bench.analysis.statistics.bootstrap import bootstrap
from hpo_bench.analysis.statistics.distributions import wilson
from hpo_bench.analysis.statistics.interval import RESAMPLES, Interval, Statistics
from hpo_bench.analysis.statistics.interval import label as statistics_label
from hpo_bench.analysis.statistics.pairs import Comparison, holm, paired_comparison
from hpo_bench.analysis.summary import Measure, Summary, measures, paper_keeps, summarise
from hpo_bench.errors import UserError, nearest
from hpo_bench.settings.run import in_order
from hpo_bench.store.runs import STARTED, Run, hyperparameters_of
from hpo_bench.system.quoting import override

Marked = tuple[str, bool]  # the text of a cell, and whether it is bold
Cells = dict[Any, dict[Any, Marked]]  # by column, then by row
Frames = tuple[pd.DataFrame, pd.DataFrame]  # body and bold of a `RenderedTable`
Parts = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]  # body, bold, data and label of one


@dataclass(frozen=True)
class TableKind:
    """A table that can be asked for.

    Args:
        title: what it shows.
        make: from comparable runs, the statistics and the seed.
        datasets, methods: what it is about unless asked otherwise; empty = all that is stored.
        repetitions: how many the paper has.
        select: which runs stand side by side.
        printed: its rows are those that the paper printed, with runs or without.
    """

    title: str
    make: Callable[[Runs, Statistics, int], Parts]
    datasets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    repetitions: int = 200
    select: Callable[[Runs], Selection] = comparable
    printed: bool = False


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
        where: settings that the runs must have, see `selection.find`.
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
    selection = kind.select(runs)
    body, bold, data, label = kind.make(selection.runs, mode, seed)
    looked_for = chosen or kind.methods
    if kind.printed:
        asked_for = data["dataset"].isin(wanted) & data["method"].isin(map(shown_name, looked_for))
        body, bold, data = (part[asked_for.to_numpy()] for part in (body, bold, data))
        if data.empty:
            of_what = f"{', '.join(looked_for)} on {', '.join(wanted)}"
            raise UserError(f"table {name}: the paper printed no number of {of_what}")
        lacking = submission.commands(selection.runs, wanted, looked_for, results_dir)
    else:
        lacking = missing(selection.runs, wanted, looked_for, kind.repetitions, results_dir)
    return RenderedTable(name, kind.title, body, bold, data, label, selection.notes, lacking)


def run_command(
    methods: Sequence[str], datasets: Sequence[str], repetitions: int, results_dir: str | Path
) -> str:
    """The ``hpo-bench run`` line that makes these runs."""
    several = " -m" if len(methods) > 1 or len(datasets) > 1 else ""
    names = dict.fromkeys(name.partition("@")[0] for name in datasets)
    dataset = f" dataset={','.join(names)}" if names else ""
    words = f"hpo-bench run{several} method={','.join(methods)}{dataset} repetitions={repetitions}"
    if str(results_dir) == "results":
        return words
    return f"{words} {override('results_dir', str(results_dir))}"


def missing(
    runs: Runs,
    datasets: Sequence[str],
    methods: Sequence[str],
    repetitions: int,
    results_dir: str | Path,
) -> tuple[str, ...]:
    """A line for each set of methods that datasets have no runs of, with the command for them."""
    stored = set()
    for run in runs:
        stored |= {(run.dataset, run.method), (run.dataset_name, run.method)}
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


def _frames(cells: Cells, rows: Sequence[Any], names: Sequence[str]) -> Frames:
    """Body and bold of a table; a row that a column lacks shows nothing.

    Args:
        names: of the index's levels.
    """
    index = pd.Index(rows) if len(names) == 1 else pd.MultiIndex.from_tuples(rows)
    index.names = list(names)
    body, bold = {}, {}
    for key, column in cells.items():
        shown = [column.get(row, (NOTHING, False)) for row in rows]
        body[key] = [text for text, _ in shown]
        bold[key] = [mark for _, mark in shown]
    return pd.DataFrame(body, index=index), pd.DataFrame(bold, index=index)


def _ordered(labels: Mapping[str, float]) -> list[str]:
    """Labels by the order of their methods, then by name."""
    return sorted(labels, key=lambda label: (labels[label], label))


# --- mean, median, best ---


def _main(runs: Runs, mode: Statistics, seed: int) -> Parts:
    summaries = summarise(runs, mode, seed)
    by_group: dict[str, list[Summary]] = {}
    for summary in summaries:
        group = f"{summary.dataset_label}: {summary.measure}"
        by_group.setdefault(group, []).append(summary)

    cells: Cells = {}
    for group, rows in by_group.items():
        for statistic, numbers in _shown(rows).items():
            column = cells.setdefault((group, statistic), {})
            for row, number, best in zip(rows, numbers, within_error_of_best(numbers), strict=True):
                column[row.label] = (number.text, best)
        cells[group, "n_ok/n"] = {row.label: (f"{row.n_ok}/{row.n}", False) for row in rows}

    order = {summary.label: summary.order for summary in summaries}
    body, bold = _frames(cells, _ordered(order), ["Method"])
    n_ok = sum(row.n_ok for row in summaries)
    n = sum(row.n for row in summaries)
    label = statistics_label(mode, n_ok, n, seed, "mean ± SD over the resamples")
    if mode == "default":
        label += "; means are of the runs that are ok"
    labels = {run.dataset: run.dataset_label for run in runs}
    for dataset, budget in of_each(runs).items():
        label += f"; {labels[dataset]}: {budget}"
    return body, bold, _summary_data(summaries, mode, seed), label


def _shown(rows: Sequence[Summary]) -> dict[str, list[Rounded]]:
    """The numbers of some methods by statistic, in the methods' order."""
    shown: dict[str, list[Rounded]] = {"Mean": [], "Median": [], "Best": []}
    for row in rows:
        shown["Mean"].append(rounded(row.mean.estimate, row.mean.standard_deviation))
        shown["Median"].append(rounded(row.median.estimate, row.median.standard_deviation))
        shown["Best"].append(rounded(row.best))
    return shown


def _summary_data(summaries: Sequence[Summary], mode: Statistics, seed: int) -> pd.DataFrame:
    """A row per dataset, measure, method and statistic."""
    keys = ("dataset", "column", "measure", "method", "label")
    rows = []
    for summary in summaries:
        identity = {key: getattr(summary, key) for key in keys}
        counts = {"n_ok": summary.n_ok, "n": summary.n, "statistics": mode, "seed": seed}
        intervals = {
            "mean": summary.mean,
            "median": summary.median,
            "best": Interval(summary.best, np.nan, np.nan, np.nan, summary.n, "none", None),
        }
        for statistic, interval in intervals.items():
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
    """Two methods on one dataset by its metric, compared on shared seeds.

    Args:
        methods, labels: of the two.
        holm: the p-value, adjusted within the dataset.
    """

    dataset: str
    dataset_label: str
    methods: tuple[str, str]
    labels: tuple[str, str]
    comparison: Comparison
    holm: float


def pairs(runs: Runs, mode: Statistics = "default", seed: int = 0) -> list[Pair]:
    """Compare all pairs of methods of each dataset on shared seeds.

    Differences are in the metric's shown unit.

    Args:
        runs: one configuration per dataset and method.
        mode: with ``paper`` only seeds that both keep.
    """
    compared = []
    for of_dataset in by_dataset(runs).values():
        scale = measures(of_dataset)[-1].scale
        methods = by_method(of_dataset).values()
        frames = [_by_seed(finals(method), mode, scale) for method in methods]
        couples = list(combinations(frames, 2))
        comparisons = [_compare(a, b, seed) for a, b in couples]
        adjusted = holm([comparison.p_value for comparison in comparisons])
        for (a, b), comparison, p in zip(couples, comparisons, adjusted, strict=True):
            of_a, of_b = a.iloc[0], b.iloc[0]
            compared.append(
                Pair(
                    dataset=of_a["dataset"],
                    dataset_label=of_a["dataset_label"],
                    methods=(of_a["method"], of_b["method"]),
                    labels=(of_a["label"], of_b["label"]),
                    comparison=comparison,
                    holm=float(p),
                )
            )
    return compared


def _by_seed(frame: pd.DataFrame, mode: Statistics, scale: float) -> pd.DataFrame:
    """Final values by seed with a column ``value``: NaN where the statistics drop it."""
    counts = paper_keeps(frame) if mode == "paper" else np.ones(len(frame), bool)
    values = np.where(counts, failure_aware(frame) * scale, np.nan)
    return frame.assign(value=values).set_index("seed")


def _compare(a: pd.DataFrame, b: pd.DataFrame, seed: int) -> Comparison:
    shared = pd.concat({"a": a["value"], "b": b["value"]}, axis=1, join="inner").dropna()
    return paired_comparison(shared["a"], shared["b"], seed=seed)


def _pairs(runs: Runs, mode: Statistics, seed: int) -> Parts:
    compared = pairs(runs, mode, seed)
    if not compared:
        raise UserError("table pairs: needs runs of two methods on one dataset")
    cells: Cells = {}
    rows = []
    for pair in compared:
        row, result = (pair.dataset_label, *pair.labels), pair.comparison
        texts = {
            "n": str(result.n),
            "P(A better)": bounds(result.probability),
            "Median A − median B": bounds(result.difference),
            "p (Wilcoxon)": _p(result.p_value),
            "p (Holm)": _p(pair.holm),
        }
        rows.append(row)
        for column, text in texts.items():
            significant = column == "p (Holm)" and pair.holm < 0.05
            cells.setdefault(column, {})[row] = (text, significant)
    body, bold = _frames(cells, rows, ["Dataset", "A", "B"])
    data = pd.DataFrame([_pair_data(pair, mode, seed) for pair in compared])
    label = (
        f"statistics: {mode}; pairs by shared seeds, lower is better, ties count half; "
        f"brackets: 95 % intervals (Wilson; paired bootstrap, {RESAMPLES} resamples, seed {seed}); "
        "Holm within a dataset; bold: p < 0.05"
    )
    return body, bold, data, label


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


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else rounded(value).text


# --- divergence ---


def _divergence(runs: Runs, mode: Statistics, seed: int) -> Parts:
    cells: Cells = {}
    order: dict[str, float] = {}
    data = []
    methods = [method for part in by_dataset(runs).values() for method in by_method(part).values()]
    for method in methods:
        frame = finals(method)
        first, diverged = frame.iloc[0], frame[frame["status"] != "ok"]
        rate = wilson(len(diverged), len(frame))
        at = float(diverged["diverged_at"].median())
        texts = {
            "diverged": f"{len(diverged)}/{len(frame)}",
            "rate": f"{100 * rate.estimate:.3g} % [{100 * rate.low:.3g}, {100 * rate.high:.3g}]",
            "at step": NOTHING if np.isnan(at) else f"{at:.0f}",
        }
        for column, text in texts.items():
            cells.setdefault((first["dataset_label"], column), {})[first["label"]] = (text, False)
        order[first["label"]] = first["order"]
        data.append(
            {
                "dataset": first["dataset"],
                "method": first["method"],
                "label": first["label"],
                "diverged": len(diverged),
                "n": len(frame),
                "median_diverged_at": at,
                **_interval_data(rate),
            }
        )
    body, bold = _frames(cells, _ordered(order), ["Method"])
    label = (
        "diverged/n; rate with 95 % Wilson interval; median step of divergence among those that "
        "diverged"
    )
    return body, bold, pd.DataFrame(data), label


# --- run time ---


def _runtime(runs: Runs, mode: Statistics, seed: int) -> Parts:
    all_costs = costs(runs, seed)
    cells: Cells = {}
    rows = []
    for cost in all_costs:
        row = (cost.dataset_label, cost.label)
        texts = {
            "Runs": str(cost.repetitions),
            "Blocks": str(cost.blocks),
            "Rows in a block": str(cost.rows_in_block),
            "s per run": rounded(cost.seconds).text,
            "ms per update": rounded(cost.milliseconds_per_update).text,
            "× Random": _times(cost),
            "Machine": cost.machine,
        }
        rows.append(row)
        for column, text in texts.items():
            cells.setdefault(column, {})[row] = (text, False)
    body, bold = _frames(cells, rows, ["Dataset", "Method"])
    data = pd.DataFrame([_cost_data(cost) for cost in all_costs])
    label = (
        "medians over blocks of (wall time ÷ rows in the block), test evaluation included, "
        "diverged runs too; × Random compares equal machines and block sizes alone, "
        f"bootstrap over blocks 95 %, seed {seed}"
    )
    return body, bold, data, label


def _times(cost: Cost) -> str:
    if cost.times_plain is None:
        return "1" if cost.method == PLAIN else NOTHING
    return bounds(cost.times_plain)


def _cost_data(cost: Cost) -> dict[str, Any]:
    data = dict(vars(cost))
    del data["dataset_label"], data["times_plain"]
    return {**data, **_interval_data(cost.times_plain or incumbent.NO_VALUE, "times_plain_")}


# --- equal budgets ---

BUDGETS = (1, 5, 30, 100, 200)  # in plain trainings


def _multi_pass(runs: Runs, mode: Statistics, seed: int) -> Parts:
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
        cells.setdefault(str(record["budget"]), {})[row] = (_estimate(record), bool(best))
        counts[row] = (str(record["n"]), False)

    def place(row: tuple[str, str, str]) -> tuple[str, int, float, str]:
        dataset, axis, label = row
        return dataset, list(incumbent.AXES.values()).index(axis), order[label], label

    rows = sorted(counts, key=place)
    body, bold = _frames({**cells, "n": counts}, rows, ["Dataset", "Budget in", "Method"])
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


def _estimate(record: Mapping[Any, Any]) -> str:
    """The estimate of a row of data with its bounds."""
    if np.isnan(record["estimate"]):
        return NOTHING
    estimate, low, high = record["estimate"], record["low"], record["high"]
    return bounds(Interval(estimate, np.nan, low, high, record["n"], record["interval"], None))


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
                **_interval_data(value),
                "n": len(frame),
            }
        )
    return records


# --- what one would take today ---

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


def _comparable_in_versions(runs: Runs) -> Selection:
    """Comparable runs of each version."""
    chosen: dict[str, Run] = {}
    notes: dict[str, None] = {}
    for of_version in versions(runs).values():
        selection = comparable(of_version)
        alike, other_lengths = of_usual_length(selection.runs)  # at equal cost
        chosen |= {run.run_id: run for run in alike}
        notes |= dict.fromkeys(other_lengths)
        # That some say `train` and others need not is what makes the version.
        told = [note for note in selection.notes if "data_for_weights=" not in note]
        notes |= dict.fromkeys(told)
    return Selection(list(chosen.values()), tuple(notes))


def _rivals(runs: Runs, mode: Statistics, seed: int) -> Parts:
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
            "Median": (_estimate(record), bool(lowest)),
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

    body, bold = _frames(cells, sorted(rows, key=place), ["Dataset", "Weights see", "Method"])
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
                **_interval_data(bootstrap(counting, "median", seed=seed)),
                **_interval_data(best[method], "probability_"),
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


# --- horizons ---

DISCOUNT = "method.estimator.discount"
COLUMN_OF_DISCOUNTS = "Method"


def _all_discounts(runs: Runs) -> Selection:
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
    beside = comparable(others)
    return Selection([*chosen, *beside.runs], (*notes, *beside.notes))


def _discount_of(run: Run) -> float | None:
    value = settings(run).get(DISCOUNT)
    return None if value is None else float(value)


def _horizons(runs: Runs, mode: Statistics, seed: int) -> Parts:
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
                    **_interval_data(bootstrap(counting, "median", seed=seed)),
                    "n_ok": int(np.isfinite(values).sum()),
                    "n": len(values),
                }
            )
    data = pd.DataFrame(records)
    least = data.groupby("dataset")["estimate"].transform("min")
    cells: Cells = {}
    for record, lowest in zip(records, data["estimate"] == least, strict=True):
        title = f"{record['dataset_label']}: {record['measure']}"
        cells.setdefault((title, "Median"), {})[record["label"]] = (_estimate(record), bool(lowest))
        ok = f"{record['n_ok']}/{record['n']}"
        cells.setdefault((title, "n_ok/n"), {})[record["label"]] = (ok, False)
    ordered = data.sort_values(["order", "discount", "label"], na_position="first")
    body, bold = _frames(cells, list(dict.fromkeys(ordered["label"])), [COLUMN_OF_DISCOUNTS])
    label = (
        f"statistics: {mode}; median final test metric with 95 % bootstrap intervals, {RESAMPLES} "
        f"resamples, seed {seed}, diverged = +inf; γ: discount of the tangents at each weight "
        "update; bold: least of a column"
    )
    return body, bold, data.drop(columns="order").assign(statistics=mode, seed=seed), label


# --- where hyperparameters begin and end ---


def _hyperparameters(runs: Runs, mode: Statistics, seed: int) -> Parts:
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
    body, bold = _frames({**columns, "n_ok/n": counted}, rows, ["Dataset", "Method"])
    label = "medians over the repetitions that did not diverge, at the start → at the end"
    return body, bold, pd.DataFrame(records), label


def _median_of(frame: pd.DataFrame, column: str) -> float:
    """The median of a column, NaN where a rule has no such hyperparameter."""
    if column not in frame.columns:
        return np.nan
    return float(pd.to_numeric(frame[column]).median())


# --- what the paper printed ---


def _everything(runs: Runs) -> Selection:
    """All runs: each printed number has its own."""
    return Selection(list(runs), ())


def _submission(runs: Runs, mode: Statistics, seed: int) -> Parts:
    judged = submission.judge(runs, seed)
    cells: Cells = {}
    rows = []
    for cell in judged:
        protocol = submission.PROTOCOLS[cell.dataset]
        row = (protocol.label, submission.method_label(cell.method), cell.statistic)
        rows.append(row)
        theirs, ours = submission.shown(cell)
        texts = {
            "Printed": theirs.text,
            "Here": ours.text,
            "n": str(cell.n) if cell.n else NOTHING,
            "Verdict": cell.verdict,
            "Why": cell.reason,
        }
        for column, text in texts.items():
            differs = column == "Verdict" and cell.verdict == "differs"
            cells.setdefault(column, {})[row] = (text, differs)
    body, bold = _frames(cells, rows, ["Dataset", "Method", "Statistic"])
    data = pd.DataFrame(judged).assign(statistics="paper", seed=seed)
    return body, bold, data, submission.note(seed)


_UCI = paper.UCI_OF_THE_TABLES
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
        paper.LARGER,
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
    "any_update": TableKind(
        "Tuning through AdamW", _main, rivals.DATASETS, (*rivals.ADAMW, "ours_wd_lr_m")
    ),
    "horizons": TableKind(
        "Horizons that do not end, over their discount",
        _horizons,
        paper.UCI,
        ("random", "ours_wd_lr_m", "ours_discounted"),
        100,
        _all_discounts,
    ),
    "rivals": TableKind(
        "Hypergradients and today's optimisers at their costs",
        _rivals,
        rivals.DATASETS,
        COMPARED,
        select=_comparable_in_versions,
    ),
    "submission": TableKind(
        "What the paper printed, and what came out here",
        _submission,
        tuple(submission.PROTOCOLS),
        ONE_PASS,
        select=_everything,
        printed=True,
    ),
    "hyperparameters": TableKind("Hyperparameters at the start and at the end", _hyperparameters),
}
