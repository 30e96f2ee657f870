"""Parsing: each value is checked once, and what is wrong is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hpo_bench.errors import UserError
from hpo_bench.running.identify import identify
from hpo_bench.settings.catalogue import dataset_names
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import OF_RULES, parse
from hpo_bench.system.quoting import quoted
from tests.composing import METHODS, resolved


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
    later = {"schedule": None, "fixed": None}
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
    "repetitions=1000000000": "at most 1000000",
    "look_back=4294967297": "at most 100000 terms",
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
    "method.schedule={_target_: hpo_bench.core.schedules.Linear, warmup: 2}": (
        "method.schedule.warmup=2: must be"
    ),
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


@pytest.mark.parametrize(
    ("value", "about"),
    [
        ("false", r"^method\.fixed=false: is a section"),
        ("{beta1: 0.9}", r"^method\.fixed\.beta1: .*lr"),
        ("{lr: -1}", r"^method\.fixed\.lr=-1: must be at least 0"),
        ("{momentum: 1}", r"^method\.fixed\.momentum=1: must be at least 0 and below 1"),
        ("{momentum: much}", r"^method\.fixed\.momentum=much: must be a number"),
    ],
)
def test_what_is_fixed_is_a_hyperparameter_of_the_rule(value: str, about: str) -> None:
    with pytest.raises(UserError, match=about):
        parse(compose([f"method.fixed={value}"]))


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


# --- names ---


@pytest.mark.parametrize("key", ["dataset.name", "method.name"])
@pytest.mark.parametrize("name", ["../../outside", "projects/house", "..", "-x"])
def test_a_name_is_one_part_of_a_path(key: str, name: str) -> None:
    with pytest.raises(UserError, match=f"^{key}=.* becomes the name of a folder"):
        parse(compose([f"{key}='{name}'"]))


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
