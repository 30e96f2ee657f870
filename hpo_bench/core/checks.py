"""Checks of single settings: each takes a key and its value and returns the checked value or raises
one clear line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hpo_bench.errors import UserError, nearest
from hpo_bench.system.inherited import expanded
from hpo_bench.system.quoting import in_one_line, override

NOT_IN_NAMES = '/\\:*?"<>|'
# A run's folder joins two names, seeds and a hash; files in it add to that, and 255 is the most.
NAME_BYTES = 80


def _bad(key: str, value: Any, allowed: str) -> UserError:
    return UserError(f"{key}={shown(value)}: {allowed}")


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(shown(part) for part in value)}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def whole(key: str, value: Any, low: int) -> int:
    """A whole number of ``low`` or more that fits into 62 bits."""
    if not _is_whole(value) or value < low:
        raise _bad(key, value, f"must be a whole number, {low} or more")
    if value >= 2**62:
        raise _bad(key, value, "is too large, must be below 2^62")
    return int(value)


def whole_or(key: str, value: Any, word: str | None) -> int | None:
    """A whole number of 1 or more, or ``word``, which stands for None."""
    if value == word:
        return None
    if not _is_whole(value) or value < 1:
        raise _bad(key, value, f"must be {shown(word)} or a whole number, 1 or more")
    return whole(key, value, 1)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(key: str, value: Any) -> float:
    """A number that is neither infinite nor NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad(key, value, "must be a number")
    try:
        converted = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        raise UserError(f"{key}: is too large, must be below 1.8e308") from None
    if isinstance(value, int) and abs(value) >= 2**63:
        raise _bad(key, value, f"is too long for a whole number; write it as {converted:g}")
    if not math.isfinite(converted):
        raise _bad(key, value, "must be a number")
    return converted


def number_within(
    key: str, value: Any, low: float, high: float, *, closed: tuple[bool, bool]
) -> float:
    """A number between ``low`` and ``high``; ``closed`` says which ends belong."""
    checked = number(key, value)
    above = checked >= low if closed[0] else checked > low
    below = checked <= high if closed[1] else checked < high
    if not (above and below):
        lower = f"{'at least' if closed[0] else 'above'} {low:g}"
        upper = "" if math.isinf(high) else f" and {'at most' if closed[1] else 'below'} {high:g}"
        raise _bad(key, value, f"must be {lower}{upper}")
    return checked


def at_least_zero(key: str, value: Any) -> float:
    """A number of 0 or more."""
    return number_within(key, value, 0, math.inf, closed=(True, False))


def decay(key: str, value: Any) -> float:
    """The decay of a moving average: at least 0 and below 1."""
    return number_within(key, value, 0, 1, closed=(True, False))


def positive(key: str, value: Any) -> float:
    """A number above 0."""
    return number_within(key, value, 0, math.inf, closed=(False, False))


def interval(
    key: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> tuple[float, float]:
    """A pair [a, b] with low ≤ a ≤ b ≤ high."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _bad(key, value, "must be a pair [low,high]")
    first, second = (number(key, part) for part in value)
    if not low <= first <= second <= high:
        bounds = f" within [{low:g},{high:g}]" if math.isfinite(low) or math.isfinite(high) else ""
        raise _bad(key, value, f"must be a pair [low,high]{bounds} with low at most high")
    return first, second


def betas(key: str, value: Any) -> tuple[float, float]:
    """A pair of numbers of at least 0 and below 1."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _bad(key, value, "must be a pair of numbers, each at least 0 and below 1")
    first, second = (number_within(key, part, 0, 1, closed=(True, False)) for part in value)
    return first, second


def decays(key: str, value: Any) -> tuple[float, ...]:
    """One or several decays of moving averages, each at least 0 and below 1."""
    if not isinstance(value, list | tuple) or not value:
        raise _bad(key, value, "must be a list of one or more numbers, each at least 0 and below 1")
    return tuple(decay(key, part) for part in value)


def device(key: str, value: Any) -> str:
    """auto, cpu, cuda or cuda:N."""
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise _bad(key, value, nearest(shown(value), ("auto", "cpu", "cuda", "cuda:N")))
    return value


def flag(key: str, value: Any) -> bool:
    """A flag: true or false."""
    if not isinstance(value, bool):
        raise _bad(key, value, "must be true or false")
    return value


def choice(key: str, value: Any, allowed: Iterable[str]) -> str:
    """One of a few words."""
    options = tuple(allowed)
    if value not in options:
        raise _bad(key, value, nearest(shown(value), options))
    return str(value)


def words(key: str, value: Any, allowed: Iterable[str]) -> tuple[str, ...]:
    """A list of different words out of a few."""
    if not isinstance(value, list | tuple):
        raise _bad(key, value, f"must be a list such as [{','.join(allowed)}]")
    options = tuple(allowed)
    for word in value:
        if word not in options:
            raise _bad(key, value, f"unknown {shown(word)}; {nearest(shown(word), options)}")
    if len(set(value)) != len(value):
        raise _bad(key, value, "names one of them twice")
    return tuple(value)


def text(key: str, value: Any) -> str:
    """Text that is not empty."""
    if isinstance(value, int | float):
        raise _bad(
            key, value, f"must be text; if that is meant, write it as {override(key, shown(value))}"
        )
    if not isinstance(value, str) or not value.strip():
        raise _bad(key, value, "must be text that is not empty")
    return value


def label(key: str, value: Any) -> str:
    """What something is called in figures and tables: one line of text."""
    if text(key, value) != in_one_line(value):
        raise UserError(f"{key}={in_one_line(value)}: must be one line, without control characters")
    return str(value)


def colour(key: str, value: Any) -> str:
    """A colour that Matplotlib knows, such as ``#56B4E9``; only for others than these is it
    asked.
    """
    if isinstance(value, str) and not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        from matplotlib.colors import is_color_like

        known = is_color_like(value)
    else:
        known = isinstance(value, str)
    if not known:
        raise _bad(key, value, "must be a colour such as '#56B4E9'")
    return str(value)


def storable(key: str, value: Any) -> None:
    """Make sure that a value can be written to a file in UTF-8, as every run's settings are."""
    try:
        str(value).encode("utf-8")
    except UnicodeEncodeError as error:
        wrong = in_one_line(value[error.start : error.end])
        raise UserError(
            f"{key}={in_one_line(value)}: is not UTF-8 text ({wrong}); rename the file, or write "
            "the setting in UTF-8"
        ) from None


def path(key: str, value: Any) -> Path:
    """A path, whether something is there or not; a leading ``~`` stands for the home folder."""
    if "\0" in text(key, value):
        raise _bad(key, repr(value), "a path cannot hold a null character")
    try:
        return expanded(value)
    except UserError:
        raise _bad(key, value, "there is no home folder for the ~; give the whole path") from None


def file(key: str, value: Any) -> Path:
    """A file that is there."""
    found = path(key, value)
    if not _is_file(found):
        raise _bad(key, value, "no such file")
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def folder(key: str, value: str | Path) -> Path:
    """A folder that is there."""
    found = path(key, str(value))
    if not found.is_dir():
        raise UserError(f"{key} {value}: no such folder")
    return found


def name(key: str, value: Any) -> str:
    """A name that becomes part of the names of folders and files.

    It is one part of a path on every system, however it is put together with others: no separators,
    no characters that mean something to a shell, a terminal or a file system, no dot, dash or blank
    at its ends, and not too long."""
    checked = text(key, value)
    if not checked.isprintable() or any(sign in NOT_IN_NAMES for sign in checked):
        raise _bad(
            key,
            repr(value),
            f"becomes the name of a folder and cannot hold any of {' '.join(NOT_IN_NAMES)} "
            "or control characters",
        )
    if checked[0] in ".- " or checked[-1] in ". ":
        raise _bad(
            key,
            repr(value),
            "becomes the name of a folder: no dot, dash or blank at its beginning, no dot or "
            "blank at its end",
        )
    if len(checked.encode()) > NAME_BYTES:
        raise _bad(
            key, value, f"becomes the name of a folder and is too long, at most {NAME_BYTES} bytes"
        )
    return checked


def section(
    name: str, content: Any, allowed: Iterable[str] | None = None, needed: Iterable[str] = ()
) -> dict[str, Any]:
    """A section of settings: all keys among ``allowed`` (None for any), none of ``needed``
    missing.
    """
    if not isinstance(content, Mapping):
        raise _bad(name, content, "is a section, not a value: set its keys")
    prefix = f"{name}." if name else ""
    options = tuple(allowed) if allowed is not None else None
    for key in content:
        if options is not None and key not in options:
            raise UserError(f"{prefix}{key}: no such setting; {nearest(str(key), options)}")
    for key in needed:
        if key not in content:
            raise UserError(f"{prefix}{key}: is missing")
    return dict(content)
