"""JSON schemas (2020-12) of the yamls, so that an editor completes and checks them.

Keys are those that `hpo_bench.settings.parse` knows, descriptions the comments of ``config.yaml``,
defaults its values, arguments of components the types that their classes declare. What a yaml may
hold everywhere is an interpolation (``${look_back}``), which only Hydra resolves.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hpo_bench.settings import arguments, identity
from hpo_bench.settings.parse import (
    DATA_FOR_WEIGHTS,
    HYPER_KEYS,
    INIT_KEYS,
    LINE_STYLES,
    METHOD_FLAGS,
    METHOD_KEYS,
    MOST_REPETITIONS,
    OF_RULES,
    PARTS,
    SETTINGS_KEYS,
)
from hpo_bench.settings.run import HYPERPARAMETERS, TRACKERS
from hpo_bench.settings.yamls import (
    SCALES,
    SCALES_OF_ALL,
    configs_folder,
    read_text,
    read_yaml,
)

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
INTERPOLATION: Schema = {"type": "string", "pattern": r"\$\{"}
NULL: Schema = {"type": "null"}
FLAG: Schema = {"type": "boolean"}
TEXT: Schema = {"type": "string", "pattern": r"\S"}
NUMBER: Schema = {"type": "number"}
NOT_NEGATIVE: Schema = {"type": "number", "minimum": 0}
DECAY: Schema = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
NAMES = (*HYPERPARAMETERS, *OF_RULES)  # of hyperparameters
WORDS: Schema = {"type": "array", "items": TEXT}
# Where the components of each kind are: a package of modules, or one module.
ROOMS = {
    "method.estimator": "hypergradients",
    "method.optimiser": "core.optimisers",
    "method.rule": "rules",
    "method.search": "search",
    "method.schedule": "core.schedules",
    "dataset.source": "datasets",
    "model": "models",
}
OF_HYDRA = ("_target_", "_convert_", "_partial_", "_recursive_", "_args_")  # keys of a component
GROUPS = ("method", "dataset", "model", "method_dataset")


def _whole(low: int) -> Schema:
    return {"type": "integer", "minimum": low, "exclusiveMaximum": 2**62}


def _pair(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 2, "maxItems": 2}


def _some_of(words: Iterable[str]) -> Schema:
    return {"type": "array", "items": {"enum": [*words]}, "uniqueItems": True}


def _either(*options: Schema) -> Schema:
    return {"anyOf": [*options]}


def _bounded(low: float | None, high: float | None) -> Schema:
    bounds = {"minimum": low, "maximum": high}
    return {"type": "number"} | {key: value for key, value in bounds.items() if value is not None}


REPETITIONS: Schema = {"type": "integer", "minimum": 1, "maximum": MOST_REPETITIONS}
# What each setting may be, by its dotted key.
KINDS: Mapping[str, Schema] = {
    "seed": _whole(0),
    "repetitions": REPETITIONS,
    **dict.fromkeys(("update_interval", "look_back", "record_every"), _whole(1)),
    "hyperparameter_updates": _whole(1),
    "tuned": _some_of(NAMES),
    "hyper.lr": NOT_NEGATIVE,
    "hyper.betas": _pair(DECAY),
    "hyper.clip_log10_lr": _either(_pair(NUMBER), NULL),
    "init.file": _either(TEXT, NULL),
    "init.log10_lr": _pair(NUMBER),
    "init.log10_weight_decay": _pair(NUMBER),
    "init.momentum": _pair(_bounded(0, 1)),
    "init.lr_multiplier": _pair(_bounded(0, None)),
    **dict.fromkeys((f"init.{name}" for name in OF_RULES), _either(_pair(_bounded(0, 1)), NULL)),
    "data_for_weights": {"enum": ["method", *DATA_FOR_WEIGHTS]},
    "validation_share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "batch_size": _either(_whole(1), NULL),
    "data_order": {"enum": ["shuffled", "sequential"]},
    "gradient_clip_norm": _either({"type": "number", "exclusiveMinimum": 0}, NULL),
    "save_weights": FLAG,
    "save_hypergradients": FLAG,
    "results_dir": TEXT,
    "device": {"type": "string", "pattern": r"^(auto|cpu|cuda(:\d+)?)$"},
    "precision": {"enum": ["float32", "float64"]},
    **dict.fromkeys(("chunk", "workers"), _either({"const": "auto"}, _whole(1))),
    "checkpoint_every": _either(NOT_NEGATIVE, NULL),
    "tracker": {"enum": [*TRACKERS, None]},
    "method.name": TEXT,
    "method.label": TEXT,
    "method.colour": TEXT,
    "method.line_style": {"enum": [*LINE_STYLES]},
    "method.order": NUMBER,
    "method.per_weight": _some_of(NAMES),
    "method.fixed": _either({"type": "object", "additionalProperties": NOT_NEGATIVE}, NULL),
    "method.data_for_weights": {"enum": [*DATA_FOR_WEIGHTS]},
    **dict.fromkeys((f"method.{key}" for key in METHOD_FLAGS), FLAG),
    "dataset.name": TEXT,
    "dataset.label": TEXT,
    "dataset.labels": {"type": "object"},
    "dataset.task": {"enum": ["auto", "regression", "classification", "language"]},
    "dataset.metric": {"enum": ["auto", "mse", "error", "perplexity"]},
    "dataset.metric_label": TEXT,
    "dataset.metric_scale": {"type": "number", "exclusiveMinimum": 0},
    "dataset.offline": FLAG,
}


def schemas() -> dict[str, Schema]:
    """A schema for each kind of yaml: ``config``, and the groups by name."""
    known = _Known.read()
    return {
        "config": _of_config(known),
        **{group: _of_group(group, known) for group in GROUPS},
        "experiment": _of_experiment(),
    }


class _Known:
    """What the yamls of the package say.

    Args:
        defaults: of ``config.yaml``, by dotted key.
        comments: the same keys' comments.
        of_dataset: keys of the section ``dataset``, as the yamls of its group have them.
        components: classes of each kind (`ROOMS`), by ``_target_``.
    """

    def __init__(
        self,
        defaults: Mapping[str, Any],
        comments: Mapping[str, str],
        of_dataset: Iterable[str],
        components: Mapping[str, Mapping[str, type]],
    ) -> None:
        self.defaults, self.comments = defaults, comments
        self.of_dataset, self.components = tuple(of_dataset), components

    @staticmethod
    def read() -> _Known:
        """Read them, and import the components."""
        folder = configs_folder()
        content = read_yaml(folder / "config.yaml")
        own = {key: value for key, value in content.items() if key not in ("defaults", "hydra")}
        of_dataset: dict[str, None] = {}
        for file in sorted((folder / "dataset").glob("*.yaml")):
            of_dataset |= dict.fromkeys(read_yaml(file)["dataset"])
        components = {kind: dict(_components(kind)) for kind in ROOMS}
        text = read_text(folder / "config.yaml")
        return _Known(dict(identity.flat(own)), dict(comments(text)), of_dataset, components)

    def setting(self, key: str) -> Schema:
        """The schema of one setting that is no section."""
        kind = KINDS.get(key)
        if kind is None and key in ROOMS:
            named = {"enum": [*identity.SCHEDULES]}  # a schedule may be given by its name
            of_class = self.component(key)
            kind = _either(named, of_class) if key == "method.schedule" else of_class
        made = _either(kind, INTERPOLATION) if kind else {}
        said = f"{self.comments[key]}. " if key in self.comments else ""
        described: Schema = {"description": f"{said}It {identity.role(key).value}."}
        if key in self.defaults and "${" not in str(self.defaults[key]):
            described["default"] = self.defaults[key]
        return {**described, **made}

    def component(self, kind: str) -> Schema:
        """A section that names a class in ``_target_``, whose arguments are its other keys.

        Without a ``_target_`` it changes arguments of one that another yaml names.
        """
        made = self.components[kind]
        named = {"type": "string", "examples": sorted(made)}
        return _either(
            NULL,
            {
                "type": "object",
                "properties": {"_target_": named},
                "allOf": [_arguments(target, found) for target, found in sorted(made.items())],
            },
        )

    def section(self, name: str, keys: Iterable[str]) -> Schema:
        """A section of settings, each of which may be left out."""
        properties = {key: self.setting(f"{name}.{key}") for key in keys}
        said = {"description": self.comments[name]} if name in self.comments else {}
        return {**said, **_closed(properties)}

    def properties(self) -> dict[str, Schema]:
        """All settings, as every yaml but an experiment's may have them."""
        sections = {"hyper": HYPER_KEYS, "init": (*INIT_KEYS, *OF_RULES), "method": METHOD_KEYS}
        made: dict[str, Schema] = {}
        for key in SETTINGS_KEYS:
            if key in sections:
                made[key] = self.section(key, sections[key])
            elif key == "dataset":
                made[key] = self.section(key, self.of_dataset)
            else:
                made[key] = self.setting(key)
        return {**made, "defaults": {"type": "array", "description": "Hydra's defaults list."}}


def _closed(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [*required],
        "additionalProperties": False,
    }


def _document(name: str, title: str, content: Schema) -> Schema:
    return {"$schema": DIALECT, "$id": f"{name}.schema.json", "title": title, **content}


def _of_config(known: _Known) -> Schema:
    content = _closed({**known.properties(), "hydra": {"type": "object"}})
    return _document("config", "hpo-bench: every setting with its default", content)


def _of_group(group: str, known: _Known) -> Schema:
    """The schema of a group's yamls. What they are about has to be said, unless they begin with
    another's (``defaults``).
    """
    content = _closed(known.properties())
    needed = {"method": ["name", "label"], "dataset": ["name", "source"], "model": ["_target_"]}
    if group in needed:
        about = {"type": "object", "required": needed[group]}
        whole = {"required": [group], "properties": {group: about}}
        content["anyOf"] = [whole, {"required": ["defaults"]}]
    return _document(group, f"hpo-bench: a yaml of configs/{group}", content)


# --- components ---


def _components(kind: str) -> Iterator[tuple[str, type]]:
    """Dataclasses of this package that are components of a kind, by ``_target_``."""
    room = importlib.import_module(f"hpo_bench.{ROOMS[kind]}")
    names = [room.__name__]
    if hasattr(room, "__path__"):
        names += [f"{room.__name__}.{found.name}" for found in pkgutil.iter_modules(room.__path__)]
    wanted = PARTS.get(kind, ("build",))
    for name in names:
        for found in vars(importlib.import_module(name)).values():
            if not isinstance(found, type) or found.__module__ != name or not is_dataclass(found):
                continue
            own = {field.name for field in fields(found)}
            if all(part in own or hasattr(found, part) for part in wanted):
                yield f"{name}.{found.__name__}", found


def _arguments(target: str, found: type) -> Schema:
    """What the other keys of a component may be, if it is of this class."""
    declared = arguments.declared_types(target)
    properties: dict[str, Schema] = {key: {} for key in OF_HYDRA}
    properties |= {key: _either(of_type(kind), INTERPOLATION) for key, kind in declared.items()}
    given = [field for field in fields(found) if field.init]
    required = [
        field.name
        for field in given
        if field.default is MISSING and field.default_factory is MISSING
    ]
    chosen = {"properties": {"_target_": {"const": target}}, "required": ["_target_"]}
    return {"if": chosen, "then": _closed(properties, required)}


def of_type(kind: Any) -> Schema:
    """The schema of values that fit an annotation, as `hpo_bench.settings.arguments.fits` has
    it.
    """
    origin, inner = get_origin(kind), get_args(kind)
    simple: Mapping[Any, Schema] = {
        int: {"type": "integer"},
        float: NUMBER,
        bool: FLAG,
        str: {"type": "string"},
        Path: {"type": "string"},
        types.NoneType: NULL,
    }
    if kind in simple:
        return simple[kind]
    if origin in (Union, types.UnionType):
        return _either(*map(of_type, inner))
    if origin is Literal:
        return {"enum": [*inner]}
    if origin is tuple and inner[-1] is not Ellipsis:
        size = len(inner)
        parts = [of_type(part) for part in inner]
        return {"type": "array", "prefixItems": parts, "minItems": size, "maxItems": size}
    if origin in (tuple, *arguments.LISTS):
        return {"type": "array", "items": of_type(inner[0])}
    return {"type": "object"} if origin in (dict, Mapping) else {}


# --- experiments ---


def _of_experiment() -> Schema:
    values = {"type": "object", "additionalProperties": {"type": "array", "minItems": 1}}
    named: dict[str, Schema] = {
        "datasets": {**WORDS, "description": "ids of datasets"},
        "methods": {**WORDS, "description": "ids of methods"},
        "repetitions": {**REPETITIONS, "description": "of each run"},
        "overrides": {**WORDS, "description": "as on the command line: key=value"},
        "grid": {**values, "description": "the values that keys take, by dotted key"},
    }
    part = _closed(
        {
            **named,
            "at_most": {
                "type": "object",
                "additionalProperties": TEXT,
                "description": "key: the key of the grid that it must not exceed",
            },
        },
        ("datasets", "methods", "repetitions"),
    )
    scale = _closed({**named, "parts": {"type": "object", "additionalProperties": _closed(named)}})
    content = _closed(
        {
            "title": TEXT,
            "figures": {**WORDS, "description": "names, as of hpo-bench list figures"},
            "tables": {**WORDS, "description": "names, as of hpo-bench list tables"},
            "parts": {"type": "object", "additionalProperties": part},
            "scales": _closed(dict.fromkeys(SCALES, scale), SCALES_OF_ALL),
        },
        ("title", "figures", "tables", "parts", "scales"),
    )
    return _document("experiment", "hpo-bench: a yaml of configs/experiment", content)


# --- descriptions ---

_LINE = re.compile(r"^( *)([\w]+):[^#]*(?:#\s*(.*))?$")


def comments(text: str) -> Iterator[tuple[str, str]]:
    """Dotted keys of a yaml's text and what stands behind them, or in the lines above."""
    sections: list[tuple[int, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.strip().lstrip("# "))
            continue
        found = _LINE.match(line)
        if found:
            indent, key, behind = len(found[1]), found[2], found[3]
            sections = [(depth, name) for depth, name in sections if depth < indent]
            sections.append((indent, key))
            said = behind or " ".join(above)
            if said:
                yield ".".join(name for _, name in sections), said.strip().rstrip(".")
        above = []
