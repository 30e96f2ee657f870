"""What stored runs say, as tables of the page."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import pandas as pd

from hpo_bench.analysis import selection, submission
from hpo_bench.analysis.claims import Claim, Verdict
from hpo_bench.analysis.costs import costs
from hpo_bench.analysis.paper import PLAIN, shown_name
from hpo_bench.analysis.rounding import NOTHING, rounded, within_error_of_best
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics import distributions, interval
from hpo_bench.analysis.statistics.interval import Statistics
from hpo_bench.analysis.submission import JudgedNumber
from hpo_bench.analysis.summary import Summary, summarise
from hpo_bench.analysis.tables.pairs import pairs
from hpo_bench.report.facets import Membership
from hpo_bench.report.grid import (
    Cell,
    Grid,
    GridColumn,
    bounded,
    count,
    number,
    ranges,
    share,
    strips,
    with_error,
)
from hpo_bench.store import experiment_records
from hpo_bench.store.index import Entry
from hpo_bench.store.runs import STARTED, Run, hyperparameters_of

T = TypeVar("T")
LISTED = 1000  # divergences, each in a row; the rates count all
# How a column is headed that says where a hyperparameter of a repetition that diverged began.
HEADINGS = {"weight_decay": "Weight decay", "momentum": "Momentum", "beta1": "β₁", "beta2": "β₂"}
VERDICTS = ("contradicted", "supported", "undecided", "not enough runs")


def _groups(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Items that have one key, in the order of the first of each."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _label(part: Mapping[str, Any]) -> str:
    return str(part.get("label", part["name"]))


def _method(run: Run) -> Cell:
    method = run.config["method"]
    return Cell(_label(method), float(method.get("order", 0)), colour=str(method.get("colour", "")))


def _dataset(run: Run) -> Cell:
    return Cell(run.dataset_label)


# --- claims ---


def claims_grid(judged: Sequence[Claim], seed: int) -> Grid:
    """A row per claim, in the order in which they are made."""
    columns = (
        GridColumn("Claim"),
        GridColumn("Verdict", "verdict"),
        GridColumn("Expected"),
        GridColumn("Stored runs", "words"),
        GridColumn("Decided by", "number", "difference or ratio"),
        GridColumn("n", "number"),
    )
    rows = tuple(
        (
            Cell(claim.text),
            Cell(claim.verdict, float(VERDICTS.index(claim.verdict))),
            Cell(claim.expected),
            Cell(claim.measured),
            bounded(claim.interval),
            count(claim.n),
        )
        for claim in judged
    )
    note = (
        "Supported: the whole interval lies on the claim's side. Contradicted: none of it does. "
        "Undecided: it lies on both. n: shared seeds, or blocks of repetitions for times. "
        "Diverged runs count as +∞, with either kind of statistics."
    )
    intervals = [claim.interval for claim in judged if claim.interval is not None]
    kinds = dict.fromkeys(each.method for each in intervals if each.n > 1)
    if kinds:
        note += f" Intervals: {', '.join(kinds)}; {interval.RESAMPLES} resamples, seed {seed}."
    return Grid("claims-table", "Verdict on each claim", columns, rows, note)


def verdicts(judged: Sequence[Claim]) -> list[tuple[str, int]]:
    """How many claims have each verdict, without those that none has."""
    counts = Counter(claim.verdict for claim in judged)
    return [(name, counts[name]) for name in get_args(Verdict) if counts[name]]


# --- what the paper printed ---


def submission_grid(
    cells: Sequence[JudgedNumber], runs: Runs, seed: int, membership: Membership
) -> Grid:
    """A row for each number that the paper printed, whether there are runs like theirs or not."""
    columns = (
        GridColumn("Dataset", "name"),
        GridColumn("Method", "name"),
        GridColumn("Statistic"),
        GridColumn("Verdict", "verdict"),
        GridColumn("Printed", "number", "± standard error"),
        GridColumn("Stored runs", "number", "± standard error"),
        GridColumn("n", "number"),
        GridColumn("Why", "words"),
    )
    order = {name: place for place, name in enumerate(submission.verdicts(cells))}
    rows = []
    about = []
    for cell in cells:
        theirs, ours = submission.shown(cell)
        rows.append(
            (
                Cell(submission.PROTOCOLS[cell.dataset].label),
                Cell(submission.method_label(cell.method)),
                Cell(cell.statistic),
                Cell(cell.verdict, float(order[cell.verdict])),
                Cell(theirs.text, theirs.value),
                Cell(ours.text, ours.value),
                count(cell.n or None),
                Cell(cell.reason),
            )
        )
        stored = membership.facets_of(runs, cell.dataset, cell.method)
        about.append(replace(stored, datasets=(cell.dataset,), methods=(cell.method,)))
    caption = "The numbers that the paper printed, beside those of the stored runs"
    text = submission.note(seed)
    note = f"{text[0].upper()}{text[1:]}."
    return Grid("submission-table", caption, columns, tuple(rows), note, tuple(about))


# --- what was run ---


def configurations(runs: Runs) -> list[list[Run]]:
    """Runs by configuration, in the order of the rows of `runs_grid`."""
    return _groups(runs, selection.configuration)


def runs_grid(runs: Runs, frame: pd.DataFrame, compared: Runs, membership: Membership) -> Grid:
    """A row per configuration.

    Args:
        frame: `frames.finals` of the runs.
        compared: those that the results are about.
    """
    shown = {run.run_id for run in compared}
    ok = _ok(frame)
    columns = (
        GridColumn("Dataset", "name"),
        GridColumn("Method", "name"),
        GridColumn("Updates", "number", "of the weights"),
        GridColumn("T", "number"),
        GridColumn("i", "number"),
        GridColumn("Batch"),
        GridColumn("Precision"),
        GridColumn("Runs", "number"),
        GridColumn("Seeds"),
        GridColumn("n_ok/n", "number"),
        GridColumn("Compared"),
    )
    rows = tuple(
        (
            _dataset(group[0]),
            _method(group[0]),
            count(selection.weight_updates(group[0])),
            count(int(group[0].config["update_interval"])),
            count(group[0].config.get("look_back")),
            Cell(str(group[0].config.get("batch_size") or "full")),
            Cell(str(group[0].config.get("precision", "–"))),
            count(len(group)),
            Cell(ranges(_seeds(group))),
            share(*ok[selection.configuration(group[0])]),
            Cell("yes" if group[0].run_id in shown else "no"),
        )
        for group in configurations(runs)
    )
    about = tuple(membership.facets(group) for group in configurations(runs))
    note = (
        "T: weight updates between hyperparameter updates. i: look-back distance. "
        "A row for each configuration."
    )
    return Grid("runs-table", "Configurations with complete runs", columns, rows, note, about)


def _ok(frame: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """n_ok and n by configuration."""
    groups = (frame["status"] == "ok").groupby(frame["configuration"])
    return {str(name): (int(values.sum()), len(values)) for name, values in groups}


def _seeds(runs: Runs) -> list[int]:
    return sorted({seed for run in runs for seed in run.seeds})


def incomplete_grid(failed: Sequence[Entry], unfinished: Sequence[str]) -> Grid | None:
    """Runs that are not complete, if there are any."""
    go_on = Cell("run the same command again to go on")
    rows = [(Cell(run.run_id), Cell("failed"), Cell(run.error or "")) for run in failed]
    rows += [(Cell(name), Cell("unfinished"), go_on) for name in unfinished]
    if not rows:
        return None
    columns = (GridColumn("Run", "code"), GridColumn("Status"), GridColumn("Why"))
    return Grid("incomplete-table", "Runs that are not complete", columns, tuple(rows))


def experiments_grid(results_dir: Path, complete: Runs) -> Grid | None:
    """Experiments that ``hpo-bench reproduce`` began here, if any.

    Records that cannot be read are passed over.
    """
    stored = {run.run_id for run in complete}
    rows = tuple(
        (
            Cell(record.experiment),
            Cell(record.scale),
            Cell(" ".join(record.overrides)),
            share(len(stored.intersection(record.run_ids)), len(record.run_ids)),
        )
        for record in experiment_records.read_all(results_dir)
    )
    if not rows:
        return None
    columns = (
        GridColumn("Experiment"),
        GridColumn("Scale"),
        GridColumn("Overrides", "code"),
        GridColumn("Complete runs", "number"),
    )
    note = "Only the scale paper has the published budget."
    caption = "Experiments begun with hpo-bench reproduce"
    return Grid("experiments-table", caption, columns, rows, note)


# --- results ---


def final_grids(runs: Runs, mode: Statistics, seed: int, membership: Membership) -> list[Grid]:
    """Final test values: a table per dataset and measure, a row per method.

    Args:
        runs: one configuration per dataset and method.
    """
    groups = _groups(summarise(runs, mode, seed), lambda row: (row.dataset, row.column))
    grids = []
    for group in groups:
        about = [membership.facets_of(runs, row.dataset, row.method) for row in group]
        grids.append(replace(_finals(group, mode, seed), about=tuple(about)))
    return grids


def _finals(rows: Sequence[Summary], mode: Statistics, seed: int) -> Grid:
    medians = [row.median for row in rows]
    numbers = [rounded(median.estimate, median.standard_deviation) for median in medians]
    best = within_error_of_best(numbers)
    pictures, scale = strips(medians)
    columns = (
        GridColumn("Method", "name"),
        GridColumn("n_ok/n", "number"),
        GridColumn("Median", "number", "with 95 % interval"),
        GridColumn("Median", "strip", scale),
        GridColumn("Mean", "number", "± standard error"),
        GridColumn("Best", "number"),
    )
    cells = tuple(
        (
            Cell(row.label, row.order, colour=row.colour),
            share(row.n_ok, row.n),
            bounded(row.median, strong=strong),
            picture,
            with_error(row.mean),
            number(row.best),
        )
        for row, strong, picture in zip(rows, best, pictures, strict=True)
    )
    first, kinds = rows[0], dict.fromkeys(row.median.method for row in rows)
    n_ok = sum(row.n_ok for row in rows)
    n = sum(row.n for row in rows)
    label = interval.label(mode, n_ok, n, seed, ", ".join(kinds))
    note = (
        f"{label}; lower is better; bold: within one standard error of the best median; "
        "median: mean of its bootstrap distribution, where that is finite; "
        f"{MEANING_OF_MEAN_AND_BEST[mode]}"
    )
    measure = f"{first.measure[:1].lower()}{first.measure[1:]}"
    caption = f"{first.dataset_label}: {measure} at the end of training"
    return Grid(f"finals-{first.dataset}-{first.column}", caption, columns, cells, note)


MEANING_OF_MEAN_AND_BEST: Mapping[Statistics, str] = {
    "default": "mean: of the runs that are ok; best: lowest final value",
    "paper": "best: lowest value of whole trajectories",
}


def pair_grids(runs: Runs, mode: Statistics, seed: int, membership: Membership) -> list[Grid]:
    """Methods compared in pairs on shared seeds, a table per dataset."""
    columns = (
        GridColumn("A"),
        GridColumn("B"),
        GridColumn("n", "number", "shared seeds"),
        GridColumn("P(A better)", "number"),
        GridColumn("Median A − median B", "number"),
        GridColumn("p", "number", "Wilcoxon, Holm"),
    )
    note = (
        f"statistics: {mode}; lower is better, ties count half; brackets: 95 % intervals (Wilson; "
        f"paired bootstrap percentile, {interval.RESAMPLES} resamples, seed {seed}); p adjusted by "
        "Holm within the dataset, bold: p < 0.05"
    )
    grids = []
    for group in _groups(pairs(runs, mode, seed), lambda pair: pair.dataset):
        rows = tuple(
            (
                Cell(pair.labels[0]),
                Cell(pair.labels[1]),
                count(pair.comparison.n),
                bounded(pair.comparison.probability),
                bounded(pair.comparison.difference),
                _p(pair.holm),
            )
            for pair in group
        )
        about = tuple(
            membership.facets_of(runs, pair.dataset, *map(shown_name, pair.methods))
            for pair in group
        )
        caption = f"{group[0].dataset_label}: methods in pairs on shared seeds"
        name = f"pairs-{group[0].dataset}"
        grids.append(Grid(name, caption, columns, rows, note, about))
    return grids


def _p(value: float) -> Cell:
    return Cell("< 0.001" if value < 0.001 else rounded(value).text, value, value < 0.05)


# --- divergence ---


def rates_grid(runs: Runs, frame: pd.DataFrame, membership: Membership) -> Grid | None:
    """How often repetitions diverged, a row per configuration in which some did."""
    first = {selection.configuration(run): run for run in reversed(runs)}
    diverged = frame[frame["status"] != "ok"]
    ok, steps = _ok(frame), diverged.groupby("configuration")["diverged_at"].median()
    diverging = [each for each in reversed(first.items()) if ok[each[0]][0] < ok[each[0]][1]]
    rows = tuple(
        (
            _dataset(run),
            _method(run),
            count(selection.weight_updates(run)),
            count(int(run.config["update_interval"])),
            count(run.config.get("look_back")),
            share(ok[name][1] - ok[name][0], ok[name][1]),
            bounded(
                distributions.wilson(ok[name][1] - ok[name][0], ok[name][1]), scale=100, unit=" %"
            ),
            _step(steps.get(name)),
        )
        for name, run in diverging
    )
    columns = (
        GridColumn("Dataset", "name"),
        GridColumn("Method", "name"),
        GridColumn("Updates", "number"),
        GridColumn("T", "number"),
        GridColumn("i", "number"),
        GridColumn("Diverged", "number"),
        GridColumn("Rate", "number", "95 % Wilson"),
        GridColumn("Step", "number", "median"),
    )
    if not rows:
        return None
    others = len(first) - len(rows)
    note = f"In the other {others} configurations no repetition diverged." if others else ""
    about = tuple(membership.facets([run]) for _, run in diverging)
    return Grid("divergence-rates", "Divergence rates", columns, rows, note, about)


def divergences_grid(runs: Runs, frame: pd.DataFrame, membership: Membership) -> Grid | None:
    """Which repetitions diverged, and at which weight update, a row each; the first `LISTED`."""
    by_id = {run.run_id: run for run in runs}
    diverged = frame[frame["status"] != "ok"]
    started = [
        name
        for name in hyperparameters_of(diverged.columns)
        if diverged[f"{STARTED}{name}"].notna().any()
    ]
    columns = (
        GridColumn("Dataset", "name"),
        GridColumn("Method", "name"),
        GridColumn("Seed", "number"),
        GridColumn("Step", "number"),
        *(GridColumn(HEADINGS.get(name, name), "number", "initial") for name in started),
        GridColumn("Run", "code"),
    )
    rows = tuple(
        (
            _dataset(by_id[row["run_id"]]),
            _method(by_id[row["run_id"]]),
            count(row["seed"]),
            _step(row["diverged_at"]),
            *(number(row[f"{STARTED}{name}"]) for name in started),
            Cell(row["run_id"]),
        )
        for row in diverged.head(LISTED).to_dict("records")
    )
    if not rows:
        return None
    note = (
        "Step: the first at which the training loss, a weight or a hyperparameter was not finite."
    )
    more = len(diverged) - len(rows)
    if more:
        note += f" {more} more are in the final.parquet of their runs."
    about = tuple(membership.facets([by_id[run_id]]) for run_id in diverged.head(LISTED)["run_id"])
    return Grid("divergences", "Repetitions that diverged", columns, rows, note, about)


def _step(value: Any) -> Cell:
    return count(None if pd.isna(value) else round(value))


# --- run time ---


def time_grid(runs: Runs, seed: int, membership: Membership) -> Grid:
    """What a training costs, and beside plain training on the same machine."""
    found = costs(runs, seed)
    machines = {cost.machine for cost in found}
    columns = (
        GridColumn("Dataset", "name"),
        GridColumn("Method", "name"),
        GridColumn("Repetitions", "number"),
        GridColumn("Blocks", "number"),
        GridColumn("Rows", "number", "in a block"),
        GridColumn("s", "number", "per training"),
        GridColumn("ms", "number", "per weight update"),
        GridColumn("× Random", "number"),
        *([GridColumn("Machine", "words")] if len(machines) > 1 else []),
    )
    styles = {run.method: _method(run) for run in runs}
    rows = tuple(
        (
            Cell(cost.dataset_label),
            styles[cost.method],
            count(cost.repetitions),
            count(cost.blocks),
            count(cost.rows_in_block),
            number(cost.seconds),
            number(cost.milliseconds_per_update),
            Cell("1", 1.0) if cost.method == PLAIN else bounded(cost.times_plain),
            *([Cell(cost.machine)] if len(machines) > 1 else []),
        )
        for cost in found
    )
    note = (
        "Medians over blocks of (wall time ÷ rows in the block), evaluation on the test set "
        "included, diverged runs too. × Random compares equal machines and block sizes alone; "
        f"brackets: bootstrap percentile 95 % over blocks, {interval.RESAMPLES} resamples, "
        f"seed {seed}."
    )
    if len(machines) == 1:
        note += f" Machine: {machines.pop()}."
    about = tuple(
        membership.facets_of(runs, cost.dataset, shown_name(cost.method)) for cost in found
    )
    return Grid("time-table", "Cost of a training", columns, rows, note, about)


# --- provenance ---


def provenance_grids(runs: Runs, membership: Membership) -> list[Grid]:
    """Which code made the runs, on what, and the runs themselves.

    Shards of one configuration share a row.
    """
    codes = _numbered(runs, lambda run: run.code)
    environments = _numbered(runs, lambda run: run.environment)
    groups = _groups(runs, lambda run: (run.config_hash, _key(run.code), _key(run.environment)))
    rows = tuple(
        (
            Cell("\n".join(run.run_id for run in group)),
            Cell(ranges(_seeds(group))),
            Cell(group[0].config_hash),
            count(codes[_key(group[0].code)]),
            count(environments[_key(group[0].environment)]),
            *(_seconds(group, kind) for kind in ("train", "evaluate", "total")),
        )
        for group in groups
    )
    about = tuple(membership.facets(group) for group in groups)
    columns = (
        GridColumn("Run", "code"),
        GridColumn("Seeds"),
        GridColumn("config_hash", "code"),
        GridColumn("Code", "number"),
        GridColumn("Machine", "number"),
        GridColumn("Training", "number", "s"),
        GridColumn("Evaluation", "number", "s"),
        GridColumn("Total", "number", "s"),
    )
    note = (
        "Code and machine: their numbers in the tables above. Seconds: wall time, summed over the "
        "blocks of a run; blocks may have run side by side."
    )
    return [
        _listing("code-table", "Code", codes, runs, lambda run: run.code),
        _listing("environment-table", "Machines", environments, runs, lambda run: run.environment),
        Grid("provenance-table", "Runs", columns, rows, note, about),
    ]


def _key(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True)


def _numbered(runs: Runs, part: Callable[[Run], Mapping[str, Any]]) -> dict[str, int]:
    """Numbers from 1 of the distinct contents of a part of run.json."""
    contents = dict.fromkeys(_key(part(run)) for run in runs)
    return {key: number for number, key in enumerate(contents, start=1)}


def _listing(
    name: str,
    caption: str,
    numbers: Mapping[str, int],
    runs: Runs,
    part: Callable[[Run], Mapping[str, Any]],
) -> Grid:
    """Distinct contents of a part of run.json, a row each, with how many runs have it."""
    counts = Counter(_key(part(run)) for run in runs)
    contents = {key: json.loads(key) for key in numbers}
    order = dict.fromkeys(field for run in runs for field in part(run))
    rows = []
    for key, content in contents.items():
        fields = [_field(content.get(field)) for field in order]
        rows.append((count(numbers[key]), *fields, count(counts[key])))
    columns = (
        GridColumn("No."),
        *(GridColumn(field.replace("_", " ")) for field in order),
        GridColumn("Runs", "number"),
    )
    return Grid(name, caption, columns, tuple(rows))


def _field(value: Any) -> Cell:
    if value is None or isinstance(value, bool):
        return Cell({True: "yes", False: "no", None: NOTHING}[value])
    return Cell(str(value))


def _seconds(runs: Runs, kind: str) -> Cell:
    return number(math.fsum(run.seconds.get(kind, math.nan) for run in runs))
