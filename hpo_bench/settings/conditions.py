"""Conditions of ``--where`` and ``--setting``, and a check that searches share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hpo_bench.core import checks
from hpo_bench.errors import UserError


def condition(text: str) -> tuple[str, Any]:
    """Read ``KEY=VALUE`` of ``--where`` as a key and a value as a run's configuration holds them.

    VALUE is JSON (``10``, ``null``, ``[0, 1]``), what ``hpo-bench run`` would read, or plain text.

    Raises:
        UserError: there is no key or no value.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UserError(f"--where {text}: must be KEY=VALUE, as in --where update_interval=10")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, _as_in_run(text, value)


def _as_in_run(text: str, value: str) -> Any:
    """The value that ``hpo-bench run`` reads, such as ``.5`` or ``[lr,momentum]``; or the text."""
    # Most conditions are JSON and need no Hydra, which takes long to import.
    from hpo_bench.settings.compose import values_of

    try:
        values = values_of(text)
    except UserError:
        return value
    return values[0] if len(values) == 1 else value


def check_whole(values: Mapping[str, int], low: int = 1) -> None:
    """Make sure that arguments of a search are whole numbers of at least ``low``.

    Raises:
        UserError: one is not; names it as ``method.search.NAME``.
    """
    for name, value in values.items():
        checks.whole(f"method.search.{name}", value, low)
