"""Make again all that is made of the stored runs: figures, tables, report, numbers on the pages.

    python scripts/reproduction.py

Pages are prose with blocks between ``<!-- NAME -->`` and ``<!-- end -->``: each is made here, from
the runs alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from hpo_bench.analysis import budget, claims, frames, render, selection, tables
from hpo_bench.analysis import rivals as today
from hpo_bench.analysis import submission as paper_tables
from hpo_bench.analysis.costs import device, evaluates_between, seconds_without_evaluation
from hpo_bench.analysis.paper import LARGER_VALIDATION_SHARES, ONE_PASS, PLAIN, UCI
from hpo_bench.analysis.rounding import rounded
from hpo_bench.analysis.selection import Runs, by_dataset, by_method, repetitions
from hpo_bench.analysis.statistics import bootstrap, interval, pairs
from hpo_bench.analysis.statistics.ranks import Ranking, ranking
from hpo_bench.bench.runtime import FOLDER, NEVER
from hpo_bench.figures import fig18
from hpo_bench.figures.common.points import label, method_label
from hpo_bench.store.runs import Run

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
PAGES = (
    ROOT / "docs" / "reproduction.md",
    ROOT / "docs" / "findings.md",
    ROOT / "docs" / "which_method.md",
    ROOT / "README.md",
)
# Tables, and their methods where these are not all that is stored: the paper's has no rivals.
TABLES: Mapping[str, Sequence[str]] = {
    "uci_main": ONE_PASS,
    "summary": (),
    "divergence": (),
    "fashion_mnist": (),
    "multi_pass": (),
}
FASHION = "fashion_mnist"
FASHION_UPDATES, SHORT_FASHION_UPDATES = claims.LARGER[FASHION]  # 50 epochs, 10 epochs
WITH_HYPERGRADIENTS, DISCOUNTED = "ours_wd_lr_m", "ours_discounted"
THROUGH_ADAMW = "ours_adamw"
NEVER_UCI = claims.WEIGHT_UPDATES  # of `horizons`, which records both ends alone
PLACES = 8  # methods that are shown of all that are ranked
# Hypergradients beyond the paper's, and what one would take instead.
BEYOND = (
    "random_adam",
    "adamw_default",
    "adamw_calibrated",
    "prodigy_cosine",
    "ours_wd_lr_m",
    "ours_adamw",
    "diff_through_opt_adamw",
    "ours_discounted",
)
BLOCK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def median(runs: Runs, usual: int) -> str:
    """Median final metric with its bootstrap interval, and how many repetitions did not diverge
    where these are not the ``usual`` number.
    """
    frame = frames.finals(runs)
    values = frames.failure_aware(frame) * frame["metric_scale"].to_numpy()
    found = bootstrap.bootstrap(values, "median")
    low = "∞" if np.isinf(found.low) else rounded(found.low).text
    high = "∞" if np.isinf(found.high) else rounded(found.high).text
    ok = np.isfinite(values).sum()
    missing = "" if ok == usual else f", {ok}/{len(values)}"
    return f"{plain_median(values)} [{low}, {high}]{missing}"


def plain_median(values: np.ndarray) -> str:
    """The median of values of which those that are missing are +inf."""
    return rounded(float(interval.survival_median(values))).text


def medians(rows: Mapping[str, Runs]) -> str:
    """A row each of runs, a column per method."""
    everything = [run for runs in rows.values() for run in runs]
    everything.sort(key=lambda run: run.config["method"].get("order", 0))
    methods = {run.method: method_label(run) for run in everything}
    body = []
    for name, runs in rows.items():
        groups = by_method(selection.comparable(runs).runs)
        usual = max(map(repetitions, groups.values()))
        cells = [median(groups[method], usual) if method in groups else "–" for method in methods]
        body.append([name, *cells])
    return table(("", *methods.values()), body)


def medians_by_dataset(runs: Runs, datasets: Sequence[str] = UCI) -> str:
    """`medians`, a row each of these datasets, in their order."""
    return medians(rows_by_dataset(runs, datasets))


def rows_by_dataset(runs: Runs, datasets: Sequence[str] = UCI) -> dict[str, list[Run]]:
    """The runs of these datasets, in their order, each under its name and its repetitions."""
    groups = by_dataset(runs)
    return {
        f"{label(groups[name])}, n = {repetitions(groups[name])}": groups[name]
        for name in datasets
        if name in groups
    }


# --- blocks ---


def judged(runs: Runs, results: Path) -> str:
    """Every claim with its verdict."""
    rows = [
        (c.text, c.expected, c.measured, str(c.n), f"**{c.verdict}**") for c in claims.claims(runs)
    ]
    return table(("claim", "expected", "measured here", "n", "verdict"), rows)


def submission(runs: Runs, results: Path) -> str:
    """Every number that the paper printed, how it compares, and why of some nothing can be said."""
    cells = paper_tables.judge(runs)
    return "\n".join([_verdicts(cells), _printed(cells), _unsaid(cells)])


def _verdicts(cells: Sequence[paper_tables.JudgedNumber]) -> str:
    """How many numbers of each data set have each verdict, and how many would differ by chance."""
    groups = {
        protocol.label: [cell for cell in cells if cell.dataset == dataset]
        for dataset, protocol in paper_tables.PROTOCOLS.items()
    }
    rows = []
    for name, group in {**groups, "**all**": list(cells)}.items():
        counts = paper_tables.verdicts(group)
        by_chance = paper_tables.expected_to_differ(group)
        rows.append([name, *map(str, counts.values()), f"{by_chance:.1f}"])
    return table(("", *paper_tables.verdicts(()), "would differ by chance"), rows)


def _printed(cells: Sequence[paper_tables.JudgedNumber]) -> str:
    """A row for each method on each data set: printed, then here."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        name = paper_tables.PROTOCOLS[cell.dataset].label
        line = lines.setdefault((name, paper_tables.method_label(cell.method)), {})
        theirs, ours = paper_tables.shown(cell)
        verdict = f"**{cell.verdict}**" if cell.verdict == "differs" else cell.verdict
        line[cell.statistic] = theirs.text
        line[f"{cell.statistic} here"] = f"{ours.text}, {verdict}" if cell.n else "–"
    columns = ("mean", "mean here", "median", "median here", "best", "best here")
    rows = [
        [*names, *(line.get(column, "") for column in columns)] for names, line in lines.items()
    ]
    return table(("", "method", *columns), rows)


def _unsaid(cells: Sequence[paper_tables.JudgedNumber]) -> str:
    """For how many numbers of a data set nothing can be said, and why."""
    counts: dict[tuple[str, str], int] = {}
    for cell in cells:
        if cell.verdict == "cannot be said":
            why = cell.reason.partition(";")[0]
            key = (paper_tables.PROTOCOLS[cell.dataset].label, why)
            counts[key] = counts.get(key, 0) + 1
    rows = [[name, why, str(count)] for (name, why), count in counts.items()]
    return table(("cannot be said", "why", "numbers"), rows)


def main_runs(
    runs: Runs,
    methods: Sequence[str] = ONE_PASS,
    on_rows: Callable[[Run], bool] = today.as_meant,
) -> list[Run]:
    """Those of `uci_main`, or of other methods on the same sets for as long.

    Args:
        on_rows: whether a run's weights were trained on the rows that are wanted.
    """
    kept = [
        run
        for run in runs
        if run.dataset in UCI
        and selection.weight_updates(run) == claims.WEIGHT_UPDATES
        and run.config["record_every"] == 1
        and run.config["validation_share"] not in LARGER_VALIDATION_SHARES
        and len(run.seeds) >= 50
        and run.method in methods
        and on_rows(run)
    ]
    return selection.comparable(kept).runs


def uci(runs: Runs, results: Path) -> str:
    """Medians of the methods of `uci_main`."""
    return medians_by_dataset(main_runs(runs))


def on_training_rows(run: Run) -> bool:
    """Whether no validation row trained the weights."""
    return today.data_for_weights(run) == today.TRAIN


def of_rivals(runs: Runs, on_rows: Callable[[Run], bool] = today.as_meant) -> list[Run]:
    """Runs of `rivals`: on the UCI sets, and 10 epochs of Fashion-MNIST."""
    kept = main_runs(runs, today.METHODS, on_rows)
    kept += [
        run
        for run in runs
        if run.dataset == FASHION
        and run.method in today.METHODS
        and selection.weight_updates(run) == SHORT_FASHION_UPDATES
        and on_rows(run)
    ]
    return selection.comparable(kept).runs


@dataclass(frozen=True)
class Ranked:
    """Methods that were run on every set, the best mean rank first.

    Args:
        medians: sets × methods.
        ranks: mean rank, by method.
        found: with the critical difference.
        extent: fewest and most repetitions.
    """

    medians: pd.DataFrame
    ranks: pd.Series
    found: Ranking
    extent: tuple[int, int]

    @staticmethod
    def of(chosen: Sequence[Run]) -> Ranked:
        medians, counts = today.final_medians(chosen)
        order = [name for name in (*UCI, FASHION) if name in medians.index]
        compared = today.compared_on_all(medians.loc[order].notna())
        on_all = medians.loc[compared.index, compared.columns]
        found = ranking(on_all.to_numpy())
        ranks = pd.Series(found.means, index=on_all.columns).sort_values(kind="stable")
        numbers = counts.loc[on_all.index, on_all.columns].to_numpy()
        return Ranked(on_all, ranks, found, (int(numbers.min()), int(numbers.max())))

    def text(self) -> str:
        fewest, most = self.extent
        each = f"{most}" if fewest == most else f"{fewest} to {most}"
        return (
            f"{len(self.medians)} sets, {each} repetitions; Friedman p = {self.found.p_value:.1g}, "
            f"critical difference of mean ranks {self.found.critical_difference:.1f}"
        )


def rivals(runs: Runs, results: Path) -> str:
    """What one would take today beside what tunes by hypergradients, by mean rank.

    A row a method, a column a set. Each method trains its weights on the rows that it names.
    """
    return _ranking(of_rivals(runs))


def rivals_same_rows(runs: Runs, results: Path) -> str:
    """The same with the weights of all methods trained on the training rows alone."""
    return _ranking(of_rivals(runs, on_training_rows))


def _ranking(chosen: Sequence[Run]) -> str:
    ranked = Ranked.of(chosen)
    labels = {run.dataset: label([run]) for run in chosen}
    names = {run.method: method_label(run) for run in chosen}
    rows = []
    for method, rank in ranked.ranks.items():
        cells = []
        for _, values in ranked.medians.iterrows():
            value = float(values[method])
            text = "∞" if np.isinf(value) else rounded(value).text
            cells.append(f"**{text}**" if value == values.min() else text)
        rows.append([names[str(method)], f"{rank:.1f}", *cells])
    header = ("method", "mean rank", *(labels[str(name)] for name in ranked.medians.index))
    return f"{ranked.text()}; bold: lowest of a set.\n\n" + table(header, rows)


def ranks(runs: Runs, results: Path) -> str:
    """The best mean ranks of `rivals`, the paper's methods' and `BEYOND`'s, with what they cost."""
    chosen = of_rivals(runs)
    ranked = Ranked.of(chosen)
    same_rows = Ranked.of(of_rivals(runs, on_training_rows))
    rows = []
    for place, (method, rank) in enumerate(ranked.ranks.items(), start=1):
        group = [run for run in chosen if run.method == method]
        if place > PLACES and method not in (*ONE_PASS, *BEYOND):
            continue
        costs = [
            today.work_per_update(of_set, frames.finals(of_set))
            for of_set in by_dataset(group).values()
        ]
        on_training_rows_alone = same_rows.ranks.get(method)
        other = "–" if on_training_rows_alone is None else f"{on_training_rows_alone:.1f}"
        cost = f"{np.median(costs):.2g}"
        rows.append([f"{place}", method_label(group[0]), f"{rank:.1f}", other, cost])
    header = ("place", "method", "mean rank", "on training rows alone", "gradients an update")
    return f"{ranked.text()}. On training rows alone: {same_rows.text()}.\n\n" + table(header, rows)


def discounts(runs: Runs, results: Path) -> str:
    """Medians over the discount γ, relative to those of the paper's method; a row a set."""
    wanted = (WITH_HYPERGRADIENTS, DISCOUNTED)
    ends = [
        run
        for run in runs
        if run.dataset in UCI
        and run.method in wanted
        and run.config["record_every"] == NEVER_UCI
        and selection.weight_updates(run) == claims.WEIGHT_UPDATES
        and run.config["look_back"] in (None, 5)
        and run.config["update_interval"] == 10
    ]
    rows = []
    gammas: set[float] = set()
    for dataset, group in by_dataset(ends).items():
        own = by_method(group)
        if set(own) != set(wanted):
            continue
        plain = interval.survival_median(frames.failure_aware(frames.finals(own[wanted[0]])))
        by_discount = selection.grouped(own[DISCOUNTED], _discount)
        gammas |= set(by_discount)
        cells = {}
        for gamma, of_gamma in by_discount.items():
            values = frames.failure_aware(frames.finals(of_gamma))
            ratio = interval.survival_median(values) / plain
            ok = np.isfinite(values).sum()
            text = "∞" if np.isinf(ratio) else f"{ratio:.2f}"
            cells[gamma] = text if ok == len(values) else f"{text}, {ok}/{len(values)}"
        rows.append((UCI.index(dataset), label(group), cells))
    ordered = sorted(gammas)
    body = [
        [name, *(cells.get(gamma, "–") for gamma in ordered)] for _, name, cells in sorted(rows)
    ]
    return table(("", *(f"γ = {gamma:g}" for gamma in ordered)), body)


def _discount(run: Run) -> float:
    return float(selection.settings(run)["method.estimator.discount"])


def beyond(runs: Runs, results: Path) -> str:
    """Medians of hypergradients through AdamW and over a longer horizon, and what they replace."""
    kept = main_runs(runs, BEYOND)
    run_on = {run.dataset for run in kept if run.method == THROUGH_ADAMW}
    rows = rows_by_dataset([run for run in kept if run.dataset in run_on])
    if images := on_fashion(runs, BEYOND, FASHION_UPDATES):
        rows[f"{label(images)}, {FASHION_UPDATES} updates, n = {repetitions(images)}"] = images
    return medians(rows)


def choice(runs: Runs, results: Path) -> str:
    """How the methods of `uci_main` compare with Random over all sets, a row each."""
    sets = [by_method(group) for group in by_dataset(main_runs(runs)).values()]
    values = [{name: _final_by_seed(group) for name, group in one.items()} for one in sets]
    rows = []
    for method in values[0]:
        of_sets = [(one[method], one[PLAIN], one) for one in values if method in one]
        lowest = sum(_survival(own) == min(map(_survival, one.values())) for own, _, one in of_sets)
        below = sum(_survival(own) < _survival(plain) for own, plain, _ in of_sets)
        better = [100 * float((own < plain).mean()) for own, plain, _ in of_sets]
        finite = sum(int(np.isfinite(own).sum()) for own, _, _ in of_sets)
        count = sum(len(own) for own, _, _ in of_sets)
        of_random = method == PLAIN
        rows.append(
            [
                method_label(sets[0][method][0]),
                "–" if of_random else f"{below} of {len(of_sets)}",
                f"{lowest} of {len(of_sets)}",
                "–" if of_random else f"{min(better):.0f} to {max(better):.0f} %",
                f"{count - finite} of {count}",
            ]
        )
    header = (
        "method",
        "median below Random's",
        "lowest median",
        "better than Random on the same seed, by set",
        "diverged",
    )
    each = repetitions([run for one in sets for group in one.values() for run in group])
    return f"{len(sets)} UCI sets, {each} repetitions each.\n\n" + table(header, rows)


def _final_by_seed(runs: Runs) -> pd.Series:
    """Final test metrics by seed; those of diverged repetitions are +inf."""
    frame = frames.finals(runs)
    values = pd.Series(frames.failure_aware(frame), index=frame["seed"].to_numpy())
    return values.sort_index()


def _survival(values: pd.Series) -> float:
    return float(interval.survival_median(values.to_numpy()))


def headline(runs: Runs, results: Path) -> str:
    """UCI Energy: medians beside those of the authors' code, and how many did not diverge."""
    energy = by_method(by_dataset(main_runs(runs))[claims.DATASET])
    header = ["repetitions"]
    here = [f"**here**, {repetitions(main_runs(runs))}"]
    authors = [f"the authors' code, {claims.REFERENCE_REPETITIONS}"]
    not_diverged = ["did not diverge"]
    for name, expected in claims.EXPECTED.items():
        values = frames.failure_aware(frames.finals(energy[name]))
        header.append(method_label(energy[name][0]))
        here.append(plain_median(values))
        authors.append(f"{expected:g}")
        not_diverged.append(f"{np.isfinite(values).sum()}/{len(values)}")
    return table(header, [here, authors, not_diverged]) + _headline_beyond(runs)


def _headline_beyond(runs: Runs) -> str:
    """The same for methods that the paper does not have; nothing where none was run."""
    energy = by_method(by_dataset(main_runs(runs, BEYOND))[claims.DATASET])
    header, here, not_diverged = ["beyond the paper"], ["**here**"], ["did not diverge"]
    for method in BEYOND:
        if method in energy and method not in claims.EXPECTED:
            values = frames.failure_aware(frames.finals(energy[method]))
            header.append(method_label(energy[method][0]))
            here.append(plain_median(values))
            not_diverged.append(f"{np.isfinite(values).sum()}/{len(values)}")
    return "\n" + table(header, [here, not_diverged]) if len(header) > 1 else ""


def sensitivity(runs: Runs, results: Path) -> str:
    """Figure 6 in numbers."""
    frame = pd.read_csv(results / "figures" / "fig06.csv")
    labels = {run.method: method_label(run) for run in runs}
    plain = float(frame.loc[frame["method"] == "random", "median"].iloc[0])
    rows = []
    for method, cells in frame[frame["method"] != "random"].groupby("method", sort=False):
        diverged = []
        for rest in (1, 0):
            part = cells[cells["look_back"] % 2 == rest]
            diverged.append(f"{(part['n'] - part['n_ok']).sum()}/{part['n'].sum()}")
        values = cells.set_index(["update_interval", "look_back"])["median"]
        best, worst = values.idxmin(), values.idxmax()
        highest = "∞ (more than half diverged)"
        if np.isfinite(values.max()):
            highest = f"{values.max():.3g}"
        intervals, look_back = (values.index.get_level_values(level) for level in (0, 1))
        beyond = values[(intervals >= 5) & (look_back >= 3)]
        rows.append(
            [
                labels[str(method)],
                f"{(values < plain).sum()} of {len(values)}",
                f"{values[10, 5]:.3g}",
                f"{values.min():.3g} at T = {best[0]}, i = {best[1]}",
                f"{highest} at T = {worst[0]}, i = {worst[1]}",
                f"{beyond.min():.3g} to {beyond.max():.3g}",
                *diverged,
            ]
        )
    header = (
        "method",
        "cells below Random",
        "T = 10, i = 5",
        "lowest",
        "highest",
        "T ≥ 5 and i ≥ 3",
        "diverged, i odd",
        "i even",
    )
    counts = " to ".join(str(n) for n in sorted({frame["n"].min(), frame["n"].max()}))
    return f"{counts} repetitions in a cell. Random: {plain:.3g}.\n\n" + table(header, rows)


def hypergradients(runs: Runs, results: Path) -> str:
    """Figure 7 at T = 10, in numbers."""
    frame = pd.read_csv(results / "figures" / "fig07.csv")
    frame = frame[(frame["kind"] == "relative") & (frame["update_interval"] == 10)]
    wide = frame.pivot(index="look_back", columns="hyperparameter", values="error")
    rows = [
        [str(i), *(f"{100 * value:.2g} %" for value in wide.loc[i])] for i in (1, 2, 3, 5, 7, 10)
    ]
    return table(("i", *wide.columns), rows)


def short(runs: Runs, results: Path) -> str:
    """Final values on the short problem."""
    lengths = {**dict.fromkeys(UCI, 200), FASHION: 1000}
    kept = [
        run
        for run in runs
        if run.method == "long_diff_through_opt"
        or selection.weight_updates(run) == lengths.get(run.dataset)
    ]
    return medians_by_dataset(kept, tuple(lengths))


def full(runs: Runs, results: Path) -> str:
    """Final values of Figure 18."""
    (need, *_) = fig18.NEEDS
    kept = [
        run for run in runs if run.dataset in need.datasets and len(run.seeds) == need.repetitions
    ]
    return medians({"UCI Energy": kept})


def on_fashion(runs: Runs, methods: Sequence[str], updates: int) -> list[Run]:
    """Those of Fashion-MNIST with these methods and so many weight updates."""
    return [
        run
        for run in by_dataset(runs).get(FASHION, ())
        if run.method in methods
        and selection.weight_updates(run) == updates
        and today.as_meant(run)
    ]


def fashion(runs: Runs, results: Path) -> str:
    """Final values on Fashion-MNIST after 10 and after 50 epochs, of all repetitions stored."""
    wanted = (*ONE_PASS, "medium_diff_through_opt")
    rows = {}
    for updates in (SHORT_FASHION_UPDATES, FASHION_UPDATES):
        if kept := on_fashion(runs, wanted, updates):
            rows[f"{updates} updates, {repetitions(kept)} repetitions"] = kept
    return medians(rows)


def larger(runs: Runs, results: Path) -> str:
    """Final values on the larger sets and variants, each row with its budget."""
    rows = {}
    for name in ("fashion_mnist_batchnorm", "penn_treebank", "cifar10"):
        alike = selection.comparable([run for run in runs if run.dataset_name == name]).runs
        if not alike:
            continue
        lengths = {selection.weight_updates(run) for run in alike}
        whole = f"{', '.join(map(str, sorted(lengths)))} updates, n = {repetitions(alike)}"
        rows[f"{label(alike)}: {budget.less(alike) or whole}"] = alike
    return medians(rows)


def shares(runs: Runs, results: Path) -> str:
    """Final values with larger validation parts."""
    energy = [run for run in runs if run.dataset == claims.DATASET]
    by_share = selection.grouped(energy, lambda run: run.config["validation_share"])
    rows = {}
    for share in LARGER_VALIDATION_SHARES:
        if share in by_share:
            rows[f"{100 * share:g} %, n = {repetitions(by_share[share])}"] = by_share[share]
    return medians(rows)


def multi_pass(runs: Runs, results: Path) -> str:
    """``hpo-bench table multi_pass`` for one set.

    Run times, which are those of this machine, are left out.
    """
    made = tables.build("multi_pass", results, datasets=[claims.DATASET])
    parts = []
    for axis in ("Weight updates", "Gradient-equivalents"):
        body = made.body.xs(axis, level="Budget in").droplevel("Dataset")
        bold = made.bold.xs(axis, level="Budget in").droplevel("Dataset")
        title = f"Budget in {axis.lower()}"
        shown = render.markdown(replace(made, title=title, body=body, bold=bold, notes=()))
        parts.append(shown.rpartition("\n\n- ")[0].removeprefix("###").strip())
    return "\n\n".join([*parts, f"({made.label})\n"])


def cost(runs: Runs, results: Path) -> str:
    """Time of a training alone on the machine, over that of Random with the same seed.

    The runs are those of Figure 14.
    """
    alone = selection.find(results / FOLDER)
    methods = {run.method: method_label(run) for run in alone if run.method != PLAIN}
    rows = []
    for dataset in by_dataset(alone).values():
        bare = [run for run in dataset if run.config["record_every"] == NEVER]
        evaluated = [run for run in dataset if evaluates_between(run)]
        for kind, group in (("with test evaluation", evaluated), ("without", bare)):
            if not group:
                continue
            seconds = {}
            for method, runs_of_method in by_method(group).items():
                frame = frames.finals(runs_of_method)
                if group is bare:
                    frame["seconds"] = seconds_without_evaluation(runs_of_method, frame)
                ok = frame.loc[frame["status"] == "ok"]
                seconds[method] = ok.set_index("seed")["seconds"]
            name = f"{label(dataset)}, {selection.weight_updates(dataset[0])} updates, {kind}"
            ratios = [_times(seconds[method], seconds[PLAIN]) for method in methods]
            rows.append([name, f"{seconds[PLAIN].median():.2g} s", *ratios])
    plain = method_label(by_method(alone)[PLAIN][0])
    return table(("one training alone", plain, *methods.values()), rows)


def _times(seconds: pd.Series, plain: pd.Series) -> str:
    shared = pd.concat([seconds, plain], axis=1, join="inner")
    ratio = pairs.bootstrap_two(shared.iloc[:, 0], shared.iloc[:, 1], "ratio")
    return f"× {ratio.estimate:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def effort(runs: Runs, results: Path) -> str:
    """What was computed, by which code, on what."""
    on_cpu = [run for run in runs if run.environment["device"] == "cpu"]
    hours = sum(run.seconds["total"] for run in runs) / 3600
    hours_of_cpu = sum(run.seconds["total"] for run in on_cpu) / 3600
    updates = sum(selection.weight_updates(run) * len(run.seeds) for run in runs)
    count = sum(len(run.seeds) for run in runs)
    commits = sorted({str(run.code["git_commit"])[:7] for run in runs})
    machines = {f"{device(run.environment)}, torch {run.environment['torch']}" for run in runs}
    return (
        f"{len(runs)} runs, {count:,} repetitions, {updates / 1e6:,.0f} million weight updates "
        f"(searches not counted), {hours_of_cpu:.1f} hours of one core and "
        f"{hours - hours_of_cpu:.1f} of programs that shared a GPU. "
        f"{'; '.join(sorted(machines))}. Code: {', '.join(commits)}.\n"
    )


BLOCKS: Mapping[str, Callable[[Runs, Path], str]] = {
    "claims": judged,
    "submission": submission,
    "uci": uci,
    "sensitivity": sensitivity,
    "hypergradients": hypergradients,
    "short": short,
    "full": full,
    "shares": shares,
    "fashion": fashion,
    "larger": larger,
    "multi_pass": multi_pass,
    "effort": effort,
    "choice": choice,
    "headline": headline,
    "cost": cost,
    "rivals": rivals,
    "rivals_same_rows": rivals_same_rows,
    "beyond": beyond,
    "ranks": ranks,
    "discounts": discounts,
}


def written(text: str, results: Path) -> str:
    """The page with every block made again."""
    runs = selection.find(results)

    def made(block: re.Match[str]) -> str:
        begin, name, end = block.groups()
        return f"{begin}\n{BLOCKS[name](runs, results)}\n{end}"

    return BLOCK.sub(made, text)


def hpo_bench(*arguments: str) -> None:
    """Run the command in the checkout, so that what it writes names files from there."""
    subprocess.run([sys.executable, "-m", "hpo_bench", *arguments], cwd=ROOT, check=True)


def main() -> None:
    """Make everything again, in the order in which it rests on each other."""
    hpo_bench("plot")
    hpo_bench("plot", "fig09", "--dataset", claims.DATASET)  # the README's
    for name, methods in TABLES.items():
        chosen = [word for method in methods for word in ("--method", method)]
        hpo_bench("table", name, *chosen, "--out", f"results/tables/{name}.md")
    hpo_bench("report")
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")


if __name__ == "__main__":
    main()
