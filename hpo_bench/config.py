"""The edge between Hydra's configuration and the rest: compose it, check it into `Settings`, explain its errors.

Besides the ``run`` command and the catalogue of datasets, the only importer of hydra.
"""

from __future__ import annotations

import codecs
import contextlib
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from hpo_bench import arguments, checks, identity
from hpo_bench.datasets.catalogue import configs_folder, read_text, read_yaml
from hpo_bench.errors import UserError, nearest
from hpo_bench.inherited import expanded
from hpo_bench.quoting import literal, quoted
from hpo_bench.quoting import override as pasteable
from hpo_bench.settings import HYPERPARAMETERS, TRACKERS, DataForWeights, Method, Settings, Start

VERSION_BASE = "1.3" if hydra.__version__.startswith("1.3") else None
HYPER = ("lr", "betas", "clip_log10_lr")
INIT = tuple(Start.__dataclass_fields__)
SETTINGS = (
    "seed", "repetitions", "update_interval", "look_back", "hyperparameter_updates", "tuned", "hyper", "init",
    "data_for_weights", "validation_share", "batch_size", "data_order", "gradient_clip_norm", "record_every",
    "save_weights", "save_hypergradients", "results_dir", "device", "precision", "chunk", "workers",
    "checkpoint_every", "tracker", "model", "dataset", "method",
)  # fmt: skip
LAUNCHER_EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit"}
METHOD_FLAGS = ("full_validation", "lr_schedule", "reset_weights")
METHOD = (
    "name", "label", "colour", "line_style", "order", "estimator", "optimiser", "per_weight", "data_for_weights",
    "rule", "search", *METHOD_FLAGS,
)  # fmt: skip
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
_COMPOSING = threading.Lock()  # Hydra has one state for the whole process


def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> DictConfig:
    """The configuration that ``hpo-bench run`` would use for these overrides.

    Args:
        overrides: in Hydra's grammar, without sweeps.
        config_dir: a further folder of groups, as ``--config-dir``.

    Raises:
        UserError: an override that fits nothing.
    """
    given = [with_home(override) for override in overrides]
    check_yamls(config_dir)
    try:
        return _composed(given, config_dir)
    except EXPLAINED as error:
        raise explain(error, config_dir, given) from None


def _composed(overrides: Sequence[str], config_dir: Path | None, *, whole: bool = False) -> DictConfig:
    """What Hydra composes; the ``whole`` of it has its own section, too."""
    extra = [f"hydra.searchpath={quoted([f'file://{config_dir.absolute()}'])}"] if config_dir else []
    with (
        _COMPOSING,
        hydra_to_ourselves(),
        hydra.initialize_config_dir(str(configs_folder()), version_base=VERSION_BASE),
    ):
        return hydra.compose("config", overrides=[*extra, *overrides], return_hydra_config=whole)


@contextlib.contextmanager
def hydra_to_ourselves() -> Iterator[None]:
    """Set the Hydra that the caller has initialised aside, and put it back in the end: a process has only one."""
    theirs, base = GlobalHydra.instance(), VersionBase.instance().getbase()
    GlobalHydra.set_instance(_new(GlobalHydra))
    try:
        yield
    finally:
        GlobalHydra.set_instance(theirs)
        VersionBase.instance().version_base = base


def _new(singleton: type[GlobalHydra]) -> GlobalHydra:
    """A second one of what Hydra makes once."""
    made = singleton.__new__(singleton)
    made.__init__()  # type: ignore[misc]
    return made


def with_home(override: str) -> str:
    """An override whose value begins with ``~`` with the home folder in its place.

    Hydra's grammar has no bare value with a tilde, so that nothing else can be meant.

    Raises:
        UserError: there is no such home folder.
    """
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"~[^,()\[\]{}'\"]*", value):
        return override
    return f"{key}={quoted(str(expanded(value)))}"


def values_of(override: str) -> list[Any]:
    """The values that an override asks for, several of a sweep (``a,b``, ``range(1,4)``), as ``run`` reads them.

    Raises:
        UserError: it is not ``key=value`` in Hydra's grammar, or a sweep without single values.
    """
    try:
        (parsed,) = OverridesParser.create().parse_overrides([with_home(override)])
        if parsed.is_sweep_override():
            return [_unmarked(value) for value in parsed.sweep_iterator()]
        return [_unmarked(parsed.value())]
    except EXPLAINED as error:
        raise explain(error) from None


def _unmarked(value: Any) -> Any:
    """A parsed value without what the grammar notes about it."""
    if isinstance(value, list):
        return [_unmarked(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _unmarked(part) for key, part in value.items()}
    return value.text if isinstance(value, QuotedString) else value


def check_yamls(config_dir: Path | None) -> None:
    """Make sure that Hydra can read the yamls of a further folder.

    Raises:
        UserError: one is not UTF-8, or begins with a byte-order mark, behind which Hydra overlooks ``# @package``.
    """
    if config_dir is None:
        return
    for pattern in ("*.yaml", *(f"{group}/*.yaml" for group in groups()), "hydra/*/*.yaml"):
        for file in sorted(config_dir.glob(pattern)):
            read_text(file)
            with file.open("rb") as content:
                begins = content.read(len(codecs.BOM_UTF8))
            if begins == codecs.BOM_UTF8:
                raise UserError(f"{file} begins with a byte-order mark; save it as UTF-8 without one")


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
    """The configuration in the spelling that its hash and its comparisons go by. Its components are importable."""
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
        config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: must be given, as {error.full_key}=…") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {_one_line(error)}") from None
    for key, value in identity.flat(config):
        checks.storable(key, value)
    return config


def _numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("repetitions", "update_interval", "look_back", "hyperparameter_updates", "record_every")
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
        "gradient_clip_norm": _or_none(checks.positive, "gradient_clip_norm", config["gradient_clip_norm"]),
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


def _start(section: Mapping[str, Any]) -> Start:
    return Start(
        file=_or_none(checks.file, "init.file", section["file"]),
        log10_lr=checks.interval("init.log10_lr", section["log10_lr"]),
        log10_weight_decay=checks.interval("init.log10_weight_decay", section["log10_weight_decay"]),
        momentum=checks.interval("init.momentum", section["momentum"], 0, 1),
        lr_multiplier=checks.interval("init.lr_multiplier", section["lr_multiplier"], 0),
    )


def _method(config: Mapping[str, Any]) -> Method:
    section = checks.section("method", config["method"], METHOD, needed=("name", "label", "estimator", "optimiser"))
    name = checks.name("method.name", section["name"])
    checks.label("method.label", section["label"])
    checks.colour("method.colour", section.get("colour", "#000000"))
    checks.choice("method.line_style", section.get("line_style", "-"), LINE_STYLES)
    checks.number("method.order", section.get("order", 0))
    if (section["estimator"] is None) != (section["optimiser"] is None):
        raise UserError(f"method={name}: give both method.estimator and method.optimiser, or neither (null)")
    if section.get("rule") is not None and section["estimator"] is not None:
        raise UserError(f"method={name}: hypergradients are known for SGD with momentum alone; leave out method.rule")
    asked = checks.choice("data_for_weights", config["data_for_weights"], ("method", *DATA_FOR_WEIGHTS))
    own = checks.choice("method.data_for_weights", section.get("data_for_weights", "train"), DATA_FOR_WEIGHTS)
    return Method(
        name=name,
        tuned=_tuned(name, config["tuned"], section["estimator"]),
        estimator=_or_none(_component, "method.estimator", section["estimator"]),
        optimiser=_or_none(_component, "method.optimiser", section["optimiser"]),
        rule=_or_none(_component, "method.rule", section.get("rule")),
        search=_or_none(_component, "method.search", section.get("search")),
        per_weight=checks.words("method.per_weight", section.get("per_weight", []), HYPERPARAMETERS),
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
        raise UserError(f"tuned=[]: method={method} needs at least one of {', '.join(HYPERPARAMETERS)}")
    return tuned


def _component(key: str, node: Any, above: Iterable[str] = ()) -> Any:
    """Make what ``node._target_`` names; its other keys are the arguments.

    Args:
        above: settings of the section above that are passed on under their own names, and are called by that.
    """
    checks.section(key, node, needed=("_target_",))
    arguments.check(key, {name: value for name, value in node.items() if name not in above})
    passed_on = {name: value for name, value in node.items() if name in above}
    arguments.check(key.rpartition(".")[0], {**passed_on, "_target_": node["_target_"]})
    try:
        made = hydra.utils.instantiate(_literal(_literal(node)), _convert_="all")  # Hydra resolves it twice
    except InstantiationException as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, UserError):
                raise _in_section(key, node, cause) from None
        raise UserError(f"{key}._target_={node['_target_']}: {_one_line(causes[-1])}") from None
    lacking = [name for name in PARTS.get(key, ()) if not hasattr(made, name)]
    if lacking:
        kind = f"{'an' if key.endswith(('estimator', 'optimiser')) else 'a'} {key.rpartition('.')[2]}"
        raise UserError(f"{key}._target_={node['_target_']}: is not {kind}, it has no {lacking[0]}")
    return made


def _literal(node: Any) -> Any:
    """Resolved settings that stay what they are when they are resolved again: a file may be called ``${x}``."""
    if isinstance(node, Mapping):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_literal(value) for value in node]
    return literal(node) if isinstance(node, str) else node


def _in_section(key: str, node: Mapping[str, Any], error: UserError) -> UserError:
    """A component's own complaint about one of its arguments, which does not know the section that it is in."""
    name = str(error).partition("=")[0]
    return UserError(f"{key}.{error}") if name in node else error


def _deferred(node: Mapping[str, Any]) -> dict[str, Any]:
    """The components inside a component as functions that make them: each repetition has a module of its own."""
    nested = {key: value for key, value in node.items() if isinstance(value, Mapping) and "_target_" in value}
    return {**node, **{key: {**value, "_partial_": True} for key, value in nested.items()}}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


# --- errors of Hydra, OmegaConf and YAML, each explained in one line ---

EXPLAINED = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)  # Hydra raises all of these


def explain(error: BaseException, config_dir: Path | None = None, overrides: Sequence[str] = ()) -> UserError:
    """One line that names the override at fault and the nearest valid names.

    Args:
        error: one of `EXPLAINED`.
        config_dir: a further folder that was searched.
        overrides: all that were given.
    """
    text = str(error)
    if isinstance(error, UserError):
        return error
    if isinstance(error, OverrideParseException):
        return _ungrammatical(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and name in LAUNCHER_EXTRAS:
            return UserError(f"{group}={name}: is not installed; pip install 'hpo-bench[{LAUNCHER_EXTRAS[name]}]'")
        return UserError(f"{group}={name}: no such {group.rpartition('/')[2]}; {nearest(name, error.options)}")
    if match := re.match(r"Could not override '([^']+)'", text):
        if match[1].startswith("hydra."):
            return _no_such_hydra_key(match[1], config_dir, overrides)
        return UserError(f"{match[1]}: no such setting; {_near_keys(match[1], config_dir)}")
    if match := re.match(r"Ambiguous value for argument '([^']+)'|Sweep parameters '(.+)' requires", text):
        return UserError(f"{match[1] or match[2]} names several values: add -m to run each of them")
    return UserError("; ".join(filter(None, (_one_line(cause) for cause in _causes(error)))))


# A function of the grammar, or a mapping, with something wrong in it: not meant as text.
_UNFINISHED = re.compile(r"\{.*\}$|(range|choice|interval|glob|sort|shuffle|tag|int|float|str|bool)\(", re.DOTALL)


def _ungrammatical(error: OverrideParseException) -> UserError:
    """What could be meant by an override that Hydra's grammar does not know, as it can be pasted into a shell."""
    key, equals, value = error.override.partition("=")
    said = f"cannot read {error.override!r} as key=value"
    meant = pasteable(key, _as_meant(value))
    unfinished = _UNFINISHED.match(value) or (value[:1] in ("[", "{") and not _is_balanced(value))
    if re.search(r"^,|,,|,$", value) and _parses(f"{key}={re.sub(',+', ',', value).strip(',') or 0}"):
        return UserError(f"{said}: a value is missing before or after a comma")
    if equals and key.strip() and not unfinished and _parses(f"{key}={quoted(_as_meant(value))}"):
        return UserError(f"{said}: a value with such characters needs quotation marks: {meant}")
    reason = error.message.splitlines()[0]
    return UserError(said + f": {reason}" * ("override" not in reason))


def _is_balanced(value: str) -> bool:
    """Whether as many brackets close as open."""
    return value.count("[") == value.count("]") and value.count("{") == value.count("}")


def _as_meant(value: str) -> Any:
    """A value that the grammar does not know, as a list where it has brackets, else as text."""
    if value.startswith("[") and value.endswith("]"):
        return [_as_meant(part.strip()) for part in value[1:-1].split(",")]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _no_such_hydra_key(key: str, config_dir: Path | None, overrides: Sequence[str]) -> UserError:
    """What there is instead of a key of Hydra's own, with the launcher and sweeper that were chosen."""
    chosen = [override for override in overrides if override.startswith("hydra/") and "," not in override]
    composed = _composed(chosen, config_dir, whole=True)
    section, _, wanted = key.rpartition(".")
    node = _section_of_hydra(composed, section)
    while node is None:  # the section itself is the mistake
        section, _, wanted = section.rpartition(".")
        node = _section_of_hydra(composed, section)
    names = _settings_of(node)
    if section == "hydra.launcher" and not get_close_matches(wanted, names):
        return UserError(f"{key}: no such setting; {_of_launchers(wanted, names)}")
    told = nearest(wanted, names) if names else f"it is empty, +{key}=… adds one"
    return UserError(f"{key}: no such setting in {section}; {told}")


def _section_of_hydra(composed: DictConfig, section: str) -> Mapping[str, Any] | None:
    node = OmegaConf.select(composed, section, throw_on_missing=False)
    return node if OmegaConf.is_dict(node) else None


def _settings_of(section: Mapping[Any, Any]) -> list[str]:
    return [str(name) for name in section if not str(name).startswith("_")]


def _of_launchers(wanted: str, names: Sequence[str]) -> str:
    """Which launchers have a setting by some such name, where the chosen one has none."""
    found = []
    for file in ConfigStore.instance().list("hydra/launcher"):
        there = _settings_of(ConfigStore.instance().load(f"hydra/launcher/{file}").node)
        close = get_close_matches(wanted, there, n=1)
        found += [f"{name} of hydra/launcher={file.removesuffix('.yaml')}" for name in close]
    own = f"allowed: {', '.join(sorted(names))}" if names else "the launcher that is chosen has none"
    return f"did you mean {' or '.join(found)}? {own.capitalize()}" if found else own


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    noise = ("full_key:", "object_type=", "reference_type=")
    return " ".join(line for line in lines if line and not line.startswith(noise))


def _near_keys(key: str, config_dir: Path | None) -> str:
    """What is allowed in the key's section, nearest first; for a bare key also where a section has it."""
    keys = set(_all_keys(config_dir))
    section, _, leaf = key.rpartition(".")
    level = {option.rpartition(".")[2] for option in keys if option.rpartition(".")[0] == section}
    elsewhere = sorted(option for option in keys if option.endswith(f".{leaf}"))
    if not section and elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return nearest(leaf, level) if level else f"there is no section {section}; {nearest(section, _sections(keys))}"


def _sections(keys: Iterable[str]) -> set[str]:
    return {key.rpartition(".")[0] for key in keys if "." in key}


def _all_keys(config_dir: Path | None) -> Iterator[str]:
    """Groups and dotted keys of all yamls; one that cannot be read is passed over."""
    yield from groups()
    for folder in filter(None, (configs_folder(), config_dir)):
        files = (file for group in groups() for file in (folder / group).glob("*.yaml"))
        for file in (*folder.glob("config.yaml"), *files):
            with contextlib.suppress(UserError):
                content = read_yaml(file)
                own = {key: value for key, value in content.items() if key not in ("defaults", "hydra")}
                yield from _with_sections(key for key, _ in identity.flat(own))


def groups() -> list[str]:
    """Names of the groups that can be chosen: those of the defaults list."""
    defaults = read_yaml(configs_folder() / "config.yaml")["defaults"]
    names = [name for entry in defaults if isinstance(entry, dict) for name in entry]
    return [name for name in names if " " not in name]


def _with_sections(keys: Iterable[str]) -> set[str]:
    """Dotted keys and the sections that they lie in."""
    words = [key.split(".") for key in keys]
    return {".".join(parts[:length]) for parts in words for length in range(1, len(parts) + 1)}
