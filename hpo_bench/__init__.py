"""hpo-bench: reproducible experiments in one-pass, gradient-based hyperparameter optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo_bench.api import OnePass
    from hpo_bench.errors import UserError

__version__ = "0.1.0"
__all__ = ["OnePass", "UserError", "__version__"]


def __getattr__(name: str) -> Any:
    """`OnePass` and `UserError` when they are asked for: importing the package must not import
    torch.
    """
    if name == "OnePass":
        from hpo_bench.api import OnePass

        return OnePass
    if name == "UserError":
        from hpo_bench.errors import UserError

        return UserError
    raise AttributeError(f"module {__name__} has no attribute {name}")
