"""hpo-bench: reproducible experiments in one-pass, gradient-based hyperparameter optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo_bench.api import OnePass

__version__ = "0.1.0"
__all__ = ["OnePass", "__version__"]


def __getattr__(name: str) -> Any:
    """`OnePass` when it is asked for: importing the package must not import torch."""
    if name == "OnePass":
        from hpo_bench.api import OnePass

        return OnePass
    raise AttributeError(f"module {__name__} has no attribute {name}")
