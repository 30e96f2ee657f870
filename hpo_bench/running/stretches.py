"""Weight updates that a model makes in one call: without Python, and its hundred small operations,
between them.

Taken up where nothing happens between the updates: plain SGD with momentum, no schedule of the
learning rate, and no hypergradient that looks at any but the last of them. The other updates of an
interval are made one by one.

The numbers are those of `hpo_bench.core.loop.Eager`, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpo_bench.core.batches import Batches, Stream
from hpo_bench.core.loop import Advance, Eager, Snapshot, Training, tune, tuned
from hpo_bench.core.model import Batch, Following, FusedUpdates
from hpo_bench.core.recorder import Recorder
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.hypergradients.neumann import Neumann, of_products


def of(training: Training, eager: Eager) -> Advance:
    """`Stretches` where the model has them and the training allows it, else ``eager``."""
    problem, plan, model = training.problem, training.plan, training.problem.model
    if not isinstance(model, FusedUpdates) or plan.rule != MomentumSGD():
        return eager
    streams = [problem.training] if problem.second is None else [problem.training, problem.second]
    known = model.fuses_batches or all(map(_has_one_batch, streams))
    if not known or problem.gradient_clip_norm is not None or plan.factors is not None:
        return eager
    if not isinstance(training.recorder, Recorder):
        return eager
    return Stretches(training, eager, model, training.recorder)


def _has_one_batch(batches: Batches) -> bool:
    """Whether every batch of a stream is the whole set, in its order."""
    return isinstance(batches, Stream) and batches.per_pass == 1


@dataclass(frozen=True)
class Stretches:
    """See the module.

    Args:
        eager: makes the updates that are not plain.
        recorder: the training's.
    """

    training: Training
    eager: Eager
    model: FusedUpdates
    recorder: Recorder

    def __call__(self, now: Snapshot, end: int) -> Snapshot:
        """The snapshot after ``end`` weight updates, at most T from now."""
        while now.number < end:
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
        problem, recorder = self.training.problem, self.recorder
        hyper, numbers = self.eager.hyperparameters(now.raw), range(now.number, stop)
        recorded = [recorder.due(number) for number in numbers]
        batches = [problem.training.batch(number) for number in numbers]
        validation = [self._validation(number) for number in numbers if recorder.due(number)]
        losses = [batch for batch in validation if batch is not None]
        following = self._following(stop - 1, len(now.state.weights)) if tunes else None
        found = self.model.updates(
            now.state, batches, hyper, recorded, losses, problem.test, following
        )
        finite = found.finite + recorder.see(hyper)
        recorder.take(now.number, finite, recorder.row(found.columns))
        recorder.evaluate_seconds += found.evaluate_seconds
        after = Snapshot(stop, found.state, now.raw, now.memory)
        if following is None:
            return after
        if found.products is not None:
            return tuned(self.training, after, of_products(found.products), after.state.carried)
        assert found.step is not None
        return tune(self.training, after, (found.step,), following.second)

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
