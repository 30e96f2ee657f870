"""hpo-bench: reproducible experiments in one-pass, gradient-based hyperparameter optimisation.

    import hpo_bench

    results = hpo_bench.run("method=ours_wd_lr_m", dataset="diabetes", repetitions=20)
    print(results)

Importing the package imports neither torch nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpo_bench.api import OnePass, Results, load, plot, run, sweep
    from hpo_bench.errors import RunError, UserError

__version__ = "0.1.0"
__all__ = [
    "OnePass",
    "Results",
    "RunError",
    "UserError",
    "__version__",
    "load",
    "plot",
    "run",
    "sweep",
]


def __getattr__(name: str) -> object:
    """The public names when they are asked for: importing the package must import neither torch
    nor pandas.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from hpo_bench import api, errors

    found: object = getattr(errors if name in ("RunError", "UserError") else api, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
