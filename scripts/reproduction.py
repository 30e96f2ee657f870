"""Make all that is made of the stored runs again: figures, tables, the report, and the numbers on
the pages.

python scripts/reproduction.py

Pages are prose with blocks between ``<!-- NAME -->`` and ``<!-- end -->``: each is made here, from
the runs alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hpo_bench.analysis import claims, frames, render, selection, tables
from hpo_bench.analysis.costs import PLAIN
from hpo_bench.analysis.rounding import rounded
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics import bootstrap, interval, pairs
from hpo_bench.analysis.summary import by
from hpo_bench.bench.runtime import FOLDER, NEVER
from hpo_bench.figures import fig18
from hpo_bench.figures import rivals as today
from hpo_bench.figures.common.paper import ONE_PASS, SHARES, UCI
from hpo_bench.figures.common.points import label, method_label
from hpo_bench.store.runs import Run

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
PAGES = (ROOT / "docs" / "reproduction.md", ROOT / "README.md")
TABLES: Mapping[
    str, Sequence[str]
] = {  # and their methods, where not all that is stored: the paper's has no rivals
    "uci_main": ONE_PASS,
    "summary": (),
    "divergence": (),
    "fashion_mnist": (),
    "multi_pass": (),
}
FASHION_UPDATES = 50_000  # 50 epochs
BLOCK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def median(runs: Runs) -> str:
    """Median final metric with its bootstrap interval, and how many repetitions did not diverge."""
    frame = frames.finals(runs)
    values = frames.failure_aware(frame) * frame["metric_scale"].to_numpy()
    found = bootstrap.bootstrap(values, "median")
    low, high = (
        "∞" if np.isinf(bound) else rounded(bound).text for bound in (found.low, found.high)
    )
    ok = np.isfinite(values).sum()
    missing = "" if ok == len(values) else f", {ok}/{len(values)}"
    return f"{plain_median(values)} [{low}, {high}]{missing}"


def plain_median(values: np.ndarray) -> str:
    """Of values of which those that are missing are +inf."""
    return rounded(float(interval.survival_median(values))).text


def repetitions(runs: Runs) -> int:
    """Different seeds, whatever shards they came in."""
    return len({seed for run in runs for seed in run.seeds})


def medians(rows: Mapping[str, Runs]) -> str:
    """A row each of runs (in `load.find`'s order), a column per method."""
    methods = {run.method: method_label(run) for runs in rows.values() for run in runs}
    body = []
    for name, runs in rows.items():
        found = by(selection.comparable(runs).runs, "method")
        body.append(
            [name, *(median(found[method]) if method in found else "–" for method in methods)]
        )
    return table(("", *methods.values()), body)


def by_dataset(runs: Runs, datasets: Sequence[str] = UCI) -> str:
    """`medians`, a row each of these datasets, in their order."""
    groups = by(runs, "dataset")
    named = {
        name: f"{label(groups[name])}, n = {repetitions(groups[name])}"
        for name in datasets
        if name in groups
    }
    return medians({text: groups[name] for name, text in named.items()})


# --- blocks ---


def judged(runs: Runs, results: Path) -> str:
    """Every claim with its verdict."""
    rows = [
        (c.text, c.expected, c.measured, str(c.n), f"**{c.verdict}**") for c in claims.claims(runs)
    ]
    return table(("claim", "expected", "measured here", "n", "verdict"), rows)


def main_runs(runs: Runs, methods: Sequence[str] = ONE_PASS) -> list[Run]:
    """Those of `uci_main`, or of other methods on the same sets for as long."""
    kept = [
        run
        for run in runs
        if run.dataset in UCI
        and selection.weight_updates(run) == claims.WEIGHT_UPDATES
        and run.config["record_every"] == 1
        and run.config["validation_share"] not in SHARES
        and len(run.seeds) > 50
        and run.method in methods
    ]
    return selection.comparable(kept).runs


def uci(runs: Runs, results: Path) -> str:
    """Medians of `uci_main`."""
    return by_dataset(main_runs(runs))


def rivals(runs: Runs, results: Path) -> str:
    """Medians of what one would take today instead, beside those of `uci_main` that its figure
    shows.
    """
    kept = main_runs(runs, today.METHODS)
    run_on = {run.dataset for run in kept if run.method in today.RIVALS}
    return by_dataset([run for run in kept if run.dataset in run_on])


def headline(runs: Runs, results: Path) -> str:
    """UCI Energy: medians beside those of the authors' code, and how many did not diverge."""
    energy = by([run for run in main_runs(runs) if run.dataset == claims.DATASET], "method")
    values = {name: frames.failure_aware(frames.finals(energy[name])) for name in claims.EXPECTED}
    return table(
        ("repetitions", *(method_label(energy[name][0]) for name in values)),
        [
            [
                f"**here**, {repetitions(main_runs(runs))}",
                *(plain_median(found) for found in values.values()),
            ],
            [
                f"the authors' code, {claims.REFERENCE_REPETITIONS}",
                *(f"{claims.EXPECTED[name]:g}" for name in values),
            ],
            [
                "did not diverge",
                *(f"{np.isfinite(found).sum()}/{len(found)}" for found in values.values()),
            ],
        ],
    )


def sensitivity(runs: Runs, results: Path) -> str:
    """Figure 6 in numbers."""
    frame = pd.read_csv(results / "figures" / "fig06.csv")
    labels = {run.method: method_label(run) for run in runs}
    plain = float(frame.loc[frame["method"] == "random", "median"].iloc[0])
    rows = []
    for method, cells in frame[frame["method"] != "random"].groupby("method", sort=False):
        odd, even = (cells[cells["look_back"] % 2 == rest] for rest in (1, 0))
        diverged = [f"{(part['n'] - part['n_ok']).sum()}/{part['n'].sum()}" for part in (odd, even)]
        cells = cells.set_index(["update_interval", "look_back"])["median"]
        best, worst = cells.idxmin(), cells.idxmax()
        highest = (
            f"{cells.max():.3g}" if np.isfinite(cells.max()) else "∞ (more than half diverged)"
        )
        beyond = cells[
            (cells.index.get_level_values(0) >= 5) & (cells.index.get_level_values(1) >= 3)
        ]
        rows.append(
            [
                labels[str(method)],
                f"{(cells < plain).sum()} of {len(cells)}",
                f"{cells[10, 5]:.3g}",
                f"{cells.min():.3g} at T = {best[0]}, i = {best[1]}",
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
    lengths = {**dict.fromkeys(UCI, 200), "fashion_mnist": 1000}
    kept = [
        run
        for run in runs
        if run.method == "long_diff_through_opt"
        or selection.weight_updates(run) == lengths.get(run.dataset)
    ]
    return by_dataset(kept, tuple(lengths))


def full(runs: Runs, results: Path) -> str:
    """Final values of Figure 18."""
    (need, *_) = fig18.NEEDS
    kept = [
        run for run in runs if run.dataset in need.datasets and len(run.seeds) == need.repetitions
    ]
    return medians({"UCI Energy": kept})


def fashion(runs: Runs, results: Path) -> str:
    """Final values on Fashion-MNIST after the paper's 50 epochs, whatever repetitions there are."""
    wanted = (*ONE_PASS, "medium_diff_through_opt")
    kept = [
        run
        for run in by(runs, "dataset")["fashion_mnist"]
        if run.method in wanted and selection.weight_updates(run) == FASHION_UPDATES
    ]
    return medians({f"{FASHION_UPDATES} updates, {repetitions(kept)} repetitions": kept})


def shares(runs: Runs, results: Path) -> str:
    """Final values with larger validation parts."""
    found = {
        share: [
            run
            for run in runs
            if run.dataset == "uci_energy" and run.config["validation_share"] == share
        ]
        for share in SHARES
    }
    return medians(
        {
            f"{100 * share:g} %, n = {repetitions(group)}": group
            for share, group in found.items()
            if group
        }
    )


def multi_pass(runs: Runs, results: Path) -> str:
    """`hpo-bench table multi_pass` for one set, without run times (they are those of this
    machine).
    """
    made = tables.build("multi_pass", results, datasets=[claims.DATASET])
    parts = []
    for axis in ("Weight updates", "Gradient-equivalents"):
        body, bold = (
            frame.xs(axis, level="Budget in").droplevel("Dataset")
            for frame in (made.body, made.bold)
        )
        shown = render.markdown(
            replace(made, title=f"Budget in {axis.lower()}", body=body, bold=bold, notes=())
        )
        parts.append(shown.rpartition("\n\n- ")[0].removeprefix("###").strip())
    return "\n\n".join([*parts, f"({made.label})\n"])


def cost(runs: Runs, results: Path) -> str:
    """Time of a training alone on the machine, over that of Random with the same seed; from the
    runs of Figure 14.
    """
    alone = selection.find(results / FOLDER)
    methods = {run.method: method_label(run) for run in alone if run.method != PLAIN}
    rows = []
    for dataset in by(alone, "dataset").values():
        for kind, bare in (("with test evaluation", False), ("without", True)):
            group = by(
                [run for run in dataset if (run.config["record_every"] == NEVER) == bare], "method"
            )
            times = {
                method: found.loc[found["status"] == "ok"].set_index("seed")["seconds"]
                for method, found in ((method, frames.finals(own)) for method, own in group.items())
            }
            name = f"{label(dataset)}, {selection.weight_updates(dataset[0])} updates, {kind}"
            seconds = f"{times[PLAIN].median():.2g} s"
            rows.append(
                [name, seconds, *(_times(times[method], times[PLAIN]) for method in methods)]
            )
    return table(
        ("one training alone", method_label(by(alone, "method")[PLAIN][0]), *methods.values()), rows
    )


def _times(seconds: pd.Series, plain: pd.Series) -> str:
    shared = pd.concat([seconds, plain], axis=1, join="inner")
    ratio = pairs.bootstrap_two(shared.iloc[:, 0], shared.iloc[:, 1], "ratio")
    return f"× {ratio.estimate:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def effort(runs: Runs, results: Path) -> str:
    """What was computed, by which code, on what."""
    seconds = sum(run.seconds["total"] for run in runs)
    updates = sum(selection.weight_updates(run) * len(run.seeds) for run in runs)
    repetitions = sum(len(run.seeds) for run in runs)
    commits = ", ".join(sorted({str(run.code["git_commit"])[:7] for run in runs}))
    machines = "; ".join(
        sorted({f"{run.environment['cpu']}, torch {run.environment['torch']}" for run in runs})
    )
    return (
        f"{len(runs)} runs, {repetitions:,} repetitions, {updates / 1e6:,.0f} million weight updates (searches not "
        f"counted), {seconds / 3600:.1f} hours of one core. {machines}. Code: {commits}.\n"
    )


BLOCKS: Mapping[str, Callable[[Runs, Path], str]] = {
    "claims": judged,
    "uci": uci,
    "sensitivity": sensitivity,
    "hypergradients": hypergradients,
    "short": short,
    "full": full,
    "shares": shares,
    "fashion": fashion,
    "multi_pass": multi_pass,
    "effort": effort,
    "headline": headline,
    "cost": cost,
    "rivals": rivals,
}


def written(text: str, results: Path) -> str:
    """The page with every block made again."""
    runs = selection.find(results)
    return BLOCK.sub(
        lambda block: f"{block[1]}\n{BLOCKS[block[2]](runs, results)}\n{block[3]}", text
    )


def hpo_bench(*arguments: str) -> None:
    """Run the command in the checkout, so that what it writes names files from there."""
    subprocess.run([sys.executable, "-m", "hpo_bench", *arguments], cwd=ROOT, check=True)


def main() -> None:
    """See above."""
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
