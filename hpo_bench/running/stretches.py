"""Weight updates that a model makes in one call: without Python, and its hundred small operations,
between them.

Taken up where nothing happens between the updates: a rule that the model's kernels know (plain SGD
with momentum, AdamW), no schedule of the learning rate, and no hypergradient that looks at any but
the last of them. Tangents that are carried on travel with the updates of SGD in the same call. The
other updates of an interval are made one by one.

The numbers are those of `hpo_bench.core.loop.Eager`, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpo_bench.core.batches import Batches, Stream
from hpo_bench.core.loop import Advance, Eager, Snapshot, Training, tune, tuned
from hpo_bench.core.model import Batch, Carried, Following, FusedUpdates, Stretch
from hpo_bench.core.recorder import Recorder
from hpo_bench.core.rule import Fusable
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.core.update import Phase
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.neumann import Neumann, of_products


def of(training: Training, eager: Eager) -> Advance:
    """`Stretches` where the model has them and the training allows it, else ``eager``."""
    problem, plan, model = training.problem, training.plan, training.problem.model
    if not isinstance(model, FusedUpdates) or not isinstance(plan.rule, Fusable):
        return eager
    operands = plan.rule.operands(plan.hyperparameters(training.start.raw))
    if operands is None or operands.kernel not in model.kernels:
        return eager
    streams = [problem.training] if problem.second is None else [problem.training, problem.second]
    known = model.fuses_batches or all(map(_has_one_batch, streams))
    if not known or problem.gradient_clip_norm is not None or plan.factors is not None:
        return eager
    if not isinstance(training.recorder, Recorder):
        return eager
    return Stretches(training, eager, model, training.recorder, plan.rule)


def _has_one_batch(batches: Batches) -> bool:
    """Whether every batch of a stream is the whole set, in its order."""
    return isinstance(batches, Stream) and batches.per_pass == 1


@dataclass(frozen=True)
class Stretches:
    """See the module.

    Args:
        eager: makes the updates that are not plain.
        recorder: the training's.
        rule: the training's.
    """

    training: Training
    eager: Eager
    model: FusedUpdates
    recorder: Recorder
    rule: Fusable

    def __call__(self, now: Snapshot, end: int) -> Snapshot:
        """The snapshot after ``end`` weight updates, at most T from now."""
        while now.number < end:
            if self._carries:
                now = self._carried(now, end)
                continue
            stop = next(
                (number for number in range(now.number, end) if not self._plain(number)), end
            )
            if stop < end and self._fuses(stop):
                now = self._made(now, stop + 1, tunes=True)
            elif stop > now.number:
                now = self._made(now, stop, tunes=False)
            else:
                return self.eager(now, end)
        return now

    @property
    def _carries(self) -> bool:
        """Whether tangents of the estimator travel with the updates of a call."""
        plan, start = self.training.plan, self.training.start
        estimator = plan.estimator
        if not isinstance(estimator, Forward) or not estimator.is_carried:
            return False
        one_each = all(start.raw[name].shape[-1] == 1 for name in plan.tuned)
        is_known = self.model.fuses_tangents and self.rule == MomentumSGD()
        is_plain = estimator.cap is None and start.log10_multiplier is None
        return is_known and is_plain and one_each

    def _plain(self, number: int) -> bool:
        """Whether nobody differentiates weight update ``number``, and nothing but the next one
        follows it.
        """
        plan, start = self.training.plan, self.training.start
        changes = plan.tunes_after(number) or plan.is_scheduled_after(number, start)
        return not changes and not plan.differentiates(number)

    def _fuses(self, number: int) -> bool:
        """Whether ``number`` may end a call though it is differentiated."""
        plan = self.training.plan
        estimator = plan.estimator
        is_plain = isinstance(estimator, Neumann) and not estimator.shorten
        return self.model.fuses_steps and is_plain and plan.tunes_after(number)

    def _made(self, now: Snapshot, stop: int, *, tunes: bool) -> Snapshot:
        """The snapshot after ``stop`` updates, and the hyperparameter update after the last of them
        if it ``tunes``.
        """
        following = self._following(stop - 1, len(now.state.weights)) if tunes else None
        after, found = self._found(now, stop, following)
        if following is None:
            return after
        if found.products is not None:
            return tuned(self.training, after, of_products(found.products), after.state.carried)
        assert found.step is not None
        return tune(self.training, after, (found.step,), following.second)

    def _carried(self, now: Snapshot, end: int) -> Snapshot:
        """The snapshot after the next hyperparameter update, or after ``end`` weight updates."""
        plan, problem = self.training.plan, self.training.problem
        estimator = plan.estimator
        assert isinstance(estimator, Forward)
        assert problem.second is not None
        stop = next((n + 1 for n in range(now.number, end) if plan.tunes_after(n)), end)
        before: Phase | None = now.window or estimator.begin(plan.tuned, now.state)
        assert before is not None
        carried = Carried(before, plan.tuned, estimator.discount)
        after, found = self._found(now, stop, carried=carried)
        window = found.tangents
        if plan.tunes_after(stop - 1):
            after = tune(self.training, after, window, problem.second.batch(stop - 1))
            if plan.resets_after(stop - 1):
                window = estimator.begin(plan.tuned, after.state)
        return replace(after, window=window)

    def _found(
        self,
        now: Snapshot,
        stop: int,
        following: Following | None = None,
        carried: Carried | None = None,
    ) -> tuple[Snapshot, Stretch]:
        """The snapshot after ``stop`` updates, whose record is written, and what else they left."""
        problem, recorder = self.training.problem, self.recorder
        hyper, numbers = self.eager.hyperparameters(now.raw), range(now.number, stop)
        recorded = [recorder.due(number) for number in numbers]
        batches = [problem.training.batch(number) for number in numbers]
        validation = [self._validation(number) for number in numbers if recorder.due(number)]
        losses = [batch for batch in validation if batch is not None]
        found = self.model.updates(
            now.state,
            batches,
            hyper,
            recorded,
            losses,
            problem.test,
            following,
            rule=self.rule,
            carried=carried,
        )
        finite = found.finite + recorder.see(hyper)
        recorder.take(now.number, finite, recorder.row(found.columns))
        recorder.evaluate_seconds += found.evaluate_seconds
        return Snapshot(stop, found.state, now.raw, now.memory), found

    def _following(self, number: int, rows: int) -> Following:
        """What the hyperparameter update after weight update ``number`` asks of it."""
        plan, second = self.training.plan, self.training.problem.second
        assert second is not None
        assert isinstance(plan.estimator, Neumann)
        return Following(second.batch(number), plan.estimator.terms(rows), plan.tuned)

    def _validation(self, number: int) -> Batch | None:
        """The batch whose loss is recorded as the validation loss before update ``number``."""
        problem = self.training.problem
        if problem.full_validation is not None or problem.second is None:
            return problem.full_validation
        return problem.second.batch(number)
