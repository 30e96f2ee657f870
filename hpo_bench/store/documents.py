"""What ``run.json`` and the other small files of a store must hold to be read.

Imports no pandas: a list of runs is read without it.
"""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

# The format of everything in a store. A file of a later one is not read, as nobody knows yet what
# it will mean; a file that names none is of the first.
FORMAT = 1
TABLES = ("final", "curves", "hypergradients", "trials")  # that a run may have
ABSENT = object()  # what a key has that is not there, which None is not


class Newer(ValueError):
    """A file of a later format than `FORMAT`."""


def check_format(content: Mapping[str, Any]) -> None:
    """Make sure that this version can read a file.

    Raises:
        Newer: it was written by a later version.
        ValueError: its format is no number.
    """
    version = content.get("format", FORMAT)
    if not _is_whole(version) or version < 1:
        raise ValueError(f"format must be a whole number from 1 up, not {_shown(version)}")
    if version > FORMAT:
        raise Newer(
            f"of format {version}, which a newer hpo-bench wrote; "
            f"this one reads format {FORMAT}: update it"
        )


def read(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object of a format that is known.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else; `Newer` where it is of a later format.
    """
    return parsed(text_of(path))


def text_of(path: Path) -> str:
    """Read the text of a file; a pipe is refused, as nobody may ever write to it.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_text(encoding="utf-8-sig")


def parsed(text: str) -> dict[str, Any]:
    """Read the text of a file as `read` does the file.

    Raises:
        ValueError: as `read` does.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"must be one object, not {_shown(content)}")
    check_format(content)
    return content


def parsed_run(text: str) -> dict[str, Any]:
    """Read the text of a ``run.json``, and check the type of everything that is used of it.

    Raises:
        ValueError: a key is missing or of another type; names it. `Newer` where the file is of a
            later format.
    """
    content = parsed(text)
    for key, rule in REQUIRED_KEYS.items():
        _check(key, _value_at(content, key), rule)
    if content["status"] == "complete":
        for key, rule in KEYS_OF_COMPLETE.items():
            _check(key, _value_at(content, key), rule)
        seeds = content["seeds"]
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError("seeds must name each repetition once, and at least one")
    for key, rule in OPTIONAL_KEYS.items():
        value = _value_at(content, key, ABSENT)
        may_be_so = value is ABSENT or (value is None and key in NULLABLE_KEYS)
        if not may_be_so:
            _check(key, value, rule)
    return content


def check_table(path: Path) -> None:
    """Look at both ends of a Parquet file: whether it is there and whole.

    This costs no more than opening it, so that a list of runs can do it for each.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is something else, or cut off.
    """
    with path.open("rb") as file:
        begin = file.read(4)
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        end = file.read(8)
    # Parquet: "PAR1", data, a footer, the footer's length in four bytes, "PAR1".
    marked = begin == b"PAR1" and end[4:] == b"PAR1"
    footer = int.from_bytes(end[:4], "little")
    if not marked or footer + 12 > size:
        raise ValueError("empty" if not size else "not all of a Parquet file")


def check_tables(folder: Path) -> None:
    """Look at the tables that every complete run has, as `check_table` does.

    Raises:
        ValueError: one is missing or damaged; names the file, and what to do.
    """
    for name in ("final.parquet", "curves.parquet"):
        try:
            check_table(folder / name)
        except FileNotFoundError:
            raise ValueError(f"{folder / name} is missing; {again(folder)}") from None
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise ValueError(f"{folder / name} is damaged ({reason}); {again(folder)}") from None


def again(path: Path) -> str:
    """Say what to do about a run's folder that cannot be read."""
    return f"move {path} aside, or run with --force, to compute it again"


def _check(key: str, value: object, rule: Rule) -> None:
    expected, fits = rule
    if not fits(value):
        raise ValueError(f"{key} must be {expected}, not {_shown(value)}")


def _value_at(content: Any, key: str, absent: object = None) -> Any:
    """Follow a dotted key to its value; ``absent`` where there is none."""
    for name in _parts(key):
        if not isinstance(content, dict):
            return absent
        content = content.get(name, absent)
    return content


@cache
def _parts(key: str) -> tuple[str, ...]:
    # Thousands of runs are checked for the same few keys.
    return tuple(key.split("."))


def _shown(value: object) -> str:
    """Write a value so that it fits into a line."""
    kinds: dict[type, str] = {dict: "an object", list: "a list"}
    text = kinds.get(type(value)) or json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    # True is an int for Python.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _are_whole(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_whole, value))


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_object, value))


def _is_status(value: object) -> bool:
    return value in ("complete", "failed")


def _reads_as(kind: Callable[[str], float]) -> Callable[[Any], bool]:
    """Whether a number can be read from a value, as settings are: also from ``"3"``."""

    def fits(value: Any) -> bool:
        try:
            kind(value)
        except (TypeError, ValueError):
            return False
        return not isinstance(value, bool)

    return fits


Rule = tuple[str, Callable[[Any], bool]]  # what a value must be, in words, and whether it is
TEXT: Rule = ("text", _is_text)
NUMBER: Rule = ("a number", _is_number)
WHOLE_SETTING: Rule = ("a whole number", _reads_as(int))
NUMBER_SETTING: Rule = ("a number", _reads_as(float))
WHOLE: Rule = ("a whole number", _is_whole)
OBJECT: Rule = ("an object", _is_object)

# What the keys of ``run.json`` must hold: of every run, of a complete one too, and where they are.
REQUIRED_KEYS: Mapping[str, Rule] = {
    "status": ("complete or failed", _is_status),
    "config": OBJECT,
    "config_hash": TEXT,
    "seeds": ("a list of whole numbers", _are_whole),
    "config.dataset.name": TEXT,
    "config.method.name": TEXT,
}
KEYS_OF_COMPLETE: Mapping[str, Rule] = {
    "config.update_interval": WHOLE_SETTING,
    "config.hyperparameter_updates": WHOLE_SETTING,
    "config.record_every": WHOLE_SETTING,
    "config.repetitions": WHOLE_SETTING,
    "config.seed": WHOLE_SETTING,
    "config.validation_share": NUMBER_SETTING,
}
OPTIONAL_KEYS: Mapping[str, Rule] = {
    "error": TEXT,
    "code": OBJECT,
    "environment": OBJECT,
    "seconds": OBJECT,
    "seconds.train": NUMBER,
    "seconds.evaluate": NUMBER,
    "seconds.total": NUMBER,
    "data": OBJECT,
    "data.content": TEXT,
    "own_code": OBJECT,
    "taken_from": ("a list of objects", _are_objects),
    "costs": OBJECT,
    "costs.weight_updates": WHOLE,
    "costs.gradients": WHOLE,
    "costs.hessian_products": WHOLE,
    "code.numbers": WHOLE,
    "config.hyper": OBJECT,
    "config.init": OBJECT,
    "config.look_back": WHOLE_SETTING,
    "config.dataset.source": OBJECT,
    "config.dataset.label": TEXT,
    "config.dataset.metric": TEXT,
    "config.dataset.metric_label": TEXT,
    "config.dataset.metric_scale": NUMBER,
    "config.dataset.task": TEXT,
    "config.method.label": TEXT,
    "config.method.colour": TEXT,
    "config.method.line_style": TEXT,
    "config.method.order": NUMBER,
    "config.method.rule": OBJECT,
    "config.method.rule._target_": TEXT,
    "config.method.search": OBJECT,
    "config.method.schedule": OBJECT,
}
# Those of the optional keys that may be null.
NULLABLE_KEYS = {
    "error",
    "data",
    "data.content",
    "own_code",
    "taken_from",
    "costs",
    "code.numbers",
    "config.hyper",
    "config.init",
    "config.look_back",
    "config.dataset.source",
    "config.dataset.metric",
    "config.dataset.metric_scale",
    "config.dataset.task",
    "config.method.rule",
    "config.method.search",
    "config.method.schedule",
}
