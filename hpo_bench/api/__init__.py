"""The package as it is used from Python.

Names are imported when they are asked for, so that importing the package imports neither torch nor
pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo_bench.api.one_pass import OnePass

__all__ = ["OnePass"]


def __getattr__(name: str) -> Any:
    """`OnePass`, when it is asked for."""
    if name == "OnePass":
        from hpo_bench.api.one_pass import OnePass

        return OnePass
    raise AttributeError(f"module {__name__} has no attribute {name}")
