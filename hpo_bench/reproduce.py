"""Experiments carried out: expand to runs, skip what is stored, estimate, compute the rest, draw.

Cells of a grid that differ in their look-back alone are trained as rows of one program and stored as ordinary runs.
Several processes may work on one experiment: each run is computed by the one that holds its lock, the others come back
to it later and find it stored, or take it up where a killed process left it.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from hpo_bench import __version__, config, documents, experiment, held, index, locks, notices, plan
from hpo_bench.core import memory
from hpo_bench.datasets.base import Table
from hpo_bench.datasets.catalogue import configs_folder
from hpo_bench.errors import RunError, StoreError, UserError
from hpo_bench.experiment import (
    Pool,
    Program,
    Trainer,
    execute_together,
    identify,
    pick_device,
    rounded_otherwise,
)
from hpo_bench.held import Wanted
from hpo_bench.hypergradients.grouped import groupable
from hpo_bench.plan import Experiment
from hpo_bench.progress import Reporter, Silent
from hpo_bench.settings import Settings
from hpo_bench.store import Locked, Run, runs_folder, told_apart, write_json

CALIBRATION_INTERVAL = 50  # weight updates per hyperparameter update in a calibration, at most
QUICK = 0.1  # seconds below which a calibration is done again with more updates
PATIENCE = 0.3  # seconds between looks at runs that other processes compute


@dataclass(frozen=True)
class Loaded:
    """A source whose table is in memory already."""

    table: Table

    def load(self, validation_share: float) -> Table:
        """The table."""
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

    @property
    def wanted(self) -> Wanted:
        """Its repetitions, wherever they are stored."""
        return Wanted(self.run_id, self.config_hash, tuple(self.settings.seeds), self.rounded_otherwise)

    @property
    def size(self) -> int:
        """Weight updates of all its repetitions."""
        return self.settings.repetitions * self.settings.total_updates


@dataclass(frozen=True)
class Expansion:
    """All runs of an experiment, and a line for whatever it names that is not there."""

    experiment: Experiment
    jobs: tuple[Job, ...]
    missing: tuple[str, ...]


# --- which runs ---


def expand(
    chosen: Experiment, results_dir: Path, *, force: bool = False, config_dir: Path | None = None,
    on_group: Callable[[plan.Group], None] = lambda group: None,
) -> Expansion:  # fmt: skip
    """Compose each (part, dataset, method) once and set the cells' values in it.

    Args:
        on_group: called before each composition (0.1 s each).

    Raises:
        UserError: an override that does not fit.
    """
    missing = plan.unknown(chosen, extra=config_dir)
    tables: dict[str, Table] = {}
    jobs: dict[str, Job] = {}
    for group in plan.groups(chosen):
        if f"dataset={group.dataset}" in missing or f"method={group.method}" in missing:
            continue
        on_group(group)
        base = config.compose(group.overrides, config_dir)
        OmegaConf.update(base, "results_dir", str(results_dir))
        for cell in group.part.cells():
            settings = _settings(base, cell, force)
            table = _table(settings, tables, missing)
            if table is not None:
                run_id, config_hash = identify(settings, table)
                earlier = rounded_otherwise(settings, table)
                jobs.setdefault(run_id, Job(group.part.name, settings, table, run_id, config_hash, earlier))
    return Expansion(chosen, tuple(jobs.values()), tuple(missing.values()))


def _settings(base: Any, cell: Mapping[str, Any], force: bool) -> Settings:
    cfg = base.copy()
    for key, value in cell.items():
        OmegaConf.update(cfg, key, value)
    return config.parse(cfg, force=force)


def _table(settings: Settings, tables: dict[str, Table], missing: dict[str, str]) -> Table | None:
    """The dataset, loaded once; one that cannot be had is noted in ``missing``."""
    key = json.dumps([settings.config["dataset"], settings.validation_share], sort_keys=True)
    if f"dataset={settings.dataset}" in missing:
        return None
    if key not in tables:
        try:
            tables[key] = settings.source.load(settings.validation_share)
        except UserError as error:
            missing[f"dataset={settings.dataset}"] = f"dataset={settings.dataset}: {error}"
            return None
    return tables[key]


def units(jobs: Iterable[Job]) -> list[tuple[Job, ...]]:
    """Jobs that are computed as one: cells that differ in their look-back alone, smallest look-back first."""
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        sharing = groupable(job.settings.method.estimator) and job.settings.method.search is None
        found[_program(job) if sharing else job.run_id].append(job)
    return [tuple(sorted(unit, key=lambda job: job.settings.look_back)) for unit in found.values()]


def _program(job: Job) -> str:
    """What must be equal for two runs to be rows of one program."""
    content = {key: value for key, value in job.settings.config.items() if key not in ("look_back", "method")}
    method = dict(job.settings.config["method"])
    if isinstance(method.get("estimator"), Mapping):
        method["estimator"] = {key: value for key, value in method["estimator"].items() if key != "look_back"}
    return json.dumps([job.table.fingerprint, content, method], sort_keys=True)


@dataclass
class Outcome:
    """What became of the jobs of a unit.

    Args:
        computed: jobs computed here, with repetitions computed.
        elsewhere: stored already.
        locked: another process computes them.
        failed: with what went wrong.
    """

    computed: list[tuple[Job, int]] = field(default_factory=list)
    elsewhere: list[Job] = field(default_factory=list)
    locked: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, Exception]] = field(default_factory=list)


def attempt(unit: Sequence[Job], reporter: Reporter, pool: Pool | None = None) -> Outcome:
    """Compute a unit's runs, but those that are stored or locked. Failures are told, not raised."""
    runs = [replace(job.settings, source=Loaded(job.table)) for job in unit]
    outcome = Outcome()
    try:
        results = execute_together(runs, reporter, pool)
    except (RunError, UserError) as error:
        outcome.failed += [(job, error) for job in unit]
        return outcome
    for job, result in zip(unit, results, strict=True):
        if isinstance(result, Locked):
            outcome.locked.append(job)
        elif isinstance(result, Exception):
            outcome.failed.append((job, result))
        elif result.computed:
            outcome.computed.append((job, result.computed))
        else:
            outcome.elsewhere.append(job)
    return outcome


# --- how much it will take ---


@dataclass(frozen=True)
class Estimate:
    """What a unit is expected to take here: wall time, memory, and the blocks it is divided into."""

    seconds: float
    bytes: int
    shards: int


class Calibration:
    """Estimates from a few weight updates of each distinct program."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def estimate(self, unit: Sequence[Job]) -> Estimate:
        """Time and memory of a unit.

        Raises:
            UserError: it cannot run on this device.
        """
        cells, table = [job.settings for job in unit], unit[0].table
        device = pick_device(cells[0].device)
        repetitions = sum(cell.repetitions for cell in cells)
        chunk = Program.of(cells, table, device).trainer.chunk(repetitions)
        plain, trained = _training(unit[-1]), chunk
        if plain is not unit[-1]:
            trained = Trainer.of(plain.settings, table, device).chunk(plain.settings.repetitions)
        rate = self._rate(plain, trained, device)
        work = repetitions * cells[0].total_updates
        return Estimate(rate * work / max(trained.workers, 1), chunk.bytes, math.ceil(repetitions / chunk.rows))

    def _rate(self, job: Job, chunk: memory.Chunk, device: Any) -> float:
        """Seconds of one thread for a weight update of a repetition."""
        aside = ("seed", "repetitions", "hyperparameter_updates", "init", "results_dir", "chunk", "workers")
        content = {key: value for key, value in job.settings.config.items() if key not in aside}
        key = json.dumps([job.table.fingerprint, content, chunk.rows], sort_keys=True)
        if key not in self._rates:
            self._rates[key] = _measure(job, chunk, device)
        return self._rates[key]


def _training(job: Job) -> Job:
    """What a search trains side by side, as a job of plain trainings; other jobs as they are.

    The time that a search takes for its decisions and evaluations is left out of an estimate.
    """
    settings, search = job.settings, job.settings.method.search
    if search is None:
        return job
    plain = replace(
        settings, method=replace(settings.method, search=None), record_every=settings.weight_updates,
        repetitions=settings.repetitions * search.side_by_side(settings),
    )  # fmt: skip
    return replace(job, settings=plain)


def _measure(job: Job, chunk: memory.Chunk, device: Any) -> float:
    interval = min(job.settings.update_interval, CALIBRATION_INTERVAL)
    seeds = [job.settings.seed + row for row in range(min(chunk.rows, job.settings.repetitions))]
    threads = torch.get_num_threads()
    rate = 0.0
    try:
        for count in (1, max(2, math.ceil(20 / interval))):
            short = replace(job.settings, update_interval=interval, hyperparameter_updates=count, save_weights=False)
            trainer = Trainer.of(short, job.table, device)
            torch.set_num_threads(trainer.threads(len(seeds), chunk.workers))
            begin = time.perf_counter()
            trainer.block(seeds)
            seconds = time.perf_counter() - begin
            rate = seconds / (len(seeds) * short.weight_updates)
            if seconds > QUICK:
                break
    finally:
        torch.set_num_threads(threads)
    return rate


# --- carrying it out ---


@dataclass
class Tally:
    """What came of an experiment's pending runs: counts, and failures by run id."""

    computed: int = 0
    repetitions: int = 0
    elsewhere: int = 0
    failed: dict[str, Exception] = field(default_factory=dict)


class Whole:
    """One progress bar over everything: what single runs report is added up, what they say is passed on."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.counted = 0

    def say(self, text: str) -> None:
        """Pass on: a tracker that failed or a node that was lost is told of here as for a single run."""
        self.reporter.say(text)

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Count what an earlier call finished."""
        self.advance(done)

    def advance(self, units: int) -> None:
        """Pass on."""
        self.counted += units
        self.reporter.advance(units)

    def end(self) -> None:
        """Nothing: there is more to come."""


def carry_out(jobs: Sequence[Job], label: str, reporter: Reporter | None = None, pool: Pool | None = None) -> Tally:
    """Compute the jobs, going on after failures, and coming back to runs that other processes were computing.

    Args:
        pool: where blocks are computed; threads of this process unless given.
    """
    reporter = reporter or Silent()
    queue = deque(units(jobs))
    tally, met, told = Tally(), 0, -math.inf
    reporter.begin(label, sum(job.size for job in jobs))
    try:
        while queue:
            unit, whole = queue.popleft(), Whole(reporter)
            begin = time.perf_counter()
            outcome = attempt(unit, whole, pool)
            _count(tally, outcome, reporter, time.perf_counter() - begin)
            locked = {job.run_id for job in outcome.locked}
            reporter.advance(sum(job.size for job in unit if job.run_id not in locked) - whole.counted)
            if outcome.locked:  # whoever holds it computes it: --force included, it is fresh then
                queue.append(tuple(_without_force(job) for job in outcome.locked))
            met = met + 1 if len(locked) == len(unit) else 0
            if queue and met >= len(queue):
                told = _tell_of_others(queue, reporter, told)
                time.sleep(PATIENCE)
    finally:
        reporter.end()
    return tally


def _tell_of_others(queue: Iterable[Sequence[Job]], reporter: Reporter, told: float) -> float:
    """Say every few seconds what is waited for, if it was last ``told`` long ago; when it was told last."""
    now = time.monotonic()
    if now - told < locks.TELL_EVERY:
        return told
    names = [job.run_id for unit in queue for job in unit]
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    reporter.say(f"waiting for other processes, which compute {names[0]}{others}")
    return now


def _without_force(job: Job) -> Job:
    return replace(job, settings=replace(job.settings, force=False))


def _count(tally: Tally, outcome: Outcome, reporter: Reporter, seconds: float) -> None:
    tally.computed += len(outcome.computed)
    tally.repetitions += sum(count for _, count in outcome.computed)
    tally.elsewhere += len(outcome.elsewhere)
    for job, error in outcome.failed:
        tally.failed[job.run_id] = error
        reporter.say(f"failed: {' '.join(str(error).split())}")
    if outcome.computed:
        job, runs = outcome.computed[0][0], len(outcome.computed)
        what = job.run_id if runs == 1 else f"{runs} cells of {job.settings.method.name} on {job.settings.dataset}"
        reporter.say(f"done: {what} ({seconds:.1f} s)")


# --- remembering what an experiment consists of ---


@dataclass(frozen=True)
class Record:
    """``results/experiments/NAME.json``: the runs that an experiment was found to consist of, and from what."""

    experiment: str
    scale: str
    overrides: tuple[str, ...]
    key: str
    run_ids: tuple[str, ...]
    missing: tuple[str, ...]


def fingerprint(name: str, scale: str, overrides: Sequence[str]) -> str:
    """Hash of everything that `expand` reads: all yamls, the version, what was asked for."""
    digest = hashlib.sha256(json.dumps([name, scale, list(overrides), __version__, experiment.NUMBERS]).encode())
    folder = configs_folder()
    for file in sorted(folder.rglob("*.yaml")):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _record_file(results_dir: Path, name: str, scale: str, overrides: Sequence[str]) -> Path:
    own = "-" + hashlib.sha256(json.dumps(sorted(overrides)).encode()).hexdigest()[:8] if overrides else ""
    return results_dir / "experiments" / f"{name}-{scale}{own}.json"


def remember(results_dir: Path, expansion: Expansion, overrides: Sequence[str], *, drawn: bool = False) -> None:
    """Write the record of an expansion, or warn: without it, the next call plans again.

    Args:
        drawn: whether all figures and tables are made from what is stored.
    """
    chosen = expansion.experiment
    content = {
        "format": documents.FORMAT,
        "experiment": chosen.name,
        "scale": chosen.scale,
        "overrides": list(overrides),
        "key": fingerprint(chosen.name, chosen.scale, overrides),
        "run_ids": [job.run_id for job in expansion.jobs],
        "wanted": [job.wanted.plain() for job in expansion.jobs],
        "missing": list(expansion.missing),
        "drawn": drawn,
    }
    _write_record(_record_file(results_dir, chosen.name, chosen.scale, overrides), content)


def _write_record(file: Path, content: Mapping[str, Any]) -> None:
    try:
        write_json(file, content)
    except OSError as error:
        notices.warn(f"cannot write {file}: {error.strerror or error}; the next call will plan again")


def note_drawn(results_dir: Path, name: str, scale: str, overrides: Sequence[str]) -> None:
    """Add to a record that the figures and tables are made."""
    file = _record_file(results_dir, name, scale, overrides)
    with suppress(OSError, ValueError):
        _write_record(file, {**documents.read(file), "drawn": True})


def was_drawn(results_dir: Path, name: str, scale: str, overrides: Sequence[str]) -> bool:
    """Whether the figures and tables of an experiment were all made, as its record tells."""
    try:
        content = documents.read(_record_file(results_dir, name, scale, overrides))
    except (OSError, ValueError):
        return False
    return content.get("drawn", True) is True  # the first records do not tell


def finished_record(results_dir: Path, name: str, scale: str, overrides: Sequence[str]) -> tuple[Wanted, ...] | None:
    """What an experiment that is known to be complete consists of, without composing anything; None if it is not known.

    What the yamls do not fix (one's own table or start file) is never taken from a record.
    """
    if any(override.startswith(("dataset=csv", "dataset.", "init.file=")) for override in overrides):
        return None
    file = _record_file(results_dir, name, scale, overrides)
    try:
        content = documents.read(file)
        known, missing = content["key"], content["missing"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    wanted = held.recorded(content)
    if missing or not wanted or known != fingerprint(name, scale, overrides):
        return None
    lacking = held.missing(index.read(runs_folder(results_dir)), wanted)
    return wanted if not any(lacking.values()) else None


# --- figures and tables ---


def stored_runs(results_dir: Path, wanted: Iterable[Wanted]) -> list[Run]:
    """The complete ones among some runs, or those that hold their repetitions instead; what is damaged is left out."""
    return told_apart(run for each in wanted for run in _stored(results_dir, each))


def _stored(results_dir: Path, wanted: Wanted) -> list[Run]:
    try:
        return held.runs_with(results_dir, wanted)
    except StoreError as error:
        notices.leave_out(runs_folder(results_dir) / wanted.run_id, error)
        return []


def draw(chosen: Experiment, runs: Sequence[Run], results_dir: Path, out: Path) -> Iterator[tuple[bool | None, str]]:
    """Make the experiment's figures and tables from its own runs: (made, line) for each; no failure is fatal.

    ``made`` is None where it could not be written, and may be later.
    """
    for name in chosen.figures:
        yield from _guarded(f"figure {name}", lambda name=name: _figure(name, runs, results_dir, out))  # type: ignore[misc]
    for name in chosen.tables:
        yield from _guarded(f"table {name}", lambda name=name: _made_table(name, runs, results_dir, out))  # type: ignore[misc]


def _guarded(what: str, make: Callable[[], Iterable[tuple[bool, str]]]) -> Iterator[tuple[bool | None, str]]:
    lines: list[tuple[bool, str]] = []

    def made() -> None:
        lines.clear()
        for line in make():
            lines.append(line)

    try:
        notices.started_again(made)
        yield from lines
    except OSError as error:
        yield from lines
        yield None, f"{what}: not made ({error.strerror or error})"
    except Exception as error:  # a figure that fails must not take the results of hours with it
        yield from lines
        yield False, f"{what}: not made ({' '.join(str(error).split()) or type(error).__name__})"


def _readable(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if not notices.is_left_out(run.path)]


def _figure(name: str, runs: Sequence[Run], results_dir: Path, out: Path) -> Iterator[tuple[bool, str]]:
    from hpo_bench.figures.common.make import Request, make

    for made in make([name], Request(str(results_dir), _readable(runs), out)):
        if made.files:
            yield True, f"{made.name}: {made.drawn} -> {made.files[0]}"
        else:
            yield False, f"figure {made.name}: not made (no run of this experiment fits)"


def _made_table(name: str, runs: Sequence[Run], results_dir: Path, out: Path) -> Iterator[tuple[bool, str]]:
    from hpo_bench.analysis import tables
    from hpo_bench.analysis.render import FORMATS
    from hpo_bench.store import atomic

    runs, kind = _readable(runs), tables.TABLES.get(name)
    stored = {run.dataset for run in runs}
    datasets = [dataset for dataset in (kind.datasets if kind else ()) if dataset in stored] or sorted(stored)
    made = tables.build(name, results_dir, datasets=datasets, where=_common(runs))
    for suffix, form in (("md", "markdown"), ("tex", "latex")):
        with atomic(out / f"{name}.{suffix}") as temporary:
            temporary.write_text(FORMATS[form](made), encoding="utf-8")
    yield True, f"table {name}: {', '.join(datasets)} -> {out / name}.md, .tex"


def _common(runs: Sequence[Run]) -> dict[str, Any]:
    """Settings that tell this scale's runs from those of another, where all runs share them."""
    keys = ("hyperparameter_updates", "repetitions")
    values = {key: {run.config[key] for run in runs} for key in keys}
    return {key: found.pop() for key, found in values.items() if len(found) == 1}


def gibibytes(count: int) -> str:
    """Bytes for a reader."""
    return f"{count / memory.GIB:.2f} GiB" if count >= memory.GIB / 10 else f"{count / 2**20:.0f} MiB"
