"""Hand-made stores for tests: `make_run` writes one complete run in the contract's format, through
`hpo_bench.store`.

    # final values; NaN = diverged
    make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [0.5, 0.4, np.nan])
    # whole curves, (repetitions, rows)
    make_run(tmp_path, "random", "uci_kin8nm", curves_RS, update_interval=10)
    make_run(tmp_path, "random_validation", "uci_energy", test, validation_loss=validation)

A value matrix has one row per repetition and one column per recorded step 0, T, 2T, …
(`record_every` = T by default). NaN from a column on means that the repetition diverged there: it
keeps its rows up to that step and its final values are nulls. A vector of R values stands for R
curves of `rows` (5) columns that fall to these values geometrically. Every other column, and
columns that only some runs have, can be given by name (``train_loss=``, ``validation_loss=``,
``test_loss=``, ``lr=``, ``weight_decay=``, ``momentum=``, ``gradients=``) in the same shapes; the
configuration by dotted keys in ``config={"init.momentum": [0.6, 0.6]}``; ``seconds`` is the
training time of one repetition (written to final.parquet and, summed, to run.json)."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hpo_bench.store.runs import Run
from hpo_bench.store.writer import Block, Writer

METHODS = (
    ("random", "Random", "#7f7f7f", "-"),
    ("random_lr_schedule", "Random (× LR)", "#a65628", "-"),
    ("random_validation", "Random (with validation)", "#bcbd22", "--"),
    ("lorraine", "Lorraine", "#ff7f00", "-"),
    ("baydin", "Baydin", "#e377c2", "-"),
    ("ours_wd_lr", "Ours (WD+LR)", "#377eb8", "-"),
    ("ours_wd_lr_m", "Ours (WD+LR+M)", "#4daf4a", "-"),
    ("ours_wd_hdlr_m", "Ours (WD+HDLR+M)", "#984ea3", "-"),
    ("diff_through_opt", "Diff-through-Opt", "#e41a1c", "--"),
)
DATASETS: dict[str, dict[str, Any]] = {
    "uci_energy": {
        "label": "UCI Energy",
        "task": "regression",
        "metric": "mse",
        "metric_label": "Test MSE",
    },
    "uci_kin8nm": {
        "label": "Kin8nm",
        "task": "regression",
        "metric": "mse",
        "metric_label": "Test MSE (× 1000)",
        "metric_scale": 1000.0,
    },
    "uci_power": {
        "label": "UCI Power",
        "task": "regression",
        "metric": "mse",
        "metric_label": "Test MSE",
    },
    "fashion_mnist": {
        "label": "Fashion-MNIST",
        "task": "classification",
        "metric": "error",
        "metric_label": "Test error",
    },
    "penn_treebank": {
        "label": "Penn Treebank",
        "task": "language_modelling",
        "metric": "perplexity",
        "metric_label": "Test perplexity",
    },
}
VALUES = (
    "train_loss",
    "validation_loss",
    "test_loss",
    "test_metric",
    "lr",
    "weight_decay",
    "momentum",
)


def method_config(name: str) -> dict[str, Any]:
    """The ``method`` part of a run's configuration; names that are not in `METHODS` get a plain
    style.
    """
    for order, (known, label, colour, line_style) in enumerate(METHODS):
        if known == name:
            return {
                "name": name,
                "label": label,
                "colour": colour,
                "line_style": line_style,
                "order": order,
            }
    return {"name": name, "label": name, "colour": "#000000", "line_style": ":", "order": 99}


def dataset_config(name: str) -> dict[str, Any]:
    """The ``dataset`` part of a run's configuration."""
    plain = {
        "label": name,
        "task": "regression",
        "metric": "mse",
        "metric_label": "Test MSE",
        "metric_scale": 1.0,
    }
    return {"name": name, **plain, **DATASETS.get(name, {})}


def make_run(
    results_dir: Path,
    method: str,
    dataset: str,
    test_metric: Sequence[float] | np.ndarray,
    *,
    first_seed: int = 0,
    seeds: Sequence[int] | None = None,
    update_interval: int = 10,
    look_back: int = 5,
    record_every: int | None = None,
    rows: int = 5,
    seconds: float = 1.0,
    rows_in_block: int | None = None,
    environment: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    suffix: str = "",
    hypergradients: pa.Table | None = None,
    **values: Sequence[float] | np.ndarray,
) -> Run:
    """Write one complete run and return it; see the module's text.

    Raises:
        hpo_bench.errors.UserError: the run's name is taken by a complete run (give a ``suffix``).
    """
    metric_RS = _matrix(test_metric, rows)
    repetitions, columns = metric_RS.shape
    seed_R = list(seeds) if seeds is not None else list(range(first_seed, first_seed + repetitions))
    every = record_every or update_interval
    settings = _config(
        method, dataset, seed_R, update_interval, look_back, every * (columns - 1), every, config
    )
    matrices = {
        name: _matrix(values[name], columns) if name in values else _default(name, metric_RS)
        for name in dict.fromkeys((*VALUES, *values))
    }
    decisive = {
        key: value
        for key, value in settings.items()
        if key not in ("seed", "repetitions", "device", "chunk")
    }
    decisive |= {"data": dict(data)} if data else {}
    code = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]
    tables = {
        "final": _final(matrices, seed_R, every, seconds, rows_in_block or repetitions),
        "curves": _curves(matrices, seed_R, every, seconds),
    }
    if hypergradients is not None:
        tables["hypergradients"] = hypergradients
    block = Block(seeds=tuple(seed_R), tables=tables, seconds=_seconds(seconds * repetitions))
    with Writer(
        results_dir, f"{dataset}-{method}-s{seed_R[0]}-n{repetitions}{suffix}-{code}"
    ) as writer:
        done = writer.complete()
        if done is not None:
            raise ValueError(f"{done.path} is complete; give a suffix")
        writer.write_block(block)
        return writer.commit(
            seed_R,
            {
                "config": settings,
                "config_hash": code,
                **({"data": dict(data)} if data else {}),
                "code": {"version": "0.1.0", "numbers": 1, "git_commit": "0" * 40, "dirty": False},
                "environment": {
                    "python": "3.11",
                    "torch": "2.13.0",
                    "device": "cpu",
                    "cpu": "test",
                    "threads": 1,
                    "workers": 1,
                }
                | dict(environment or {}),
            },
        )


def _seconds(train: float) -> dict[str, float]:
    return {"train": train, "evaluate": 0.1 * train, "total": 1.1 * train}


def _matrix(values: Sequence[float] | np.ndarray, columns: int) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim == 2:
        return array
    curves = (
        array[:, None] * np.geomspace(8.0, 1.0, columns)[None, :] if columns > 1 else array[:, None]
    )
    if columns > 1:
        curves[np.isnan(array), 0] = 8.0
    return curves


def _default(name: str, metric_RS: np.ndarray) -> np.ndarray:
    constant = {"lr": 0.01, "weight_decay": 1e-4, "momentum": 0.9}
    if name in constant:
        return np.where(np.isnan(metric_RS), np.nan, constant[name])
    return (
        metric_RS
        * {"train_loss": 0.8, "validation_loss": 0.9, "test_loss": 1.0, "test_metric": 1.0}[name]
    )


def _config(
    method: str,
    dataset: str,
    seeds: Sequence[int],
    update_interval: int,
    look_back: int,
    updates: int,
    every: int,
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "dataset": dataset_config(dataset),
        "method": method_config(method),
        "seed": seeds[0],
        "repetitions": len(seeds),
        "update_interval": update_interval,
        "look_back": look_back,
        "hyperparameter_updates": updates // update_interval,
        "tuned": [],
        "hyper": {"lr": 0.05, "betas": [0.9, 0.999], "clip_log10_lr": [-10, 0]},
        "data_for_weights": "train",
        "batch_size": None,
        "validation_share": 0.2,
        "data_order": "shuffled",
        "gradient_clip_norm": None,
        "init": {
            "file": None,
            "log10_lr": [-6, -1],
            "log10_weight_decay": [-7, -2],
            "momentum": [0, 1],
        },
        "precision": "float32",
        "device": "cpu",
        "chunk": None,
        "record_every": every,
    }
    for key, value in copy.deepcopy(dict(extra or {})).items():
        node = settings
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return settings


def _lengths(metric_RS: np.ndarray) -> np.ndarray:
    """Rows that each repetition keeps: up to the first NaN of its test metric."""
    missing = np.isnan(metric_RS)
    return np.where(missing.any(axis=1), missing.argmax(axis=1), metric_RS.shape[1])


def _curves(
    matrices: Mapping[str, np.ndarray], seeds: Sequence[int], every: int, seconds: float
) -> pa.Table:
    lengths = _lengths(matrices["test_metric"])
    columns = matrices["test_metric"].shape[1]
    keep = np.arange(columns)[None, :] < lengths[:, None]
    repeat, step = np.nonzero(keep)
    data = {"seed": np.asarray(seeds, dtype=np.int64)[repeat], "step": step * every}
    data |= {name: matrix[keep] for name, matrix in matrices.items()}
    data["elapsed_s"] = seconds * step / max(columns - 1, 1)
    return pa.table({name: pa.array(column, from_pandas=True) for name, column in data.items()})


def _final(
    matrices: Mapping[str, np.ndarray],
    seeds: Sequence[int],
    every: int,
    seconds: float,
    rows_in_block: int,
) -> pa.Table:
    lengths = _lengths(matrices["test_metric"])
    repetitions, columns = matrices["test_metric"].shape
    ok = lengths == columns
    validation = np.where(
        np.isnan(matrices["validation_loss"]), np.inf, matrices["validation_loss"]
    )
    best = validation.argmin(axis=1)
    data: dict[str, Any] = {
        "seed": np.asarray(seeds, dtype=np.int64),
        "status": np.where(ok, "ok", "diverged").tolist(),
        "diverged_at": pa.array(np.where(ok, 0, lengths * every), mask=ok),
        "initial_lr": np.nan_to_num(matrices["lr"][:, 0], nan=0.1),
        "initial_weight_decay": np.nan_to_num(matrices["weight_decay"][:, 0], nan=0.1),
        "initial_momentum": np.nan_to_num(matrices["momentum"][:, 0], nan=0.1),
    }
    for name in (
        "lr",
        "weight_decay",
        "momentum",
        "train_loss",
        "validation_loss",
        "test_loss",
        "test_metric",
    ):
        data[name] = pa.array(np.where(ok, matrices[name][:, -1], np.nan), from_pandas=True)
    data["best_validation_step"] = best * every
    data["test_metric_at_best_validation"] = pa.array(
        matrices["test_metric"][np.arange(repetitions), best], from_pandas=True
    )
    data["seconds"] = np.full(repetitions, seconds)
    data["rows_in_block"] = np.full(repetitions, rows_in_block)
    return pa.table(data)
