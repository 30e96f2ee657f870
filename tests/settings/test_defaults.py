"""The yamls: defaults by method and dataset are the paper's."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import yaml

from hpo_bench.errors import UserError
from hpo_bench.settings.catalogue import dataset_names
from hpo_bench.settings.compose import compose
from hpo_bench.settings.identity import flat
from hpo_bench.settings.parse import (
    HYPER_KEYS,
    INIT_KEYS,
    METHOD_KEYS,
    OF_RULES,
    SETTINGS_KEYS,
    parse,
)
from hpo_bench.settings.yamls import configs_folder
from tests.composing import METHODS, resolved

UCI = ("boston", "concrete", "energy", "kin8nm", "naval", "power", "wine", "yacht")

SPLIT, JOINED = "train", "train_and_validation"

ALL = ["weight_decay", "lr", "momentum"]

# paper.md §3: tuned, rows that train the weights, T, i, K, reset of the weights; T·K = 4000 unless
# they are reset.
PAPER = {
    "random": ([], JOINED, 10, 5, 400, False),
    "random_lr_schedule": ([], JOINED, 10, 5, 400, False),
    "random_validation": ([], SPLIT, 10, 5, 400, False),
    "lorraine": (["weight_decay"], SPLIT, 10, 5, 400, False),
    "baydin": (["lr"], JOINED, 10, 5, 400, False),
    "ours_wd_lr": (["weight_decay", "lr"], SPLIT, 10, 5, 400, False),
    "ours_wd_lr_m": (ALL, SPLIT, 10, 5, 400, False),
    "ours_wd_hdlr_m": (ALL, SPLIT, 10, 5, 400, False),
    "diff_through_opt": (ALL, SPLIT, 10, 5, 400, False),
    "long_diff_through_opt": (ALL, SPLIT, 200, 200, 30, True),
    "random_adam": ([], JOINED, 10, 5, 400, False),
    "schedule_free_sgd": ([], JOINED, 10, 5, 400, False),
    "schedule_free_adamw": ([], JOINED, 10, 5, 400, False),
    "prodigy": ([], JOINED, 10, 5, 400, False),
    "random_cosine": ([], JOINED, 10, 5, 400, False),
    "random_adam_cosine": ([], JOINED, 10, 5, 400, False),
    "nadamw": ([], JOINED, 10, 5, 400, False),
    "prodigy_cosine": ([], JOINED, 10, 5, 400, False),
    "dog": ([], JOINED, 10, 5, 400, False),
    "momo": ([], JOINED, 10, 5, 400, False),
    "mechanic": ([], JOINED, 10, 5, 400, False),
    "hypergradient_adam": ([], JOINED, 10, 5, 400, False),
    "ultimate": (["lr", "momentum"], JOINED, 10, 5, 400, False),
}

RULES = {
    "random_adam": "adam.AdamW",
    "schedule_free_sgd": "schedule_free.ScheduleFreeSGD",
    "schedule_free_adamw": "schedule_free.ScheduleFreeAdamW",
    "prodigy": "prodigy.Prodigy",
    "random_adam_cosine": "adam.AdamW",
    "nadamw": "nadam.NAdamW",
    "prodigy_cosine": "prodigy.Prodigy",
    "dog": "dog.DoG",
    "momo": "momo.MoMo",
    "mechanic": "mechanic.Mechanic",
    "hypergradient_adam": "hypergradient_adam.HypergradientAdam",
}

SCHEDULED: dict[str, dict[str, Any]] = {
    "random_cosine": {},
    "random_adam_cosine": {},
    "prodigy_cosine": {"warmup": 0},
}

SMALL = [f"uci_{name}" for name in UCI] + ["diabetes", "digits", "csv"]

# paper.md §4: model, K, batch, validation share, order, bound of the gradient's norm, range of the
# lr multiplier
LARGE = {
    "fashion_mnist": ("mlp", 5000, 50, 1 / 6, "shuffled", None, [0.95, 1.01]),
    "fashion_mnist_batchnorm": ("mlp_batchnorm", 5000, 50, 1 / 6, "shuffled", None, [0.95, 1.01]),
    "cifar10": ("resnet18", 3240, 100, 0.1, "shuffled", None, [0.995, 1.001]),
    "penn_treebank": ("lstm", 2391, 70, 73760 / 1003349, "sequential", 0.25, [0.995, 1.001]),
}

# paper.md §3: T and K of the methods that have their own, by dataset; the others have T = 10 and
# the dataset's K
OWN = {
    "long_diff_through_opt": (200, 30),
    "medium_diff_through_opt": (200, 20),
    "full_diff_through_opt": (4000, 30),
}

PAIRS = {
    (method, dataset): budget
    for dataset in ("fashion_mnist", "fashion_mnist_batchnorm")
    for method, budget in {
        "long_diff_through_opt": (1000, 50),
        "medium_diff_through_opt": (200, 250),
    }.items()
}


@pytest.mark.parametrize("method", PAPER)
def test_every_pair_has_the_papers_defaults(method: str) -> None:
    tuned, rows, interval, look_back, updates, reset = PAPER[method]
    for dataset in SMALL:
        config = resolved(f"method={method}", f"dataset={dataset}")
        assert (config["method"]["name"], config["dataset"]["name"]) == (method, dataset)
        assert config["tuned"] == tuned
        assert config["method"]["data_for_weights"] == rows
        assert (config["update_interval"], config["look_back"]) == (interval, look_back)
        assert config["hyperparameter_updates"] == updates
        assert config["hyper"] == {
            "lr": 0.001 if method == "baydin" else 0.05,
            "betas": [0.9, 0.999],
            "clip_log10_lr": [-10, 0],
        }
        assert config["init"]["log10_lr"] == [-6, -1]
        assert config["init"]["log10_weight_decay"] == [-7, -2]
        assert config["init"]["momentum"] == [0, 1]
        assert config["init"]["lr_multiplier"] == [0.95, 1.01]
        assert config["method"]["reset_weights"] == reset
        assert config["method"]["lr_schedule"] == (method == "random_lr_schedule")
        assert config["method"]["full_validation"] == (method == "random_validation")
        assert config["method"]["per_weight"] == (["lr"] if method == "ours_wd_hdlr_m" else [])
        rule = {"_target_": f"hpo_bench.rules.{RULES[method]}"} if method in RULES else None
        assert config["method"]["rule"] == rule
        cosine = {"_target_": "hpo_bench.core.schedules.WarmupCosine"}
        schedule = {**cosine, **SCHEDULED[method]} if method in SCHEDULED else None
        assert config["method"]["schedule"] == schedule
        assert config["gradient_clip_norm"] is None
        assert config["record_every"] == 1


@pytest.mark.parametrize("dataset", LARGE)
def test_every_method_keeps_its_budget_on_the_larger_sets(dataset: str) -> None:
    model, updates, batch, share, order, norm, multiplier = LARGE[dataset]
    own = resolved(f"model={model}", f"batch_size={batch}")["model"]
    for method in METHODS:
        config = resolved(f"method={method}", f"dataset={dataset}")
        assert (config["method"]["name"], config["dataset"]["name"], config["model"]) == (
            method,
            dataset,
            own,
        )
        assert (config["update_interval"], config["hyperparameter_updates"]) == PAIRS.get(
            (method, dataset), OWN.get(method, (10, updates))
        )
        assert (config["batch_size"], config["data_order"], config["record_every"]) == (
            batch,
            order,
            10,
        )
        assert config["validation_share"] == pytest.approx(share, rel=1e-12)
        assert config["gradient_clip_norm"] == norm
        assert config["init"]["lr_multiplier"] == multiplier
        assert config["init"]["log10_lr"] == [-6, -1]


def test_a_subset_of_cifar10_says_so_in_its_label() -> None:
    labels = [
        resolved("dataset=cifar10", "model=mlp", *more)["dataset"]["label"]
        for more in ([], ["dataset.subset=true"])
    ]
    assert labels == ["CIFAR-10", "CIFAR-10 (subset)"]
    with pytest.raises(UserError, match=r"dataset\.subset=maybe: must be true or false"):
        parse(compose(["dataset=cifar10", "model=mlp", "dataset.subset=maybe"]))


@pytest.mark.parametrize("method", METHODS)
def test_every_pair_composes_into_its_method_and_dataset(method: str) -> None:
    for dataset in sorted({*dataset_names()} - {*LARGE} - {*(SMALL if method in PAPER else ())}):
        config = resolved(f"method={method}", f"dataset={dataset}")
        assert (config["method"]["name"], config["dataset"]["name"]) == (method, dataset)


def test_every_pair_file_is_used() -> None:
    for path in (configs_folder() / "method_dataset").glob("*.yaml"):
        method, _, dataset = path.stem.partition("__")
        assert method in METHODS
        if dataset in dataset_names():
            own = yaml.safe_load(path.read_text(encoding="utf-8"))
            assert (
                dict(flat(own)).items()
                <= dict(flat(resolved(f"method={method}", f"dataset={dataset}"))).items()
            )


def test_the_datasets_have_the_papers_budgets() -> None:
    assert {f"uci_{name}" for name in UCI} <= set(dataset_names())
    for name in UCI:
        config = resolved("method=random", f"dataset=uci_{name}")
        assert config["batch_size"] is None
        assert config["validation_share"] == pytest.approx(78 / 692 if name == "energy" else 0.2)


def test_the_look_back_reaches_the_estimator() -> None:
    for method in ("ours_wd_lr_m", "diff_through_opt"):
        assert resolved(f"method={method}", "look_back=3")["method"]["estimator"]["look_back"] == 3
    assert (
        resolved("method=long_diff_through_opt", "update_interval=50")["method"]["estimator"][
            "look_back"
        ]
        == 50
    )


def test_methods_can_be_told_apart_in_figures() -> None:
    methods = [resolved(f"method={name}")["method"] for name in METHODS]
    for key in ("label", "colour", "order"):
        assert max(Counter(method[key] for method in methods).values()) == 1, key


def test_the_known_keys_are_those_of_the_yamls() -> None:
    config = resolved()
    assert set(config) == set(SETTINGS_KEYS)
    assert set(config["hyper"]) == set(HYPER_KEYS)
    assert set(config["init"]) == {*INIT_KEYS, *OF_RULES}
    for name in METHODS:
        assert set(resolved(f"method={name}")["method"]) == set(METHOD_KEYS)
