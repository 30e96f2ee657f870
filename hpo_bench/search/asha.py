"""ASHA (Li et al. 2020): many trials, of which the best at each rung train on.

With a reduction of four it is the best quarter, which trains four times as long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo_bench.errors import UserError
from hpo_bench.running.work import work
from hpo_bench.search import rows as training
from hpo_bench.search.journal import Journal, packed, unpacked
from hpo_bench.search.ledger import Ledger
from hpo_bench.search.rows import SearchRows, advance, all_pairs, begin, can_stop_at
from hpo_bench.settings.conditions import check_whole
from hpo_bench.settings.run import Settings
from hpo_bench.store.writer import Block

if TYPE_CHECKING:
    from hpo_bench.running.trainer import Trainer


@dataclass(frozen=True)
class ASHA:
    """Successive halving in which a trial is judged, when it reaches a rung, by those that reached
    it so far.

    Rungs are at ``grace``, ``grace``·η, ``grace``·η², … weight updates and at the end of the
    training. A trial goes on if its full-validation loss is among the best ⌊n/η⌋ (at least one) of
    the n recorded at its rung, its own included. This is the rule of Optuna's
    ``SuccessiveHalvingPruner``, with which a test compares it; Optuna reads all trials for every
    decision, which takes hours over 114 286 of them.

    DIFFERENCE: trials come in batches of ``batch`` that are judged together, because they train as
    rows of one program; Ray Tune, which the paper used, judges them one by one as workers finish
    them. Only the batch in training is kept.

    DIFFERENCE: a rung among the weight updates that a hypergradient differentiates moves up to the
    next whole T: with Diff-through-Opt's five of every ten, 16 and 256 become 20 and 260. A Neumann
    series differentiates the last alone, so that Ours and Random have the paper's rungs.

    Args:
        trials: of a repetition.
        reduction: η.
        grace: weight updates of the first rung.
        batch: trials that begin together. Their states are in memory: (2·P + 10) numbers each.
        published: see `hpo_bench.running.trainer.Search`.
    """

    trials: int = 114_286
    reduction: int = 4
    grace: int = 1
    batch: int = 4096
    published: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_whole({"trials": self.trials, "grace": self.grace, "batch": self.batch})
        check_whole({"reduction": self.reduction}, 2)

    def check(self, settings: Settings) -> None:
        training.check(settings)
        if self.grace > settings.weight_updates:
            raise UserError(
                f"method.search.grace={self.grace}: longer than a training; "
                f"at most {settings.weight_updates}"
            )

    def side_by_side(self, settings: Settings) -> int:
        """The trials that begin together."""
        return min(self.batch, self.trials)

    def weight_updates(self, settings: Settings) -> int:
        """The weight updates of ideal halving, which the search keeps to on average.

        It keeps to them exactly where all trials are one batch. Rungs that move up (see above) are
        counted where they were.
        """
        steps = rungs(self.grace, self.reduction, settings.weight_updates)
        return sum(self._ideal(steps, self.trials))

    def _ideal(self, steps: Sequence[int], trials: int) -> list[int]:
        """Weight updates that each rung takes of ``trials`` trials."""
        lengths = [last - first for first, last in pairwise([0, *steps])]
        return [
            max(trials // self.reduction**rung, 1) * length for rung, length in enumerate(lengths)
        ]

    def block(
        self, trainer: Trainer, seeds: Sequence[int], on_progress: Callable[[int], None]
    ) -> Block:
        settings = trainer.settings
        ledger = Ledger(seeds, work(trainer), settings.save_weights)
        journal = Journal(trainer, seeds, ledger, on_progress, self.weight_updates(settings))
        saved = journal.load() or {}
        for first in range(int(saved.get("first", 0)), self.trials, self.batch):
            self._batch(trainer, seeds, first, ledger, journal, saved)
            saved = {}
        return ledger.block(trainer)

    def _batch(
        self,
        trainer: Trainer,
        seeds: Sequence[int],
        first: int,
        ledger: Ledger,
        journal: Journal,
        saved: Mapping[str, np.ndarray],
    ) -> None:
        """Take a batch of trials up the rungs."""
        steps = stops(trainer, rungs(self.grace, self.reduction, trainer.settings.weight_updates))
        trials = range(first, min(first + self.batch, self.trials))
        shares = np.cumsum([0, *self._ideal(steps, len(trials))])
        rung = int(saved.get("rung", 0))
        if "rows-trial" in saved:
            rows = unpacked(
                begin(trainer, seeds, saved["rows-repetition"], saved["rows-trial"]), saved
            )
        else:
            rows = begin(trainer, seeds, *all_pairs(len(seeds), trials))
        while rung < len(steps) and len(rows):
            begun, before = time.perf_counter(), rows
            with journal.stretch() as check:
                rows, losses = advance(trainer, rows, steps[rung], check=check)
            ledger.note(before, rows, losses, rung, time.perf_counter() - begun)
            rows = rows.take(np.flatnonzero(self._goes_on(ledger, rows, losses, rung)))
            rung += 1
            if rung < len(steps) and len(rows):
                share = (first + len(trials) * shares[rung] / shares[-1]) / self.trials
                journal.reached(share, partial(_rung_reached, first, rung, rows))
        journal.reached((trials.stop) / self.trials, lambda: {"first": np.array(trials.stop)})

    def _goes_on(
        self, ledger: Ledger, rows: SearchRows, losses: Mapping[str, np.ndarray], rung: int
    ) -> np.ndarray:
        """Which of the trials that have just been judged at a rung go on, (rows,) bool."""
        past, keep = ledger.trials, np.zeros(len(rows), bool)
        for repetition in np.unique(rows.repetition):
            own = rows.repetition == repetition
            recorded = past["validation_loss"][
                (past["repetition"] == repetition) & (past["segment"] == rung)
            ]
            keep[own] = promoted(losses["validation_loss"][own], recorded, self.reduction)
        return keep


def rungs(grace: int, reduction: int, updates: int) -> list[int]:
    """Weight updates at which trials are judged: grace·ηᵏ below ``updates``, and ``updates``."""
    count = math.ceil(math.log(updates / grace, reduction)) + 1
    steps = [grace * reduction**rung for rung in range(count)]
    return [*(step for step in steps if step < updates), updates]


def stops(trainer: Trainer, steps: Sequence[int]) -> list[int]:
    """Rungs moved up to where the training can stop; those that meet become one."""
    interval, updates = trainer.plan.interval, trainer.settings.weight_updates
    moved = [
        step if can_stop_at(trainer, step) else min(-(-step // interval) * interval, updates)
        for step in steps
    ]
    return list(dict.fromkeys(moved))


def promoted(losses: np.ndarray, recorded: np.ndarray, reduction: int) -> np.ndarray:
    """Which losses are among the best ⌊n/η⌋, at least one, of the n ``recorded`` at the rung.

    NaN never is.

    Args:
        losses: of those that are judged.
        recorded: of all that reached the rung, those that are judged among them.
        reduction: η.
    """
    ranked = np.sort(np.where(np.isnan(recorded), np.inf, recorded))
    cutoff = ranked[max(len(ranked) // reduction, 1) - 1]
    among_the_best = np.where(np.isnan(losses), np.inf, losses) <= cutoff
    return np.asarray(np.isfinite(losses) & among_the_best)


def _rung_reached(first: int, rung: int, rows: SearchRows) -> dict[str, np.ndarray]:
    """What the journal keeps of the trials of a batch that go on from a rung."""
    return {"first": np.array(first), "rung": np.array(rung), **packed(rows)}
