"""Values as Hydra's override grammar and a shell read them, so that what a message shows can be
pasted.
"""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Mapping
from typing import Any

_WORD = r"(?:[A-Za-z_][A-Za-z0-9_./+-]*|[./][A-Za-z0-9_./+-]*[A-Za-z_/][A-Za-z0-9_./+-]*)"
_PLAIN = re.compile(rf"{_WORD}(?: {_WORD})*")
_RESERVED = {"null", "true", "false", "inf", "nan"}
_NOT_OF_A_LINE = ("Cc", "Cs", "Zl", "Zp")  # categories of Unicode
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def quoted(value: Any) -> str:
    """A value in Hydra's grammar that reads as that very value.

    Args:
        value: text, a number, a truth value, None, or lists and mappings of them (whose keys are
            plain words).
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
    """``key=value`` for a shell, on one line: Hydra reads it as that very value."""
    return for_shell(f"{key}={quoted(value)}")


def for_shell(word: str) -> str:
    """One word for a shell, on one line: with line ends and the like as ``$'…'`` has them (bash,
    zsh, ksh).
    """
    if word == in_one_line(word):
        return shlex.quote(word)
    signs = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{in_one_line(signs)}'"


def in_one_line(text: str) -> str:
    """The text as it is, but for control characters, line ends and halves of characters.

    These become ``\\xNN`` or ``\\uNNNN``: a terminal would act on them, a table or a page be torn
    by them, and no file in UTF-8 can hold the last."""
    return "".join(
        _escaped(sign) if unicodedata.category(sign) in _NOT_OF_A_LINE else sign for sign in text
    )


def _escaped(sign: str) -> str:
    return f"\\u{ord(sign):04x}" if ord(sign) > 127 else f"\\x{ord(sign):02x}"


def _quoted_text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    mark = "'" if '"' in text and "'" not in text else '"'
    escaped = literal(text)
    escaped = re.sub(rf"(\\*)({mark}|$(?!\n))", _doubled, escaped)
    return f"{mark}{escaped}{mark}"


def literal(text: str) -> str:
    """Text as OmegaConf reads it as that very text, though it holds a ``${``."""
    return _INTERPOLATION.sub(lambda match: match[1] * 2 + "\\${", text)


def _doubled(match: re.Match[str]) -> str:
    """Backslashes before a quotation mark, or before the one that closes, stand for half as
    many.
    """
    return match[1] * 2 + (f"\\{match[2]}" if match[2] else "")
