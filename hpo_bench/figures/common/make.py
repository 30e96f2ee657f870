"""From a results store to figures: what ``hpo-bench plot`` and the report do, figure by figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hpo_bench import figures
from hpo_bench.analysis.selection import Runs, by_dataset, by_method
from hpo_bench.errors import UserError, nearest
from hpo_bench.figures.common import artefact, needs
from hpo_bench.figures.common.base import Options, Plotted
from hpo_bench.figures.common.needs import Missing, Need, NeededRuns, Store
from hpo_bench.store import audits
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
    """Draw figures, each as one artefact of all its datasets, or as one for each that is asked for.

    Yields:
        what became of each artefact, as soon as it is drawn.
    """

    @cache
    def stored(folder: str) -> Store:
        if folder == needs.AUDITS:
            return _audits(request)
        extra = complete_runs(Path(request.results) / folder) if folder else []
        return Store.of(told_apart([*request.runs, *extra]) if extra else request.runs)

    options = replace(request.options, finals=read_once(request.options.finals))
    request = replace(request, options=options)
    for figure in chosen:
        for dataset in request.datasets or (None,):
            yield _make(figure, request, stored, dataset)


def figure_of(
    figure: str,
    runs: Sequence[Run],
    options: Options,
    *,
    dataset: str | None = None,
    methods: Sequence[str] = (),
) -> Figure:
    """Draw a figure from some runs alone, and write nothing.

    Args:
        dataset: instead of the figure's own; that of the runs, where all are on one that is none
            of the figure's.
        methods: instead of the figure's own, where any are given.

    Raises:
        UserError: none of the runs fits; names what is missing.
    """
    module = figures.find(figure)
    request = Request(_store_of(runs), runs, Path(), methods=tuple(methods))
    _check_held(figure, runs, dataset, methods)

    def stored(folder: str) -> Store:
        # Runs are no audits; those lie in the store that the runs are from.
        return _audits(request) if folder == needs.AUDITS else Store.of(runs)

    def chosen(dataset: str | None) -> NeededRuns:
        wanted = _wanted(module.NEEDS, request, dataset)
        return needs.select(wanted, stored, request.results)

    selection = chosen(dataset)
    only = {run.dataset for run in runs}
    if dataset is None and selection.empty and len(only) == 1:
        selection = chosen(*only)
    points = None if module.NEEDS and selection.empty else module.points(selection, options)
    if points is None or (module.NEEDS and not points.runs):
        missing = "; ".join(map(str, selection.missing))
        raise UserError(f"{figure}: none of these runs fits; missing {missing}")
    content = artefact.read_csv(artefact.csv_bytes(points.frame))
    return artefact.draw(figure, Plotted(content, points.context, artefact.footer(points, options)))


def _audits(request: Request) -> Store:
    """The audits over time of the results folder."""
    return Store.of(audits.complete_audits(request.results, audits.OVER_TIME))


def _store_of(runs: Sequence[Run]) -> str:
    """Where runs lie, for the commands that would make those that are missing."""
    folders = {str(run.path.parent.parent) for run in runs}
    return folders.pop() if len(folders) == 1 else "results"


def _check_held(
    figure: str, runs: Sequence[Run], dataset: str | None, methods: Sequence[str]
) -> None:
    """Refuse a name that none of the runs has, and an illustration of a dataset."""
    if dataset is not None and not figures.find(figure).NEEDS:
        raise UserError(f"dataset={dataset}: {figure} is an illustration and has no dataset")
    for kind, names in (("dataset", [dataset] if dataset else []), ("method", methods)):
        held = {getattr(run, kind) for run in runs}
        for name in names:
            if name not in held:
                raise UserError(f"{kind}={name}: none of these runs has it; {nearest(name, held)}")


def read_once(read: Callable[[Runs], pd.DataFrame]) -> Callable[[Runs], pd.DataFrame]:
    """A reader that remembers what it has read: several figures show the same runs."""
    frames: dict[tuple[Path, ...], pd.DataFrame] = {}

    def reading(runs: Runs) -> pd.DataFrame:
        key = tuple(run.path for run in runs)
        if key not in frames:
            frames[key] = read(runs)
        return frames[key].copy()

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
    """A figure's needs for one dataset, or for all of its own.

    They are those that name the dataset; where none does, all of them are turned to it.
    """
    naming = [need for need in all_needs if dataset is None or dataset in need.datasets]
    datasets = (dataset,) if dataset else ()
    distinct: dict[tuple[object, ...], Need] = {}  # two needs may be one when turned
    for need in naming or all_needs:
        turned = need.narrowed(datasets, request.methods, request.where)
        distinct[turned.role, turned.methods, turned.datasets, str(turned.where)] = turned
    return list(distinct.values())


def _drawn(runs: Sequence[Run]) -> str:
    """What is on a figure, in words."""
    if not runs:
        return "illustration"
    seeds = {(run.dataset, run.method, seed) for run in runs for seed in run.seeds}
    counts = {
        "method": len(by_method(runs)),
        "dataset": len(by_dataset(runs)),
        "repetition": len(seeds),
    }
    return ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for word, count in counts.items())
