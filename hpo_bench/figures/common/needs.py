"""Which stored runs a figure is made from, which are missing, and the command that makes those."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpo_bench.analysis.selection import Runs, grouped, settings
from hpo_bench.errors import UserError, nearest
from hpo_bench.figures.common.conditions import Preferably, fits, override
from hpo_bench.figures.common.standard import STANDARD
from hpo_bench.store import audits
from hpo_bench.store.runs import Run
from hpo_bench.system.quoting import quoted

Values = Mapping[str, Any]
AUDITS = audits.FOLDER  # of the needs that are audits over time instead of runs
MAIN = "main"  # role of methods that are compared with each other


@dataclass(frozen=True)
class Need:
    """Runs that a figure is made from: every method on every dataset with certain settings.

    Args:
        where: dotted configuration key -> its value or a `conditions.Condition`; a tuple or range
            of values means one run for each.
        repetitions: the paper's number; fewer are drawn, too.
        role: tells the needs of one figure apart.
        valid: which combinations of the values in ``where`` there are; all by default.
        also: further overrides of the command that makes the runs; runs without them are drawn,
            too.
        folder: of the results folder, a store of its own that holds these runs; they may be in the
            main one, too. `AUDITS`: the audits over time of the results folder.
        optional: whether they are drawn where they are stored, and not missed where they are not.
        each_data: whether runs on other data that go by a dataset's name, such as a part of it, are
            drawn, too, in a panel of their own.
    """

    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    repetitions: int
    where: Values = field(default_factory=lambda: STANDARD)
    role: str = MAIN
    valid: Callable[[Values], bool] = lambda values: True
    also: tuple[str, ...] = ()
    folder: str = ""
    optional: bool = False
    each_data: bool = False

    def is_on(self, run: Run) -> bool:
        """Whether a run is on one of the datasets."""
        return run.dataset in self.datasets or (
            self.each_data and run.dataset_name in self.datasets
        )

    def drawn(self, runs: Runs) -> Iterator[str]:
        """The ids of the datasets, each name that stands for several data replaced by theirs."""
        for name in self.datasets:
            named = [run.dataset for run in runs if name in (run.dataset, run.dataset_name)]
            yield from named if self.each_data and named else (name,)

    def accepts(self, settings: Values) -> bool:
        """Whether a run with these (dotted) settings is one of these runs."""
        for key, wanted in self.where.items():
            if key not in settings or not fits(settings[key], wanted):
                return False
        return self.valid({key: settings[key] for key in self.where})

    def preferred(self, runs: Runs, settings: Mapping[str, Values]) -> list[Run]:
        """Of each method on each dataset the runs with preferred settings, where there are any."""
        remaining = list(runs)
        for key, wanted in self.where.items():
            if isinstance(wanted, Preferably):
                groups = grouped(remaining, lambda run: (run.dataset, run.method))
                for group, candidates in groups.items():
                    as_wanted = [
                        run for run in candidates if settings[run.run_id][key] == wanted.wanted
                    ]
                    groups[group] = as_wanted or candidates
                chosen = {run.run_id for candidates in groups.values() for run in candidates}
                remaining = [run for run in remaining if run.run_id in chosen]
        return remaining

    def cells(self) -> list[Values]:
        """The combinations of swept values; one empty one where nothing is swept."""
        swept = [key for key, value in self.where.items() if isinstance(value, (tuple, range))]
        if not swept:
            return [{}]
        combinations = itertools.product(*(self.where[key] for key in swept))
        cells = [dict(zip(swept, values, strict=True)) for values in combinations]
        return [cell for cell in cells if self.valid(cell)]

    def narrowed(self, datasets: Sequence[str], methods: Sequence[str], where: Values) -> Need:
        """The same for other datasets, methods or settings, where any are given.

        Methods take the place of those that are compared with each other alone: another role says
        what its methods are there for.
        """
        replaces_methods = methods and self.role == MAIN
        return replace(
            self,
            datasets=tuple(datasets) or self.datasets,
            methods=tuple(methods) if replaces_methods else self.methods,
            where={**self.where, **where},
        )

    def command(self, datasets: Iterable[str], methods: Iterable[str], results: str) -> str:
        """The shell command that makes these runs of some of the methods and datasets."""
        of_methods = list(methods)
        on_datasets = [name.partition("@")[0] for name in datasets]
        if self.folder == AUDITS:
            pairs = itertools.product(on_datasets, of_methods)
            return " && ".join(self._audit(*pair, results) for pair in pairs)
        words = ["hpo-bench", "run"]
        if len(of_methods) > 1 or len(on_datasets) > 1 or len(self.cells()) > 1:
            words.append("-m")
        words += [
            f"method={','.join(of_methods)}",
            f"dataset={','.join(on_datasets)}",
            f"repetitions={self.repetitions}",
        ]
        return shlex.join([*words, *self._settings(str(Path(results) / self.folder))])

    def _audit(self, dataset: str, method: str, results: str) -> str:
        """The shell command of one audit."""
        words = ["hpo-bench", "audit", "--over-time", f"method={method}", f"dataset={dataset}"]
        words.append(f"repetitions={self.repetitions}")
        return shlex.join([*words, *self._settings(results)])

    def _settings(self, store: str) -> list[str]:
        """Overrides of what is not the default."""
        words = []
        for key, wanted in self.where.items():
            if key not in STANDARD or STANDARD[key] != wanted:
                value = override(wanted)
                words += [] if value is None else [f"{key}={value}"]
        words += self.also
        if store != "results":
            words.append(f"results_dir={quoted(store)}")
        return words


@dataclass(frozen=True)
class Missing:
    """Runs that a figure is made from and that are not stored.

    Args:
        datasets, methods: each method is missing on each of the datasets, wholly or in some of its
            settings.
        command: makes them (what is stored already is not computed again).
    """

    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    command: str

    def __str__(self) -> str:
        return f"{', '.join(self.methods)} on {', '.join(self.datasets)}: {self.command}"


@dataclass(frozen=True)
class NeededRuns:
    """Stored runs of a figure by role, and what is missing.

    Args:
        datasets: in the order in which they are drawn.
    """

    by_role: Mapping[str, list[Run]]
    datasets: tuple[str, ...]
    missing: tuple[Missing, ...]

    def runs(self, role: str = MAIN, dataset: str | None = None) -> list[Run]:
        """Runs of one role, of one dataset or all."""
        runs = self.by_role.get(role, [])
        return [run for run in runs if dataset in (None, run.dataset)]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(self.by_role.values())


@dataclass(frozen=True)
class Store:
    """Complete runs, and their settings with dotted keys by run id."""

    runs: Runs
    settings: Mapping[str, Values]

    @staticmethod
    def of(runs: Runs) -> Store:
        """Flatten the configurations once for all figures."""
        return Store(runs, {run.run_id: settings(run) for run in runs})


def select(needs: Iterable[Need], store: Callable[[str], Store], results: str) -> NeededRuns:
    """Find the runs of a figure.

    Args:
        store: gives the store of a need's folder.
        results: the main store's folder as the user wrote it, for the commands.
    """
    by_role: dict[str, list[Run]] = {}
    missing: list[Missing] = []
    datasets: dict[str, None] = {}
    for need in needs:
        stored = store(need.folder)
        accepted = [
            run
            for run in stored.runs
            if need.is_on(run)
            and run.method in need.methods
            and need.accepts(stored.settings[run.run_id])
        ]
        accepted = need.preferred(accepted, stored.settings)
        by_role.setdefault(need.role, []).extend(accepted)
        if not need.optional:
            missing += _missing(need, accepted, stored.settings, results)
        datasets.update(dict.fromkeys(need.drawn(accepted)))
    with_runs = {run.dataset for group in by_role.values() for run in group}
    drawn = tuple(name for name in datasets if name in with_runs)
    return NeededRuns(by_role, drawn, tuple(missing))


def _missing(
    need: Need, accepted: Runs, settings: Mapping[str, Values], results: str
) -> Iterator[Missing]:
    """Group what is missing: methods that lack the same datasets share a line."""
    cells = need.cells()
    stored: dict[tuple[str, str], set[int]] = {}  # numbers of the cells that have runs
    for run in accepted:
        config = settings[run.run_id]
        for number, cell in enumerate(cells):
            if all(config[key] == value for key, value in cell.items()):
                for name in {run.dataset, run.dataset_name if need.each_data else run.dataset}:
                    stored.setdefault((run.method, name), set()).add(number)

    by_datasets: dict[tuple[str, ...], list[str]] = {}
    for method in need.methods:
        lacking = tuple(
            dataset
            for dataset in need.datasets
            if len(stored.get((method, dataset), ())) < len(cells)
        )
        if lacking:
            by_datasets.setdefault(lacking, []).append(method)
    for datasets, methods in by_datasets.items():
        yield Missing(datasets, tuple(methods), need.command(datasets, methods, results))


def check_names(option: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse a name that neither the store nor the configuration knows.

    Raises:
        UserError: names the nearest.
    """
    known = set(allowed)
    for name in names:
        if name not in known:
            raise UserError(f"--{option} {name}: no such {option}; {nearest(name, known)}")
