"""The package as it is used from Python.

Names are imported when they are asked for, so that importing the package imports neither torch nor
pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpo_bench.api.drawing import plot
    from hpo_bench.api.one_pass import OnePass
    from hpo_bench.api.results import Results, load
    from hpo_bench.api.runs import run, sweep

__all__ = ["OnePass", "Results", "load", "plot", "run", "sweep"]

# Where each name is defined: only `runs` and `one_pass` import torch.
HOMES = {
    "OnePass": "one_pass",
    "Results": "results",
    "load": "results",
    "plot": "drawing",
    "run": "runs",
    "sweep": "runs",
}


def __getattr__(name: str) -> object:
    """One of `HOMES`, when it is asked for."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    found: object = getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
