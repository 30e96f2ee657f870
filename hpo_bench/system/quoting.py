"""Writing values as Hydra's grammar and a shell read them, so that messages can be pasted."""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Mapping
from typing import Any

_WORD = r"(?:[A-Za-z_][A-Za-z0-9_./+-]*|[./][A-Za-z0-9_./+-]*[A-Za-z_/][A-Za-z0-9_./+-]*)"
_PLAIN = re.compile(rf"{_WORD}(?: {_WORD})*")
_RESERVED = {"null", "true", "false", "inf", "nan"}  # words that the grammar reads as values
# Categories of Unicode: control characters, halves of characters, ends of lines and paragraphs.
_NOT_OF_A_LINE = ("Cc", "Cs", "Zl", "Zp")
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def quoted(value: Any) -> str:
    """Write a value such that Hydra's grammar reads it as that very value.

    Args:
        value: text, a number, a truth value, None, or lists and mappings of them (whose keys are
            plain words).
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    # Classes that inherit from numbers (NumPy's) write themselves in other ways.
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(quoted(item) for item in value)}]"
    return _quoted_text(str(value))


def override(key: str, value: Any) -> str:
    """Write ``key=value`` for a shell, on one line, such that Hydra reads that very value."""
    return for_shell(f"{key}={quoted(value)}")


def for_shell(word: str) -> str:
    """Write one word for a shell, on one line."""
    if word == in_one_line(word):
        return shlex.quote(word)
    # bash, zsh and ksh read line ends and the like in $'…'.
    signs = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{in_one_line(signs)}'"


def in_one_line(text: str) -> str:
    """Escape control characters, line ends and halves of characters in a text.

    These become ``\\xNN`` or ``\\uNNNN``: a terminal would act on them, a table or a page be torn
    by them, and no file in UTF-8 can hold the last.
    """
    return "".join(map(_escaped, text))


def _escaped(sign: str) -> str:
    if unicodedata.category(sign) not in _NOT_OF_A_LINE:
        return sign
    return f"\\u{ord(sign):04x}" if ord(sign) > 127 else f"\\x{ord(sign):02x}"


def _quoted_text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    mark = "'" if '"' in text and "'" not in text else '"'
    escaped = literal(text)
    escaped = re.sub(rf"(\\*)({mark}|$(?!\n))", _doubled, escaped)
    return f"{mark}{escaped}{mark}"


def literal(text: str) -> str:
    """Write a text such that OmegaConf reads it as that very text, though it holds a ``${``."""
    return _INTERPOLATION.sub(lambda match: match[1] * 2 + "\\${", text)


def _doubled(match: re.Match[str]) -> str:
    """Double the backslashes before a quotation mark, which stand for half as many."""
    return match[1] * 2 + (f"\\{match[2]}" if match[2] else "")
