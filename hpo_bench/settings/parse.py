"""Parsing a composed configuration into `Settings`, each value checked once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from hpo_bench.core import checks
from hpo_bench.errors import UserError
from hpo_bench.settings import arguments, identity
from hpo_bench.settings.explain import causes, one_line
from hpo_bench.settings.run import (
    HYPERPARAMETERS,
    TRACKERS,
    DataForWeights,
    Method,
    Settings,
    StartRanges,
)
from hpo_bench.system.quoting import literal

if TYPE_CHECKING:
    from hpo_bench.core.rule import Rule

# The keys that there may be: at the top and in the sections.
HYPER_KEYS = ("lr", "betas", "clip_log10_lr")
INIT_KEYS = ("file", "log10_lr", "log10_weight_decay", "momentum", "lr_multiplier")
SETTINGS_KEYS = (
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
METHOD_KEYS = (
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
    "fixed",
    "search",
    "schedule",
    *METHOD_FLAGS,
)
# Ranges that config.yaml names and SGD has no use for.
OF_RULES = ("beta1", "beta2")
# Most rows of a repetition's curves: they are listed before the training begins.
MOST_ROWS = 100_000_000
MOST_REPETITIONS = 1_000_000  # of one run, whose tables are made as one piece
LINE_STYLES = ("-", "--", "-.", ":")
# What each kind of component has.
PARTS = {
    "method.estimator": ("every_update", "second_batch", "tunes", "window", "estimate"),
    "method.optimiser": ("init", "update"),
    "method.rule": ("coordinates", "differentiable", "init", "advance", "evaluated", "in_force"),
    "method.search": ("check", "block"),
    "method.schedule": ("factor",),
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
    checks.section("", config, SETTINGS_KEYS, needed=SETTINGS_KEYS)
    hyper = checks.section("hyper", config["hyper"], HYPER_KEYS, needed=HYPER_KEYS)
    checks.number_within("hyper.lr", hyper["lr"], 0, math.inf, closed=(True, False))
    checks.betas("hyper.betas", hyper["betas"])
    dataset = checks.section("dataset", config["dataset"], needed=("name", "source"))
    checks.label("dataset.label", dataset.get("label", dataset["name"]))
    checks.label("dataset.metric_label", dataset.get("metric_label", "Test metric"))
    method = _method({**config, "tuned": identity.canonical(config)["tuned"]})
    return Settings(
        **_numbers(config),
        **_choices(config),
        dataset=checks.name("dataset.name", dataset["name"]),
        clip_log10_lr=_or_none(checks.interval, "hyper.clip_log10_lr", hyper["clip_log10_lr"]),
        start=_start(config["init"], method),
        method=method,
        source=_component("dataset.source", dataset["source"], above=dataset),
        model=_component("model", _deferred(config["model"])),
        force=force,
        checkpoint_every=_or_none(_seconds, "checkpoint_every", config["checkpoint_every"]),
        tracker=_or_none(_tracker, "tracker", config["tracker"]),
        config=_by_values(config),
    )


def _by_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in the spelling that its hash and its comparisons go by."""
    content = identity.canonical(config)
    content["model"] = identity.component(content["model"], _object)
    for key in ("estimator", "optimiser", "rule", "search", "schedule"):
        if key in content["method"]:
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
        raise UserError(f"{error.full_key}: {one_line(error)}") from None
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
    if counts["repetitions"] > MOST_REPETITIONS:
        raise UserError(
            f"repetitions={counts['repetitions']}: a run has at most {MOST_REPETITIONS}; "
            "runs with another seed can hold further ones"
        )
    updates = counts["update_interval"] * counts["hyperparameter_updates"]
    if updates // counts["record_every"] > MOST_ROWS:
        raise UserError(
            f"record_every={counts['record_every']}: {updates} weight updates (update_interval × "
            f"hyperparameter_updates) would leave more than {MOST_ROWS} rows a repetition; "
            "make it larger, or the training shorter"
        )
    share = config["validation_share"]
    bound = config["gradient_clip_norm"]
    return {
        "seed": checks.whole("seed", config["seed"], 0),
        **counts,
        "chunk": checks.whole_or("chunk", config["chunk"], "auto"),
        "workers": checks.whole_or("workers", config["workers"], "auto"),
        "batch_size": checks.whole_or("batch_size", config["batch_size"], None),
        "validation_share": checks.number_within(
            "validation_share", share, 0, 1, closed=(False, False)
        ),
        "gradient_clip_norm": _or_none(checks.positive, "gradient_clip_norm", bound),
    }


def _choices(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data_order": checks.choice("data_order", config["data_order"], ("shuffled", "sequential")),
        "precision": checks.choice("precision", config["precision"], ("float32", "float64")),
        "device": checks.device("device", config["device"]),
        "results_dir": checks.path("results_dir", config["results_dir"]),
        "save_weights": checks.flag("save_weights", config["save_weights"]),
        "save_hypergradients": checks.flag("save_hypergradients", config["save_hypergradients"]),
    }


def _or_none(check: Callable[[str, Any], Value], key: str, value: Any) -> Value | None:
    return None if value is None else check(key, value)


def _seconds(key: str, value: Any) -> float:
    return checks.number_within(key, value, 0, math.inf, closed=(True, False))


def _tracker(key: str, value: Any) -> str:
    return checks.choice(key, value, tuple(TRACKERS))


def _start(content: Any, method: Method) -> StartRanges:
    others = [name for name in (*OF_RULES, *method.hyperparameters) if name not in HYPERPARAMETERS]
    section = checks.section("init", content, (*INIT_KEYS, *others), needed=INIT_KEYS)
    ranges = {}
    for name in others:
        if section.get(name) is not None:
            is_share = _is_share(name, method.rule)
            bounds = (0.0, 1.0) if is_share else (-math.inf, math.inf)
            ranges[name] = checks.interval(f"init.{name}", section[name], *bounds)
    return StartRanges(
        others=ranges,
        file=_or_none(checks.file, "init.file", section["file"]),
        log10_lr=checks.interval("init.log10_lr", section["log10_lr"]),
        log10_weight_decay=checks.interval(
            "init.log10_weight_decay", section["log10_weight_decay"]
        ),
        momentum=checks.interval("init.momentum", section["momentum"], 0, 1),
        lr_multiplier=checks.interval("init.lr_multiplier", section["lr_multiplier"], 0),
    )


def _is_share(name: str, rule: Rule | None) -> bool:
    """Whether a hyperparameter lies between 0 and 1."""
    if rule is None or name not in rule.coordinates:
        return name in ("momentum", *OF_RULES)
    return rule.coordinates[name].space.name == "logit"


def _method(config: Mapping[str, Any]) -> Method:
    needed = ("name", "label", "estimator", "optimiser")
    content = checks.section("method", config["method"], METHOD_KEYS, needed=needed)
    section = {**identity.METHOD_DEFAULTS, **content}
    name = checks.name("method.name", section["name"])
    checks.label("method.label", section["label"])
    checks.colour("method.colour", section.get("colour", "#000000"))
    checks.choice("method.line_style", section.get("line_style", "-"), LINE_STYLES)
    checks.number("method.order", section.get("order", 0))
    if (section["estimator"] is None) != (section["optimiser"] is None):
        raise UserError(
            f"method={name}: give both method.estimator and method.optimiser, or neither (null)"
        )
    rule = _or_none(_component, "method.rule", section["rule"])
    if rule is not None and section["estimator"] is not None and not rule.differentiable:
        target = section["rule"]["_target_"]
        raise UserError(
            f"method.rule._target_={target}: has no derivatives, and method={name} needs "
            "hypergradients; choose a rule that has, or method.estimator=null"
        )
    names = HYPERPARAMETERS if rule is None else tuple(rule.coordinates)
    if section["search"] is not None and not set(HYPERPARAMETERS) <= set(names):
        raise UserError(
            f"method={name}: a search chooses {', '.join(HYPERPARAMETERS)}; method.rule has "
            f"{', '.join(names)}"
        )
    rows = _data_for_weights(config["data_for_weights"], section["data_for_weights"])
    return Method(
        name=name,
        tuned=_tuned(name, config["tuned"], section["estimator"], names),
        estimator=_or_none(_component, "method.estimator", section["estimator"]),
        optimiser=_or_none(_component, "method.optimiser", section["optimiser"]),
        rule=rule,
        fixed=_fixed(section.get("fixed"), rule),
        search=_or_none(_component, "method.search", section["search"]),
        schedule=_or_none(_component, "method.schedule", _schedule(section.get("schedule"))),
        per_weight=checks.words("method.per_weight", section["per_weight"], names),
        data_for_weights=rows,
        **{key: checks.flag(f"method.{key}", section[key]) for key in METHOD_FLAGS},
    )


def _data_for_weights(override: Any, of_method: Any) -> DataForWeights:
    """The rows that train the weights: as the method says, unless the setting says otherwise."""
    choice = checks.choice("data_for_weights", override, ("method", *DATA_FOR_WEIGHTS))
    usual = checks.choice("method.data_for_weights", of_method, DATA_FOR_WEIGHTS)
    return cast("DataForWeights", usual if choice == "method" else choice)


def _schedule(value: Any) -> Any:
    """The component of a schedule that may be given by its name; None where it is constant."""
    if value is not None and not isinstance(value, Mapping):
        checks.choice("method.schedule", value, tuple(identity.SCHEDULES))
    return identity.scheduled(value)


def _tuned(method: str, value: Any, estimator: Any, names: Sequence[str]) -> tuple[str, ...]:
    tuned = checks.words("tuned", value, names)
    if estimator is None and tuned:
        raise UserError(
            f"tuned=[{','.join(tuned)}]: method={method} tunes nothing; "
            "leave it out or choose another method"
        )
    if estimator is not None and not tuned:
        raise UserError(f"tuned=[]: method={method} needs at least one of {', '.join(names)}")
    return tuned


def _fixed(section: Any, rule: Rule | None) -> dict[str, float]:
    """Natural values of hyperparameters that do not start from a draw."""
    if section is None:
        return {}
    names = HYPERPARAMETERS if rule is None else tuple(rule.coordinates)
    checks.section("method.fixed", section, allowed=names)
    return {name: _natural(f"method.fixed.{name}", section[name], name, rule) for name in section}


def _natural(key: str, value: Any, name: str, rule: Rule | None) -> float:
    """A value that a hyperparameter may have; a momentum lies between 0 and 1, and others do so."""
    if _is_share(name, rule):
        return checks.number_within(key, value, 0, 1, closed=(True, False))
    return checks.at_least_zero(key, value)


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
        # Hydra resolves what it is given, and does so twice.
        component = hydra.utils.instantiate(_literal(_literal(node)), _convert_="all")
    except InstantiationException as error:
        chain = list(causes(error))
        for cause in chain:
            if isinstance(cause, UserError):
                raise _in_section(key, node, cause) from None
        raise UserError(f"{key}._target_={node['_target_']}: {one_line(chain[-1])}") from None
    for part in PARTS.get(key, ()):
        if not hasattr(component, part):
            kind = key.rpartition(".")[2]
            article = "an" if kind in ("estimator", "optimiser") else "a"
            raise UserError(
                f"{key}._target_={node['_target_']}: is not {article} {kind}, it has no {part}"
            )
    return component


def _literal(node: Any) -> Any:
    """Write resolved settings such that they stay what they are when they are resolved again."""
    # A file may be called ``${x}``.
    if isinstance(node, Mapping):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_literal(value) for value in node]
    return literal(node) if isinstance(node, str) else node


def _in_section(key: str, node: Mapping[str, Any], error: UserError) -> UserError:
    """Add the section to a component's complaint about an argument, which does not know it."""
    name = str(error).partition("=")[0]
    return UserError(f"{key}.{error}") if name in node else error


def _deferred(node: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the components inside a component into functions that make them.

    Each repetition has a module of its own.
    """
    arguments_of = dict(node)
    for key, value in node.items():
        if isinstance(value, Mapping) and "_target_" in value:
            arguments_of[key] = {**value, "_partial_": True}
    return arguments_of
