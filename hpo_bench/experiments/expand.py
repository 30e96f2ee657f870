"""From an experiment to its runs: every cell of its grids, composed and parsed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hpo_bench.core.table import Table
from hpo_bench.errors import UserError
from hpo_bench.experiments import definition as plan
from hpo_bench.experiments.definition import Experiment
from hpo_bench.hypergradients.rows import groupable
from hpo_bench.running.identify import identify, rounded_otherwise
from hpo_bench.settings import compose, parse
from hpo_bench.settings.run import Settings
from hpo_bench.store.held import Wanted


@dataclass(frozen=True)
class LoadedTable:
    """A source whose table is in memory already."""

    table: Table

    def load(self, validation_share: float) -> Table:
        """The table, whatever its validation part is: it was loaded with the one asked for."""
        return self.table


@dataclass(frozen=True)
class Job:
    """One run of an experiment."""

    part: str
    settings: Settings
    table: Table = field(repr=False)
    run_id: str
    config_hash: str
    rounded_otherwise: tuple[str, ...] = ()

    @staticmethod
    def of(part: str, settings: Settings, table: Table) -> Job:
        """The run of some settings on a table that is loaded."""
        run_id, config_hash = identify(settings, table)
        earlier = rounded_otherwise(settings, table)
        return Job(part, settings, table, run_id, config_hash, earlier)

    @property
    def wanted(self) -> Wanted:
        """Its repetitions, wherever they are stored."""
        return Wanted(
            self.run_id, self.config_hash, tuple(self.settings.seeds), self.rounded_otherwise
        )

    @property
    def size(self) -> int:
        """Weight updates of all its repetitions."""
        return self.settings.repetitions * self.settings.total_updates


@dataclass(frozen=True)
class Expansion:
    """All runs of an experiment, and a line for whatever it names that is not there.

    Args:
        made_up: a line for each dataset whose jobs have a table of the same size in its place:
            they say what runs take, and are no runs that could be stored.
    """

    experiment: Experiment
    jobs: tuple[Job, ...]
    missing: tuple[str, ...]
    made_up: tuple[str, ...] = ()


def expand(
    chosen: Experiment,
    results_dir: Path,
    *,
    force: bool = False,
    config_dir: Path | None = None,
    on_group: Callable[[plan.Group], None] = lambda group: None,
    may_make_up: bool = False,
) -> Expansion:
    """Compose each (part, dataset, method) once and set the cells' values in it.

    Args:
        on_group: called before each composition (0.1 s each).
        may_make_up: whether a table of the same size may take the place of a dataset that cannot be
            had, for estimates.

    Raises:
        UserError: an override that does not fit.
    """
    missing = plan.unknown(chosen, extra=config_dir)
    tables: dict[str, Table] = {}
    made_up: dict[str, str] = {}
    jobs: dict[str, Job] = {}
    for group in plan.groups(chosen):
        if f"dataset={group.dataset}" in missing or f"method={group.method}" in missing:
            continue
        on_group(group)
        base = compose.compose(group.overrides, config_dir)
        OmegaConf.update(base, "results_dir", str(results_dir))
        for cell in group.part.cells():
            settings = settings_of(base, cell, force)
            table = _table(settings, tables, missing, made_up if may_make_up else None)
            if table is not None:
                job = Job.of(group.part.name, settings, table)
                jobs.setdefault(job.run_id, job)
    told = tuple(made_up.values())
    return Expansion(chosen, tuple(jobs.values()), tuple(missing.values()), told)


def settings_of(base: Any, cell: Mapping[str, Any], force: bool) -> Settings:
    """The settings of a cell: a composed configuration with the cell's values in it."""
    cfg = base.copy()
    for key, value in cell.items():
        OmegaConf.update(cfg, key, value)
    return parse.parse(cfg, force=force)


def _table(
    settings: Settings,
    tables: dict[str, Table],
    missing: dict[str, str],
    made_up: dict[str, str] | None,
) -> Table | None:
    """The dataset, loaded once; one that cannot be had is noted in ``missing``, or ``made_up``."""
    name = f"dataset={settings.dataset}"
    if name in missing:
        return None
    try:
        return table_of(settings, tables)
    except UserError as error:
        of_the_size = getattr(settings.source, "made_up", None)
        if made_up is None or of_the_size is None:
            missing[name] = f"{name}: {error}"
            return None
        table: Table = of_the_size(settings.validation_share)
        made_up[name] = f"{name}: {error}"
        tables[_key(settings)] = table
        return table


def table_of(settings: Settings, tables: dict[str, Table]) -> Table:
    """The dataset of some settings, loaded once.

    Args:
        tables: those that are loaded, to which it is added.

    Raises:
        UserError: it cannot be had.
    """
    key = _key(settings)
    if key not in tables:
        tables[key] = settings.source.load(settings.validation_share)
    return tables[key]


def _key(settings: Settings) -> str:
    """What tells the datasets of some settings apart."""
    return json.dumps([settings.config["dataset"], settings.validation_share], sort_keys=True)


def units(jobs: Iterable[Job]) -> list[tuple[Job, ...]]:
    """Jobs that are computed as one: cells that differ in their look-back alone.

    The smallest look-back of a unit comes first.
    """
    by_program: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        method = job.settings.method
        shares = groupable(method.estimator) and method.search is None
        by_program[_program(job) if shares else job.run_id].append(job)
    return [
        tuple(sorted(unit, key=lambda job: job.settings.look_back)) for unit in by_program.values()
    ]


def _program(job: Job) -> str:
    """What must be equal for two runs to be rows of one program: all but the look-back."""
    content = dict(job.settings.config)
    method = dict(content.pop("method"))
    content.pop("look_back", None)
    if isinstance(method.get("estimator"), Mapping):
        estimator = dict(method["estimator"])
        estimator.pop("look_back", None)
        method["estimator"] = estimator
    return json.dumps([job.table.fingerprint, content, method], sort_keys=True)
