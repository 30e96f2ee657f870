"""What trains the repetitions of one run, block by block, on one device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from hpo_bench.core import batch_of_one
from hpo_bench.core.batches import Rows, Stream
from hpo_bench.core.estimator import Costs, Estimator
from hpo_bench.core.loop import (
    InitialState,
    Plan,
    Problem,
    Settled,
    Snapshot,
    beginning,
    train,
)
from hpo_bench.core.model import Model, Settles
from hpo_bench.core.recorder import QUANTILES, Recorder, recorded_steps
from hpo_bench.core.schedules import Factors, factors
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.core.table import Table
from hpo_bench.datasets.preparation import check_table
from hpo_bench.errors import Stopped, UserError
from hpo_bench.running import graphs, memory, starts
from hpo_bench.running.checkpoint import Checkpoint, Checkpoints
from hpo_bench.running.inputs import inputs_on
from hpo_bench.running.tables import curves_table, final_table, hypergradients_table
from hpo_bench.settings.run import Settings
from hpo_bench.store.runs import CURVE_COLUMNS
from hpo_bench.store.writer import Block

# Columns that are made for the table of the curves alone, and their size a row.
TABLE_COLUMNS = ("seed", "step", "elapsed_s")
TABLE_BYTES = 20
# Of P numbers, for a hyperparameter with one value per weight and its optimiser.
PER_WEIGHT_VECTORS = 16
# Of the training rows at most, on which statistics are estimated for weights of their own.
SETTLING_BATCHES = 50
MANY_THREADS_BYTES = 64 << 20  # activations of a block from which one block is worth all cores


@dataclass(frozen=True)
class Trainer:
    """One run's dataset, model and plan, ready to train any of its repetitions.

    Args:
        estimator_reason: why its estimator was chosen; None where there was no choice.
        checkpoints: where blocks leave theirs, or None.
    """

    settings: Settings
    table: Table
    model: Model
    plan: Plan
    rows: Mapping[str, Rows]
    dtype: torch.dtype
    device: torch.device
    estimator_reason: str | None = None
    checkpoints: Checkpoints | None = None

    @staticmethod
    def of(settings: Settings, table: Table, device: torch.device) -> Trainer:
        """Check what needs the data or the estimator, and move the data to the device.

        Raises:
            UserError: a combination that cannot work.
        """
        check_table(table, settings.precision)
        dtype = getattr(torch, settings.precision)
        method = settings.method
        if method.search is not None:
            method.search.check(settings)
        if method.estimator is not None:
            allowed = method.estimator.tunes or method.hyperparameters
            wrong = [name for name in method.tuned if name not in allowed]
            if wrong:
                raise UserError(
                    f"tuned={list(method.tuned)}: method={method.name} cannot tune {wrong[0]}; "
                    f"allowed: {', '.join(allowed)}"
                )
        model, rows = settings.model.build(table, dtype, device), _rows(table, dtype, device)
        estimator, reason = _chosen(settings, model, len(rows[method.data_for_weights]))
        plan = Plan(
            estimator,
            method.optimiser,
            method.tuned,
            settings.update_interval,
            settings.weight_updates,
            settings.clip_log10_lr,
            method.reset_weights,
            method.rule or MomentumSGD(),
            _factors(settings, torch.empty(0, dtype=dtype, device=device)),
        )
        trainer = Trainer(settings, table, model, plan, rows, dtype, device, reason)
        trainer.check_batches()
        return trainer

    def check_batches(self) -> None:
        """Refuse what would leave a batch of one row, or minibatches, to a model that cannot take
        it.

        Raises:
            UserError: names a batch size that works, or what is in the way.
        """
        second, evaluated = self._second(), ["test"]
        streams = {"training": self._training}
        if second is not None:
            streams[second[1]] = second[0]
        if self.settings.method.full_validation or self.settings.method.search is not None:
            evaluated.append("validation")
        batch_of_one.check(self.model, streams, self.settings.batch_size)
        check_minibatches = getattr(self.model, "check_minibatches", None)
        if check_minibatches is not None and self.settings.batch_size is not None:
            check_minibatches()
        for name in evaluated:
            batch_of_one.check_evaluated(self.model, self.rows[name], name)

    @property
    def _training(self) -> Rows:
        return self.rows[self.settings.method.data_for_weights]

    def _second(self) -> tuple[Rows, str] | None:
        """Rows and stream name of the second batches: see
        `hpo_bench.core.estimator.Estimator.second_batch`.
        """
        method = self.settings.method
        split = method.data_for_weights == "train"
        if method.full_validation:
            return None
        if method.estimator is None:
            return (self.rows["validation"], "validation") if split else None
        if method.estimator.second_batch == "validation" or split:
            return self.rows["validation"], "validation"
        return replace(
            self._training, split="validation"
        ), "second"  # with carried states of its own

    def problem(self, seeds: Sequence[int]) -> Problem:
        """Streams of some repetitions."""
        settings = self.settings

        def stream(rows: Rows, name: str) -> Stream:
            return Stream(
                rows,
                self.model,
                settings.batch_size,
                shuffled=settings.data_order == "shuffled",
                dataset=settings.dataset,
                name=name,
                seeds=seeds,
            )

        second = self._second()
        return Problem(
            self.model,
            stream(self._training, "training"),
            stream(*second) if second is not None else None,
            self.rows["test"].batch(self.model),
            self.rows["validation"].batch(self.model) if settings.method.full_validation else None,
            settings.gradient_clip_norm,
            self._settled(),
        )

    def _settled(self) -> Settled | None:
        """How statistics are estimated for weights other than the trained ones: on some batches of
        the training rows.

        They are the same batches for all repetitions and at every step, so that nothing depends on
        a stream."""
        model, rows = self.model, self._training
        if (
            self.settings.method.rule is None
            or not isinstance(model, Settles)
            or not model.carries_state
        ):
            return None
        size = self._batch_rows()
        batches = [
            model.batch(
                rows.inputs[at : at + size],
                rows.targets[at : at + size],
                shared=True,
                split="training",
            )
            for at in range(0, min(len(rows) - size + 1, SETTLING_BATCHES * size), size)
        ]

        def settled(weights: torch.Tensor, carried: Mapping[str, Any]) -> Mapping[str, Any]:
            return model.settled(weights, batches, carried)

        return settled

    def start(self, seeds: Sequence[int]) -> InitialState:
        """Initial weights and hyperparameters of some repetitions."""
        settings, coordinates = self.settings, self.plan.rule.coordinates
        file = settings.start.file
        if file is not None:
            rows = [seed - settings.seed for seed in seeds]
            values = starts.read(file, rows, self.model, coordinates)
        else:
            values = starts.draw(seeds, settings.dataset, self.model, settings.start, coordinates)
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return starts.to_device(values, settings.method, coordinates, like)

    def _batch_rows(self) -> int:
        return min(self.settings.batch_size or len(self._training), len(self._training))

    def chunk(self, repetitions: int) -> memory.Chunk:
        """How many of ``repetitions`` to compute at once."""
        search = self.settings.method.search
        return (
            self.rows_at_once(repetitions)
            if search is None
            else chunk_of(search, self, repetitions)
        )

    def rows_at_once(self, repetitions: int) -> memory.Chunk:
        """How many of ``repetitions`` trainings to make at once."""
        settings, working_set = self.settings, self.model.working_set(self._batch_rows())
        return memory.choose(
            repetitions, self.need(), working_set, self.device, settings.chunk, settings.workers
        )

    def need(self) -> int:
        """Bytes that one repetition needs: linearisations, evaluation, and the record with the
        table made of it.
        """
        columns = (
            len(CURVE_COLUMNS)
            - len(TABLE_COLUMNS)
            + (len(QUANTILES) if self.settings.method.per_weight else 0)
        )
        steps = len(recorded_steps(self.settings.weight_updates, self.settings.record_every))
        record = (
            steps * (2 * columns * self.dtype.itemsize + TABLE_BYTES)
            + self.settings.weight_updates * self.dtype.itemsize
        )
        seen = max(len(self.rows[name]) for name in ("test", "validation"))
        batch = max(
            self._batch_rows(), min(self.settings.batch_size or seen, len(self.rows["validation"]))
        )
        per_weight = (
            PER_WEIGHT_VECTORS * len(self.settings.method.per_weight) * self.model.layout.count
        )
        activations = self.model.row_bytes(batch, self.plan.kept) + self.model.evaluation_bytes(
            seen
        )
        return activations + per_weight * self.dtype.itemsize + record + self._orders()

    def _orders(self) -> int:
        """Bytes of the order of one repetition's rows in each stream."""
        if self.settings.batch_size is None or self.settings.data_order != "shuffled":
            return 0
        second = self._second()
        return 8 * (len(self._training) + (len(second[0]) if second is not None else 0))

    def threads(self, rows: int, workers: int) -> int:
        """Threads of torch for one block: one, unless the block is alone and large."""
        large = (
            workers == 1 and rows * self.model.working_set(self._batch_rows()) >= MANY_THREADS_BYTES
        )
        return memory.cores() if large else 1

    def recorder(self, rows: int) -> Recorder:
        """For a training of some repetitions."""
        settings = self.settings
        kept = settings.weight_updates // self.plan.interval if settings.save_hypergradients else 0
        per_weight = "lr" in settings.method.per_weight
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return Recorder(
            rows, settings.weight_updates, settings.record_every, per_weight, like, kept
        )

    def block(
        self, seeds: Sequence[int], on_progress: Callable[[int], None] = lambda updates: None
    ) -> Block:
        """Train some repetitions as one tensor program, from their checkpoint if there is one; or
        search for each.
        """
        if self.settings.method.search is not None:
            result: Block = self.settings.method.search.block(self, seeds, on_progress)
            return result
        recorder = self.recorder(len(seeds))
        problem, first = self.problem(seeds), self.start(seeds)
        checkpoint = None if self.checkpoints is None else self.checkpoints.of(seeds)
        snapshot = None
        if checkpoint is not None and checkpoint.path.exists():
            snapshot = checkpoint.load(beginning(problem, self.plan, first), recorder)
        begun = 0
        if snapshot is not None:
            begun = snapshot.number
            on_progress(begun)
        end = train(
            problem,
            self.plan,
            first,
            recorder,
            snapshot=snapshot,
            on_pause=_saving(checkpoint, recorder, begun, on_progress),
            engine=graphs.of,
        )
        curves, diverged_at, seconds = recorder.curves(), recorder.diverged_at(), recorder.seconds
        initial = self.plan.hyperparameters(first.raw).natural
        tables = {
            "final": final_table(
                seeds, initial, recorder.steps, curves, diverged_at, seconds / len(seeds)
            ),
            "curves": curves_table(
                seeds, initial, recorder.steps, curves, diverged_at, recorder.elapsed
            ),
        }
        if self.settings.save_hypergradients:
            tables["hypergradients"] = hypergradients_table(seeds, recorder.hypergradients())
        weights = {}
        if self.settings.save_weights:
            arrays = self.model.layout.arrays(self.plan.rule.evaluated(end.state).cpu().numpy())
            weights = {f"wT/{name}": array for name, array in arrays.items()}
        evaluate = recorder.evaluate_seconds
        return Block(
            tuple(seeds),
            tables,
            weights,
            {"train": seconds - evaluate, "evaluate": evaluate, "total": seconds},
        )


def _saving(
    checkpoint: Checkpoint | None,
    recorder: Recorder,
    begun: int,
    on_progress: Callable[[int], None],
) -> Callable[[Snapshot], None]:
    """What is done at every pause: tell of the weight updates since the last one, and write the
    checkpoint if it is time, or the end.
    """
    told = begun

    def on_pause(snapshot: Snapshot) -> None:
        nonlocal told
        made, told = snapshot.number - told, snapshot.number
        try:
            on_progress(made)
        except Stopped:
            if checkpoint is not None:
                checkpoint.save(snapshot, recorder)
            raise
        if checkpoint is not None and checkpoint.due():
            checkpoint.save(snapshot, recorder)

    return on_pause


def _factors(settings: Settings, like: torch.Tensor) -> Factors | None:
    """What the learning rate is multiplied by at each weight update; None without a schedule."""
    schedule = settings.method.schedule
    return None if schedule is None else factors(schedule, settings.weight_updates, like)


def _chosen(settings: Settings, model: Model, training: int) -> tuple[Estimator | None, str | None]:
    """The method's estimator, or the one that it chooses for this model and ``training`` rows, and
    why.
    """
    method = settings.method
    if method.estimator is None:
        return None, None
    batch = min(settings.batch_size or training, training)
    per_weight = tuple(name for name in method.per_weight if name in method.tuned)
    costs = Costs(settings.update_interval, lambda kept: model.row_bytes(batch, kept), per_weight)
    return method.estimator.chosen(costs)


def _rows(table: Table, dtype: torch.dtype, device: torch.device) -> dict[str, Rows]:
    """Parts of a dataset on the device; those that train the weights by the names of
    ``data_for_weights``.
    """
    inputs = inputs_on(table, dtype, device)
    targets = torch.from_numpy(table.targets).to(device=device)
    if targets.is_floating_point():
        targets = targets.to(dtype)
    both = table.training + table.validation

    def part(begin: int, end: int, split: Any) -> Rows:
        return Rows(inputs[begin:end], targets[begin:end], split)

    return {
        "train": part(0, table.training, "training"),
        "train_and_validation": part(0, both, "training"),
        "validation": part(table.training, both, "validation"),
        "test": part(both, both + table.test, "test"),
    }


def pick_device(name: str) -> torch.device:
    """The device asked for; ``auto`` is a CUDA GPU where there is one.

    Raises:
        UserError: a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name}: torch {torch.__version__} finds {torch.cuda.device_count()} CUDA "
            "devices; "
            "allowed here: auto, cpu"
        )
    return device


class Search(Protocol):
    """Trains many times for each repetition and keeps what validates best (``method.search`` in a
    method's yaml).

    Attributes:
        published: the paper's budget by argument, so that artefacts can say what was scaled down;
            decides nothing.
    """

    published: Mapping[str, Any]

    def check(self, settings: Settings) -> None:
        """Refuse settings that the search cannot work with.

        Raises:
            UserError: one line that names key, value and what is allowed; or what has to be
                installed.
        """
        ...

    def weight_updates(self, settings: Settings) -> int:
        """Weight updates of one repetition, all its trials together."""
        ...

    def side_by_side(self, settings: Settings) -> int:
        """Trials of one repetition that can be trained at once."""
        ...

    def block(
        self, trainer: Trainer, seeds: Sequence[int], on_progress: Callable[[int], None]
    ) -> Block:
        """Search for some repetitions, from their checkpoint if there is one.

        Args:
            on_progress: told weight updates of one repetition; adds up to `weight_updates`.
        """
        ...


def chunk_of(search: Search, trainer: Trainer, repetitions: int) -> memory.Chunk:
    """Repetitions of a block: as many as keep its rows within what is trained at once.

    A search of one trial at a time is divided like plain trainings; one of many trials divides them
    itself, so that its blocks come one after the other."""
    trials = search.side_by_side(trainer.settings)
    inner = trainer.rows_at_once(repetitions * trials)
    if trials == 1:
        return inner
    rows = min(repetitions, max(1, inner.rows // trials))
    return memory.Chunk(rows, 1, inner.bytes, f"{trials} trials each; {inner.reason}")
