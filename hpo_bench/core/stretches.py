"""Weight updates that a model makes in one call: without Python, and its hundred small operations, between them.

Taken up where nothing happens between the updates: plain SGD with momentum on one batch that all repetitions share,
and no hypergradient that looks at them. The other updates of an interval are made one by one.

The numbers are those of `hpo_bench.core.loop.Eager`, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpo_bench.core.batches import Batches, Stream
from hpo_bench.core.loop import Advance, Eager, Snapshot, Training
from hpo_bench.core.recorder import Recorder
from hpo_bench.core.update import MomentumSGD
from hpo_bench.models.base import Batch, FusedUpdates


def of(training: Training, eager: Eager) -> Advance:
    """`Stretches` where the model has them and the training allows it, else ``eager``."""
    problem, plan, model = training.problem, training.plan, training.problem.model
    if not isinstance(model, FusedUpdates) or type(plan.rule) is not MomentumSGD:
        return eager
    batch, second = _only_batch(problem.training), None if problem.second is None else _only_batch(problem.second)
    known = batch is not None and (problem.second is None or second is not None)
    if not known or batch is None or problem.gradient_clip_norm is not None:
        return eager
    if not isinstance(training.recorder, Recorder):
        return eager
    return Stretches(training, eager, model, batch, problem.full_validation or second, training.recorder)


def _only_batch(batches: Batches) -> Batch | None:
    """The batch of a stream of which every batch is the whole set, in its order."""
    return batches.batch(0) if isinstance(batches, Stream) and batches.per_pass == 1 else None


@dataclass(frozen=True)
class Stretches:
    """See the module.

    Args:
        eager: makes the updates that are not plain.
        batch: that every update is made on.
        validation: whose loss is recorded as the validation loss, or None.
        recorder: the training's.
    """

    training: Training
    eager: Eager
    model: FusedUpdates
    batch: Batch
    validation: Batch | None
    recorder: Recorder

    def __call__(self, now: Snapshot, end: int) -> Snapshot:
        """The snapshot after ``end`` weight updates, at most T from now."""
        stop = next((number for number in range(now.number, end) if not self._plain(number)), end)
        if stop > now.number:
            now = self._made(now, stop)
        return now if now.number == end else self.eager(now, end)

    def _plain(self, number: int) -> bool:
        """Whether nobody differentiates weight update ``number``, and nothing but the next one follows it."""
        plan, scheduled = self.training.plan, self.training.start.log10_multiplier is not None
        changes = plan.tunes_after(number) or (scheduled and (number + 1) % plan.update_interval == 0)
        return not changes and not plan.differentiates(number)

    def _made(self, now: Snapshot, stop: int) -> Snapshot:
        hyper, recorder = self.eager.hyperparameters(now.raw), self.recorder
        recorded = [recorder.due(number) for number in range(now.number, stop)]
        found = self.model.updates(now.state, self.batch, hyper, recorded, self.validation, self.training.problem.test)
        finite = found.finite + recorder.see(hyper)
        recorder.take(now.number, finite, recorder.row(found.columns))
        recorder.evaluate_seconds += found.evaluate_seconds
        return Snapshot(stop, found.state, now.raw, now.memory)
