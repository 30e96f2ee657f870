"""Population-based training (Jaderberg et al. 2017).

From time to time, bad rows go on from copies of good ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hpo_bench.core import checks
from hpo_bench.core.seeds import generator
from hpo_bench.errors import UserError
from hpo_bench.running.work import work
from hpo_bench.search import rows as training
from hpo_bench.search.journal import Journal, packed, unpacked
from hpo_bench.search.ledger import NONE, Ledger
from hpo_bench.search.rows import SearchRows, advance, all_pairs, begin, bounds, can_stop_at, to_raw
from hpo_bench.settings.conditions import check_whole
from hpo_bench.settings.run import HYPERPARAMETERS, Settings
from hpo_bench.store.writer import Block

if TYPE_CHECKING:
    from hpo_bench.running.trainer import Trainer

HIGHEST_MOMENTUM = 0.999


@dataclass(frozen=True)
class PopulationBasedTraining:
    """A population that trains in step; after every ``interval`` updates the worst copy the best
    and perturb the copy.

    By full-validation loss, members of the worst ``quantile`` each copy a random member of the best
    one: weights, momentum buffers, hyperparameters and the memory of their optimiser; their batches
    stay their own. Each hyperparameter of a copy is, with probability ``resample``, drawn anew from
    the range of random starts, else multiplied by one of ``factors`` with equal probability (Ray
    Tune's rules and defaults, which the paper used).

    DIFFERENCE: Ray Tune would let the momentum exceed 1; it stays at or below 0.999, and the
    learning rate within ``hyper.clip_log10_lr``.

    DIFFERENCE: Ray Tune perturbs the value that a trial was started with, and with Ours the paper
    carries the ratio of the new value to that over to the tuned one. For a factor this is the same;
    a value drawn anew is taken as it is.

    Args:
        population: members.
        interval: weight updates between perturbations.
        quantile: share of the population that copies, and that is copied.
        resample: probability of a draw from the range.
        factors: of a perturbation.
        perturbs: what the factors multiply: ``natural`` values, or ``raw`` ones (log10 lr, log10
            weight decay, logit momentum), as the paper has it with Ours.
        published: see `hpo_bench.running.trainer.Search`.
    """

    population: int = 200
    interval: int = 100
    quantile: float = 0.25
    resample: float = 0.25
    factors: tuple[float, float] = (0.8, 1.2)
    perturbs: Literal["natural", "raw"] = "natural"
    published: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_whole({"population": self.population, "interval": self.interval})
        checks.number_within("method.search.quantile", self.quantile, 0, 0.5, closed=(True, True))
        checks.number_within("method.search.resample", self.resample, 0, 1, closed=(True, True))
        factors = checks.interval("method.search.factors", self.factors, 0)
        object.__setattr__(self, "factors", factors)
        checks.choice("method.search.perturbs", self.perturbs, ("natural", "raw"))

    def check(self, settings: Settings) -> None:
        training.check(settings)

    def side_by_side(self, settings: Settings) -> int:
        """All members of the population, who train together."""
        return self.population

    def weight_updates(self, settings: Settings) -> int:
        """The weight updates of whole trainings of all members."""
        return self.population * settings.weight_updates

    def block(
        self, trainer: Trainer, seeds: Sequence[int], on_progress: Callable[[int], None]
    ) -> Block:
        settings = trainer.settings
        stops = self._stops(trainer)
        ledger = Ledger(seeds, work(trainer), settings.save_weights)
        journal = Journal(trainer, seeds, ledger, on_progress, self.weight_updates(settings))
        rows = begin(trainer, seeds, *all_pairs(len(seeds), range(self.population)))
        parent = np.full(len(rows), NONE)
        saved = journal.load()
        generation = 0
        if saved is not None:
            rows, parent = unpacked(rows, saved), saved["parent"]
            generation = int(saved["generation"])
        while generation < len(stops):
            begun, before = time.perf_counter(), rows
            with journal.stretch() as check:
                rows, losses = advance(trainer, rows, stops[generation], check=check)
            ledger.note(before, rows, losses, generation, time.perf_counter() - begun, parent)
            generation += 1
            if generation < len(stops):
                rows, parent = self._next(
                    trainer, seeds, rows, losses["validation_loss"], generation
                )
            here = {"generation": np.array(generation), "parent": parent, **packed(rows)}
            journal.reached(stops[generation - 1] / settings.weight_updates, lambda: here)  # noqa: B023
        return ledger.block(trainer)

    def _stops(self, trainer: Trainer) -> list[int]:
        """The numbers of weight updates after which the population is looked at."""
        updates = trainer.settings.weight_updates
        stops = [*range(self.interval, updates, self.interval), updates]
        if not all(can_stop_at(trainer, stop) for stop in stops):
            raise UserError(
                f"method.search.interval={self.interval}: must be a multiple of "
                f"update_interval={trainer.plan.interval}"
            )
        return stops

    def _next(
        self,
        trainer: Trainer,
        seeds: Sequence[int],
        rows: SearchRows,
        validation: np.ndarray,
        generation: int,
    ) -> tuple[SearchRows, np.ndarray]:
        """The population after copying and perturbing, and whom each copied."""
        donors, parent = np.arange(len(rows)), np.full(len(rows), NONE)
        old = {name: value.double().cpu().numpy() for name, value in rows.snapshot.raw.items()}
        new = {name: value.copy() for name, value in old.items()}
        for repetition, seed in enumerate(seeds):
            own = np.flatnonzero(rows.repetition == repetition)
            random = generator(seed, trainer.settings.dataset, "pbt", generation)
            worst, best = exploit(validation[own], self.quantile, random)
            copies, copied = own[worst], own[best]
            donors[copies], parent[copies] = copied, rows.trial[copied]
            found = self._explore(
                {name: value[copied] for name, value in old.items()}, trainer.settings, random
            )
            for name, values in found.items():
                new[name][copies] = values
        taken = rows.take(donors)
        changed = torch.from_numpy(parent != NONE).to(trainer.device).unsqueeze(-1)
        raw = {
            name: torch.where(changed, torch.from_numpy(new[name]).to(value), value)
            for name, value in taken.snapshot.raw.items()
        }
        kept = replace(
            taken, seeds=rows.seeds, trial=rows.trial, snapshot=replace(taken.snapshot, raw=raw)
        )
        return kept, parent

    def _explore(
        self, donors: Mapping[str, np.ndarray], settings: Settings, random: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Raw values of copies from those of their donors, (copies, 1) or (copies, P) each."""
        box, found = bounds(settings.start), {}
        for name in HYPERPARAMETERS:
            anew, up, place = random.random((3, len(donors[name]), 1))
            low, high = box[name]
            factor = np.where(up < 0.5, *self.factors)
            moved = (
                donors[name] * factor
                if self.perturbs == "raw"
                else multiplied(name, donors[name], factor)
            )
            found[name] = np.where(
                anew < self.resample, to_raw(name, low + (high - low) * place), moved
            )
        if settings.clip_log10_lr is not None:
            found["lr"] = np.clip(found["lr"], *settings.clip_log10_lr)
        found["momentum"] = np.minimum(
            found["momentum"], to_raw("momentum", np.array(HIGHEST_MOMENTUM))
        )
        return found


def exploit(
    validation: np.ndarray, quantile: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Members of the worst quantile, and for each a random member of the best one.

    Of equal losses the first is better.

    Args:
        validation: (members,), NaN for diverged ones.
    """
    count = ceil(len(validation) * quantile)
    count = count if count <= len(validation) / 2 else len(validation) // 2
    ranked = np.argsort(np.where(np.isnan(validation), np.inf, validation), kind="stable")
    worst, best = ranked[len(ranked) - count :], ranked[:count]
    return worst, best[(random.random(count) * count).astype(int)]


def multiplied(name: str, raw: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """The raw value whose natural value is ``factor`` times that of ``raw``.

    Momentum stays below 1.
    """
    if name != "momentum":
        return np.asarray(raw + np.log10(factor))
    return to_raw(name, np.minimum(factor / (1 + np.exp(-raw)), HIGHEST_MOMENTUM))
