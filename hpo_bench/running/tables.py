"""From what was recorded to the tables that are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from torch import Tensor

from hpo_bench.core.recorder import QUANTILES
from hpo_bench.settings.run import HYPERPARAMETERS, in_order
from hpo_bench.store.runs import STARTED, curve_columns, final_columns


def _nullable(
    values: np.ndarray | None, missing: np.ndarray | None, count: int, kind: pa.DataType
) -> pa.Array:
    """Arrow array with nulls where ``missing``, or all null where there are no values."""
    return pa.nulls(count, kind) if values is None else pa.array(values, kind, mask=missing)


def final_table(
    seeds: Sequence[int],
    initial: Mapping[str, Tensor],
    steps: Sequence[int],
    curves: Mapping[str, np.ndarray],
    diverged_at: np.ndarray,
    seconds: float,
) -> pa.Table:
    """One row per repetition: contract's ``final.parquet``.

    Args:
        initial: natural values of the rule's hyperparameters, (R, 1) or (R, P) each.
    """
    count = len(seeds)
    names = every_hyperparameter(initial)
    values: dict[str, pa.Array] = {
        "seed": pa.array(list(seeds), pa.int64()),
        "status": pa.array(["ok" if at < 0 else "diverged" for at in diverged_at]),
        "diverged_at": _nullable(diverged_at, diverged_at < 0, count, pa.int64()),
        "seconds": pa.array(np.full(count, seconds)),
        "rows_in_block": pa.array(np.full(count, count), pa.int64()),
    }
    for name in names:
        start = initial[name][:, 0].double().cpu().numpy() if name in initial else None
        values[f"{STARTED}{name}"] = _nullable(start, None, count, pa.float64())
    for name in ("train_loss", "validation_loss", "test_loss", "test_metric", *names):
        column = curves.get(name)
        values[name] = _nullable(
            None if column is None else column[-1].astype(np.float64), None, count, pa.float64()
        )
    best, unknown = _best_validation(curves.get("validation_loss"), diverged_at, steps)
    values["best_validation_step"] = _nullable(np.asarray(steps)[best], unknown, count, pa.int64())
    at_best = curves["test_metric"][best, np.arange(count)].astype(np.float64)
    values["test_metric_at_best_validation"] = _nullable(at_best, unknown, count, pa.float64())
    return pa.table({name: values[name] for name in final_columns(names)})


def every_hyperparameter(initial: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names that have columns: the paper's three, and what else the rule has."""
    return in_order((*HYPERPARAMETERS, *initial))


def _best_validation(
    validation: np.ndarray | None, diverged_at: np.ndarray, steps: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the recorded step with the least validation loss before any divergence, and where
    there is none.
    """
    if validation is None:
        return np.zeros(len(diverged_at), int), np.ones(len(diverged_at), bool)
    after = (diverged_at >= 0) & (np.asarray(steps)[:, None] >= diverged_at)
    usable = np.where(np.isfinite(validation) & ~after, validation, np.inf)
    return usable.argmin(axis=0), np.asarray(np.isinf(usable).all(axis=0))


def curves_table(
    seeds: Sequence[int],
    initial: Mapping[str, Tensor],
    steps: Sequence[int],
    curves: Mapping[str, np.ndarray],
    diverged_at: np.ndarray,
    elapsed: np.ndarray,
) -> pa.Table:
    """One row per repetition and recorded step, up to the step at which a repetition diverged:

    ``curves.parquet``.
    """
    at = np.asarray(steps)
    keep = ((diverged_at[:, None] < 0) | (at[None, :] <= diverged_at[:, None])).ravel()
    count = int(keep.sum())

    def rows(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (len(seeds), len(at))).ravel()[keep]

    dtype = pa.from_numpy_dtype(curves["train_loss"].dtype)
    columns: dict[str, pa.Array] = {}
    quantiles = [name for name in QUANTILES if name in curves]
    for name in (*curve_columns(every_hyperparameter(initial)), *quantiles):
        if name == "seed":
            columns[name] = pa.array(rows(np.asarray(seeds)[:, None]), pa.int64())
        elif name == "step":
            columns[name] = pa.array(rows(at[None, :]), pa.int64())
        elif name == "elapsed_s":
            columns[name] = pa.array(rows(elapsed[None, :]), pa.float32())
        else:
            column = curves.get(name)
            columns[name] = _nullable(
                None if column is None else rows(column.T), None, count, dtype
            )
    return pa.table(columns)


def hypergradients_table(seeds: Sequence[int], kept: Mapping[str, np.ndarray]) -> pa.Table:
    """One row per repetition and hyperparameter update, raw space.

    Per-weight hyperparameters: the sum of the hypergradients (that of a common shift) and the mean
    step.

    Args:
        kept: see `Recorder.hypergradients`.
    """
    updates = max((len(values) for values in kept.values()), default=0)
    columns: dict[str, pa.Array] = {
        "seed": pa.array(np.repeat(np.asarray(seeds, np.int64), updates)),
        "hyper_step": pa.array(np.tile(np.arange(updates), len(seeds))),
    }
    for name, values in kept.items():
        for index, kind in enumerate(("hypergradient", "step")):
            columns[f"{kind}_{name}"] = pa.array(values[:, index].T.ravel())
    return pa.table(columns)
