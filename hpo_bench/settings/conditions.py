"""Conditions of ``--where`` and ``--setting``: a key and a value, as a run's configuration holds
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpo_bench.core import checks
from hpo_bench.errors import UserError

if TYPE_CHECKING:
    pass


def condition(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` of ``--where``, VALUE as JSON (``10``, ``null``, ``[0, 1]``) or plain text.

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
    """The value that ``hpo-bench run`` reads from ``KEY=VALUE``, such as ``.5`` or
    ``[lr,momentum]``, or plain text.
    """
    from hpo_bench.settings.compose import values_of

    try:
        values = values_of(text)
    except UserError:
        return value
    return values[0] if len(values) == 1 else value


def check_whole(values: Mapping[str, int], low: int = 1) -> None:
    """Check arguments of a search as keys ``method.search.NAME``."""
    for name, value in values.items():
        checks.whole(f"method.search.{name}", value, low)
