"""How short a method's horizon is: its hypergradients against what happens later.

A method trains as it does in a run. At chosen hyperparameter updates its hypergradient is compared
with the exact derivative of the second loss after the next n weight updates, during which the
hyperparameters are held as they were: by forward differentiation that begins at that moment, for
several n in one pass. Where the two differ in sign, the method moves the hyperparameter the wrong
way for that horizon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hpo_bench.core.loop import Plan, Problem, Snapshot, train
from hpo_bench.core.recorder import Recorder
from hpo_bench.core.table import Table
from hpo_bench.core.update import Phase, State
from hpo_bench.errors import UserError
from hpo_bench.experiments.audit import ALL, AuditedCell, Values, errors, on_host
from hpo_bench.experiments.stored_audit import Asked, Audit, kept
from hpo_bench.progress import Reporter, Shown, Silent
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.run import Settings
from hpo_bench.store.audits import OVER_TIME as TABLE

COLUMNS = (
    "seed",
    "hyper_update",
    "step",
    "horizon",
    "hyperparameter",
    "raw",
    "approximate",
    "exact",
    "absolute_error",
    "relative_error",
    "cosine",
    "validation_loss",
)


@dataclass(frozen=True)
class Outlook:
    """When is looked, and how far ahead.

    Args:
        hyper_updates: after how many times T weight updates, counted from 1; empty for five that
            are spread over the training.
        horizons: numbers n of weight updates.
    """

    hyper_updates: tuple[int, ...] = ()
    horizons: tuple[int, ...] = (1, 10, 100, 1000)

    def of(self, settings: Settings) -> tuple[int, ...]:
        """The hyperparameter updates of a training.

        Raises:
            UserError: the training ends before, or its schedule does before the horizon.
        """
        updates = settings.hyperparameter_updates
        spread = {max(1, round(share * updates)) for share in (0, 0.1, 0.25, 0.5, 0.75)}
        chosen = self.hyper_updates or tuple(sorted(spread))
        last = chosen[-1]
        if last > updates:
            raise UserError(f"--moments {last}: the training has hyperparameter_updates={updates}")
        end = last * settings.update_interval + max(self.horizons)
        if settings.method.schedule is not None and end > settings.weight_updates:
            raise UserError(
                f"--horizons {max(self.horizons)}: the schedule ends after "
                f"{settings.weight_updates} weight updates, this looks at update {end}"
            )
        return chosen


def settings_of(overrides: Sequence[str], config_dir: Path | None = None) -> Settings:
    """Settings from overrides in Hydra's grammar; in float64 unless they say otherwise.

    Raises:
        UserError: an override that fits nothing, or a value that is not allowed.
    """
    return parse(compose(["precision=float64", *overrides], config_dir))


def run(
    settings: Settings,
    moments: Outlook,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
) -> Audit:
    """Make sure that an audit over time is stored, and read it.

    Raises:
        UserError: the settings do not fit each other, the data or the device, or there is no
            hypergradient.
        StoreError: the folder cannot be written.
    """
    hyper_updates = moments.of(settings)
    values = {"moments": hyper_updates, "horizons": moments.horizons}
    asked = Asked(TABLE, COLUMNS, values, [TABLE, *values.values()])
    table = settings.source.load(settings.validation_share)

    def compute() -> pd.DataFrame:
        return over_time(settings, table, moments, reporter)

    return kept(settings, table, asked, compute, force=force)


def over_time(
    settings: Settings, table: Table, moments: Outlook, reporter: Reporter | None = None
) -> pd.DataFrame:
    """Compare at all moments.

    Returns:
        A row per repetition, moment, horizon and tuned hyperparameter, and one for `ALL` of them:
        `COLUMNS`. Of a hyperparameter with a value per weight all numbers are sums over the
        weights, but ``raw`` is their mean. Numbers of a repetition that has diverged until then
        are not finite.
    """
    reporter, threads = reporter or Silent(), torch.get_num_threads()
    hyper_updates = moments.of(settings)
    cell = AuditedCell.of(settings, table, 1)
    frames: list[pd.DataFrame] = []
    try:
        count = len(settings.seeds) * len(hyper_updates)
        with Shown(reporter, "audit", count):
            for block in cell.blocks():
                for frame in _block(cell, block, hyper_updates, moments.horizons):
                    frames.append(frame)
                    reporter.advance(len(block))
    finally:
        torch.set_num_threads(threads)
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


@torch.no_grad()
def _block(
    cell: AuditedCell,
    seeds: Sequence[int],
    hyper_updates: Sequence[int],
    horizons: Sequence[int],
) -> Iterator[pd.DataFrame]:
    """Comparisons of some repetitions, a moment after the other of one training."""
    plan, tuned = cell.trainer.plan, cell.trainer.plan.tuned
    problem, start = cell.trainer.problem(seeds), cell.trainer.start(seeds)
    recorder = Recorder(len(seeds), plan.weight_updates, plan.weight_updates, False, start.weights)
    now: Snapshot | None = None
    for hyper_update in hyper_updates:
        step = hyper_update * plan.update_interval
        now = train(problem, plan, start, recorder, snapshot=now, until=step)
        # What was in force when the hypergradient was taken: it has moved since.
        raw = cell.probe.steps[-1].hyperparameters.raw
        approximate = {name: cell.probe.estimated[name].sum(-1, keepdim=True) for name in tuned}
        frames: list[pd.DataFrame] = []
        for horizon, ahead in looked_ahead(problem, plan, now, raw, horizons):
            place = {
                **dict.fromkeys(COLUMNS, np.nan),
                "seed": list(seeds),
                "hyper_update": hyper_update,
                "step": step,
                "horizon": horizon,
                "validation_loss": ahead.loss,
            }
            rows = _compared(approximate, ahead.derivatives, raw, tuned)
            frames += [pd.DataFrame(on_host({**place, **row})) for row in rows]
        yield pd.concat(frames)


def _compared(
    approximate: Values, exact: Values, raw: Values, tuned: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """A row for each hyperparameter, and one for all of them as a vector."""
    for name in tuned:
        yield {
            "hyperparameter": name,
            "raw": raw[name].mean(-1),
            "approximate": approximate[name].squeeze(-1),
            "exact": exact[name].squeeze(-1),
            **errors(approximate[name], exact[name]),
        }
    joined = (torch.cat([values[name] for name in tuned], -1) for values in (approximate, exact))
    yield {"hyperparameter": ALL, **errors(*joined)}


@dataclass(frozen=True)
class Ahead:
    """What there is after some more weight updates with hyperparameters that stay.

    Args:
        loss: the second loss, (R,).
        derivatives: of it with respect to each raw hyperparameter, (R, 1), held alike in all of
            these updates; of one with a value per weight for a shift of all of them.
    """

    loss: Tensor
    derivatives: Mapping[str, Tensor]


@torch.no_grad()
def looked_ahead(
    problem: Problem, plan: Plan, now: Snapshot, raw: Values, horizons: Sequence[int]
) -> Iterator[tuple[int, Ahead]]:
    """Look ahead from a training, by tangents that begin with zeros and are carried on.

    Costs one Hessian-vector product a weight update for each tuned hyperparameter, and memory that
    does not depend on the horizon.

    Args:
        problem: what is trained, and on what.
        plan: its rule and schedule, and the names of the tuned hyperparameters.
        now: where it begins.
        raw: the hyperparameters, (R, 1) or (R, P) each.
        horizons: numbers of weight updates.

    Yields:
        each horizon, the shortest first, with what there is then.
    """
    assert problem.second is not None
    model, hyper, state = problem.model, plan.hyperparameters(raw), now.state
    tangents: Phase | None = None
    for number in range(now.number, now.number + max(horizons)):
        linearisation = model.linearise(
            state.weights, problem.training.batch(number), state.carried, True
        )
        second, carried = problem.second.batch(number), linearisation.carried
        if model.carries_state:
            carried = model.carry(plan.rule.evaluated(state), second, carried)
        state = State(state.weights, state.buffer, carried)
        present = plan.scheduled(hyper, number)
        state, step = plan.rule.advance(state, linearisation, present, problem.gradient_clip_norm)
        assert step is not None
        tangents = step.push(tangents, plan.tuned)

        horizon = number + 1 - now.number
        if horizon in horizons:
            after = model.linearise(state.weights, second, state.carried, False)
            products = (tangents.weights * after.gradient).sum(-1, keepdim=True)
            yield horizon, Ahead(after.loss, dict(zip(plan.tuned, products, strict=True)))


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each moment, horizon and hyperparameter: share of equal signs, median of how many times
    the exact derivative the method's hypergradient is, and of how many repetitions, those that
    have not diverged.
    """
    finite = np.isfinite(frame["approximate"]) & np.isfinite(frame["exact"])
    alive = frame[finite].copy()
    alive["same_sign"] = np.sign(alive["approximate"]) == np.sign(alive["exact"])
    with np.errstate(divide="ignore", invalid="ignore"):
        alive["size"] = alive["approximate"].abs() / alive["exact"].abs()
    cell = alive.groupby(["hyper_update", "step", "horizon", "hyperparameter"], sort=False)
    shown: pd.DataFrame = cell.agg(
        same_sign=("same_sign", "mean"), size=("size", "median"), n=("seed", "size")
    )
    return shown.reset_index()
