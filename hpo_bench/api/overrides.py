"""Settings as Python's keywords, written as the overrides of ``hpo-bench run``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from hpo_bench.errors import UserError
from hpo_bench.system.inherited import expanded
from hpo_bench.system.quoting import quoted

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


def check(overrides: Iterable[object]) -> list[str]:
    """Overrides in Hydra's grammar, as they were given.

    Raises:
        UserError: one is no text, or a flag of the command.
    """
    words = []
    for word in overrides:
        if not isinstance(word, str):
            raise UserError(f"{word!r}: must be text such as 'method=random', or a keyword")
        if word.startswith("-"):
            raise UserError(f"{word}: flags are keywords here: force=True, on=…, config_dir=…")
        words.append(word)
    return words


def written(settings: Mapping[str, object]) -> list[str]:
    """Keywords as overrides: ``hyper={"lr": 0.1}`` is ``hyper.lr=0.1``.

    Raises:
        UserError: a value that no setting can have.
    """
    return [f"{key}={quoted(value)}" for key, value in flattened(settings)]


def flattened(settings: Mapping[str, object]) -> Iterator[tuple[str, Plain]]:
    """Dotted keys and plain values; a component (a mapping with ``_target_``) is one value.

    Raises:
        UserError: a value that no setting can have.
    """
    for key, value in settings.items():
        if isinstance(value, Mapping) and "_target_" not in value:
            yield from flattened({f"{key}.{name}": item for name, item in value.items()})
        else:
            yield key, plain(key, value)


def plain(key: str, value: object) -> Plain:
    """A value as a yaml would hold it: paths are text, tuples, ranges and arrays are lists.

    Raises:
        UserError: it is nothing that a yaml could hold; names the key.
    """
    if callable(array := getattr(value, "tolist", None)):  # numpy's, torch's and pandas' values
        return plain(key, array())
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        # as on the command line, where nothing else can be meant by it
        at_home = value == "~" or value.startswith("~/")
        return str(expanded(value)) if at_home else str(value)
    if isinstance(value, os.PathLike):
        return plain(key, os.fsdecode(value))
    if isinstance(value, Mapping):
        return {str(name): plain(f"{key}.{name}", item) for name, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((plain(key, item) for item in value), key=str)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        return [plain(key, item) for item in value]
    raise UserError(
        f"{key}={value!r}: must be text, a path, a number, true or false, None, or lists or "
        f"mappings of them, not {type(value).__name__}"
    )
