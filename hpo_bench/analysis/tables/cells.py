"""What the tables are put together of: cells, and rows of data with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpo_bench.analysis.compare import bounds
from hpo_bench.analysis.rounding import NOTHING
from hpo_bench.analysis.statistics.interval import Interval

Marked = tuple[str, bool]  # the text of a cell, and whether it is bold
Cells = dict[Any, dict[Any, Marked]]  # by column, then by row
Frames = tuple[pd.DataFrame, pd.DataFrame]  # body and bold of a `RenderedTable`
Parts = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]  # body, bold, data and label of one


def frames(cells: Cells, rows: Sequence[Any], names: Sequence[str]) -> Frames:
    """Body and bold of a table; a row that a column lacks shows nothing.

    Args:
        names: of the index's levels.
    """
    index = pd.Index(rows) if len(names) == 1 else pd.MultiIndex.from_tuples(rows)
    index.names = list(names)
    body, bold = {}, {}
    for key, column in cells.items():
        shown = [column.get(row, (NOTHING, False)) for row in rows]
        body[key] = [text for text, _ in shown]
        bold[key] = [mark for _, mark in shown]
    return pd.DataFrame(body, index=index), pd.DataFrame(bold, index=index)


def ordered(labels: Mapping[str, float]) -> list[str]:
    """Labels by the order of their methods, then by name."""
    return sorted(labels, key=lambda label: (labels[label], label))


def interval_data(interval: Interval, prefix: str = "") -> dict[str, Any]:
    """An interval as columns of a row of data, their names behind a prefix."""
    data = {
        "estimate": interval.estimate,
        "standard_deviation": interval.standard_deviation,
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
    }
    return {prefix + key: value for key, value in data.items()}


def estimate(record: Mapping[Any, Any]) -> str:
    """The estimate of a row of data with its bounds."""
    value, low, high = record["estimate"], record["low"], record["high"]
    if np.isnan(value):
        return NOTHING
    return bounds(Interval(value, np.nan, low, high, record["n"], record["interval"], None))
