"""A small store that feeds every figure, made by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from hpo_bench.analysis import paper
from hpo_bench.store.runs import Run
from tests.make_store import make_run

MOMENTUM = [0.6224593312018546, 0.6224593312018546]
CELLS = [(1, 1), (2, 1), (2, 2), (10, 5)]
IMAGES = {"dataset.task": "classification", "dataset.metric_label": "Test error"}


def build(results: Path) -> Path:
    """Fill ``results``; a new figure adds its runs here."""
    rng = np.random.default_rng(0)
    for dataset in ("uci_energy", "uci_kin8nm"):
        for method in paper.ONE_PASS:
            make_run(results, method, dataset, _curves(rng, 8))
    _rivals(results, rng)
    _discounts(results, rng)
    _proof_of_concept(results, rng)
    for cell in CELLS:
        _sensitivity(results, rng, *cell)
        _hypergradient_error(results, rng, *cell)
    _larger(results, rng)
    _horizons(results, rng)
    for method in ("ours_wd_lr_m", "ours_discounted"):
        make_audit(
            results,
            method,
            "uci_energy",
            over_time(rng.normal(size=(6, 3, 2)), rng.normal(size=(6, 3, 2))),
        )
    for share in paper.LARGER_VALIDATION_SHARES[:2]:
        make_run(
            results,
            "ours_wd_lr_m",
            "uci_energy",
            _curves(rng, 6),
            config={"validation_share": share},
        )
    trials = rng.lognormal(size=(3, 6))
    spent = np.arange(1, 7) * np.ones((3, 1))
    make_run(
        results,
        "bayesopt",
        "uci_energy",
        trials,
        validation_loss=trials,
        rows_in_block=1,
        gradients=4000 * spent,
        hessian_products=0 * spent,
    )
    return results


def _rivals(results: Path, rng: np.random.Generator) -> None:
    for method in ("prodigy", "adamw_default", "ours_adamw"):
        for dataset in ("uci_energy", "uci_kin8nm"):
            run = make_run(results, method, dataset, _curves(rng, 8))
            add_costs(run, 40, 12)


def add_costs(run: Run, gradients: int, products: int) -> None:
    """Say in ``run.json`` what a repetition of a run cost."""
    file = run.path / "run.json"
    costs = {"gradients": gradients, "hessian_products": products}
    file.write_text(json.dumps({**json.loads(file.read_text()), "costs": costs}))


def _discounts(results: Path, rng: np.random.Generator) -> None:
    for discount in (0, 0.95, 1):
        make_run(
            results,
            "ours_discounted",
            "uci_energy",
            _curves(rng, 8),
            config={"method.estimator.discount": discount},
            suffix=f"-{discount}",
        )


def _curves(rng: np.random.Generator, repetitions: int, rows: int = 5) -> np.ndarray:
    """Falling curves; the last repetition diverges half-way."""
    curves = rng.lognormal(size=(repetitions, 1)) * np.geomspace(50, 1, rows)
    curves[-1, rows // 2 :] = np.nan
    return curves


def _proof_of_concept(results: Path, rng: np.random.Generator) -> None:
    wide = {"init.log10_lr": [-6, 1], "init.log10_weight_decay": [-7, 2], "init.momentum": MOMENTUM}
    lr, weight_decay = (
        np.repeat(10 ** rng.uniform(-6, -1, size=(30, 1)), 2, axis=1) for _ in range(2)
    )
    final = np.repeat(1.0 + np.abs(np.log10(lr[:, :1]) + 2), 2, axis=1)
    final[:3, 1] = np.nan
    make_run(results, "random", "uci_energy", final, lr=lr, weight_decay=weight_decay, config=wide)
    path = np.geomspace(1e-5, 1e-2, 5) * rng.lognormal(size=(4, 1))
    make_run(
        results,
        "ours_wd_lr",
        "uci_energy",
        _curves(rng, 4),
        lr=path,
        config={"init.momentum": MOMENTUM},
    )


def _sensitivity(
    results: Path, rng: np.random.Generator, update_interval: int, look_back: int
) -> None:
    for method in ("ours_wd_lr_m", "diff_through_opt"):
        make_run(
            results,
            method,
            "uci_energy",
            _curves(rng, 5, 3),
            update_interval=update_interval,
            look_back=look_back,
            suffix="-cell",
        )


def _hypergradient_error(
    results: Path, rng: np.random.Generator, update_interval: int, look_back: int
) -> None:
    exact = rng.normal(size=(6, 3))
    for method, values in (
        ("diff_through_opt", exact),
        ("ours_wd_lr_m", exact * (1 + 0.01 * (look_back - 1))),
    ):
        make_run(
            results,
            method,
            "uci_energy",
            np.ones((6, 2)),
            update_interval=update_interval,
            look_back=look_back,
            config={"hyper.clip_log10_lr": None, "save_hypergradients": True},
            suffix="-hypergradients",
            hypergradients=hypergradients(values),
        )


def hypergradients(values: np.ndarray, first_seed: int = 0) -> pa.Table:
    """Table of first hypergradients (seeds, 3) and of Adam's first steps by them."""
    columns: dict[str, Any] = {
        "seed": np.arange(first_seed, first_seed + len(values)),
        "hyper_step": np.zeros(len(values), int),
    }
    for index, name in enumerate(("lr", "weight_decay", "momentum")):
        columns[f"hypergradient_{name}"] = values[:, index]
        columns[f"step_{name}"] = -0.05 * values[:, index] / (np.abs(values[:, index]) + 1e-8)
    return pa.table(columns)


def _larger(results: Path, rng: np.random.Generator) -> None:
    for dataset in ("fashion_mnist", "cifar10", "penn_treebank", "fashion_mnist_batchnorm"):
        extra = {} if dataset == "penn_treebank" else IMAGES
        for method in ("random", "random_validation", "ours_wd_lr_m"):
            make_run(results, method, dataset, _curves(rng, 6), config=extra)
    medium = rng.lognormal(size=(6, 2))
    make_run(
        results,
        "medium_diff_through_opt",
        "fashion_mnist",
        medium,
        update_interval=200,
        config=IMAGES,
    )
    for seed in range(6):
        make_run(
            results / "runtime",
            "random",
            "fashion_mnist",
            np.ones((1, 3)),
            first_seed=seed,
            rows_in_block=1,
            seconds=1.0 + 0.1 * seed,
            config={**IMAGES, "chunk": 1},
        )


def _horizons(results: Path, rng: np.random.Generator) -> None:
    for method in ("random", "ours_wd_lr_m"):
        make_run(results, method, "uci_power", _curves(rng, 6, 21))
    reset = {"method.reset_weights": True}
    make_run(
        results,
        "long_diff_through_opt",
        "uci_power",
        _curves(rng, 6, 13),
        update_interval=200,
        record_every=100,
        config=reset,
    )
    make_run(
        results,
        "full_diff_through_opt",
        "uci_energy",
        _curves(rng, 5, 5),
        update_interval=4000,
        record_every=2000,
        config=reset,
    )


def make_audit(
    results: Path, method: str, dataset: str, frame: pd.DataFrame, name: str = ""
) -> Path:
    """Store an audit over time, as the program does."""
    run = make_run(results / "aside", method, dataset, np.ones((frame["seed"].nunique(), 2)))
    folder = results / "audits" / (name or f"{dataset}-{method}")
    folder.mkdir(parents=True)
    (folder / "audit.json").write_text((run.path / "run.json").read_text())
    frame.to_parquet(folder / "over_time.parquet", index=False)
    return folder


def over_time(approximate: np.ndarray, exact: np.ndarray) -> pd.DataFrame:
    """Comparisons of hypergradients with what happens later, (seeds, moments, horizons) each."""
    rows = []
    names = ("lr", "weight_decay", "momentum")
    places = itertools.product(*map(range, approximate.shape), names)
    for seed, moment, horizon, name in places:
        at = (seed, moment, horizon)
        rows.append({
            "seed": seed, "hyper_update": moment + 1, "step": 10 * (moment + 1),
            "horizon": 10**horizon, "hyperparameter": name,
            "approximate": approximate[at], "exact": exact[at],
        })  # fmt: skip
        if name == names[-1]:
            rows.append(
                {**rows[-1], "hyperparameter": "all", "approximate": np.nan, "exact": np.nan}
            )
    return pd.DataFrame(rows)
