"""Run times for Figure 14: one repetition per block on an otherwise idle device.

They are measured with and without test evaluation. Rows of one block share a wall time, so these
runs are their own: ``chunk=1 workers=1``. They are kept in a store of their own because where a
repetition was computed is not part of a run's identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hpo_bench.errors import UserError
from hpo_bench.experiments import definition
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.run import Settings
from hpo_bench.system.quoting import quoted

FOLDER = "runtime"  # below the results folder
NEVER = 10**9  # record_every that leaves the first and the last step


def _at_scale(dataset: str, scale: str) -> tuple[str, ...]:
    """The overrides of an experiment's scale, of the experiment that is called like a dataset."""
    if dataset not in definition.names():
        raise UserError(f"--scale {scale}: no experiment is called like dataset={dataset}")
    return definition.read(dataset, scale).parts[0].overrides


def plan(
    datasets: Sequence[str],
    methods: Sequence[str],
    repetitions: int,
    results_dir: Path,
    overrides: Sequence[str] = (),
    scale: str = "paper",
) -> Iterator[Settings]:
    """Settings of the runs: each (dataset, method) once with its recording interval and once with
    none in between.

    Args:
        overrides: on top of those of the scale.
        scale: of the experiment that is called like a dataset; ``paper``: the dataset's defaults.

    Raises:
        UserError: a dataset, method or override that there is not, or no such scale of it.
    """
    for dataset in datasets:
        smaller = () if scale == "paper" else _at_scale(dataset, scale)
        for method in methods:
            chosen = [
                f"dataset={dataset}",
                f"method={method}",
                f"repetitions={repetitions}",
                "chunk=1",
                "workers=1",
                *smaller,
            ]
            settings = parse(
                compose([*chosen, f"results_dir={quoted(str(results_dir / FOLDER))}", *overrides])
            )
            yield settings
            yield replace(
                settings, record_every=NEVER, config={**settings.config, "record_every": NEVER}
            )
