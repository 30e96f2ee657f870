"""How far a method's hypergradients are from exact ones, over update intervals T, look-back
distances i and discounts γ.

In a cell a method trains as it does in a run, by whatever differentiable weight update it has. At
one of its hyperparameter updates three hypergradients are taken from the very same weight updates:
the method's own, the exact one through the last i of them (reverse mode), and central differences
of the loss after those updates are made again with each raw hyperparameter nudged.

Windows of the paper's methods end with the interval: i ≤ T. What a method carries on from interval
to interval (`hpo_bench.hypergradients.forward.Forward` with a discount) is compared with the exact
hypergradient through any number of the updates that there have been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
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
from hpo_bench.errors import UserError
from hpo_bench.experiments.stored_audit import Asked, Audit, kept
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.progress import Reporter, Shown, Silent
from hpo_bench.running.trainer import Trainer, pick_device
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.run import Settings

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
        intervals, look_backs: values of T and of i.
        hyper_update: at which hyperparameter update, counted from 1.
        discounts: values of γ; empty for the method's own, or none.
    """

    intervals: tuple[int, ...]
    look_backs: tuple[int, ...]
    hyper_update: int = 1
    discounts: tuple[float, ...] = ()

    def rows(self, *, is_carried: bool = False) -> list[tuple[int, tuple[int, ...]]]:
        """The look-back distances of each interval: those within it, the window ends there.

        Args:
            is_carried: whether the method's memory reaches back to the start of the training, so
                that longer ones can be compared, too.

        Raises:
            UserError: no cell is left.
        """
        intervals = self.hyper_update if is_carried else 1
        rows = []
        for interval in self.intervals:
            longest = interval * intervals
            within = tuple(look_back for look_back in self.look_backs if look_back <= longest)
            if within:
                rows.append((interval, within))
        if not rows:
            what = "training until then" if is_carried else "interval"
            raise UserError(
                f"--look-backs {min(self.look_backs)}: longer than every {what}; "
                f"at most {max(self.intervals) * intervals}"
            )
        return rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the table: `COLUMNS`, with the discount where there are some."""
        return (*COLUMNS, "discount") if self.discounts else COLUMNS

    @property
    def asked(self) -> Asked:
        """The same, as it is stored. Without discounts, the ids of earlier audits stay."""
        values = {
            "intervals": self.intervals,
            "look_backs": self.look_backs,
            "hyper_update": self.hyper_update,
        }
        if self.discounts:
            values = {**values, "discounts": self.discounts}
        return Asked(TABLE, self.columns, values, list(values.values()))


@dataclass
class Probe(Estimator):
    """What stands in place of a method's estimator.

    It keeps what there was at the last hyperparameter update.

    Args:
        estimator: the method's own.
        look_back: how many weight updates are to be kept, at least.
        steps: the last weight updates, oldest first.
        gradient: of the second loss after them, (R, P).
        estimated: the estimator's hypergradients.
    """

    estimator: Estimator
    look_back: int
    steps: Sequence[Step] = ()
    gradient: Tensor | None = None
    estimated: Values = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.every_update = self.estimator.every_update
        self.second_batch = self.estimator.second_batch
        self.tunes = self.estimator.tunes

    @property
    def is_carried(self) -> bool:
        """Whether updates are kept beyond a hyperparameter update."""
        return self.estimator.is_carried or self.every_update

    def window(self, update_interval: int) -> int:
        """Enough for the estimator and for the exact hypergradient."""
        own = self.estimator.window(update_interval)
        return max(own, min(self.look_back, update_interval))

    def kept(self, window: int) -> int:
        """The updates that are kept, and what the estimator keeps of its own."""
        if not self.is_carried:
            return window
        return self.look_back + self.estimator.kept(window)

    def begin(self, tuned: Sequence[str], state: State) -> tuple[Any, tuple[Step, ...]]:
        """The estimator's memory, and no updates."""
        own = self.estimator.begin(tuned, state) if self.estimator.is_carried else None
        return own, ()

    def accumulate(
        self, memory: tuple[Any, tuple[Step, ...]], step: Step, tuned: Sequence[str]
    ) -> tuple[Any, tuple[Step, ...]]:
        """Both after one more weight update."""
        own, steps = memory
        if self.estimator.is_carried:
            own = self.estimator.accumulate(own, step, tuned)
        steps = (*steps, step)
        return own, steps[-self.look_back :] if self.is_carried else steps

    def finish(
        self, memory: tuple[Any, tuple[Step, ...]], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """What the estimator says."""
        own, steps = memory
        if self.estimator.is_carried:
            found = self.estimator.finish(own, gradient, tuned)
        else:
            found = self.estimate(steps, gradient, tuned)
        self.steps, self.gradient, self.estimated = steps, gradient, found
        return found

    def estimate(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """What an estimator without a memory of its own says."""
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
            hypergradient.
        StoreError: the folder cannot be written.
    """
    interval, look_backs = _rows(at, grid)[0]
    settings = at(interval, look_backs[0])
    table = settings.source.load(settings.validation_share)

    def compute() -> pd.DataFrame:
        return hypergradient_error(at, grid, reporter)

    return kept(settings, table, grid.asked, compute, force=force)


def _rows(at: SettingsAt, grid: AuditGrid) -> list[tuple[int, tuple[int, ...]]]:
    """The cells of a grid, as far as the method's memory reaches."""
    estimator = at(grid.intervals[0], 1).method.estimator
    return grid.rows(is_carried=estimator is not None and estimator.is_carried)


def discounted(settings: Settings, discount: float) -> Settings:
    """The same method with another discount.

    Raises:
        UserError: it has none, or cannot have this one.
    """
    method = settings.method
    if not hasattr(method.estimator, "discount"):
        raise UserError(
            f"--discounts: method={method.name} has no discount; ours_discounted and rtho have one"
        )
    estimator = replace(cast("Any", method.estimator), discount=discount)
    return replace(settings, method=replace(method, estimator=estimator))


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
    reporter, rows = reporter or Silent(), _rows(at, grid)
    discounts: tuple[float | None, ...] = grid.discounts or (None,)
    table, threads = None, torch.get_num_threads()
    count = len(discounts) * sum(len(look_backs) for _, look_backs in rows)
    try:
        with Shown(reporter, "audit", count):
            for interval, look_backs in rows:
                settings = {look_back: at(interval, look_back) for look_back in look_backs}
                first = settings[look_backs[0]]
                table = table or first.source.load(first.validation_share)
                for discount in discounts:
                    cells = settings
                    if discount is not None:
                        cells = {i: discounted(own, discount) for i, own in settings.items()}
                    found = _interval(cells, table, grid.hyper_update)
                    frames += [frame.assign(discount=discount) for frame in found]
                    reporter.advance(len(look_backs))
    finally:
        torch.set_num_threads(threads)
    return pd.concat(frames, ignore_index=True)[list(grid.columns)]


def _interval(
    settings: Mapping[int, Settings], table: Table, hyper_update: int
) -> Iterator[pd.DataFrame]:
    """The cells of one T. Where their trainings are the same they are made once."""
    cells = {
        look_back: AuditedCell.of(own, table, look_back) for look_back, own in settings.items()
    }
    largest = cells[max(cells)]
    shared = largest.shares_its_training(list(cells.values()), hyper_update)
    for block in largest.blocks():
        moment = largest.train(block) if shared else None
        for cell in cells.values():
            yield _compare(cell, moment or cell.train(block))


@dataclass(frozen=True)
class Moment:
    """A hyperparameter update.

    Args:
        seeds: of the repetitions.
        problem: what they are trained on.
        rule: by which.
        steps: the weight updates before it, oldest first.
        gradient: of the second loss after them, (R, P).
        estimated: the method's own hypergradients.
        updates: how many weight updates there have been.
    """

    seeds: Sequence[int]
    problem: Problem
    rule: Rule
    steps: Sequence[Step]
    gradient: Tensor
    estimated: Values
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

    def shares_its_training(self, cells: Sequence[AuditedCell], hyper_update: int) -> bool:
        """Whether cells that differ in i alone are trained alike until the hyperparameter update.

        Nothing was tuned before the first, by an estimator that says what it says of the kept
        updates; and what does not depend on i tunes them all alike.
        """
        if all(cell.estimator == self.estimator for cell in cells):
            return True
        return hyper_update == 1 and not self.probe.is_carried

    def blocks(self) -> Iterator[Sequence[int]]:
        """Seeds of the repetitions that are trained at once, with as many threads as they need."""
        seeds = self.trainer.settings.seeds
        count = self.trainer.chunk(len(seeds)).rows
        torch.set_num_threads(self.trainer.threads(count, 1))
        for begin in range(0, len(seeds), count):
            yield seeds[begin : begin + count]

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
        return Moment(
            seeds,
            problem,
            self.trainer.plan.rule,
            self.probe.steps,
            self.probe.gradient,
            self.probe.estimated,
            updates,
        )


@torch.no_grad()
def _compare(cell: AuditedCell, moment: Moment) -> pd.DataFrame:
    """Errors of one cell: `COLUMNS`, a row per repetition and hyperparameter."""
    tuned, look_back = cell.trainer.plan.tuned, cell.probe.look_back
    steps = moment.steps[-look_back:]
    approximate = moment.estimated
    if not cell.probe.is_carried:
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
        [pd.DataFrame({**dict.fromkeys(COLUMNS, np.nan), **place, **on_host(row)}) for row in rows]
    )


def on_host(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of some rows as NumPy has them; NaN for None."""
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

    The weight updates ``steps`` are made again with raw ``name`` nudged up and down, in all of them
    alike.

    Returns:
        (R,), or None for a model that carries state from batch to batch.
    """
    if moment.problem.model.carries_state:
        return None
    nudge = torch.finfo(moment.gradient.dtype).eps ** (1 / 3)
    up, down = (_loss(moment, steps, name, change) for change in (nudge, -nudge))
    difference: Tensor = (up - down) / (2 * nudge)
    return difference


def _loss(moment: Moment, steps: Sequence[Step], name: str, change: float) -> Tensor:
    """Second loss after making ``steps`` again with raw ``name`` changed in each of them."""
    problem, rule = moment.problem, moment.rule
    state = State(steps[0].weights, steps[0].memory)
    first = moment.updates - len(steps)
    for number, step in enumerate(steps, first):
        raw = step.hyperparameters.raw
        changed = Hyperparameters.of({**raw, name: raw[name] + change}, rule.coordinates)
        present = changed.scheduled(step.hyperparameters.factor)
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
    names = [name for name in ("discount", "update_interval", "look_back") if name in frame]
    cell = signs.groupby([*names, "hyperparameter"], sort=False)
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
