"""The figures: every module here is one, by its name.

What they share is in `hpo_bench.figures.common`. A figure module has

    TITLE                        what it shows, in a few words
    NEEDS                        tuple of `common.needs.Need`: the runs it is made from; empty for
                                 an illustration
    points(selection, options)   -> `common.base.Points`: what is plotted, computed from stored runs
    draw(plotted)                -> a Matplotlib figure from those points alone
                                 (`common.base.Plotted`)

Nothing has to be registered. Importing this package imports neither Matplotlib nor pandas.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import TYPE_CHECKING, cast

from hpo_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from hpo_bench.figures.common.base import FigureModule


def names() -> list[str]:
    """Names of all figures: the numbered ones first."""
    modules = [module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg]
    return sorted(modules, key=lambda name: (not re.fullmatch(r"fig\d+", name), name))


def find(name: str) -> FigureModule:
    """The figure of that name; ``figure9`` and ``9`` mean ``fig09``.

    Raises:
        UserError: there is no such figure.
    """
    return cast("FigureModule", importlib.import_module(f"{__name__}.{resolve(name)}"))


def resolve(name: str) -> str:
    """The name of a figure as `names` has it; ``figure9`` and ``9`` mean ``fig09``.

    Raises:
        UserError: there is no such figure.
    """
    number = re.fullmatch(r"(?:fig(?:ure)?)?[ _-]?(\d+)", name.lower())
    wanted = f"fig{int(number[1]):02d}" if number else name
    if wanted not in names():
        raise UserError(f"no figure {name!r}: {nearest(name, names())}")
    return wanted
