"""A grid of one's own: every combination of some settings' values, as jobs of one pool.

What it stores is what ``hpo-bench run -m`` stores for the same values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hpo_bench.core.table import Table
from hpo_bench.errors import UserError
from hpo_bench.experiments.expand import Job, settings_of, table_of
from hpo_bench.settings import compose
from hpo_bench.settings.yamls import groups
from hpo_bench.system.quoting import quoted
from hydra_plugins.hpo_bench_launcher.launcher import merge
from hydra_plugins.hpo_bench_launcher.sweeper import JOBS

PART = "sweep"
Grid = Mapping[str, Sequence[Any]]


def jobs_of(
    overrides: Sequence[str], grid: Grid, *, force: bool = False, config_dir: Path | None = None
) -> list[Job]:
    """The runs of a grid, each once.

    Args:
        overrides: in Hydra's grammar, without sweeps; shared by all runs.
        grid: key -> its values, of groups (``method``) and settings (``hyper.lr``). Seeds that
            follow on one another are one run, as they are in a multirun.
        config_dir: a further folder of groups.

    Raises:
        UserError: a name or value that is not allowed, or data that cannot be had.
    """
    _check(grid)
    seeds = [value for value in grid.get("seed", ()) if type(value) is int]
    merged = len(seeds) == len(grid.get("seed", ()))
    cells = {key: values for key, values in grid.items() if not (merged and key == "seed")}
    chosen = {key: cells.pop(key) for key in groups() if key in cells}
    tables: dict[str, Table] = {}
    jobs: dict[str, Job] = {}
    for base in _composed([*overrides], chosen, cells, seeds if merged else (), config_dir):
        for cell in _combinations(cells):
            for series in _series(base, cell, seeds) if merged and seeds else ({},):
                settings = settings_of(base, {**cell, **series}, force)
                job = Job.of(PART, settings, table_of(settings, tables))
                jobs.setdefault(job.run_id, job)
    return list(jobs.values())


def _check(grid: Grid) -> None:
    for key, values in grid.items():
        if not values:
            raise UserError(f"{key}=[]: names no value, so there is nothing to run")
    if math.prod(map(len, grid.values())) > JOBS:
        raise UserError(f"{', '.join(grid)}: more than {JOBS} runs, start them in parts")


def _combinations(grid: Grid) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _composed(
    overrides: list[str],
    chosen: Grid,
    cells: Grid,
    seeds: Sequence[int],
    config_dir: Path | None,
) -> Iterator[DictConfig]:
    """A configuration for each combination of groups, with the first value of every other key:
    Hydra tells what is misspelt.
    """
    firsts = {key: values[0] for key, values in cells.items()}
    if seeds:
        firsts["seed"] = seeds[0]
    for names in _combinations(chosen):
        words = [f"{key}={quoted(value)}" for key, value in {**names, **firsts}.items()]
        yield compose.compose([*overrides, *words], config_dir)


def _series(
    base: DictConfig, cell: Mapping[str, Any], seeds: Sequence[int]
) -> Iterator[dict[str, int]]:
    """Seeds as first seed and number of repetitions of each run. Where a file fixes the start, a
    run's first repetition reads its first row: seeds are not merged there.
    """
    repetitions = cell.get("repetitions", base.repetitions)
    if type(repetitions) is not int or cell.get("init.file", base.init.file) is not None:
        yield from ({"seed": seed} for seed in seeds)
        return
    texts = [(f"seed={seed}",) for seed in seeds]
    for run in merge(texts, list(enumerate(seeds)), repetitions):
        assert run.seed is not None
        assert run.repetitions is not None
        yield {"seed": run.seed, "repetitions": run.repetitions}


def lists_among(
    keys: Iterable[str], overrides: Sequence[str], config_dir: Path | None = None
) -> set[str]:
    """Settings whose own value is a list, as that of ``tuned`` is.

    Raises:
        UserError: the overrides do not compose.
    """
    base = compose.compose(overrides, config_dir)
    return {
        key
        for key in keys
        if OmegaConf.is_list(OmegaConf.select(base, key, throw_on_missing=False))
    }
