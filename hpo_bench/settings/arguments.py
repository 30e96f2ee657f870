"""Arguments of components are checked against the types that their classes declare.

A yaml may give a component any value, and one of the wrong type would be met in the middle of a
training, or not at all. Ranges are the components' own business (``__post_init__``, ``build``).
"""

from __future__ import annotations

import importlib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hpo_bench.core import checks
from hpo_bench.errors import UserError, nearest

WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "text",
    types.NoneType: "null",
}
PLURALS: Mapping[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}
LISTS = (list, Sequence)


def check(key: str, node: Mapping[str, Any]) -> None:
    """Raise where an argument of ``node``, a component, is not of the type that its class declares.

    What cannot be told (a function, a class that is not there, an annotation that means nothing
    here) is let pass.

    Raises:
        UserError: names the argument, its value and what is wanted.
    """
    declared = declared_types(str(node.get("_target_")))
    for name, value in node.items():
        if name in declared and not fits(value, declared[name]):
            raise UserError(f"{key}.{name}={checks.shown(value)}: {_wanted(value, declared[name])}")


def declared_types(target: str) -> dict[str, Any]:
    """Annotations of a dataclass's arguments by name; empty for anything else."""
    module, _, name = target.rpartition(".")
    try:
        component = getattr(importlib.import_module(module), name)
        if not is_dataclass(component):
            return {}
        hints = typing.get_type_hints(component)
    except Exception:  # importing somebody's code may raise anything: making it will tell of it
        return {}
    return {field.name: hints[field.name] for field in fields(component) if field.init}


def fits(value: Any, kind: Any) -> bool:
    """Whether a value from a yaml is of an annotated type."""
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(value, Mapping) and "_target_" in value:
        return kind not in WORDS  # a component
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is Literal:
        return value in inner
    if kind in (int, float):
        return _number_fits(value, kind)
    if kind in WORDS:
        return isinstance(value, str if kind is Path else kind)
    if origin in (tuple, *LISTS):
        return isinstance(value, list | tuple) and _parts_fit(value, origin, inner)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return True  # an annotation that means nothing here


def _number_fits(value: object, kind: type) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind is int:
        # Torch counts in 64 bits, one of them for the sign; one more is left for sums.
        return isinstance(value, int) and abs(value) < 2**62
    return abs(value) < sys.float_info.max  # NaN is below nothing


def _parts_fit(values: Sequence[Any], origin: Any, inner: tuple[Any, ...]) -> bool:
    if origin is not tuple or inner[-1] is Ellipsis:
        return all(fits(value, inner[0]) for value in values)
    return len(values) == len(inner) and all(map(fits, values, inner))


def _wanted(value: Any, kind: Any) -> str:
    if get_origin(kind) is Literal:
        return nearest(str(value), [str(option) for option in get_args(kind)])
    return f"must be {_words(kind)}"


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(option) for option in inner)
    if origin is Literal:
        return " or ".join(str(option) for option in inner)
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)} {PLURALS.get(inner[0], 'values')}"
    if origin in (tuple, *LISTS):
        return f"a list of {PLURALS.get(inner[0], 'values')}, such as [2,3]"
    return WORDS.get(kind, "a section" if origin in (dict, Mapping) else "another value")
