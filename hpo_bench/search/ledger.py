"""What a search writes down.

That is every trial with its cost, the curve of what validated best, and the incumbents."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from hpo_bench.running.work import Work
from hpo_bench.search.rows import LOSSES, Losses, SearchRows
from hpo_bench.settings.run import HYPERPARAMETERS
from hpo_bench.store.runs import CURVE_COLUMNS, FINAL_COLUMNS
from hpo_bench.store.writer import Block

if TYPE_CHECKING:
    from hpo_bench.running.trainer import Trainer

INITIAL = tuple(f"initial_{name}" for name in HYPERPARAMETERS)
WORK = ("weight_updates", "gradients", "hessian_products")
WHOLE = ("repetition", "trial", "segment", "step", *WORK, "diverged_at", "parent")
TRIAL_COLUMNS = (*WHOLE, "seconds", *INITIAL, *HYPERPARAMETERS, *LOSSES)
NONE = -1


class Ledger:
    """A row for each segment of each trial of a block: `TRIAL_COLUMNS`, -1 and NaN standing for
    nothing.

    A segment is what a trial is trained between two decisions: the whole training of Bayesian
    optimisation, a rung of ASHA, a perturbation interval of PBT. ``step`` counts the weight updates
    that led to its weights, ``weight_updates`` those of the segment; ``parent`` is the trial whose
    weights it began with, if not its own; hyperparameters are those at its beginning and its end.

    Args:
        seeds: of the block's repetitions.
        keep_weights: of the incumbents.
    """

    def __init__(self, seeds: Sequence[int], work: Work, keep_weights: bool) -> None:
        self.seeds, self.work, self.keep_weights = tuple(seeds), work, keep_weights
        self._parts: list[dict[str, np.ndarray]] = []
        self._curve: list[dict[str, np.ndarray]] = []
        self._spent = {name: np.zeros(len(seeds), np.int64) for name in WORK}
        self.best = np.full(len(seeds), np.inf)
        self.weights: np.ndarray | None = None
        self._begin = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time since the beginning, interruptions left out."""
        return time.perf_counter() - self._begin

    def note(
        self,
        before: SearchRows,
        after: SearchRows,
        losses: Losses,
        segment: int,
        seconds: float,
        parent: np.ndarray | None = None,
    ) -> None:
        """Write down a segment of some trials that were trained together, and a point of each
        repetition's curve.

        Args:
            before, after: the same trials at the segment's two ends.
            seconds: that it took all of them.
            parent: trials that they copied before it, (rows,), `NONE` for none.
        """
        first, last, rows = before.snapshot.number, after.snapshot.number, len(after)
        gradients, products = self.work.between(first, last)
        whole = {
            "repetition": after.repetition,
            "trial": after.trial,
            "segment": segment,
            "step": last,
            "weight_updates": last - first,
            "gradients": gradients,
            "hessian_products": products,
            "diverged_at": after.diverged_at,
            "parent": NONE if parent is None else parent,
        }
        initial = dict(zip(INITIAL, before.natural.values(), strict=True))
        floats = {"seconds": seconds / rows, **initial, **after.natural}
        part = {
            name: np.broadcast_to(np.asarray(value, np.int64), rows)
            for name, value in whole.items()
        }
        part |= {
            name: np.broadcast_to(np.asarray(value, float), rows)
            for name, value in {**floats, **losses}.items()
        }
        self._parts.append(part)
        for name in WORK:
            self._spent[name] += np.bincount(after.repetition, part[name], len(self.seeds)).astype(
                np.int64
            )
        self._point(part, after)

    def _point(self, part: Mapping[str, np.ndarray], after: SearchRows) -> None:
        """The best of the segment in each repetition that took part in it."""
        validation = np.where(np.isnan(part["validation_loss"]), np.inf, part["validation_loss"])
        order = np.lexsort((np.arange(len(validation)), validation, part["repetition"]))
        present, place = np.unique(part["repetition"][order], return_index=True)
        chosen = order[place]
        point = {
            name: part[name][chosen] for name in ("trial", "segment", *LOSSES, *HYPERPARAMETERS)
        }
        point |= {"repetition": present, "elapsed_s": np.full(len(present), self.seconds)}
        self._curve.append({**point, **{name: self._spent[name][present] for name in WORK}})
        better = validation[chosen] < self.best[present]
        self.best[present[better]] = validation[chosen[better]]
        if self.keep_weights:
            found = after.snapshot.state.weights[chosen.tolist()].cpu().numpy()
            self.weights = (
                np.full((len(self.seeds), found.shape[1]), np.nan)
                if self.weights is None
                else self.weights
            )
            self.weights[present[better]] = found[better]

    # --- in the middle ---

    def contents(self) -> dict[str, np.ndarray]:
        """All that was written down so far, to `restore` it later."""
        trials = {f"trials/{name}": values for name, values in self.trials.items()}
        curve = {f"curve/{name}": values for name, values in self.curve.items()}
        kept = {} if self.weights is None else {"weights": self.weights}
        return {**trials, **curve, **kept, "seconds": np.array(self.seconds)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from `contents`.

        Raises:
            KeyError: they are of something else.
        """
        self._parts = [{name: arrays[f"trials/{name}"] for name in TRIAL_COLUMNS}]
        curve = {
            name.removeprefix("curve/"): array for name, array in arrays.items() if "curve/" in name
        }
        self._curve = [curve] if curve else []
        self.weights = arrays.get("weights")
        repetition, validation = self.trials["repetition"], self.trials["validation_loss"]
        np.minimum.at(self.best, repetition, np.where(np.isnan(validation), np.inf, validation))
        for name in WORK:
            np.add.at(self._spent[name], repetition, self.trials[name])
        self._begin = time.perf_counter() - float(arrays["seconds"])

    @property
    def trials(self) -> dict[str, np.ndarray]:
        """`TRIAL_COLUMNS` so far, in the order in which they came."""
        self._parts = [_together(self._parts)] if self._parts else [_nothing()]
        return self._parts[0]

    @property
    def curve(self) -> dict[str, np.ndarray]:
        """Points of the curves so far."""
        self._curve = [_together(self._curve)] if self._curve else []
        return self._curve[0] if self._curve else {}

    # --- at the end ---

    def block(self, trainer: Trainer) -> Block:
        """The finished results:

        ``final`` has each repetition's incumbent, ``curves`` a row per decision.
        """
        seconds = self.seconds
        weights = {}
        if self.weights is not None:
            weights = {
                f"wT/{name}": array
                for name, array in trainer.model.layout.arrays(self.weights).items()
            }
        tables = {"final": self._final(seconds), "curves": self._curves(), "trials": self._trials()}
        return Block(
            self.seeds, tables, weights, {"train": seconds, "evaluate": 0.0, "total": seconds}
        )

    def _trials(self) -> pa.Table:
        data, seeds = self.trials, np.asarray(self.seeds, np.int64)
        order = np.argsort(data["repetition"], kind="stable")
        columns: dict[str, Any] = {"seed": seeds[data["repetition"][order]]}
        for name in TRIAL_COLUMNS[1:]:
            values = data[name][order]
            missing = values == NONE if name in ("parent", "diverged_at") else None
            columns[name] = pa.array(values, from_pandas=True, mask=missing)
        columns["status"] = np.where(
            np.isnan(data["validation_loss"][order]), "diverged", "ok"
        ).tolist()
        return pa.table(columns)

    def _curves(self) -> pa.Table:
        """Rows in order of cost;

        ``step`` counts the weight updates of all trials of the repetition.
        """
        data = {**self.curve, "seed": np.asarray(self.seeds, np.int64)[self.curve["repetition"]]}
        order = np.argsort(data["repetition"], kind="stable")
        data["step"] = data["weight_updates"]
        names = (*CURVE_COLUMNS, "trial", "gradients", "hessian_products")
        return pa.table({name: pa.array(data[name][order], from_pandas=True) for name in names})

    def _final(self, seconds: float) -> pa.Table:
        rows = [self._incumbent(repetition) for repetition in range(len(self.seeds))]
        shared = {"seconds": seconds / len(rows), "rows_in_block": len(rows)}
        made = [{"seed": seed, **row, **shared} for seed, row in zip(self.seeds, rows, strict=True)]
        kinds = dict.fromkeys(FINAL_COLUMNS, pa.float64()) | {"status": pa.string()}
        kinds |= dict.fromkeys(
            ("seed", "diverged_at", "best_validation_step", "rows_in_block"), pa.int64()
        )
        columns = {}
        for name in FINAL_COLUMNS:
            columns[name] = pa.array([row[name] for row in made], kinds[name])
        return pa.table(columns)

    def _incumbent(self, repetition: int) -> dict[str, Any]:
        """The point of the curve with the least validation loss, the first of equals.

        It is the last point if all diverged.
        """
        own = {
            name: values[self.curve["repetition"] == repetition]
            for name, values in self.curve.items()
        }
        validation = np.where(np.isnan(own["validation_loss"]), np.inf, own["validation_loss"])
        ok = bool(np.isfinite(validation).any())
        at = int(validation.argmin()) if ok else len(validation) - 1
        drawn = (self.trials["repetition"] == repetition) & (
            self.trials["trial"] == own["trial"][at]
        )
        first = int(np.flatnonzero(drawn & (self.trials["segment"] == 0))[0])
        initial = {name: float(self.trials[name][first]) for name in INITIAL}
        final = {name: float(own[name][at]) for name in HYPERPARAMETERS}
        losses = {name: float(own[name][at]) if ok else None for name in LOSSES}
        return {
            "status": "ok" if ok else "diverged",
            "diverged_at": None if ok else int(own["weight_updates"][-1]),
            **initial,
            **final,
            **losses,
            "best_validation_step": int(own["weight_updates"][at]) if ok else None,
            "test_metric_at_best_validation": float(own["test_metric"][at]) if ok else None,
        }


def _together(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _nothing() -> dict[str, np.ndarray]:
    return {name: np.empty(0, np.int64 if name in WHOLE else float) for name in TRIAL_COLUMNS}
