"""The configuration: defaults by method and dataset, precedence, checks, and its errors."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from packaging.version import Version

from hpo_bench.errors import UserError
from hpo_bench.running.identify import identify
from hpo_bench.settings.catalogue import dataset_names
from hpo_bench.settings.compose import compose, values_of
from hpo_bench.settings.identity import flat
from hpo_bench.settings.isolated import with_home
from hpo_bench.settings.parse import (
    HYPER_KEYS,
    INIT_KEYS,
    METHOD_KEYS,
    OF_RULES,
    SETTINGS_KEYS,
    parse,
)
from hpo_bench.settings.yamls import configs_folder, read_yaml
from hpo_bench.system.quoting import quoted

METHODS = sorted(path.stem for path in (configs_folder() / "method").glob("*.yaml"))
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


def resolved(*overrides: str, config_dir: Path | None = None) -> dict[str, Any]:
    content = OmegaConf.to_container(compose(overrides, config_dir), resolve=True)
    assert isinstance(content, dict)
    return content  # type: ignore[return-value]


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


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    """A folder in which the dataset, the method and their pair each set keys that the next layer
    sets too.
    """
    for group, name, keys in (
        (
            "dataset",
            "mine",
            {"update_interval": 2, "look_back": 2, "hyperparameter_updates": 2, "seed": 2},
        ),
        ("method", "mine", {"update_interval": 3, "look_back": 3, "hyperparameter_updates": 3}),
        ("method_dataset", "mine__mine", {"update_interval": 4, "look_back": 4}),
    ):
        (tmp_path / group).mkdir()
        head = "# @package _global_\n"
        (tmp_path / group / f"{name}.yaml").write_text(
            head + yaml.safe_dump(keys), encoding="utf-8"
        )
    for group, base in (("dataset", "diabetes"), ("method", "random")):
        own = tmp_path / group / "mine.yaml"
        own.write_text(
            own.read_text()
            + (configs_folder() / group / f"{base}.yaml").read_text().replace("hyper", "#")
        )
    return tmp_path


def test_command_line_over_pair_over_method_over_dataset_over_base(layers: Path) -> None:
    both = ("method=mine", "dataset=mine")
    config = resolved(*both, "update_interval=5", config_dir=layers)
    keys = ("update_interval", "look_back", "hyperparameter_updates", "seed", "repetitions")
    assert [config[key] for key in keys] == [5, 4, 3, 2, 1]
    assert resolved("method=mine", config_dir=layers)["look_back"] == 3
    assert resolved("dataset=mine", config_dir=layers)["look_back"] == 2
    assert resolved(*reversed(both), config_dir=layers) == resolved(*both, config_dir=layers)


def test_a_dataset_can_choose_its_model_and_the_command_line_another(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "model").mkdir()
    own = (configs_folder() / "dataset" / "diabetes.yaml").read_text(encoding="utf-8")
    (tmp_path / "dataset" / "wide.yaml").write_text(
        own + "defaults: [override /model: wide]\n", encoding="utf-8"
    )
    (tmp_path / "model" / "wide.yaml").write_text(
        "# @package _global_\nmodel: {_target_: a.b, width: 9}\n"
    )
    assert resolved("dataset=wide", config_dir=tmp_path)["model"] == {"_target_": "a.b", "width": 9}
    assert (
        resolved("dataset=wide", "model=mlp", config_dir=tmp_path)["model"] == resolved()["model"]
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


# --- parse ---


@pytest.mark.parametrize("method", METHODS)
def test_every_method_becomes_settings(method: str) -> None:
    config = resolved(f"method={method}")
    settings = parse(compose([f"method={method}"]))
    assert (settings.method.name, list(settings.method.tuned)) == (method, config["tuned"])
    assert settings.method.data_for_weights == config["method"]["data_for_weights"]
    assert (settings.method.estimator is None) == (config["tuned"] == [])
    assert (settings.method.optimiser is None) == (settings.method.estimator is None)


@pytest.mark.parametrize("dataset", [name for name in dataset_names() if name != "csv"])
def test_every_dataset_becomes_settings(dataset: str) -> None:
    settings = parse(compose([f"dataset={dataset}"]))
    assert settings.dataset == dataset
    assert settings.config["dataset"]["source"]["_target_"].endswith(type(settings.source).__name__)


def test_values_arrive_as_given() -> None:
    overrides = [
        "seed=7",
        "repetitions=3",
        "update_interval=4",
        "look_back=6",
        "hyperparameter_updates=9",
        "batch_size=32",
        "validation_share=0.25",
        "data_order=sequential",
        "gradient_clip_norm=0.25",
        "record_every=2",
        "device=cpu",
        "precision=float64",
        "chunk=5",
        "workers=2",
        "save_weights=true",
        "save_hypergradients=true",
        "results_dir=there",
        "tuned=[lr]",
        "data_for_weights=train_and_validation",
        "hyper.clip_log10_lr=[-8,-1]",
        "init.log10_lr=[-3,-3]",
        "init.momentum=[0.5,0.6]",
    ]
    settings = parse(compose(overrides), force=True)
    assert (settings.seed, settings.repetitions, settings.seeds) == (7, 3, range(7, 10))
    assert (settings.update_interval, settings.look_back, settings.hyperparameter_updates) == (
        4,
        6,
        9,
    )
    assert (settings.batch_size, settings.validation_share, settings.data_order) == (
        32,
        0.25,
        "sequential",
    )
    assert (settings.gradient_clip_norm, settings.record_every) == (0.25, 2)
    assert (settings.device, settings.precision, settings.chunk, settings.workers) == (
        "cpu",
        "float64",
        5,
        2,
    )
    assert (settings.save_weights, settings.save_hypergradients, settings.force) == (
        True,
        True,
        True,
    )
    assert settings.results_dir == Path("there")
    assert settings.method.tuned == ("lr",)
    assert settings.method.data_for_weights == "train_and_validation"
    assert settings.method.estimator.look_back == 6
    assert settings.clip_log10_lr == (-8, -1)
    assert (settings.start.log10_lr, settings.start.momentum) == ((-3, -3), (0.5, 0.6))
    given = resolved(*overrides)
    later = {"schedule": None, "fixed": {}}
    assert {name: given["method"].pop(name) for name in later} == later
    assert {given["init"].pop(name) for name in OF_RULES} == {None}
    assert settings.config == given


def test_words_for_none() -> None:
    settings = parse(
        compose(["hyper.clip_log10_lr=null", "chunk=auto", "workers=auto", "batch_size=null"])
    )
    assert (settings.clip_log10_lr, settings.chunk, settings.workers, settings.batch_size) == (
        None,
        None,
        None,
        None,
    )


WRONG = {
    "seed=-1": "whole number, 0 or more",
    "seed=1.5": "whole number, 0 or more",
    "seed=true": "whole number, 0 or more",
    f"seed={2**63}": "too large",
    "repetitions=0": "whole number, 1 or more",
    "repetitions=many": "whole number, 1 or more",
    "update_interval=0": "whole number, 1 or more",
    "look_back=0": "whole number, 1 or more",
    "hyperparameter_updates=0": "whole number, 1 or more",
    "record_every=0": "whole number, 1 or more",
    "batch_size=0": "null or a whole number",
    "batch_size=all": "null or a whole number",
    "chunk=0": "auto or a whole number",
    "chunk=atuo": "auto or a whole number",
    "workers=-2": "auto or a whole number",
    "validation_share=0": "above 0 and below 1",
    "validation_share=1": "above 0 and below 1",
    "validation_share=a_lot": "must be a number",
    "gradient_clip_norm=0": "above 0",
    "gradient_clip_norm=nan": "must be a number",
    "hyper.lr=-1": "at least 0",
    "hyper.lr=abc": "must be a number",
    "hyper.lr=inf": "must be a number",
    "hyper.betas=[0.9,1]": "at least 0 and below 1",
    "hyper.betas=[0.9]": "pair of numbers",
    "hyper.betas=0.9": "pair of numbers",
    "hyper.clip_log10_lr=[0,-10]": "low at most high",
    "hyper.clip_log10_lr=3": "pair [low,high]",
    "hyper=3": "is a section",
    "init.log10_lr=[-1,-6]": "low at most high",
    "init.log10_weight_decay=[a,b]": "must be a number",
    "init.momentum=[0,1.5]": "within [0,1]",
    "init.lr_multiplier=[-1,1]": "low at most high",
    "init.file=no_such.npz": "no such file",
    "data_order=shufled": "did you mean shuffled",
    "precision=float16": "float32",
    "device=gpu": "auto, cpu, cuda, cuda:N",
    "device=cuda:x": "auto, cpu, cuda, cuda:N",
    "data_for_weights=trian": "did you mean train",
    "tuned=[lr,momntum]": "did you mean momentum",
    "tuned=[lr,lr]": "twice",
    "tuned=lr": "must be a list",
    "tuned=[]": "at least one of lr",
    "save_weights=1": "true or false",
    "results_dir=''": "not empty",
    "model._target_=hpo_bench.no_such.Thing": "hpo_bench.no_such",
    "method.estimator._target_=hpo_bench.hypergradients.neumann.Neuman": "Neuman",
    "+model.foo=3": "unexpected keyword argument 'foo'",
    "+foo=1": "no such setting",
    "+hyper.foo=1": "hyper.foo: no such setting",
    "+method.lable=x": "did you mean label",
    "~seed": "seed: is missing",
    "~hyper.clip_log10_lr": "hyper.clip_log10_lr: is missing",
    "method.schedule=warmup_cosin": "did you mean warmup_cosine",
    "method.schedule=3": "method.schedule=3",
    "method.schedule={_target_: hpo_bench.rules.adam.AdamW}": "is not a schedule, it has no factor",
    "method.schedule={_target_: hpo_bench.core.schedules.Linear, warmup: 2}": "method.schedule.warmup=2: must be",
    "method.optimiser=null": "both method.estimator and method.optimiser",
    "dataset.name=null": "dataset.name=null",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_one_line_with_the_key_and_what_is_allowed(override: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(compose([override]))
    text = str(caught.value)
    assert WRONG[override] in text
    assert override.lstrip("+~").partition("=")[0].partition(".")[0] in text
    assert "\n" not in text


def test_a_rule_without_derivatives_has_no_hypergradients() -> None:
    rule = "method.rule={_target_: hpo_bench.rules.prodigy.Prodigy}"
    with pytest.raises(UserError, match=r"Prodigy: has no derivatives, and method=ours_wd_lr_m"):
        parse(compose([rule]))


def test_a_rule_is_tuned_by_its_own_names() -> None:
    rule = "method.rule={_target_: hpo_bench.rules.adam.AdamW}"
    with pytest.raises(UserError, match=r"tuned=.*unknown momentum; .*beta1"):
        parse(compose([rule]))
    settings = parse(compose([rule, "tuned=[lr,beta2]", "init.beta2=[0.9,0.99]"]))
    assert settings.method.tuned == ("lr", "beta2")
    assert settings.start.of("beta2") == (0.9, 0.99)
    assert settings.start.of("beta1") is None


def test_random_tunes_nothing() -> None:
    with pytest.raises(UserError, match=r"tuned=\[lr\]: method=random tunes nothing"):
        parse(compose(["method=random", "tuned=[lr]"]))


def test_a_value_that_must_be_given() -> None:
    with pytest.raises(UserError, match=r"dataset\.label: must be given"):
        parse(compose(["dataset.label=???"]))


UNKNOWN = {
    "method=ours_wd_lrm": ("method=ours_wd_lrm: no such method", "did you mean ours_wd_lr_m"),
    "dataset=uci_enrgy": ("dataset=uci_enrgy: no such dataset", "did you mean uci_energy"),
    "model=mpl": ("model=mpl: no such model", "mlp"),
    "methd=random": ("methd: no such setting", "did you mean method"),
    "sead=1": ("sead: no such setting", "did you mean seed"),
    "lr=1": ("lr: no such setting", "did you mean hyper.lr"),
    "hyper.beta=1": ("hyper.beta: no such setting", "did you mean betas"),
    "hyperr.lr=1": ("hyperr.lr: no such setting", "did you mean hyper"),
    "hydra/launcher=nothing": ("hydra/launcher=nothing: no such launcher", "basic"),
    "method=random,baydin": ("method=random,baydin names several values", "-m"),
    "seed=range(0,3)": ("seed=range(0,3) names several values", "-m"),
    "seed": ("cannot read 'seed' as key=value", ""),
    "tuned=[lr": ("cannot read 'tuned=[lr' as key=value", ""),
    "~nothing": ("Could not delete from config. 'nothing'", "does not exist"),
    "model=null": ("model=null: must be a name, not null", ""),
}


@pytest.mark.parametrize("override", UNKNOWN)
def test_what_does_not_compose_is_one_line_with_the_nearest_names(override: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([override])
    assert str(caught.value).startswith(UNKNOWN[override][0])
    assert UNKNOWN[override][1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_nearest_names_include_those_of_a_further_folder(layers: Path) -> None:
    (layers / "method" / "broken.yaml").write_text("a: [", encoding="utf-8")
    (layers / "dataset" / "mine.yaml").write_text(
        "dataset: {name: mine, favourite: 1}\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"did you mean favourite"):
        compose(["dataset.favorite=2"], layers)
    with pytest.raises(UserError, match=r"method=min: no such method; did you mean mine"):
        compose(["method=min"], layers)


def test_a_yaml_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "broken.yaml").write_text("a: [1,\nb: 2", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.yaml") as caught:
        compose(["method=broken"], tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_not_finite_can_be_skipped_and_is_part_of_the_run_only_then() -> None:
    ids = []
    for override in (
        [],
        ["+method.optimiser.skip_not_finite=false"],
        ["+method.optimiser.skip_not_finite=true"],
    ):
        settings = parse(compose(override))
        ids.append(identify(settings, settings.source.load(settings.validation_share)))
        assert settings.method.optimiser.skip_not_finite == (
            override[-1:] == ["+method.optimiser.skip_not_finite=true"]
        )
    assert ids[0] == ids[1] != ids[2]


# --- text that Hydra's grammar does not know ---


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("dataset.path=data(1).csv", """'dataset.path="data(1).csv"'"""),
        ("dataset.path=ünï.csv", """'dataset.path="ünï.csv"'"""),
        ("dataset.path=it's.csv", """'dataset.path="it'"'"'s.csv"'"""),
        ("dataset.path='it's.csv'", """'dataset.path="it'"'"'s.csv"'"""),
        ("dataset.drop=[city, state,when (UTC)]", """'dataset.drop=[city,state,"when (UTC)"]'"""),
        ("dataset.path=[x].csv", """'dataset.path="[x].csv"'"""),
        ("dataset.path={x}.csv", """'dataset.path="{x}.csv"'"""),
        ("dataset.path=[link=x]y.csv", """'dataset.path="[link=x]y.csv"'"""),
    ],
)
def test_a_value_that_needs_quotation_marks_is_shown_with_them(override: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([override])
    assert str(caught.value).endswith(f": {hint}")
    (word,) = shlex.split(hint)
    compose(["dataset=csv", word])


@pytest.mark.parametrize(
    "override", ["tuned=[lr", "tuned=[", "seed=range(0,3", "hyper={lr:1", "hyper={lr:(1}"]
)
def test_what_has_no_end_is_not_taken_for_text(override: str) -> None:
    with pytest.raises(UserError, match="cannot read") as caught:
        compose([override])
    assert "quotation marks" not in str(caught.value)


def test_a_tilde_is_the_home_folder_quoted_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for override in ("results_dir=~/my results", "results_dir='~/my results'"):
        assert parse(compose([override])).results_dir == tmp_path / "my results"
    assert with_home("method~x") == "method~x"
    assert with_home("results_dir=~/a,~/b") == "results_dir=~/a,~/b"


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("a=5e-1", [0.5]),
        ("a=1,2", [1, 2]),
        ("a=range(1,4)", [1, 2, 3]),
        ("a=.5", [0.5]),
        ("a=+1", [1]),
        ("a=1_000", [1000]),
        ("a='x',y", ["x", "y"]),
        ("a=[1,'b']", [[1, "b"]]),
        ("a=null", [None]),
        ("a=1e3", [1000.0]),
        ("a={b: 'c'}", [{"b": "c"}]),
    ],
)
def test_values_are_read_alike_by_every_command(override: str, values: list[Any]) -> None:
    assert values_of(override) == values
    assert [type(value) for value in values_of(override)] == [type(value) for value in values]


@pytest.mark.parametrize("override", ["a", "a=x(", "a=interval(0,1)"])
def test_values_that_cannot_be_listed_are_one_line(override: str) -> None:
    with pytest.raises(UserError) as caught:
        values_of(override)
    assert "\n" not in str(caught.value)


# --- folders and files of yamls ---


@pytest.mark.parametrize(
    "name", ["cfg-ü", "a,b", "p (1)", "e=q", "it's", 'q"x', "[a]", "{a}", "a: b", "back\\"]
)
def test_any_folder_of_yamls_is_searched(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "method" / "mine.yaml"
    file.parent.mkdir(parents=True)
    text = (configs_folder() / "method" / "random.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("name: random", "name: mine"), encoding="utf-8")
    assert parse(compose(["method=mine"], tmp_path / name)).method.name == "mine"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\ufeff# @package _global_\nseed: 1\n".encode(), "byte-order mark"),
        (b"# @package _global_\nseed: 1  # \xe9\n", "line 2 has the byte 0xe9"),
        ("seed: 1\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_yaml_in_another_encoding_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "dataset" / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        compose(["dataset=mine"], tmp_path)
    assert str(file) in str(caught.value)


def test_our_own_reader_of_yamls_knows_byte_order_marks_and_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("\ufeffa: 1e-3\nb: ${a}\nc: [.5, 1_000]\n", encoding="utf-8")
    assert read_yaml(file) == {"a": 0.001, "b": "${a}", "c": [0.5, 1000]}
    for content in ("a: [1", "a: ${", "a: 1\na: 2"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"a\.yaml"):
            read_yaml(file)


# --- names ---


@pytest.mark.parametrize("key", ["dataset.name", "method.name"])
@pytest.mark.parametrize("name", ["../../outside", "projects/house", "..", "-x"])
def test_a_name_is_one_part_of_a_path(key: str, name: str) -> None:
    with pytest.raises(UserError, match=f"^{key}=.* becomes the name of a folder"):
        parse(compose([f"{key}='{name}'"]))


# --- Hydra's own settings ---


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["hydra.launcher.timeout_mins=60", "hydra/launcher=hpo_bench"],
            "hydra.launcher.timeout_mins: no such",
        ),
        (["hydra.lancher.x=1"], "did you mean launcher?"),
        (["hydra.run.dirr=x"], "did you mean dir?"),
        (["hydra.job.chdirs=true"], "did you mean chdir?"),
        (["hydra.sweeper.max_batch=1"], "did you mean max_batch_size?"),
        (["hydra.job.env_set.X=1"], "it is empty, +hydra.job.env_set.X=… adds one"),
    ],
)
def test_a_misspelt_key_of_hydra_names_those_of_its_section(
    overrides: list[str], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        compose(overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chosen", [["hydra/launcher=joblib"], []])
def test_a_misspelt_key_of_a_launcher_names_the_launchers(chosen: list[str]) -> None:
    pytest.importorskip(
        "hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed"
    )
    with pytest.raises(UserError, match=r"did you mean n_jobs") as caught:
        compose(["hydra.launcher.n_job=2", *chosen])
    assert ("of hydra/launcher=joblib" in str(caught.value)) == (not chosen)


# --- a Hydra of the caller's ---


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[GlobalHydra]:
    """A process that has initialised Hydra for itself."""
    (tmp_path / "config.yaml").write_text("own: 1\n", encoding="utf-8")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        yield GlobalHydra.instance()


def test_compose_leaves_the_callers_hydra_as_it_was(theirs: GlobalHydra) -> None:
    inside = theirs.hydra
    assert compose(["seed=3"]).seed == 3
    with pytest.raises(UserError):
        compose(["nothing=1"])
    assert GlobalHydra.instance() is theirs
    assert theirs.hydra is inside
    assert hydra.version.getbase() == Version("1.2")
    assert hydra.compose("config").own == 1


def test_compose_in_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: compose([f"seed={seed}"]).seed, range(8)))
    assert found == list(range(8))


@pytest.mark.parametrize("override", ["seed=1,", "seed=,1", "seed=1,,2", "seed=,"])
def test_a_comma_without_a_value_is_not_taken_for_text(override: str) -> None:
    with pytest.raises(UserError, match="a value is missing before or after a comma"):
        compose([override])


def test_a_line_end_in_a_hint_stays_one() -> None:
    with pytest.raises(UserError, match=re.escape(r"""$'dataset.path="a\x0ab.csv"'""")):
        compose(["dataset.path=a\nb.csv"])


def test_text_that_looks_like_an_interpolation_reaches_a_component_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "${x}.csv"
    file.write_text("a,y\n" + "1,2\n2,1\n3,5\n" * 8)
    settings = parse(
        compose(["dataset=csv", "dataset.target=y", f"dataset.path={quoted(str(file))}"])
    )
    assert str(settings.source.path) == str(file)


@pytest.mark.parametrize("key", ["dataset.label", "method.label", "dataset.metric_label"])
@pytest.mark.parametrize("value", ["two\nlines", "\x1b[31mred", "nul\x00"])
def test_a_label_is_one_line(key: str, value: str) -> None:
    with pytest.raises(UserError, match=f"{key}=.*one line") as caught:
        parse(compose([f"{key}={quoted(value)}"]))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["dataset.label", "results_dir", "init.file"])
def test_text_that_no_file_can_hold_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"{key}=.*\\udce9.*UTF-8"):
        parse(compose([f'{key}="caf\udce9"']))


@pytest.mark.parametrize(
    "override", ["update_interval=4611686018427387903", "hyperparameter_updates=400000000000"]
)
def test_a_training_whose_record_no_memory_holds_is_refused(override: str) -> None:
    with pytest.raises(UserError, match=r"record_every=1: .* weight updates"):
        parse(compose([override]))


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("method.estimator", "is not an estimator, it has no every_update"),
        ("method.optimiser", "is not an optimiser, it has no init"),
        ("dataset.source", "is not a source, it has no load"),
    ],
)
def test_a_component_of_another_kind_is_one_line(key: str, part: str) -> None:
    config = compose()
    OmegaConf.update(config, key, {"_target_": "collections.OrderedDict"}, merge=False)
    with pytest.raises(UserError, match=rf"{key}._target_=collections.OrderedDict: {part}"):
        parse(config)


@pytest.mark.parametrize(
    "override", ["method.colour=reddish", "method.line_style=zigzag", "method.order=first"]
)
def test_what_a_figure_could_not_draw_is_refused_before_anything_is_computed(override: str) -> None:
    with pytest.raises(UserError, match=override):
        parse(compose([override]))
