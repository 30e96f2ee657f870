"""The training loop: R repetitions of one method, one pass over the weight updates.

repeat K times:  T weight updates;  raw hypergradients from the last of them;  a step of the hyperparameter optimiser
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpo_bench.core.batches import Stream
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.optimisers import Optimiser
from hpo_bench.core.recorder import Recorder
from hpo_bench.core.update import MomentumSGD, Rule, State
from hpo_bench.hypergradients.base import Accumulator, Estimator, accumulator
from hpo_bench.models.base import Batch, Model

MOMENTUM_SGD = MomentumSGD()
RANDOM_LR_BOUNDS = (-10.0, 0.0)  # of log10 lr under a schedule: lr in [1e-10, 1]


@dataclass(frozen=True)
class Problem:
    """What is trained, and on what.

    Args:
        training: stream that trains the weights.
        second: stream whose loss is the validation loss and whose gradient enters the hypergradients; None without one.
        test: the whole test set.
        full_validation: the whole validation set, to be logged instead of the second stream's loss; or None.
    """

    model: Model
    training: Stream
    second: Stream | None
    test: Batch
    full_validation: Batch | None = None
    gradient_clip_norm: float | None = None


@dataclass(frozen=True)
class Plan:
    """How hyperparameters move during the training (`hpo_bench.settings.Method`, with T, K and the clamp).

    Estimator and optimiser are both there or both None; an estimator needs `MomentumSGD`.
    """

    estimator: Estimator | None
    optimiser: Optimiser | None
    tuned: Sequence[str]
    update_interval: int
    weight_updates: int
    clip_log10_lr: tuple[float, float] | None
    reset_weights: bool = False
    rule: Rule = MOMENTUM_SGD

    @property
    def interval(self) -> int:
        """Weight updates between calls of the estimator."""
        return 1 if self.estimator is not None and self.estimator.every_update else self.update_interval

    @property
    def window(self) -> int:
        """Weight updates that a hypergradient differentiates."""
        return 0 if self.estimator is None else self.estimator.window(self.interval)

    @property
    def accumulator(self) -> Accumulator | None:
        """What takes up the window's updates."""
        return None if self.estimator is None else accumulator(self.estimator)

    @property
    def kept(self) -> int:
        """Weight updates whose linearisations are in memory at once, or as much."""
        return 0 if self.accumulator is None else self.accumulator.kept(self.window)


@dataclass(frozen=True)
class Start:
    """Where R repetitions start.

    Args:
        weights: (R, P).
        raw: raw hyperparameters, (R, 1) or (R, P) each.
        log10_multiplier: log10 of what the learning rate is multiplied by every T updates, (R, 1), or None.
    """

    weights: Tensor
    raw: Mapping[str, Tensor]
    log10_multiplier: Tensor | None = None


@dataclass(frozen=True)
class Snapshot:
    """A training between two weight updates, from which it goes on as if it had never stopped.

    Args:
        number: weight updates made.
        state: weights, buffers and what the model carries.
        raw: raw hyperparameters, (R, 1) or (R, P) each.
        memory: of the hyperparameter optimiser, rows first; None without one.
    """

    number: int
    state: State
    raw: Mapping[str, Tensor]
    memory: Any


def beginning(problem: Problem, plan: Plan, start: Start) -> Snapshot:
    """Before the first weight update."""
    state = State(start.weights, plan.rule.init(start.weights), problem.model.initial_carried(len(start.weights)))
    memory = None if plan.optimiser is None else plan.optimiser.init({name: start.raw[name] for name in plan.tuned})
    return Snapshot(0, state, dict(start.raw), memory)


@torch.no_grad()
def train(
    problem: Problem, plan: Plan, start: Start, recorder: Recorder, *, snapshot: Snapshot | None = None,
    until: int | None = None, on_interval: Callable[[Snapshot], None] = lambda snapshot: None,
) -> Snapshot:  # fmt: skip
    """Train; row s of the record holds the state before update s, the last row that after the final update.

    Args:
        snapshot: where to begin: after a whole number of intervals of T (and of the estimator's); None for the start.
        until: number of weight updates after which to stop, likewise whole intervals; None for the end. Row ``until``
            is recorded by whoever goes on from there, or here if it is the end.
        on_interval: called with each snapshot after T weight updates.
    """
    model, total, interval = problem.model, plan.weight_updates, plan.interval
    now = snapshot or beginning(problem, plan, start)
    state, raw, memory = now.state, dict(now.raw), now.memory
    hyper = Hyperparameters.of(raw)
    accumulator, window_size = plan.accumulator, plan.window
    window = None if accumulator is None else accumulator.begin(plan.tuned)
    last = total if until is None else until

    for number in range(now.number, last + (last == total)):
        final = number == total
        batch = problem.training.batch(number)
        due, tunes = recorder.due(number), accumulator is not None and (number + 1) % interval == 0
        second = None
        if problem.second is not None and (due or tunes or model.carries_state):
            second = problem.second.batch(number)
        differentiable = interval - number % interval <= window_size
        linearisation = model.linearise(state.weights, batch, state.carried, differentiable and not final)
        state_after = State(state.weights, state.buffer, linearisation.carried)
        recorder.watch(number, state, linearisation.loss, plan.rule.in_force(state, hyper))
        if second is not None and (model.carries_state or due):
            weights, carried = plan.rule.evaluated(state), state_after.carried
            if due:
                second_loss, carried = model.loss(weights, second, carried)
            else:
                carried = model.carry(weights, second, carried)
            state_after = State(state.weights, state.buffer, carried)
        if due:
            values = {"train_loss": linearisation.loss}
            if second is not None:
                values["validation_loss"] = second_loss
            recorder.record(number, {**values, **_evaluate(problem, plan.rule, state_after, recorder)})
        if final:
            break

        state, step = plan.rule.advance(state_after, linearisation, hyper, problem.gradient_clip_norm)
        if accumulator is not None and differentiable:
            assert step is not None
            window = accumulator.accumulate(window, step)
        if tunes and accumulator is not None and plan.optimiser is not None:
            assert second is not None
            gradient = model.linearise(state.weights, second, state.carried, False)
            state = State(state.weights, state.buffer, gradient.carried)
            hypergradients = accumulator.finish(window, gradient.gradient)
            window = accumulator.begin(plan.tuned)
            changes, memory = plan.optimiser.update(hypergradients, memory)
            moved = move(raw, changes, plan.clip_log10_lr)
            recorder.hyper_update(number // interval, hypergradients, raw, moved)
            raw, hyper = moved, Hyperparameters.of(moved)
            if plan.reset_weights and number + 1 < total:
                state = State(start.weights, state.buffer, state.carried)
        elif (number + 1) % plan.update_interval == 0 and start.log10_multiplier is not None:
            raw = move(raw, {"lr": start.log10_multiplier}, RANDOM_LR_BOUNDS)
            hyper = Hyperparameters.of(raw)
        if (number + 1) % plan.update_interval == 0:
            on_interval(Snapshot(number + 1, state, raw, memory))
    return Snapshot(last, state, raw, memory)


def move(
    raw: Mapping[str, Tensor], changes: Mapping[str, Tensor], bounds: tuple[float, float] | None
) -> dict[str, Tensor]:
    """Add the changes and clamp log10 lr (element by element; NaN stays NaN)."""
    moved = {name: value + changes[name] if name in changes else value for name, value in raw.items()}
    if bounds is not None and "lr" in changes:
        moved["lr"] = moved["lr"].clamp(*bounds)
    return moved


def _evaluate(problem: Problem, rule: Rule, state: State, recorder: Recorder) -> dict[str, Tensor]:
    begin = time.perf_counter()
    weights = rule.evaluated(state)
    loss, metric = problem.model.evaluate(weights, problem.test, state.carried)
    values = {"test_loss": loss, "test_metric": metric}
    if problem.full_validation is not None:
        values["validation_loss"], _ = problem.model.evaluate(weights, problem.full_validation, state.carried)
    recorder.evaluate_seconds += time.perf_counter() - begin
    return values
