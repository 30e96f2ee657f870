"""What a table has no runs of, and the command that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpo_bench.analysis.selection import Runs
from hpo_bench.system.quoting import override


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
