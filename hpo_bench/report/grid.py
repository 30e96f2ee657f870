"""Tables of the page: cells that know how they are shown and what they are sorted by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpo_bench.analysis.rounding import NOTHING, rounded
from hpo_bench.analysis.statistics.interval import Interval
from hpo_bench.report.facets import Facets

Kind = Literal["text", "words", "name", "number", "code", "verdict", "strip"]
FOLDED_FROM = 40  # rows
KEY_DIGITS = 7  # of what a column is sorted by, more than are shown


@dataclass(frozen=True)
class Strip:
    """An interval drawn on a scale that the rows of a column share.

    Args:
        low, mark, high: places between 0 and 1; no mark for an infinite estimate.
        open: the interval has no upper bound.
    """

    low: float
    mark: float | None
    high: float
    open: bool


@dataclass(frozen=True)
class Cell:
    """One cell.

    Args:
        text: as shown; several lines are shown folded up.
        key: what a column is sorted by: numbers by size (NaN last), text as a person would; the
            text by default.
        strong: stands out.
        colour: of a mark before the text, of a method as a rule.
        strip: shown in place of the text.
    """

    text: str
    key: float | None = None
    strong: bool = False
    colour: str = ""
    strip: Strip | None = None

    @property
    def sort(self) -> str | None:
        """The key as JavaScript's ``Number`` reads it.

        It is empty for NaN, and None where the text is the key.
        """
        if self.key is None:
            return None
        if math.isnan(self.key):
            return ""
        if math.isinf(self.key):
            return "-Infinity" if self.key < 0 else "Infinity"
        whole = float(self.key).is_integer() and abs(self.key) < 2**53
        return str(int(self.key)) if whole else f"{self.key:.{KEY_DIGITS}g}"


@dataclass(frozen=True)
class GridColumn:
    """Heading of a column and how its cells look.

    Args:
        kind: ``words`` are several, which need room; a ``name`` is never broken; ``strip`` is
            `Cell.strip`.
        note: small print below the heading.
    """

    heading: str
    kind: Kind = "text"
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """A sortable table.

    Args:
        name: its id on the page.
        rows: the first cell of each heads its row.
        note: how its numbers were made, below it.
        about: what each row is about, by which the page is filtered; none where the rows are about
            everything.
    """

    name: str
    caption: str
    columns: tuple[GridColumn, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    about: tuple[Facets, ...] = ()

    @property
    def folded(self) -> bool:
        """Whether it is so long that it is only shown on request."""
        return len(self.rows) > FOLDED_FROM


def number(value: float | None, strong: bool = False) -> Cell:
    """A number, rounded to three digits; ``–`` for None and NaN."""
    plain = math.nan if value is None else float(value)
    return Cell(rounded(plain).text, plain, strong)


def count(value: int | None) -> Cell:
    """A whole number, all its digits; ``–`` for None."""
    return Cell(NOTHING, math.nan) if value is None else Cell(str(int(value)), float(value))


def share(part: int, whole: int) -> Cell:
    """``part/whole``, sorted by the quotient."""
    return Cell(f"{part}/{whole}", part / whole if whole else math.nan)


def bounded(
    interval: Interval | None, strong: bool = False, scale: float = 1.0, unit: str = ""
) -> Cell:
    """An estimate with its bounds, ``0.53 [0.47, 0.61]``."""
    if interval is None:
        return Cell(NOTHING, math.nan)
    estimate, low, high = scale * interval.estimate, scale * interval.low, scale * interval.high
    text = f"{rounded(estimate).text}{unit}"
    if not math.isnan(low):
        text += f" [{rounded(low).text}, {rounded(high).text}]"
    return Cell(text, estimate, strong)


def with_error(interval: Interval) -> Cell:
    """An estimate with its standard error, ``0.53 ± 0.02``."""
    return Cell(rounded(interval.estimate, interval.standard_deviation).text, interval.estimate)


def strips(intervals: Sequence[Interval]) -> tuple[list[Cell], str]:
    """Intervals as pictures on one logarithmic scale, and that scale in words.

    Cells are empty where there is no such scale.
    """
    ends: list[float] = []
    for interval in intervals:
        ends += (interval.low, interval.estimate, interval.high)
    finite = [end for end in ends if 0 < end < math.inf]
    if not finite or min(finite) == max(finite):
        return [Cell(NOTHING, math.nan) for _ in intervals], "no scale"
    bottom, top = math.log(min(finite)), math.log(max(finite))

    def place(value: float) -> float:
        return (math.log(value) - bottom) / (top - bottom) if value < math.inf else 1.0

    def cell(interval: Interval) -> Cell:
        if not (interval.low > 0 and interval.estimate > 0):  # NaN, too
            return Cell(NOTHING, math.nan)
        mark = place(interval.estimate) if math.isfinite(interval.estimate) else None
        strip = Strip(place(interval.low), mark, place(interval.high), math.isinf(interval.high))
        return Cell("", interval.estimate, strip=strip)

    return [cell(interval) for interval in intervals], _scale(min(finite), max(finite))


def _scale(low: float, high: float) -> str:
    return f"{rounded(low).text} to {rounded(high).text}, log"


def ranges(seeds: Sequence[int]) -> str:
    """Whole numbers in few words: ``0–23, 30``."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][1] + 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in parts)
