"""The training loop: R repetitions of one method, one pass over the weight updates.

The paper's Algorithm 1, as `advance` has it:

    repeat K times:
        repeat T times:  observe the losses;  make a weight update;
        estimate the hypergradients from the last of these updates;
        make a step of the hyperparameter optimiser in raw space
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from hpo_bench.core.batches import Batches
from hpo_bench.core.estimator import Estimator
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.model import Batch, Model
from hpo_bench.core.optimisers import Optimiser
from hpo_bench.core.recorder import Record
from hpo_bench.core.rule import Rule
from hpo_bench.core.schedules import Factors
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.core.update import Linearisation, State

# Bounds of log10 lr where a repetition's multiplier moves it: lr stays in [1e-10, 1].
RANDOM_LR_BOUNDS = (-10.0, 0.0)
LONGEST = 256  # weight updates from a pause to the next: between them nothing stops or is saved

Settled = Callable[[Tensor, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Problem:
    """What is trained, and on what.

    Args:
        training: stream that trains the weights.
        second: stream whose loss is the validation loss and whose gradient enters the
            hypergradients; None without one.
        test: the whole test set.
        full_validation: the whole validation set, to be logged instead of the second stream's loss;
            or None.
        settled: makes of a carried state the one that belongs to other weights than the trained
            ones, for rules that evaluate others; None for models that carry nothing that an
            evaluation uses.
    """

    model: Model
    training: Batches
    second: Batches | None
    test: Batch
    full_validation: Batch | None = None
    gradient_clip_norm: float | None = None
    settled: Settled | None = None


@dataclass(frozen=True)
class Plan:
    """How hyperparameters move during the training (`hpo_bench.settings.run.Method`, with T, K and
    the clamp).

    Estimator and optimiser are both there or both None; an estimator needs a rule that is
    differentiable. The learning rate is multiplied by ``factors`` where a schedule gives some.
    """

    estimator: Estimator | None
    optimiser: Optimiser | None
    tuned: Sequence[str]
    update_interval: int
    weight_updates: int
    clip_log10_lr: tuple[float, float] | None
    reset_weights: bool = False
    rule: Rule = field(default_factory=MomentumSGD)
    factors: Factors | None = None

    @property
    def interval(self) -> int:
        """Weight updates between calls of the estimator."""
        return (
            1
            if self.estimator is not None and self.estimator.every_update
            else self.update_interval
        )

    @property
    def window(self) -> int:
        """Weight updates that a hypergradient differentiates."""
        return 0 if self.estimator is None else self.estimator.window(self.interval)

    def differentiates(self, number: int) -> bool:
        """Whether a hypergradient differentiates weight update ``number``, counted from 0."""
        return self.interval - number % self.interval <= self.window

    def tunes_after(self, number: int) -> bool:
        """Whether a hyperparameter update follows weight update ``number``."""
        return self.estimator is not None and (number + 1) % self.interval == 0

    def next_pause(self, number: int) -> int:
        """The next number of weight updates, after ``number``, at which a training may stop and go
        on from there: after T of them, and at least every `LONGEST`.

        No hypergradient that begins anew looks at updates on both sides of it.
        """
        due = number + self.update_interval - number % self.update_interval
        soon = number + LONGEST
        if soon >= due:
            return due
        goes_on = self.estimator is not None and self.estimator.is_carried
        is_between = not self.differentiates(soon - 1) or self.tunes_after(soon - 1)
        return soon if goes_on or is_between else due

    def is_scheduled_after(self, number: int, start: InitialState) -> bool:
        """Whether the learning rate is multiplied after weight update ``number``."""
        return start.log10_multiplier is not None and (number + 1) % self.update_interval == 0

    def resets_after(self, number: int) -> bool:
        """Whether the weights go back to their start after the hyperparameter update that follows
        ``number``.
        """
        return self.reset_weights and number + 1 < self.weight_updates

    def scheduled(self, hyper: Hyperparameters, number: int) -> Hyperparameters:
        """What is in force at weight update ``number``, where ``hyper`` is so without a
        schedule.
        """
        return hyper if self.factors is None else hyper.scheduled(self.factors.at(number))

    @property
    def kept(self) -> int:
        """Weight updates whose linearisations are in memory at once, or as much."""
        return 0 if self.estimator is None else self.estimator.kept(self.window)

    def hyperparameters(self, raw: Mapping[str, Tensor]) -> Hyperparameters:
        """The values in force with these raw ones."""
        return Hyperparameters.of(raw, self.rule.coordinates)


@dataclass(frozen=True)
class InitialState:
    """Where R repetitions start.

    Args:
        weights: (R, P).
        raw: raw hyperparameters, (R, 1) or (R, P) each.
        log10_multiplier: log10 of what the learning rate is multiplied by every T updates, (R, 1),
            or None.
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
        window: of the estimator, where that outlives a hyperparameter update; else None.
    """

    number: int
    state: State
    raw: Mapping[str, Tensor]
    memory: Any
    window: Any = None


def beginning(problem: Problem, plan: Plan, start: InitialState) -> Snapshot:
    """Before the first weight update."""
    weights = start.weights
    carried = problem.model.initial_carried(len(weights))
    state = State(weights, plan.rule.init(weights), carried)
    memory = window = None
    if plan.optimiser is not None:
        memory = plan.optimiser.init({name: start.raw[name] for name in plan.tuned})
    if plan.estimator is not None and plan.estimator.is_carried:
        window = plan.estimator.begin(plan.tuned, state)
    return Snapshot(0, state, dict(start.raw), memory, window)


@dataclass(frozen=True)
class Training:
    """What stays the same during a training."""

    problem: Problem
    plan: Plan
    start: InitialState
    recorder: Record


Advance = Callable[[Snapshot, int], Snapshot]
"""What brings a training to a number of weight updates that is at most T away (`Eager`, or a
replayed graph).
"""


@torch.no_grad()
def train(
    problem: Problem,
    plan: Plan,
    start: InitialState,
    recorder: Record,
    *,
    snapshot: Snapshot | None = None,
    until: int | None = None,
    on_pause: Callable[[Snapshot], None] = lambda snapshot: None,
    engine: Callable[[Training], Advance] | None = None,
) -> Snapshot:
    """Train; row s of the record holds the state before update s, the last row that after the final
    update.

    Args:
        snapshot: where to begin: not among updates that a hypergradient differentiates; None for
            the start.
        until: number of weight updates after which to stop, likewise; None for the end. Row
            ``until`` is recorded by whoever goes on from there, or here if it is the end.
        on_pause: called with a snapshot after T weight updates or fewer (`Plan.next_pause`). What
            it holds may be overwritten by the next updates: whoever keeps it copies it.
        engine: makes what advances the training; `Eager` unless given
            (`hpo_bench.running.graphs.of` replays graphs).
    """
    training = Training(problem, plan, start, recorder)
    last = plan.weight_updates if until is None else until
    now = snapshot or beginning(problem, plan, start)
    advance_to = (engine or Eager)(training)
    while now.number < last:
        pause = plan.next_pause(now.number)
        now = advance_to(now, min(pause, last))
        if now.number == pause:
            on_pause(now)
    if last == plan.weight_updates:
        hyper = plan.scheduled(plan.hyperparameters(now.raw), now.number)
        observe(training, now.number, now.state, hyper, differentiable=False)
    return now


class Eager:
    """Makes weight updates one by one."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self._in_force: tuple[Mapping[str, Tensor], Hyperparameters] | None = None

    def __call__(self, now: Snapshot, end: int) -> Snapshot:
        """The snapshot after ``end`` weight updates, at most T from now."""
        return advance(self.training, now, end, self.hyperparameters(now.raw))

    def hyperparameters(self, raw: Mapping[str, Tensor]) -> Hyperparameters:
        """Natural values, computed once for the raw values that many intervals share."""
        if self._in_force is None or self._in_force[0] is not raw:
            self._in_force = raw, self.training.plan.hyperparameters(raw)
        return self._in_force[1]


def advance(training: Training, now: Snapshot, end: int, hyper: Hyperparameters) -> Snapshot:
    """Make the weight updates ``now.number`` to ``end`` and the hyperparameter updates due.

    All lie within one interval of T.

    Nothing in here waits for the device or depends on a value on it, so that a graph of it can be
    replayed.
    """
    problem, plan = training.problem, training.plan
    estimator, window = plan.estimator, now.window
    if estimator is not None and window is None:
        window = estimator.begin(plan.tuned, now.state)

    for number in range(now.number, end):
        # Only the last updates before a hyperparameter update are linearised to second order: what
        # no hypergradient looks at costs a gradient alone.
        differentiable = plan.differentiates(number)
        present = plan.scheduled(hyper, number)
        state, linearisation, second = observe(
            training, number, now.state, present, differentiable=differentiable
        )

        # The weight update: w' = w - u(λ, w).
        state, step = plan.rule.advance(state, linearisation, present, problem.gradient_clip_norm)
        now = Snapshot(number + 1, state, now.raw, now.memory)
        if estimator is not None and differentiable:
            assert step is not None
            window = estimator.accumulate(window, step, plan.tuned)

        # The hyperparameter update: its gradient is taken at the weights that have just been made.
        if plan.tunes_after(number):
            assert estimator is not None
            assert second is not None
            now = tune(training, now, window, second)
            hyper = plan.hyperparameters(now.raw)
            # Weights that begin anew do not depend on the hyperparameters that there have been.
            if not estimator.is_carried or plan.resets_after(number):
                window = estimator.begin(plan.tuned, now.state)
        elif plan.is_scheduled_after(number, training.start):
            now = scheduled(now, training.start)
            hyper = plan.hyperparameters(now.raw)

    is_carried = estimator is not None and estimator.is_carried
    return replace(now, window=window) if is_carried else now


def scheduled(now: Snapshot, start: InitialState) -> Snapshot:
    """Multiply the learning rate by each repetition's multiplier."""
    assert start.log10_multiplier is not None
    return replace(now, raw=move(now.raw, {"lr": start.log10_multiplier}, RANDOM_LR_BOUNDS))


def tune(training: Training, now: Snapshot, window: Any, second: Batch) -> Snapshot:
    """Make the hyperparameter update that follows weight update ``now.number - 1``.

    Args:
        window: what the estimator took up of the weight updates.
        second: the batch of that number.
    """
    plan, state = training.plan, now.state
    assert plan.estimator is not None
    gradient = training.problem.model.linearise(state.weights, second, state.carried, False)
    hypergradients = plan.estimator.finish(window, gradient.gradient, plan.tuned)
    return tuned(training, now, hypergradients, gradient.carried)


def tuned(
    training: Training,
    now: Snapshot,
    hypergradients: Mapping[str, Tensor],
    carried: Mapping[str, Any],
) -> Snapshot:
    """Make the hyperparameter update that follows weight update ``now.number - 1`` with these
    hypergradients.
    """
    plan, state = training.plan, now.state
    assert plan.optimiser is not None
    changes, memory = plan.optimiser.update(hypergradients, now.memory)
    moved = move(now.raw, changes, plan.clip_log10_lr)
    training.recorder.hyper_update(
        (now.number - 1) // plan.interval, hypergradients, now.raw, moved
    )
    weights = training.start.weights if plan.resets_after(now.number - 1) else state.weights
    return Snapshot(now.number, State(weights, state.buffer, carried), moved, memory)


def observe(
    training: Training, number: int, state: State, hyper: Hyperparameters, *, differentiable: bool
) -> tuple[State, Linearisation, Batch | None]:
    """Look at the training before weight update ``number``: losses, and what they leave in the
    carried state.

    Returns:
        The state with what the forward passes carried on, the linearisation of the training loss
        (to second order where ``differentiable``), and the second batch where one was drawn.
    """
    problem, plan, recorder = training.problem, training.plan, training.recorder
    model, due = problem.model, recorder.due(number)
    second = None
    if problem.second is not None and (due or plan.tunes_after(number) or model.carries_state):
        second = problem.second.batch(number)

    linearisation = model.linearise(
        state.weights, problem.training.batch(number), state.carried, differentiable
    )
    recorder.watch(number, state, linearisation.loss, plan.rule.in_force(state, hyper))
    values, carried = {"train_loss": linearisation.loss}, linearisation.carried
    if second is not None and due:
        values["validation_loss"], carried = model.loss(plan.rule.evaluated(state), second, carried)
    elif second is not None and model.carries_state:
        carried = model.carry(plan.rule.evaluated(state), second, carried)

    state = State(state.weights, state.buffer, carried)
    if due:
        recorder.record(number, {**values, **_evaluate(problem, plan.rule, state, recorder)})
    return state, linearisation, second


def move(
    raw: Mapping[str, Tensor], changes: Mapping[str, Tensor], bounds: tuple[float, float] | None
) -> dict[str, Tensor]:
    """Add the changes and clamp log10 lr (element by element; NaN stays NaN)."""
    moved = {
        name: value + changes[name] if name in changes else value for name, value in raw.items()
    }
    if bounds is not None and "lr" in changes:
        moved["lr"] = moved["lr"].clamp(*bounds)
    return moved


def evaluated(problem: Problem, rule: Rule, state: State) -> tuple[Tensor, Mapping[str, Any]]:
    """The weights (R, P) whose validation and test losses count, and the carried state that belongs
    to them.
    """
    weights = rule.evaluated(state)
    if problem.settled is None or weights is state.weights:
        return weights, state.carried
    return weights, problem.settled(weights, state.carried)


def _evaluate(problem: Problem, rule: Rule, state: State, recorder: Record) -> dict[str, Tensor]:
    begin = time.perf_counter()
    weights, carried = evaluated(problem, rule, state)
    loss, metric = problem.model.evaluate(weights, problem.test, carried)
    values = {"test_loss": loss, "test_metric": metric}
    if problem.full_validation is not None:
        values["validation_loss"], _ = problem.model.evaluate(
            weights, problem.full_validation, carried
        )
    recorder.evaluate_seconds += time.perf_counter() - begin
    return values
