"""Values as Hydra's override grammar and a shell read them, so that what a message shows can be pasted."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from typing import Any

_WORD = r"(?:[A-Za-z_][A-Za-z0-9_./+-]*|[./][A-Za-z0-9_./+-]*[A-Za-z_/][A-Za-z0-9_./+-]*)"
_PLAIN = re.compile(rf"{_WORD}(?: {_WORD})*")
_RESERVED = {"null", "true", "false", "inf", "nan"}
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def quoted(value: Any) -> str:
    """A value in Hydra's grammar that reads as that very value.

    Args:
        value: text, a number, a truth value, None, or lists and mappings of them (whose keys are plain words).
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int | float):
        return repr(float(value) if isinstance(value, float) else int(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(quoted(item) for item in value)}]"
    return _quoted_text(str(value))


def override(key: str, value: Any) -> str:
    """``key=value`` for a shell: Hydra reads it as that very value."""
    return shlex.quote(f"{key}={quoted(value)}")


def _quoted_text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    mark = "'" if '"' in text and "'" not in text else '"'
    escaped = _INTERPOLATION.sub(lambda match: match[1] * 2 + "\\${", text)
    escaped = re.sub(rf"(\\*)({mark}|$(?!\n))", _doubled, escaped)
    return f"{mark}{escaped}{mark}"


def _doubled(match: re.Match[str]) -> str:
    """Backslashes before a quotation mark, or before the one that closes, stand for half as many."""
    return match[1] * 2 + (f"\\{match[2]}" if match[2] else "")
