"""What ``run.json`` and the other small files of a store must hold to be read: their format and
types (no pandas).
"""

from __future__ import annotations

import errno
import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ABSENT = object()
# Of everything in a store; files of a later one are not read, those without one are of the first.
FORMAT = 1


class Newer(ValueError):
    """A file of a later format than `FORMAT`."""


def check_format(content: Mapping[str, Any]) -> None:
    """Make sure that this version can read a file.

    Raises:
        Newer: it was written by a later version.
        ValueError: its format is no number.
    """
    found = content.get("format", FORMAT)
    if not _whole(found) or found < 1:
        raise ValueError(f"format must be a whole number from 1 up, not {_shown(found)}")
    if found > FORMAT:
        raise Newer(
            f"of format {found}, which a newer hpo-bench wrote; this one reads format {FORMAT}: update it"
        )


def read(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object of a format that is known.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else; `Newer` where it is of a later format.
    """
    return parsed(text_of(path))


def text_of(path: Path) -> str:
    """The text of a file; a pipe is refused, as nobody may ever write to it.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_text(encoding="utf-8-sig")


def parsed(text: str) -> dict[str, Any]:
    """See `read`."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"must be one object, not {_shown(content)}")
    check_format(content)
    return content


def parsed_run(text: str) -> dict[str, Any]:
    """The content of a ``run.json``, with everything that is read from it elsewhere of the right
    type.

    Raises:
        ValueError: it is not; names the key. `Newer` where it is of a later format.
    """
    content = parsed(text)
    for key, (wanted, fits) in REQUIRED.items():
        _check(content, key, wanted, fits)
    if content["status"] == "complete":
        for key, (wanted, fits) in OF_COMPLETE.items():
            _check(content, key, wanted, fits)
        seeds = content["seeds"]
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError("seeds must name each repetition once, and at least one")
    for key, (wanted, fits) in OPTIONAL.items():
        found = _found(content, key, ABSENT)
        if found is not ABSENT and not (found is None and key in NULLABLE):
            _check(content, key, wanted, fits)
    return content


def check_table(path: Path) -> None:
    """Look at both ends of a Parquet file: whether it is there, and whole, at the price of opening
    it.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is something else, or cut off.
    """
    with path.open("rb") as file:
        begin = file.read(4)
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        end = file.read(8)
    if begin != b"PAR1" or end[4:] != b"PAR1" or int.from_bytes(end[:4], "little") + 12 > size:
        raise ValueError("empty" if not size else "not all of a Parquet file")


def check_tables(folder: Path) -> None:
    """`check_table` for those that every complete run has.

    Raises:
        ValueError: names the file, and what to do.
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
    """What to do about a run's folder that cannot be read."""
    return f"move {path} aside, or run with --force, to compute it again"


def _check(content: Mapping[str, Any], key: str, wanted: str, fits: Callable[[Any], bool]) -> None:
    found = _found(content, key)
    if not fits(found):
        raise ValueError(f"{key} must be {wanted}, not {_shown(found)}")


def _found(content: Any, key: str, absent: object = None) -> Any:
    """The value at a dotted key; ``absent`` where there is none."""
    for name in key.split("."):
        content = content.get(name, absent) if isinstance(content, dict) else absent
    return content


def _shown(value: Any) -> str:
    """A value for one line."""
    kinds: dict[type, str] = {dict: "an object", list: "a list"}
    text = kinds.get(type(value)) or json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_whole, value))


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(map(_object, value))


def _status(value: Any) -> bool:
    return value in ("complete", "failed")


def _said(kind: Callable[[str], float]) -> Callable[[Any], bool]:
    """Settings are also read from text that says a number."""

    def fits(value: Any) -> bool:
        try:
            kind(value)
        except (TypeError, ValueError):
            return False
        return not isinstance(value, bool)

    return fits


Rule = tuple[str, Callable[[Any], bool]]
TEXT: Rule = ("text", _text)
NUMBER: Rule = ("a number", _number)
WHOLE_SETTING: Rule = ("a whole number", _said(int))
NUMBER_SETTING: Rule = ("a number", _said(float))
WHOLE: Rule = ("a whole number", _whole)
OBJECT: Rule = ("an object", _object)

REQUIRED: Mapping[str, Rule] = {
    "status": ("complete or failed", _status),
    "config": OBJECT,
    "config_hash": TEXT,
    "seeds": ("a list of whole numbers", _whole_numbers),
    "config.dataset.name": TEXT,
    "config.method.name": TEXT,
}
OF_COMPLETE: Mapping[str, Rule] = {
    "config.update_interval": WHOLE_SETTING,
    "config.hyperparameter_updates": WHOLE_SETTING,
    "config.record_every": WHOLE_SETTING,
    "config.repetitions": WHOLE_SETTING,
    "config.seed": WHOLE_SETTING,
    "config.validation_share": NUMBER_SETTING,
}
OPTIONAL: Mapping[str, Rule] = {
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
    "taken_from": ("a list of objects", _objects),
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
}
NULLABLE = {
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
}
