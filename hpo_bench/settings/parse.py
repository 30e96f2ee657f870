"""From a composed configuration to `hpo_bench.settings.run.Settings`, each value checked once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from hpo_bench.core import checks
from hpo_bench.errors import UserError
from hpo_bench.settings import arguments, identity
from hpo_bench.settings.explain import _causes, _one_line
from hpo_bench.settings.run import (
    HYPERPARAMETERS,
    TRACKERS,
    DataForWeights,
    Method,
    Settings,
    StartRanges,
)
from hpo_bench.system.quoting import literal

HYPER = ("lr", "betas", "clip_log10_lr")
INIT = tuple(StartRanges.__dataclass_fields__)
SETTINGS = (
    "seed",
    "repetitions",
    "update_interval",
    "look_back",
    "hyperparameter_updates",
    "tuned",
    "hyper",
    "init",
    "data_for_weights",
    "validation_share",
    "batch_size",
    "data_order",
    "gradient_clip_norm",
    "record_every",
    "save_weights",
    "save_hypergradients",
    "results_dir",
    "device",
    "precision",
    "chunk",
    "workers",
    "checkpoint_every",
    "tracker",
    "model",
    "dataset",
    "method",
)
METHOD_FLAGS = ("full_validation", "lr_schedule", "reset_weights")
METHOD = (
    "name",
    "label",
    "colour",
    "line_style",
    "order",
    "estimator",
    "optimiser",
    "per_weight",
    "data_for_weights",
    "rule",
    "search",
    *METHOD_FLAGS,
)
RECORDED = 100_000_000  # rows of a repetition's curves, which are listed before the training begins
LINE_STYLES = ("-", "--", "-.", ":")
PARTS = {  # what each kind of component has
    "method.estimator": ("every_update", "second_batch", "tunes", "window"),
    "method.optimiser": ("init", "update"),
    "method.rule": ("init", "advance", "evaluated", "in_force"),
    "method.search": ("check", "block"),
    "dataset.source": ("load",),
}
DATA_FOR_WEIGHTS = ("train", "train_and_validation")
Value = TypeVar("Value")


def parse(cfg: DictConfig, *, force: bool = False) -> Settings:
    """Check every key and make the components that the configuration names.

    Args:
        cfg: composed configuration, without the ``hydra`` node.
        force: compute again what is stored.

    Raises:
        UserError: a key, a value or a component that is not allowed; one line.
    """
    config = _plain(cfg)
    checks.section("", config, SETTINGS, needed=SETTINGS)
    hyper = checks.section("hyper", config["hyper"], HYPER, needed=HYPER)
    checks.number_within("hyper.lr", hyper["lr"], 0, math.inf, closed=(True, False))
    checks.betas("hyper.betas", hyper["betas"])
    dataset = checks.section("dataset", config["dataset"], needed=("name", "source"))
    checks.label("dataset.label", dataset.get("label", dataset["name"]))
    checks.label("dataset.metric_label", dataset.get("metric_label", "Test metric"))
    return Settings(
        **_numbers(config),
        **_choices(config),
        dataset=checks.name("dataset.name", dataset["name"]),
        clip_log10_lr=_or_none(checks.interval, "hyper.clip_log10_lr", hyper["clip_log10_lr"]),
        start=_start(checks.section("init", config["init"], INIT, needed=INIT)),
        method=_method({**config, "tuned": identity.canonical(config)["tuned"]}),
        source=_component("dataset.source", dataset["source"], above=dataset),
        model=_component("model", _deferred(config["model"])),
        force=force,
        checkpoint_every=_or_none(_seconds, "checkpoint_every", config["checkpoint_every"]),
        tracker=_or_none(_tracker, "tracker", config["tracker"]),
        config=_by_values(config),
    )


def _by_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in the spelling that its hash and its comparisons go by.

    Its components are importable.
    """
    content = identity.canonical(config)
    content["model"] = identity.component(content["model"], _object)
    for key in ("estimator", "optimiser", "rule", "search"):
        content["method"][key] = identity.component(content["method"][key], _object)
    return content


def _object(target: str) -> Any:
    try:
        return hydra.utils.get_object(target)
    except (ImportError, ValueError, AttributeError):
        return None


def _plain(cfg: DictConfig) -> dict[str, Any]:
    for name in ("hyper", "init", "model", "dataset", "method"):
        if name in cfg and not OmegaConf.is_dict(cfg.get(name)):
            checks.section(name, cfg.get(name))
    try:
        config = cast(
            "dict[str, Any]", OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        )
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: must be given, as {error.full_key}=…") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {_one_line(error)}") from None
    for key, value in identity.flat(config):
        checks.storable(key, value)
    return config


def _numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "repetitions",
        "update_interval",
        "look_back",
        "hyperparameter_updates",
        "record_every",
    )
    counts = {key: checks.whole(key, config[key], 1) for key in names}
    updates = counts["update_interval"] * counts["hyperparameter_updates"]
    if updates // counts["record_every"] > RECORDED:
        raise UserError(
            f"record_every={counts['record_every']}: {updates} weight updates (update_interval × "
            f"hyperparameter_updates) would leave more than {RECORDED} rows a repetition; make it larger, or the "
            "training shorter"
        )
    return {
        "seed": checks.whole("seed", config["seed"], 0),
        **counts,
        **{key: checks.whole_or(key, config[key], "auto") for key in ("chunk", "workers")},
        "batch_size": checks.whole_or("batch_size", config["batch_size"], None),
        "validation_share": checks.number_within(
            "validation_share", config["validation_share"], 0, 1, closed=(False, False)
        ),
        "gradient_clip_norm": _or_none(
            checks.positive, "gradient_clip_norm", config["gradient_clip_norm"]
        ),
    }


def _choices(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data_order": checks.choice("data_order", config["data_order"], ("shuffled", "sequential")),
        "precision": checks.choice("precision", config["precision"], ("float32", "float64")),
        "device": checks.device("device", config["device"]),
        "results_dir": checks.path("results_dir", config["results_dir"]),
        **{key: checks.flag(key, config[key]) for key in ("save_weights", "save_hypergradients")},
    }


def _or_none(check: Callable[[str, Any], Value], key: str, value: Any) -> Value | None:
    return None if value is None else check(key, value)


def _seconds(key: str, value: Any) -> float:
    return checks.number_within(key, value, 0, math.inf, closed=(True, False))


def _tracker(key: str, value: Any) -> str:
    return checks.choice(key, value, tuple(TRACKERS))


def _start(section: Mapping[str, Any]) -> StartRanges:
    return StartRanges(
        file=_or_none(checks.file, "init.file", section["file"]),
        log10_lr=checks.interval("init.log10_lr", section["log10_lr"]),
        log10_weight_decay=checks.interval(
            "init.log10_weight_decay", section["log10_weight_decay"]
        ),
        momentum=checks.interval("init.momentum", section["momentum"], 0, 1),
        lr_multiplier=checks.interval("init.lr_multiplier", section["lr_multiplier"], 0),
    )


def _method(config: Mapping[str, Any]) -> Method:
    section = checks.section(
        "method", config["method"], METHOD, needed=("name", "label", "estimator", "optimiser")
    )
    name = checks.name("method.name", section["name"])
    checks.label("method.label", section["label"])
    checks.colour("method.colour", section.get("colour", "#000000"))
    checks.choice("method.line_style", section.get("line_style", "-"), LINE_STYLES)
    checks.number("method.order", section.get("order", 0))
    if (section["estimator"] is None) != (section["optimiser"] is None):
        raise UserError(
            f"method={name}: give both method.estimator and method.optimiser, or neither (null)"
        )
    if section.get("rule") is not None and section["estimator"] is not None:
        raise UserError(
            f"method={name}: hypergradients are known for SGD with momentum alone; leave out method.rule"
        )
    asked = checks.choice(
        "data_for_weights", config["data_for_weights"], ("method", *DATA_FOR_WEIGHTS)
    )
    own = checks.choice(
        "method.data_for_weights", section.get("data_for_weights", "train"), DATA_FOR_WEIGHTS
    )
    return Method(
        name=name,
        tuned=_tuned(name, config["tuned"], section["estimator"]),
        estimator=_or_none(_component, "method.estimator", section["estimator"]),
        optimiser=_or_none(_component, "method.optimiser", section["optimiser"]),
        rule=_or_none(_component, "method.rule", section.get("rule")),
        search=_or_none(_component, "method.search", section.get("search")),
        per_weight=checks.words(
            "method.per_weight", section.get("per_weight", []), HYPERPARAMETERS
        ),
        data_for_weights=cast("DataForWeights", own if asked == "method" else asked),
        **{key: checks.flag(f"method.{key}", section.get(key, False)) for key in METHOD_FLAGS},
    )


def _tuned(method: str, value: Any, estimator: Any) -> tuple[str, ...]:
    tuned = checks.words("tuned", value, HYPERPARAMETERS)
    if estimator is None and tuned:
        raise UserError(
            f"tuned=[{','.join(tuned)}]: method={method} tunes nothing; leave it out or choose another method"
        )
    if estimator is not None and not tuned:
        raise UserError(
            f"tuned=[]: method={method} needs at least one of {', '.join(HYPERPARAMETERS)}"
        )
    return tuned


def _component(key: str, node: Any, above: Iterable[str] = ()) -> Any:
    """Make what ``node._target_`` names; its other keys are the arguments.

    Args:
        above: settings of the section above that are passed on under their own names, and are
            called by that.
    """
    checks.section(key, node, needed=("_target_",))
    arguments.check(key, {name: value for name, value in node.items() if name not in above})
    passed_on = {name: value for name, value in node.items() if name in above}
    arguments.check(key.rpartition(".")[0], {**passed_on, "_target_": node["_target_"]})
    try:
        made = hydra.utils.instantiate(
            _literal(_literal(node)), _convert_="all"
        )  # Hydra resolves it twice
    except InstantiationException as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, UserError):
                raise _in_section(key, node, cause) from None
        raise UserError(f"{key}._target_={node['_target_']}: {_one_line(causes[-1])}") from None
    lacking = [name for name in PARTS.get(key, ()) if not hasattr(made, name)]
    if lacking:
        kind = (
            f"{'an' if key.endswith(('estimator', 'optimiser')) else 'a'} {key.rpartition('.')[2]}"
        )
        raise UserError(f"{key}._target_={node['_target_']}: is not {kind}, it has no {lacking[0]}")
    return made


def _literal(node: Any) -> Any:
    """Resolved settings that stay what they are when they are resolved again: a file may be called
    ``${x}``.
    """
    if isinstance(node, Mapping):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_literal(value) for value in node]
    return literal(node) if isinstance(node, str) else node


def _in_section(key: str, node: Mapping[str, Any], error: UserError) -> UserError:
    """A component's own complaint about one of its arguments, which does not know the section that
    it is in.
    """
    name = str(error).partition("=")[0]
    return UserError(f"{key}.{error}") if name in node else error


def _deferred(node: Mapping[str, Any]) -> dict[str, Any]:
    """The components inside a component as functions that make them: each repetition has a module
    of its own.
    """
    nested = {
        key: value
        for key, value in node.items()
        if isinstance(value, Mapping) and "_target_" in value
    }
    return {**node, **{key: {**value, "_partial_": True} for key, value in nested.items()}}
