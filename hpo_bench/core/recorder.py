"""What is written down during a training, kept on the device until its end (no host synchronisation
in a step).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.update import State

QUANTILES = {"lr_q05": 0.05, "lr_q25": 0.25, "lr_q75": 0.75, "lr_q95": 0.95}


def recorded_steps(updates: int, every: int) -> list[int]:
    """Steps that get a row in the curves: each ``every``-th from 0, and the last."""
    steps = list(range(0, updates + 1, every))
    return steps if steps[-1] == updates else [*steps, updates]


class Record(Protocol):
    """What the loop tells of a training.

    Attributes:
        evaluate_seconds: host time spent on test and full-validation losses.
    """

    evaluate_seconds: float

    def due(self, step: int) -> bool:
        """Whether ``step`` gets a row of the curves."""
        ...

    def watch(
        self, step: int, state: State, loss: Tensor, hyperparameters: Hyperparameters
    ) -> None:
        """Take note of the state before weight update ``step``."""
        ...

    def record(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Write a row of the curves: ``values`` by column, (R,) each."""
        ...

    def hyper_update(
        self,
        index: int,
        hypergradients: Mapping[str, Tensor],
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor],
    ) -> None:
        """Take note of a hyperparameter update: hypergradients, and raw values before and after
        it.
        """
        ...


class NoRecord:
    """A `Record` that writes nothing down."""

    evaluate_seconds = 0.0

    def due(self, step: int) -> bool:
        """No step gets a row."""
        return False

    def watch(
        self, step: int, state: State, loss: Tensor, hyperparameters: Hyperparameters
    ) -> None:
        """Let it pass."""

    def record(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Let it pass."""

    def hyper_update(
        self,
        index: int,
        hypergradients: Mapping[str, Tensor],
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor],
    ) -> None:
        """Let it pass."""


class Recorder:
    """Columns of curves, the first step that was not finite, and the time each recorded step was
    reached.

    Args:
        rows: R.
        updates: weight updates of the training.
        every: weight updates between recorded steps.
        per_weight_lr: record quantiles over the weights beside the median.
        like: gives dtype and device.
        hyper_updates: hyperparameter updates whose hypergradients and steps are kept; 0 keeps none.

    Attributes:
        elapsed: seconds at which each recorded step was reached.
        evaluate_seconds: host time spent on test and full-validation losses.
    """

    def __init__(
        self,
        rows: int,
        updates: int,
        every: int,
        per_weight_lr: bool,
        like: Tensor,
        hyper_updates: int = 0,
    ) -> None:
        self.steps = recorded_steps(updates, every)
        self._index = {step: index for index, step in enumerate(self.steps)}
        self._rows, self._like = rows, like
        self._columns: dict[str, Tensor] = {}
        self._finite = like.new_zeros(
            updates + 1, rows
        )  # 0 where all is finite at a step, else NaN
        self._per_weight_lr = per_weight_lr
        self._quantiles = like.new_tensor([0.5, *QUANTILES.values()])
        self._hyper: Hyperparameters | None = None
        self._hyper_columns: dict[str, Tensor] = {}
        self._hyper_finite = like.new_zeros(rows)
        self._hyper_updates = hyper_updates
        self._hypergradients: dict[str, Tensor] = {}
        self.evaluate_seconds = 0.0
        self.elapsed = np.zeros(len(self.steps))
        self._begin = time.perf_counter()

    def due(self, step: int) -> bool:
        """Whether ``step`` gets a row."""
        return step in self._index

    def watch(
        self, step: int, state: State, loss: Tensor, hyperparameters: Hyperparameters
    ) -> None:
        """Note whether loss, weights and hyperparameters are finite at ``step``."""
        self._finite[step] = self.finite(state, loss, hyperparameters)

    def finite(self, state: State, loss: Tensor, hyperparameters: Hyperparameters) -> Tensor:
        """0 where loss, weights and hyperparameters are finite, else NaN, (R,): 0·x is NaN where x
        is not.
        """
        return (state.weights * 0).sum(-1) + loss * 0 + self.see(hyperparameters)

    def see(self, hyperparameters: Hyperparameters) -> Tensor:
        """Take note of the values that `row` adds: 0 where they are finite, else NaN, (R,)."""
        if hyperparameters is not self._hyper:
            self._hyper = hyperparameters
            self._hyper_columns = dict(self._summaries(hyperparameters))
            self._hyper_finite = torch.stack(
                [(v * 0).sum(-1) for v in hyperparameters.natural.values()]
            ).sum(0)
        return self._hyper_finite

    def _summaries(self, hyperparameters: Hyperparameters) -> Mapping[str, Tensor]:
        columns = {
            name: value.squeeze(-1)
            for name, value in hyperparameters.natural.items()
            if value.shape[-1] == 1
        }
        if self._per_weight_lr:
            quantiles = torch.quantile(hyperparameters["lr"], self._quantiles, dim=-1)
            columns |= dict(zip(("lr", *QUANTILES), quantiles, strict=True))
        return columns

    def record(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Write a row of the curves:

        ``values`` by column, (R,) each; `watch` supplies the hyperparameters.
        """
        index = self._index[step]
        for name, value in self.row(values).items():
            self._column(name)[index] = value
        self.elapsed[index] = time.perf_counter() - self._begin

    def row(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``values`` with the hyperparameters that `watch`, `finite` or `see` saw last, (R,)
        each.
        """
        return {**values, **self._hyper_columns}

    def _column(self, name: str) -> Tensor:
        if name not in self._columns:
            self._columns[name] = self._like.new_full((len(self.steps), self._rows), torch.nan)
        return self._columns[name]

    def take(self, first: int, finite: Tensor, columns: Mapping[str, Tensor]) -> None:
        """Write what several weight updates left: allocates nothing once every column is there.

        Args:
            first: number of the first of them.
            finite: (T, R), as `finite` for each.
            columns: the rows due among them, (rows, R) by column, or (R,) for what is the same in
                all of them.
        """
        self._finite[first : first + len(finite)].copy_(finite)
        due = [self._index[step] for step in range(first, first + len(finite)) if self.due(step)]
        if not due:
            return
        begin, end = due[0], due[-1] + 1
        for name, values in columns.items():
            self._column(name)[begin:end].copy_(values)
        self.elapsed[begin:end] = time.perf_counter() - self._begin

    def hyper_update(
        self,
        index: int,
        hypergradients: Mapping[str, Tensor],
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor],
    ) -> None:
        """Keep hypergradients and the steps taken."""
        for name, values in self.hyper_row(hypergradients, before, after).items():
            self._hyper_column(name)[index] = values

    def hyper_row(
        self,
        hypergradients: Mapping[str, Tensor],
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Hypergradient and step taken by hyperparameter, (2, R); of per-weight ones the sum and
        the mean.

        Nothing where none are kept.
        """
        if not self._hyper_updates:
            return {}
        rows = {}
        for name, value in hypergradients.items():
            step = (after[name] - before[name]).mean(-1)
            rows[name] = torch.stack([value.sum(-1), step])
        return rows

    def _hyper_column(self, name: str) -> Tensor:
        if name not in self._hypergradients:
            self._hypergradients[name] = self._like.new_full(
                (self._hyper_updates, 2, self._rows), torch.nan
            )
        return self._hypergradients[name]

    def take_hyper(self, first: int, rows: Mapping[str, Tensor]) -> None:
        """Write what a replayed interval left of its hyperparameter updates, number ``first`` and
        on.

        Args:
            rows: (updates, 2, R) by hyperparameter, see `hyper_row`.
        """
        for name, values in rows.items():
            self._hyper_column(name)[first : first + len(values)].copy_(values)

    def hypergradients(self) -> dict[str, np.ndarray]:
        """By hyperparameter, (hyper updates, 2, R): hypergradient and step taken."""
        return {name: values.cpu().numpy() for name, values in self._hypergradients.items()}

    def contents(self) -> dict[str, np.ndarray]:
        """All that was written down so far, to `restore` it later."""
        numbers = np.array([self.evaluate_seconds, time.perf_counter() - self._begin])
        return {
            "finite": self._finite.cpu().numpy(),
            "elapsed": self.elapsed,
            "seconds": numbers,
            **{f"column/{name}": values for name, values in self.curves().items()},
            **{f"hypergradient/{name}": values for name, values in self.hypergradients().items()},
        }

    def restore(self, contents: Mapping[str, np.ndarray]) -> None:
        """Go on from `contents` of a recorder made with the same arguments.

        Raises:
            KeyError, ValueError, RuntimeError: they are of another.
        """
        self._finite.copy_(torch.from_numpy(contents["finite"]))
        self.elapsed[:] = contents["elapsed"]
        self.evaluate_seconds, before = (float(value) for value in contents["seconds"])
        self._begin = time.perf_counter() - before
        for kind, target in (("column/", self._columns), ("hypergradient/", self._hypergradients)):
            for name, values in contents.items():
                if name.startswith(kind):
                    target[name.removeprefix(kind)] = torch.from_numpy(values).to(self._like)

    @property
    def seconds(self) -> float:
        """Time since the beginning, interruptions left out."""
        return time.perf_counter() - self._begin

    def curves(self) -> dict[str, np.ndarray]:
        """Recorded columns on the host, (recorded steps, R) each."""
        return {name: column.cpu().numpy() for name, column in self._columns.items()}

    def diverged_at(self) -> np.ndarray:
        """First step at which the training loss, a weight or a hyperparameter was not finite, (R,)
        int64, or -1.
        """
        bad = ~torch.isfinite(self._finite).cpu().numpy()
        return np.where(bad.any(0), bad.argmax(0), -1).astype(np.int64)
