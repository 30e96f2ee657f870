"""One table says what each setting does to a run, and so when two runs are the same.

Run ids, comparisons, ``compare`` and the trackers read it. Values count, not spellings. Imports no
torch, pandas or hydra: a list of runs needs none of them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

# Raised by every change that moves a result (CHANGELOG, "Numbers"): part of each run's hash.
NUMBERS = 4
# Earlier ones with results that differ in rounding alone; a change of the maths empties it.
ROUNDED = (2, 3)


class Role(Enum):
    """What a setting does to a run."""

    NUMBERS = "decides numbers, and methods that are compared share it"
    OWN = "decides numbers, and is each method's own"
    DATA = "says what is trained on; the data themselves are identified by their values"
    SEEDS = "says which repetitions there are"
    KEPT = "says what is kept of the numbers, and moves none"
    PLACE = "says where and how a run is computed, and moves no number"
    SHOWN = "says how a run is shown, and moves no number"


# Each setting, or section of settings, of ``configs/config.yaml`` and of the groups. The longest
# key that fits counts.
ROLES: Mapping[str, Role] = {
    "seed": Role.SEEDS,
    "repetitions": Role.SEEDS,
    "update_interval": Role.NUMBERS,
    "look_back": Role.NUMBERS,
    "hyperparameter_updates": Role.NUMBERS,
    "tuned": Role.OWN,
    "hyper": Role.OWN,
    "init": Role.NUMBERS,
    "data_for_weights": Role.NUMBERS,
    "validation_share": Role.NUMBERS,
    "batch_size": Role.NUMBERS,
    "data_order": Role.NUMBERS,
    "gradient_clip_norm": Role.NUMBERS,
    "precision": Role.NUMBERS,
    "model": Role.NUMBERS,
    "method": Role.OWN,
    "method.label": Role.SHOWN,
    "method.colour": Role.SHOWN,
    "method.line_style": Role.SHOWN,
    "method.order": Role.SHOWN,
    "dataset": Role.DATA,
    "dataset.label": Role.SHOWN,
    "dataset.labels": Role.SHOWN,
    "dataset.metric_label": Role.SHOWN,
    "dataset.metric_scale": Role.SHOWN,
    "dataset.offline": Role.SHOWN,
    "record_every": Role.KEPT,
    "save_weights": Role.KEPT,
    "save_hypergradients": Role.KEPT,
    "results_dir": Role.PLACE,
    "device": Role.PLACE,
    "chunk": Role.PLACE,
    "workers": Role.PLACE,
    "checkpoint_every": Role.PLACE,
    "tracker": Role.PLACE,
}
DECISIVE = frozenset({Role.NUMBERS, Role.OWN, Role.DATA})

# What a method's yaml need not say.
METHOD_DEFAULTS: Mapping[str, Any] = {
    "per_weight": [],
    "data_for_weights": "train",
    "full_validation": False,
    "lr_schedule": False,
    "reset_weights": False,
    "rule": None,
    "search": None,
}
# What there was no setting for when the first runs were stored: left out where it says nothing.
ADDED_LATER: Mapping[str, Mapping[str, Any]] = {
    "method": {"fixed": None},
    "init": {"beta1": None, "beta2": None},
    "dataset": {"first_words": None},
    "dataset.source": {"first_words": None},
}
# Schedules of the learning rate by name; what is None here is the same as no schedule.
SCHEDULES: Mapping[str, str | None] = {
    "constant": None,
    "linear": "hpo_bench.core.schedules.Linear",
    "warmup_cosine": "hpo_bench.core.schedules.WarmupCosine",
}
CONSTANT = {"_target_": "hpo_bench.core.schedules.Constant"}
TUNED = ("weight_decay", "lr", "momentum")  # the order in which the methods' yamls name them

# Arguments that are said although they are the defaults: they are part of all run ids there are,
# and every cell of a grid over one of them has it.
ALWAYS_SAID: Mapping[str, tuple[str, ...]] = {
    "hpo_bench.core.optimisers.Adam": ("betas",),
    "hpo_bench.hypergradients.exact.Exact": ("mode",),
    "hpo_bench.hypergradients.forward.Forward": ("discount",),
    "hpo_bench.models.lstm.LSTM": ("embedding", "hidden", "layers", "evaluation_steps"),
    "hpo_bench.models.mlp.MLP": ("hidden",),
    "hpo_bench.models.resnet.ResNet": ("blocks", "width"),
    "hpo_bench.search.asha.ASHA": ("trials", "reduction", "grace", "batch"),
    "hpo_bench.search.bayesopt.BayesianOptimisation": ("trials", "random", "diverged"),
    "hpo_bench.search.pbt.PopulationBasedTraining": (
        "population",
        "interval",
        "quantile",
        "resample",
        "factors",
        "perturbs",
    ),
}


def role(key: str) -> Role:
    """What a dotted key does to a run: what its section does, unless the table names the key."""
    while key not in ROLES and "." in key:
        key = key.rpartition(".")[0]
    # An unknown key is taken to decide numbers: two runs too many are better than a wrong one.
    return ROLES.get(key, Role.NUMBERS)


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys and the values of a nested configuration."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# --- values instead of spellings ---


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write a resolved configuration in the one spelling that stands for all of its values.

    Whole numbers are ints (``1.0`` is ``1``), tuples are lists, names of hyperparameters stand in
    one order, a method says what its yaml may leave out, and ``data_for_weights`` is ``method``
    where the method says the same. A schedule of the learning rate is there where it is not
    constant: run ids are older than schedules.
    """
    content: dict[str, Any] = _plain(config)
    for name, settings in ADDED_LATER.items():
        section = _section(content, name)
        for key, nothing in settings.items():
            if section.get(key) == nothing:
                section.pop(key, None)
    if isinstance(content.get("tuned"), list):
        content["tuned"] = _ordered(content["tuned"])
    method = content.get("method")
    if isinstance(method, dict):
        for key, value in METHOD_DEFAULTS.items():
            method.setdefault(key, value)
        if isinstance(method["per_weight"], list):
            method["per_weight"] = _ordered(method["per_weight"])
        schedule = scheduled(method.pop("schedule", None))
        if schedule is not None:
            method["schedule"] = schedule
        if content.get("data_for_weights") == method["data_for_weights"]:
            content["data_for_weights"] = "method"
    return content


def _section(content: dict[str, Any], name: str) -> dict[str, Any]:
    """A section by its dotted name; an empty one where there is none."""
    section: Any = content
    for key in name.split("."):
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}


def scheduled(value: Any) -> Any:
    """The component that a method's ``schedule`` stands for, which may be given by its name.

    Returns:
        None where it is constant; a value that stands for nothing as it is.
    """
    if value == CONSTANT:
        return None
    if not isinstance(value, str) or value not in SCHEDULES:
        return value
    target = SCHEDULES[value]
    return None if target is None else {"_target_": target}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _ordered(names: list[Any]) -> list[Any]:
    """Names of hyperparameters in the order of `TUNED`, others behind them by the alphabet."""

    def place(name: Any) -> tuple[int, str]:
        return (TUNED.index(name) if name in TUNED else len(TUNED)), str(name)

    return sorted(names, key=place)


def component(node: Any, find: Callable[[str], Any]) -> Any:
    """Leave out of a canonical component the arguments that say what is the default anyway.

    Args:
        node: a mapping with ``_target_`` and arguments, which may be components; anything else is
            returned as it is.
        find: the object that a ``_target_`` names, or None.
    """
    if not isinstance(node, Mapping):
        return node
    content = {key: component(value, find) for key, value in node.items()}
    target = content.get("_target_")
    defaults = _defaults(find(target)) if isinstance(target, str) else {}
    always = ALWAYS_SAID.get(str(target), ())
    for name, default in defaults.items():
        if name in always:
            content.setdefault(name, default)
        elif name in content and _equal(content[name], default):
            del content[name]
    return content


def _defaults(factory: Any) -> dict[str, Any]:
    """The arguments of a callable that have a default, and what it is."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}
    plain = (bool, int, float, str, list, tuple, type(None))
    defaults = {}
    for name, parameter in parameters.items():
        if isinstance(parameter.default, plain):
            defaults[name] = _plain(parameter.default)
    return defaults


def _equal(value: Any, default: Any) -> bool:
    """Whether both are the same plain value; ``true`` is not 1."""
    if isinstance(value, list) and isinstance(default, list):
        return len(value) == len(default) and all(map(_equal, value, default))
    return type(value) is type(default) and bool(value == default)


# --- which settings count ---


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are hashed into a run's id: what decides numbers, and what is kept.

    Its data and its seeds are hashed beside them.
    """
    left_out = (Role.PLACE, Role.SEEDS, Role.SHOWN, Role.DATA)
    content = {key: value for key, value in canonical(config).items() if role(key) not in left_out}
    method = content["method"]
    content["method"] = {key: method[key] for key in method if role(f"method.{key}") is Role.OWN}
    return content


def shared(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that methods have in common when they are compared, by dotted key."""
    return {key: value for key, value in flat(canonical(config)) if role(key) is Role.NUMBERS}


def numbers(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide numbers, by dotted key."""
    return {key: value for key, value in flat(canonical(config)) if role(key) in DECISIVE}


# --- what was trained on ---

# Sources whose settings name their files by checksum, or that come with a package: the
# configuration identifies them.
PUBLIC_LOADERS = tuple(
    f"hpo_bench.datasets.{name}."
    for name in ("uci", "fashion_mnist", "cifar10", "penn_treebank", "bundled")
)
UNKNOWN = "unknown-"  # begins the key of data that were stored without a digest
# What a file's settings say about where it is, and not about what is in it.
KEYS_OF_PLACE = ("urls", "packaged", "size", "_convert_")


def is_public(source: Mapping[str, Any]) -> bool:
    """Whether a dataset's source says by itself which data it loads."""
    return str(source.get("_target_", PUBLIC_LOADERS[0])).startswith(PUBLIC_LOADERS)


def data_key(config: Mapping[str, Any], data: Mapping[str, Any], config_hash: str) -> str:
    """Digest what says which rows a run was trained and tested on, wherever they were read from.

    What share of the rows was held out for validation is not part of it.

    Args:
        config, data, config_hash: of a ``run.json``. Runs of one's own table that earlier versions
            stored have no ``data``: theirs are known to be the same within one configuration alone.
    """
    dataset = config["dataset"]
    source = dataset.get("source") or {}
    if is_public(source):
        return digest([dataset["name"], _facts(source)])
    if data.get("content"):
        return str(data["content"])
    return f"{UNKNOWN}{config_hash}"


def _facts(source: Mapping[str, Any]) -> dict[str, Any]:
    """What a public source's settings say about its rows."""
    facts: dict[str, Any] = {}
    added_later = ADDED_LATER["dataset.source"]
    for key, value in source.items():
        if key in added_later and value == added_later[key]:
            continue  # data of runs that were stored before are the same
        if isinstance(value, Mapping) and "sha256" in value:
            # A file may be packed in several ways: what is in it counts, where that is known.
            facts[key] = value.get("unpacked_sha256") or value["sha256"]
        elif key not in KEYS_OF_PLACE:
            facts[key] = _plain(value)
    return facts


def digest(content: Any) -> str:
    """The SHA-256 (hex) of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def variants(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Give data that go by one name a mark to tell them apart by.

    Args:
        keys: pairs of a dataset's id and a `data_key`.

    Returns:
        For each pair the beginning of its key, or nothing where the name has one key only.
    """
    by_name: dict[str, set[str]] = {}
    for name, key in keys:
        by_name.setdefault(name, set()).add(key)
    marks = {}
    for name, keys_of_name in by_name.items():
        for key in keys_of_name:
            marks[name, key] = "" if len(keys_of_name) == 1 else _beginning(key)
    return marks


def _beginning(key: str) -> str:
    return key[: len(UNKNOWN) + 8] if key.startswith(UNKNOWN) else key[:8]
