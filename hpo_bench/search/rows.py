"""Trials as rows: their seeds, starts, training by segments and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hpo_bench.core import tree
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.loop import InitialState, Snapshot, beginning, evaluated, train
from hpo_bench.core.recorder import Recorder
from hpo_bench.core.seeds import generator
from hpo_bench.core.sgd import COORDINATES
from hpo_bench.core.update import State
from hpo_bench.errors import UserError
from hpo_bench.running import graphs
from hpo_bench.settings.run import HYPERPARAMETERS, Settings, StartRanges

if TYPE_CHECKING:
    from hpo_bench.running.trainer import Trainer

OnPause = Callable[[int, Callable[[], "SearchRows"]], None]
Losses = dict[str, np.ndarray]  # by `LOSSES`, (rows,) float64 each
LOSSES = ("train_loss", "validation_loss", "test_loss", "test_metric")


def trial_seed(seed: int, trial: int) -> int:
    """Seed of trial number ``trial`` of repetition ``seed``: weights, hyperparameters and batches
    follow from it.

    Trial 0 is the repetition itself: the training that methods of one pass have under this seed.
    """
    return (
        seed if trial == 0 else int(generator(seed, "trial", trial).bit_generator.random_raw() >> 2)
    )


@dataclass(frozen=True)
class SearchRows:
    """Trials in training.

    Args:
        repetition: which of the block's repetitions each belongs to, (rows,).
        trial: number within its repetition, (rows,).
        seeds: `trial_seed` of each.
        snapshot: where they are.
        diverged_at: first weight update at which each was not finite, (rows,), or -1.
    """

    repetition: np.ndarray
    trial: np.ndarray
    seeds: tuple[int, ...]
    snapshot: Snapshot
    diverged_at: np.ndarray

    def __len__(self) -> int:
        return len(self.seeds)

    def take(self, rows: np.ndarray) -> SearchRows:
        """Some of them, in the order of their numbers ``rows``."""
        index = torch.from_numpy(rows.astype(np.int64)).to(self.snapshot.state.weights.device)
        return SearchRows(
            self.repetition[rows],
            self.trial[rows],
            tuple(self.seeds[row] for row in rows),
            tree.take_rows(self.snapshot, index),
            self.diverged_at[rows],
        )

    @property
    def natural(self) -> dict[str, np.ndarray]:
        """Present hyperparameters, (rows,) each; the median where every weight has its own."""
        natural = Hyperparameters.of(self.snapshot.raw, COORDINATES).natural
        return {
            name: natural[name].double().median(-1).values.cpu().numpy() for name in HYPERPARAMETERS
        }


def joined(parts: Sequence[Snapshot]) -> Snapshot:
    """Rows of several snapshots of one moment as one."""
    if len(parts) == 1:
        return parts[0]
    same = zip(*(tree.leaves(part) for part in parts), strict=True)
    return tree.rebuilt(
        parts[0],
        [torch.cat(leaf) if isinstance(leaf[0], torch.Tensor) else leaf[0] for leaf in same],
    )


def begin(
    trainer: Trainer,
    seeds: Sequence[int],
    repetition: np.ndarray,
    trial: np.ndarray,
    raw: Mapping[str, np.ndarray] | None = None,
) -> SearchRows:
    """Trials before their first weight update.

    Args:
        seeds: of the block's repetitions.
        repetition, trial: of each row: index into ``seeds``, and its number there.
        raw: their raw hyperparameters, (rows,) each, in place of those drawn.
    """
    own = tuple(trial_seed(seeds[r], int(t)) for r, t in zip(repetition, trial, strict=True))
    start = trainer.start(own)
    if raw is not None:
        chosen = {}
        for name, drawn in start.raw.items():
            values = torch.from_numpy(raw[name]).to(start.weights).unsqueeze(-1)
            chosen[name] = values.expand_as(drawn).clone()
        start = replace(start, raw=chosen)
    snapshot = beginning(trainer.problem(own), trainer.plan, start)
    return SearchRows(repetition, trial, own, snapshot, np.full(len(own), -1))


def all_pairs(repetitions: int, trials: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Repetition and number of the same trials of every repetition, repetition by repetition."""
    repetition = np.repeat(np.arange(repetitions), len(trials))
    return repetition, np.tile(np.asarray(trials, np.int64), repetitions)


class LossWatch(Recorder):
    """Notes divergence alone, between two weight updates."""

    def __init__(self, rows: int, first: int, last: int, like: torch.Tensor) -> None:
        super().__init__(rows, last - first, max(last - first, 1), False, like)
        self.first = first

    def due(self, step: int) -> bool:
        """Whether a step is recorded: none is."""
        return False

    def watch(self, step: int, *values: Any) -> None:
        super().watch(step - self.first, *values)

    def take(self, first: int, finite: torch.Tensor, columns: Mapping[str, torch.Tensor]) -> None:
        super().take(first - self.first, finite, columns)

    def first_bad(self, before: np.ndarray) -> np.ndarray:
        """The first bad step of each row by now, as `SearchRows.diverged_at` has it."""
        now = self.diverged_at()
        return np.where((before < 0) & (now >= 0), now + self.first, before)


def advance(
    trainer: Trainer,
    rows: SearchRows,
    until: int,
    *,
    divide: bool = True,
    on_pause: OnPause | None = None,
    check: Callable[[], None] = lambda: None,
) -> tuple[SearchRows, Losses]:
    """Train to ``until`` weight updates and `evaluate`.

    Args:
        divide: in chunks, several side by side; else all in one.
        on_pause: called after T weight updates or fewer (not if divided) with their number so far,
            and what gives the rows as they are (and waits for the device).
        check: called after T weight updates or fewer, from any thread; raises where the training is
            to stop.
    """
    if not divide:
        done = _segment(trainer, rows, until, on_pause)
        return done, evaluate(trainer, done)
    chunk = trainer.rows_at_once(len(rows))
    parts = [
        np.arange(at, min(at + chunk.rows, len(rows))) for at in range(0, len(rows), chunk.rows)
    ]

    def work(part: np.ndarray) -> tuple[SearchRows, Losses]:
        torch.set_num_threads(trainer.threads(len(part), chunk.workers))
        done = _segment(trainer, rows.take(part), until, lambda number, now: check())
        return done, evaluate(trainer, done)

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(chunk.workers) as pool:
            results = list(pool.map(work, parts))
    finally:
        torch.set_num_threads(before)
    trained_parts = [part for part, _ in results]
    losses_of_parts = [losses for _, losses in results]
    trained = replace(
        rows,
        snapshot=joined([part.snapshot for part in trained_parts]),
        diverged_at=np.concatenate([part.diverged_at for part in trained_parts]),
    )
    losses = {name: np.concatenate([part[name] for part in losses_of_parts]) for name in LOSSES}
    return trained, losses


def _segment(
    trainer: Trainer, rows: SearchRows, until: int, on_pause: OnPause | None
) -> SearchRows:
    first, problem = rows.snapshot.number, trainer.problem(rows.seeds)
    like = torch.empty(0, dtype=trainer.dtype, device=trainer.device)
    watch = LossWatch(len(rows), first, until, like)

    # The end comes by itself: no row is recorded there.
    plan = replace(trainer.plan, weight_updates=until + 1)

    def at(snapshot: Snapshot) -> SearchRows:
        return replace(rows, snapshot=snapshot, diverged_at=watch.first_bad(rows.diverged_at))

    def told(snapshot: Snapshot) -> None:
        if on_pause is not None:
            on_pause(snapshot.number, lambda: at(snapshot))

    start = InitialState(
        rows.snapshot.state.weights, rows.snapshot.raw
    )  # searches reset no weights and schedule no rates
    snapshot = train(
        problem,
        plan,
        start,
        watch,
        snapshot=rows.snapshot,
        until=until,
        on_pause=told,
        engine=graphs.of,
    )
    return at(snapshot)


@torch.no_grad()
def evaluate(trainer: Trainer, rows: SearchRows) -> Losses:
    """Losses on the whole validation and test sets, NaN where a trial diverged.

    The training loss is that of the next batch, as in a curve's last row. Costs three forward
    passes."""
    model, state = trainer.model, rows.snapshot.state
    problem = trainer.problem(rows.seeds)
    batch = problem.training.batch(rows.snapshot.number)
    train_loss, carried = model.loss(state.weights, batch, state.carried)
    weights, carried = evaluated(
        problem, trainer.plan.rule, State(state.weights, state.buffer, carried)
    )
    validation, _ = model.evaluate(weights, trainer.rows["validation"].batch(model), carried)
    test, metric = model.evaluate(weights, trainer.rows["test"].batch(model), carried)
    found = np.stack(
        [value.double().cpu().numpy() for value in (train_loss, validation, test, metric)]
    )
    usable = np.isfinite(found[:2]).all(0) & (rows.diverged_at < 0)
    return dict(zip(LOSSES, np.where(usable & np.isfinite(found), found, np.nan), strict=True))


def check(settings: Settings) -> None:
    """Refuse settings that no search can work with.

    Raises:
        UserError: names the setting, its value and what is allowed.
    """
    name = settings.method.name
    if settings.start.file is not None:
        raise UserError(
            f"init.file={settings.start.file}: method={name} draws the starts of its trials; "
            "allowed: null"
        )
    if settings.save_hypergradients:
        raise UserError(
            f"save_hypergradients=true: method={name} does not keep those of its trials; "
            "allowed: false"
        )
    if settings.method.data_for_weights != "train":
        raise UserError(
            f"data_for_weights={settings.method.data_for_weights}: method={name} chooses by "
            "validation loss; allowed: train"
        )
    if settings.method.lr_schedule or settings.method.reset_weights:
        raise UserError(
            f"method={name}: a search cannot have method.lr_schedule or method.reset_weights"
        )


def can_stop_at(trainer: Trainer, number: int) -> bool:
    """Whether a training can stop after ``number`` weight updates.

    It cannot among those that a hypergradient differentiates.
    """
    interval = trainer.plan.interval
    return number % interval <= interval - trainer.plan.window


def bounds(ranges: StartRanges) -> dict[str, tuple[float, float]]:
    """The box that is searched: log10 lr, log10 weight decay, momentum."""
    return {
        "lr": ranges.log10_lr,
        "weight_decay": ranges.log10_weight_decay,
        "momentum": ranges.momentum,
    }


def to_raw(name: str, value: np.ndarray) -> np.ndarray:
    """From the coordinates of the box of random starts (log10, or momentum itself) to raw space."""
    with np.errstate(divide="ignore"):
        return np.log(value) - np.log1p(-value) if name == "momentum" else value
