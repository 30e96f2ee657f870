"""Intervals of T weight updates as CUDA graphs: captured once, replayed without Python between the
kernels.

A weight update of a small model is some fifty kernels of a few microseconds each, and Python needs
longer to launch them than the GPU to compute them. The program of an interval
(`hpo_bench.core.loop.advance`) waits for nothing and depends on no value, so the first interval of
its kind runs as it is, the second is captured, and all later ones are
replays: the state stays at fixed addresses, and only the places of the batches' rows are written
anew.

The numbers are those of `hpo_bench.core.loop.Eager`, bit by bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from hpo_bench.core import tree
from hpo_bench.core.batches import Batches, Stream
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.loop import LONGEST, Advance, Eager, Snapshot, Training, advance
from hpo_bench.core.model import Batch
from hpo_bench.core.recorder import Recorder
from hpo_bench.core.schedules import Factors
from hpo_bench.core.update import State
from hpo_bench.running import memory, stretches

# In one graph, which spans no pause; the driver takes a millisecond to prepare a hundred kernels.
MOST_UPDATES = LONGEST
MOST_GRAPHS = 12  # intervals of rarer kinds run as they are

Kind = tuple[object, ...]


def of(training: Training) -> Advance:
    """How to make a training's weight updates: by graphs on a CUDA device, else as many at once as
    the model can.
    """
    eager = Eager(training)
    if training.start.weights.device.type != "cuda":
        return stretches.of(training, eager)
    return Graphs(training, eager, CudaGraph)


@dataclass(frozen=True)
class Written:
    """What one interval writes down, at addresses that a replay fills again.

    Args:
        finite: `Recorder.finite` of each weight update, (T, R).
        columns: the rows of the curves that are due, (rows, R) by column.
        hyper_rows: `Recorder.hyper_row` of each hyperparameter update, (updates, 2, R) by
            hyperparameter.
    """

    finite: Tensor
    columns: Mapping[str, Tensor]
    hyper_rows: Mapping[str, Tensor]


class Graph(Protocol):
    """A program that was captured."""

    def capture(self, program: Callable[[], Written], carried: Sequence[Tensor]) -> Written:
        """Take up ``program``, which ends by overwriting ``carried``, without any effect on
        these.
        """
        ...

    def replay(self) -> None:
        """Run it again on what is now at the addresses that it reads; results come where `capture`
        put them.
        """
        ...


class CudaGraph:
    """A graph of the CUDA driver."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, program: Callable[[], Written], carried: Sequence[Tensor]) -> Written:
        """See `Graph.capture`; the program's kernels are noted and not run."""
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            return program()

    def replay(self) -> None:
        """Launch the captured kernels."""
        self._graph.replay()


class Tape:
    """The record of one interval, kept as it comes and stacked at the end, to be copied with few
    launches.

    Args:
        recorder: knows which steps are due, and how rows are made.
    """

    evaluate_seconds = 0.0

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._finite: list[Tensor] = []
        self._rows: list[Mapping[str, Tensor]] = []
        self._hyper_rows: list[Mapping[str, Tensor]] = []

    def due(self, step: int) -> bool:
        """As the recorder says."""
        return self._recorder.due(step)

    def watch(
        self, step: int, state: State, loss: Tensor, hyperparameters: Hyperparameters
    ) -> None:
        """Keep whether all is finite."""
        self._finite.append(self._recorder.finite(state, loss, hyperparameters))

    def record(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Keep a row of the curves."""
        self._rows.append(self._recorder.row(values))

    def hyper_update(
        self,
        index: int,
        hypergradients: Mapping[str, Tensor],
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor],
    ) -> None:
        """Keep a hyperparameter update."""
        self._hyper_rows.append(self._recorder.hyper_row(hypergradients, before, after))

    def written(self) -> Written:
        """All that the interval wrote down."""
        return Written(torch.stack(self._finite), _stacked(self._rows), _stacked(self._hyper_rows))


def _stacked(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The rows' values by name, along a new first axis."""
    names = rows[0] if rows else ()
    return {name: torch.stack([row[name] for row in rows]) for name in names}


@dataclass
class FixedBatches:
    """Batches of one interval at fixed addresses, written anew for each replay.

    Of a shuffled stream the places of the rows are written, and the program gathers them; of one in
    the order of the rows the batches themselves; a whole set that is every batch stays as it is.

    Args:
        stream: where they come from.
        first: number of the interval's first weight update when it was captured.
        places: (R, B) by weight update within the interval.
        batches: likewise.
    """

    stream: Stream
    first: int
    places: dict[int, Tensor] = field(default_factory=dict)
    batches: dict[int, Batch] = field(default_factory=dict)

    def batch(self, number: int) -> Batch:
        """Batch for weight update ``number`` of the interval that is captured."""
        stream, index = self.stream, number - self.first
        if stream.shuffled:
            return stream.gathered(self.places[index], first=number % stream.per_pass == 0)
        return self.batches.get(index) or stream.batch(number)

    def point_at(self, first: int, count: int) -> None:
        """Write what the interval that begins with weight update ``first`` needs."""
        if self.stream.per_pass == 1:
            return
        for index in range(count):
            if self.stream.shuffled:
                self._write_places(index, self.stream.places(first + index))
            else:
                self._write_batch(index, self.stream.batch(first + index))

    def _write_places(self, index: int, places: Tensor) -> None:
        if index not in self.places:
            self.places[index] = torch.empty(places.shape, dtype=places.dtype, device=places.device)
        self.places[index].copy_(places)

    def _write_batch(self, index: int, batch: Batch) -> None:
        if index not in self.batches:
            inputs, targets = torch.empty_like(batch.inputs), torch.empty_like(batch.targets)
            self.batches[index] = replace(batch, inputs=inputs, targets=targets)
        self.batches[index].inputs.copy_(batch.inputs)
        self.batches[index].targets.copy_(batch.targets)


@dataclass(frozen=True)
class FixedFactors:
    """Factors of a schedule for one interval at a fixed address, written anew for each replay.

    Args:
        whole: those of the training.
        own: those of the interval.
    """

    whole: Factors
    own: Factors

    @staticmethod
    def of(whole: Factors, first: int, count: int) -> FixedFactors:
        """For intervals of ``count`` weight updates, the captured one beginning with ``first``."""
        return FixedFactors(whole, Factors(torch.empty_like(whole.values[:count]), first))

    def point_at(self, first: int, count: int) -> None:
        """Write what the interval that begins with weight update ``first`` needs."""
        begin = first - self.whole.first
        self.own.values.copy_(self.whole.values[begin : begin + count])


@dataclass(frozen=True)
class CapturedProgram:
    """One interval that was captured, and where it writes."""

    graph: Graph
    written: Written
    inputs: tuple[FixedBatches | FixedFactors, ...]


class Graphs:
    """Makes a training's weight updates by replays of captured intervals.

    Args:
        training: what is trained.
        eager: makes the first interval of each kind, and those that are no whole intervals.
        new_graph: makes an empty `Graph`.
    """

    def __init__(self, training: Training, eager: Advance, new_graph: Callable[[], Graph]) -> None:
        self.training, self._eager, self._new_graph = training, eager, new_graph
        self._programs: dict[Kind, CapturedProgram] = {}
        self._seen: set[Kind] = set()
        self._carried: Snapshot | None = None
        self._usable = _can_be_captured(training)

    def __call__(self, now: Snapshot, end: int) -> Snapshot:
        """The snapshot after ``end`` weight updates, at most T from now; the next call overwrites
        what it holds.
        """
        kind = self._kind(now.number, end)
        whole = end - now.number == self.training.plan.update_interval
        if kind not in self._programs and self._usable and whole and kind in self._seen:
            self._add(kind, now, end)
        program = self._programs.get(kind)
        if program is None:
            self._seen.add(kind)
            return self._eager(now, end)
        return self._replayed(program, now, end)

    def _kind(self, first: int, end: int) -> Kind:
        """Equal for intervals that are the same program."""
        training = self.training
        numbers = range(first, end)
        streams = (training.problem.training, training.problem.second)
        batches = [
            stream.kind(n) for stream in streams if isinstance(stream, Stream) for n in numbers
        ]
        due = [training.recorder.due(n) for n in numbers]
        resets = [training.plan.resets_after(n) for n in numbers]
        return (len(numbers), *batches, *due, *resets)

    def _add(self, kind: Kind, now: Snapshot, end: int) -> None:
        """Capture an interval, unless there are enough; one that cannot be is said once and made
        one by one.
        """
        if len(self._programs) >= MOST_GRAPHS:
            return
        try:
            self._programs[kind] = self._captured(now, end)
        except RuntimeError as error:
            if memory.is_exhausted(error):
                raise
            self._usable = False
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"going on without CUDA graphs, which this model does not allow: {reason}",
                stacklevel=2,
            )

    def _captured(self, now: Snapshot, end: int) -> CapturedProgram:
        training = self.training
        if self._carried is None:
            self._carried = tree.change(now, _copied)
        carried = self._carried
        count = end - now.number
        recorder = training.recorder
        assert isinstance(recorder, Recorder)
        first, second = (
            _fixed(training.problem.training, now.number),
            _fixed(training.problem.second, now.number),
        )
        whole = training.plan.factors
        scheduled = None if whole is None else FixedFactors.of(whole, now.number, count)
        inputs = tuple(part for part in (first, second, scheduled) if part is not None)
        for part in inputs:
            part.point_at(now.number, count)
        assert first is not None
        problem = replace(training.problem, training=first, second=second)
        plan = replace(training.plan, factors=None if scheduled is None else scheduled.own)

        def program() -> Written:
            tape, before = Tape(recorder), replace(carried, number=now.number)
            fixed = replace(training, problem=problem, plan=plan, recorder=tape)
            after = advance(fixed, before, end, plan.hyperparameters(before.raw))
            written = tape.written()
            _overwrite(carried, after)
            return written

        graph = self._new_graph()
        written = graph.capture(
            program, [leaf for leaf in tree.leaves(carried) if isinstance(leaf, Tensor)]
        )
        return CapturedProgram(graph, written, inputs)

    def _replayed(self, program: CapturedProgram, now: Snapshot, end: int) -> Snapshot:
        recorder, carried, written = self.training.recorder, self._carried, program.written
        assert isinstance(recorder, Recorder)
        assert carried is not None
        _overwrite(carried, now)
        for part in program.inputs:
            part.point_at(now.number, end - now.number)
        program.graph.replay()

        recorder.take(now.number, written.finite, written.columns)
        recorder.take_hyper(now.number // self.training.plan.interval, written.hyper_rows)
        return replace(carried, number=end)


def _can_be_captured(training: Training) -> bool:
    """Whether intervals are short enough, and their streams such as have fixed places."""
    streams = (training.problem.training, training.problem.second)
    known = all(stream is None or isinstance(stream, Stream) for stream in streams)
    return (
        known
        and training.plan.update_interval <= MOST_UPDATES
        and isinstance(training.recorder, Recorder)
    )


def _fixed(stream: Batches | None, first: int) -> FixedBatches | None:
    return FixedBatches(stream, first) if isinstance(stream, Stream) else None


def _copied(leaf: object) -> object:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _overwrite(target: Snapshot, source: Snapshot) -> None:
    """Copy the tensors of one snapshot into those of another, but those that are the same
    already.
    """
    for to, value in zip(tree.leaves(target), tree.leaves(source), strict=True):
        if isinstance(to, Tensor) and to is not value:
            to.copy_(value)
