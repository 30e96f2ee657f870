"""From a results store to figures: what ``hpo-bench plot`` and the report do, figure by figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from hpo_bench import figures
from hpo_bench.analysis.selection import Runs
from hpo_bench.figures.common import artefact, needs
from hpo_bench.figures.common.base import Options
from hpo_bench.figures.common.needs import Missing, Need, Store
from hpo_bench.store.runs import Run, complete_runs, told_apart


@dataclass(frozen=True)
class Request:
    """What to draw from which runs.

    Args:
        results: the store's folder as the user wrote it.
        runs: its complete runs.
        out: folder of the figures.
        datasets, methods: instead of the figures' own, where any are given; one artefact per
            dataset.
        where: settings the runs must have, on top or instead of the figures' own.
    """

    results: str
    runs: Sequence[Run]
    out: Path
    formats: Sequence[str] = ("pdf", "png")
    options: Options = field(default_factory=Options)
    datasets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """One artefact, drawn or not.

    Args:
        files: empty where no stored run fits.
        drawn: methods and datasets, for a line of progress.
        missing: runs that it lacks.
        notes: stored runs that were passed over, and why.
    """

    figure: str
    name: str
    files: tuple[Path, ...]
    drawn: str
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]


def make(chosen: Sequence[str], request: Request) -> Iterator[Made]:
    """Draw figures, each as one artefact of all its datasets, or one for each dataset that was
    asked for.
    """

    @cache
    def stored(folder: str) -> Store:
        extra = complete_runs(Path(request.results) / folder) if folder else []
        return Store.of(told_apart([*request.runs, *extra]) if extra else request.runs)

    request = replace(
        request, options=replace(request.options, finals=read_once(request.options.finals))
    )
    for figure in chosen:
        for dataset in request.datasets or (None,):
            yield _make(figure, request, stored, dataset)


def read_once(read: Callable[[Runs], pd.DataFrame]) -> Callable[[Runs], pd.DataFrame]:
    """A reader that remembers what it has read: several figures show the same runs."""
    known: dict[tuple[Path, ...], pd.DataFrame] = {}

    def reading(runs: Runs) -> pd.DataFrame:
        key = tuple(run.path for run in runs)
        if key not in known:
            known[key] = read(runs)
        return known[key].copy()

    return reading


def _make(
    figure: str, request: Request, stored: Callable[[str], Store], dataset: str | None
) -> Made:
    module = figures.find(figure)
    selection = needs.select(_wanted(module.NEEDS, request, dataset), stored, request.results)
    name = f"{figure}-{dataset}" if dataset and module.NEEDS else figure
    if module.NEEDS and selection.empty:
        return Made(figure, name, (), "", selection.missing, ())
    points = module.points(selection, request.options)
    if module.NEEDS and not points.runs:
        return Made(figure, name, (), "", selection.missing, points.notes)
    files = artefact.write(figure, name, points, request.options, request.out, request.formats)
    return Made(figure, name, tuple(files), _drawn(points.runs), selection.missing, points.notes)


def _wanted(all_needs: Sequence[Need], request: Request, dataset: str | None) -> list[Need]:
    """A figure's needs for one dataset: those that name it; all of them, turned to it, where none
    does.
    """
    of_dataset = [
        need for need in all_needs if dataset is None or dataset in need.datasets
    ] or all_needs
    narrowed = [
        need.narrowed((dataset,) if dataset else (), request.methods, request.where)
        for need in of_dataset
    ]
    return list(
        {
            (need.role, need.methods, need.datasets, str(need.where)): need for need in narrowed
        }.values()
    )


def _drawn(runs: Sequence[Run]) -> str:
    if not runs:
        return "illustration"
    methods, datasets = {run.method for run in runs}, {run.dataset for run in runs}
    repetitions = {(run.dataset, run.method, seed) for run in runs for seed in run.seeds}
    counts = (
        ("method", len(methods)),
        ("dataset", len(datasets)),
        ("repetition", len(repetitions)),
    )
    return ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for word, count in counts)
