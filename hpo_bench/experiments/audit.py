"""How far a method's hypergradients are from exact ones, over update intervals T and look-back
distances i.

In a cell (T, i ≤ T) a method trains as it does in a run. At one of its hyperparameter updates three
hypergradients are
taken from the very same weight updates: the method's own, the exact one through the last i of them
(reverse mode), and central differences of the loss after those updates are made again with each raw
hyperparameter nudged."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from omegaconf import DictConfig
from torch import Tensor

from hpo_bench.core.estimator import Estimator
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.loop import Problem, train
from hpo_bench.core.optimisers import Optimiser
from hpo_bench.core.recorder import Recorder
from hpo_bench.core.rule import Rule, Step
from hpo_bench.core.table import Table
from hpo_bench.core.update import State
from hpo_bench.errors import StoreError, UserError
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.progress import Reporter, Shown, Silent
from hpo_bench.running.identify import described_data, identify
from hpo_bench.running.provenance import code_version, environment
from hpo_bench.running.trainer import Trainer, pick_device
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.run import Settings
from hpo_bench.store import documents
from hpo_bench.store.files import write_json, write_table

TABLE = "hypergradient_error"
# The row of a cell that compares the hypergradient of all tuned hyperparameters as one vector.
ALL = "all"
COLUMNS = (
    "seed",
    "update_interval",
    "look_back",
    "hyperparameter",
    "approximate",
    "exact",
    "finite_difference",
    "absolute_error",
    "relative_error",
    "cosine",
    "step_approximate",
    "step_exact",
)
SettingsAt = Callable[[int, int], Settings]
Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class AuditGrid:
    """What is compared.

    Args:
        intervals, look_backs: values of T and of i; cells with i > T are left out, the window ends
            there.
        hyper_update: at which hyperparameter update, counted from 1.
    """

    intervals: tuple[int, ...]
    look_backs: tuple[int, ...]
    hyper_update: int = 1

    def rows(self) -> list[tuple[int, tuple[int, ...]]]:
        """The look-back distances of each interval.

        Raises:
            UserError: no cell is left.
        """
        rows = []
        for interval in self.intervals:
            within = tuple(look_back for look_back in self.look_backs if look_back <= interval)
            if within:
                rows.append((interval, within))
        if not rows:
            raise UserError(
                f"--look-backs {min(self.look_backs)}: longer than every interval; "
                f"at most {max(self.intervals)}"
            )
        return rows


@dataclass(frozen=True)
class Audit:
    """A stored audit.

    Args:
        frame: `COLUMNS`, a row per repetition, cell and hyperparameter.
        path: the folder that they are in.
    """

    frame: pd.DataFrame
    path: Path


@dataclass
class Probe(Estimator):
    """What stands in place of a method's estimator.

    It keeps the weight updates and the gradient of the last hyperparameter update.
    """

    estimator: Estimator
    look_back: int
    steps: Sequence[Step] = ()
    gradient: Tensor | None = None

    def __post_init__(self) -> None:
        self.every_update = self.estimator.every_update
        self.second_batch = self.estimator.second_batch
        self.tunes = self.estimator.tunes

    def window(self, update_interval: int) -> int:
        """Enough for the estimator and for the exact hypergradient."""
        return max(self.estimator.window(update_interval), min(self.look_back, update_interval))

    def estimate(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """What the estimator says."""
        self.steps, self.gradient = steps, gradient
        return call(self.estimator, steps, gradient, tuned)


def call(
    estimator: Estimator, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
) -> dict[str, Tensor]:
    """An estimator's hypergradients from more steps than it may want."""
    return estimator.estimate(steps[-estimator.window(len(steps)) :], gradient, tuned)


def cells(
    overrides: Sequence[str], hyper_update: int = 1, config_dir: Path | None = None
) -> SettingsAt:
    """Settings of a cell (T, i) from overrides in Hydra's grammar; in float64 unless they say
    otherwise.

    Raises:
        UserError: an override that fits nothing; a value that is not allowed when a cell is asked
            for.
    """
    composed = compose(["precision=float64", *overrides], config_dir)

    def at(update_interval: int, look_back: int) -> Settings:
        cfg: DictConfig = composed.copy()
        cfg.update_interval, cfg.look_back, cfg.hyperparameter_updates = (
            update_interval,
            look_back,
            hyper_update,
        )
        return parse(cfg)

    return at


def run(
    at: SettingsAt, grid: AuditGrid, *, force: bool = False, reporter: Reporter | None = None
) -> Audit:
    """Make sure that an audit is stored, and read it.

    Raises:
        UserError: the settings do not fit each other, the data or the device, or there is no
        hypergradient. StoreError: the folder cannot be written.
    """
    interval, look_backs = grid.rows()[0]
    settings = at(interval, look_backs[0])
    table, device = settings.source.load(settings.validation_share), pick_device(settings.device)
    path, config_hash = _place(settings, table, grid)
    if force or not _is_stored(path / "audit.json"):
        begin = time.perf_counter()
        frame = hypergradient_error(at, grid, reporter)
        document = {
            "format": documents.FORMAT,
            "status": "complete",
            "config": settings.config,
            "config_hash": config_hash,
            "data": described_data(settings, table),
            "code": code_version(),
            "environment": environment(device, 1),
            "seconds": {"total": time.perf_counter() - begin},
            "seeds": list(settings.seeds),
            "intervals": grid.intervals,
            "look_backs": grid.look_backs,
            "hyper_update": grid.hyper_update,
        }
        try:
            write_table(
                path / f"{TABLE}.parquet", pa.Table.from_pandas(frame, preserve_index=False)
            )
            write_json(path / "audit.json", document)
        except OSError as error:
            raise StoreError(f"cannot write to {path}: {error.strerror or error}") from None
    try:
        return Audit(pd.read_parquet(path / f"{TABLE}.parquet", columns=list(COLUMNS)), path)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path / TABLE}.parquet cannot be read ({error}); --force computes it again"
        ) from None


def _is_stored(file: Path) -> bool:
    """Whether an audit is complete.

    Raises:
        StoreError: its document is damaged, or of a later format.
    """
    try:
        documents.read(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except documents.Newer as error:
        raise StoreError(f"{file} is {error}") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} is damaged ({error}); --force computes it again") from None
    return True


def _place(settings: Settings, table: Table, grid: AuditGrid) -> tuple[Path, str]:
    """Folder of an audit, named by everything that decides its numbers."""
    run_id, config_hash = identify(settings, table)
    decisive = [run_id, grid.intervals, grid.look_backs, grid.hyper_update]
    digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]
    return settings.results_dir / "audits" / f"{run_id.rpartition('-')[0]}-{digest}", config_hash


def hypergradient_error(
    at: SettingsAt, grid: AuditGrid, reporter: Reporter | None = None
) -> pd.DataFrame:
    """Compare in all cells.

    Returns:
        A row per repetition, cell and tuned hyperparameter, and one for `ALL` of them: `COLUMNS`.
        Of a hyperparameter with a value per weight ``approximate``, ``exact`` and the finite
        difference are sums over the weights, the errors norms; steps are the optimiser's first. A
        finite difference is null where the model carries state.
    """
    frames: list[pd.DataFrame] = []
    reporter, rows = reporter or Silent(), grid.rows()
    table, threads = None, torch.get_num_threads()
    try:
        with Shown(reporter, "audit", sum(len(look_backs) for _, look_backs in rows)):
            for interval, look_backs in rows:
                settings = {i: at(interval, i) for i in look_backs}
                table = table or settings[look_backs[0]].source.load(
                    settings[look_backs[0]].validation_share
                )
                frames += _interval(settings, table, grid.hyper_update)
                reporter.advance(len(look_backs))
    finally:
        torch.set_num_threads(threads)
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def _interval(
    settings: Mapping[int, Settings], table: Table, hyper_update: int
) -> Iterator[pd.DataFrame]:
    """The cells of one T; up to the first hyperparameter update their trainings are the same, and
    done once.
    """
    cells = {
        look_back: AuditedCell.of(own, table, look_back) for look_back, own in settings.items()
    }
    largest = cells[max(cells)]
    seeds, shared = (
        largest.trainer.settings.seeds,
        hyper_update == 1 and not largest.estimator.every_update,
    )
    count = largest.trainer.chunk(len(seeds)).rows
    torch.set_num_threads(largest.trainer.threads(count, 1))
    for block in (seeds[at : at + count] for at in range(0, len(seeds), count)):
        moment = largest.train(block) if shared else None
        for cell in cells.values():
            yield _compare(cell, moment or cell.train(block))


@dataclass(frozen=True)
class Moment:
    """A hyperparameter update: the weight updates before it and the gradient of the second loss
    after them.
    """

    seeds: Sequence[int]
    problem: Problem
    rule: Rule
    steps: Sequence[Step]
    gradient: Tensor
    updates: int

    @property
    def raw(self) -> Values:
        """Raw hyperparameters in force."""
        return self.steps[-1].hyperparameters.raw


@dataclass(frozen=True)
class AuditedCell:
    """One (T, i): a method with a probe for its estimator, ready to be trained."""

    trainer: Trainer
    probe: Probe
    estimator: Estimator
    optimiser: Optimiser

    @staticmethod
    def of(settings: Settings, table: Table, look_back: int) -> AuditedCell:
        """Raise `UserError` where nothing is tuned."""
        trainer = Trainer.of(settings, table, pick_device(settings.device))
        estimator, optimiser = trainer.plan.estimator, trainer.plan.optimiser
        if estimator is None or optimiser is None:
            raise UserError(
                f"method={settings.method.name}: tunes nothing, so it has no hypergradient to audit"
            )
        probe = Probe(estimator, look_back)
        return AuditedCell(
            replace(trainer, plan=replace(trainer.plan, estimator=probe)),
            probe,
            estimator,
            optimiser,
        )

    def train(self, seeds: Sequence[int]) -> Moment:
        """Train up to the last hyperparameter update of the plan."""
        problem, start = self.trainer.problem(seeds), self.trainer.start(seeds)
        updates = self.trainer.plan.weight_updates
        train(
            problem,
            self.trainer.plan,
            start,
            Recorder(len(seeds), updates, updates, False, start.weights),
        )
        assert self.probe.gradient is not None
        rule = self.trainer.plan.rule
        return Moment(seeds, problem, rule, self.probe.steps, self.probe.gradient, updates)


@torch.no_grad()
def _compare(cell: AuditedCell, moment: Moment) -> pd.DataFrame:
    """Errors of one cell: `COLUMNS`, a row per repetition and hyperparameter."""
    tuned, look_back = cell.trainer.plan.tuned, cell.probe.look_back
    steps = moment.steps[-look_back:]
    approximate = call(cell.estimator, moment.steps, moment.gradient, tuned)
    exact = Unroll(len(steps)).estimate(steps, moment.gradient, tuned)
    memory = cell.optimiser.init({name: moment.raw[name] for name in tuned})
    taken = [cell.optimiser.update(values, memory)[0] for values in (approximate, exact)]
    rows: list[dict[str, Any]] = [
        {
            "hyperparameter": name,
            "approximate": approximate[name].sum(-1),
            "exact": exact[name].sum(-1),
            "finite_difference": finite_difference(moment, steps, name),
            **errors(approximate[name], exact[name]),
            "step_approximate": taken[0][name].mean(-1),
            "step_exact": taken[1][name].mean(-1),
        }
        for name in tuned
    ]
    joined = (torch.cat([values[name] for name in tuned], -1) for values in (approximate, exact))
    rows.append({"hyperparameter": ALL, **errors(*joined)})
    interval = cell.trainer.plan.update_interval
    place = {"seed": list(moment.seeds), "update_interval": interval, "look_back": look_back}
    return pd.concat(
        [pd.DataFrame({**dict.fromkeys(COLUMNS, np.nan), **place, **_host(row)}) for row in rows]
    )


def _host(row: Mapping[str, Any]) -> dict[str, Any]:
    values = {
        name: value.double().cpu().numpy() if isinstance(value, Tensor) else value
        for name, value in row.items()
    }
    return {name: np.nan if value is None else value for name, value in values.items()}


def errors(approximate: Tensor, exact: Tensor) -> dict[str, Tensor]:
    """|a - e|, |a - e| / |e| and the cosine of the angle (of scalars: whether the signs agree),
    (R,) each.

    Args:
        approximate, exact: (R, n). Equal ones have no error and the same direction, zero or not.
    """
    absolute, length = (torch.linalg.vector_norm(v, dim=-1) for v in (approximate - exact, exact))
    same = absolute == 0
    cosine = torch.nn.functional.cosine_similarity(approximate, exact, dim=-1, eps=0)
    return {
        "absolute_error": absolute,
        "relative_error": torch.where(same, 0, absolute / length),
        "cosine": torch.where(same, 1, cosine),
    }


def finite_difference(moment: Moment, steps: Sequence[Step], name: str) -> Tensor | None:
    """Central difference of the second loss in one raw hyperparameter.

    The weight updates ``steps`` are made again with raw ``name`` nudged up and down.

    Returns:
        (R,), or None for a model that carries state from batch to batch.
    """
    if moment.problem.model.carries_state:
        return None
    nudge = torch.finfo(moment.gradient.dtype).eps ** (1 / 3)
    raw = moment.raw
    up = _loss(moment, steps, {**raw, name: raw[name] + nudge})
    down = _loss(moment, steps, {**raw, name: raw[name] - nudge})
    difference: Tensor = (up - down) / (2 * nudge)
    return difference


def _loss(moment: Moment, steps: Sequence[Step], raw: Values) -> Tensor:
    """Second loss after making ``steps`` again with other hyperparameters."""
    problem, rule = moment.problem, moment.rule
    hyper = Hyperparameters.of(raw, rule.coordinates)
    state = State(steps[0].weights, steps[0].memory)
    first = moment.updates - len(steps)
    for number, step in enumerate(steps, first):
        present = hyper.scheduled(step.hyperparameters.factor)
        linearisation = problem.model.linearise(
            state.weights, problem.training.batch(number), {}, False
        )
        state, _ = rule.advance(state, linearisation, present, problem.gradient_clip_norm)
    assert problem.second is not None
    return problem.model.loss(state.weights, problem.second.batch(moment.updates - 1), {})[0]


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each cell and hyperparameter: mean absolute and median relative error, mean cosine, share
    of equal signs.
    """
    signs = frame.assign(same_sign=frame["cosine"] > 0)
    cell = signs.groupby(["update_interval", "look_back", "hyperparameter"], sort=False)
    return cell.agg(
        absolute_error=("absolute_error", "mean"),
        relative_error=("relative_error", "median"),
        cosine=("cosine", "mean"),
        same_sign=("same_sign", "mean"),
        n=("seed", "size"),
    ).reset_index()


def check_of_exact(frame: pd.DataFrame) -> float:
    """Median relative difference of exact hypergradients from finite differences;

    NaN where there are none.
    """
    both = frame.dropna(subset=["exact", "finite_difference"])
    difference = (both["exact"] - both["finite_difference"]).abs() / both["exact"].abs()
    return float(difference.median())
