"""Any number of stored runs side by side: one table of all, and every pair compared."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpo_bench.analysis import compare as comparing
from hpo_bench.analysis.compare import Compared, Side, bounds, columns
from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.rounding import rounded
from hpo_bench.analysis.statistics.interval import RESAMPLES, Interval
from hpo_bench.analysis.summary import measures
from hpo_bench.settings.identity import numbers
from hpo_bench.store.runs import Run


@dataclass(frozen=True)
class Setting:
    """A setting that not all runs have alike; None where a run does not have it."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class NumberedPair:
    """Two of the runs, by their numbers from 1, and how they compare."""

    a: int
    b: int
    compared: Compared


@dataclass(frozen=True)
class Beside:
    """Runs side by side.

    Args:
        medians: by the label of each measure, one a run, of all its repetitions; diverged ones
            count as +inf.
        seed: of the bootstrap.
    """

    runs: tuple[Side, ...]
    differences: tuple[Setting, ...]
    medians: Mapping[str, tuple[Interval, ...]]
    pairs: tuple[NumberedPair, ...]
    seed: int


def beside(runs: Sequence[Run], seed: int = 0) -> Beside:
    """Compare two or more complete runs, each with each of the others.

    Args:
        seed: of the bootstrap.

    Raises:
        UserError: one is named twice, the data differ, or a file is damaged.
    """
    numbered = enumerate(runs, start=1)
    pairs = [
        NumberedPair(first, second, comparing.compare(a, b, seed))
        for (first, a), (second, b) in itertools.combinations(numbered, 2)
    ]
    frames = [finals([run]).set_index("seed") for run in runs]
    sides = [comparing.side(run, frame) for run, frame in zip(runs, frames, strict=True)]
    medians = {}
    for measure in measures(runs):
        values = [failure_aware(frame, measure.column) * measure.scale for frame in frames]
        medians[measure.label] = tuple(comparing.median_of(each, seed) for each in values)
    return Beside(tuple(sides), tuple(_differences(runs)), medians, tuple(pairs), seed)


def _differences(runs: Sequence[Run]) -> list[Setting]:
    """Settings that decide numbers and differ, then code and machine."""
    told = [{**numbers(run.config), **comparing.made_by(run)} for run in runs]
    keys = dict.fromkeys(key for values in told for key in values)
    settings = [Setting(key, tuple(values.get(key) for values in told)) for key in keys]
    return [
        setting
        for setting in settings
        if len(set(map(repr, setting.values))) > 1 and not setting.key.startswith("dataset.")
    ]


# --- as text ---


def text(found: Beside) -> str:
    """The runs in one table, then who wins in each pair, in plain columns."""
    names = [str(number) for number, _ in enumerate(found.runs, start=1)]
    lines = [comparing.heading(name, run) for name, run in zip(names, found.runs, strict=True)]
    lines += ["", *columns([("", *names), *_rows(found)]), ""]
    for measure, _ in enumerate(found.medians):
        lines += [*_pairs(found, measure), ""]
    for pair in found.pairs:
        which = f"A = {pair.a}, B = {pair.b}"
        lines += [f"note: {which}: {note}" for note in pair.compared.notes]
    lines.append(
        f"intervals: 95 %, bootstrap of {RESAMPLES} resamples, seed {found.seed}; diverged = +inf"
    )
    return "\n".join(lines) + "\n"


def _rows(found: Beside) -> list[tuple[str, ...]]:
    """A line a number or setting, a column a run."""
    ok = [f"{run.n - run.diverged}/{run.n}" for run in found.runs]
    times = [rounded(1000 * run.seconds_per_update).text for run in found.runs]
    rows = [("n_ok/n", *ok)]
    rows += [
        (f"{measure}: median", *map(bounds, medians)) for measure, medians in found.medians.items()
    ]
    rows.append(("ms per weight update", *times))
    for setting in found.differences:
        rows.append((setting.key, *map(comparing.shown_value, setting.values)))
    return rows


def _pairs(found: Beside, measure: int) -> list[str]:
    """A line a pair: the difference of its medians by one measure, and who has the lower one."""
    rows = []
    for pair in found.pairs:
        result = pair.compared.results[measure]
        chance = bounds(result.paired.probability) if result.paired else "not paired"
        winner = comparing.verdict(result).replace("A is", f"{pair.a} is")
        winner = winner.replace("B is", f"{pair.b} is")
        names = f"{pair.a} and {pair.b}"
        rows.append((names, str(pair.compared.shared), bounds(result.difference), chance, winner))
    label = found.pairs[0].compared.results[measure].measure
    head = (f"{label}, A and B", "shared seeds", "A − B", "P(A beats B)", "")
    return columns([head, *rows])


def plain(found: Beside) -> dict[str, Any]:
    """The comparison for JSON; each pair is as that of two runs."""
    content: dict[str, Any] = comparing.jsonable(asdict(found))
    for pair, entry in zip(found.pairs, content["pairs"], strict=True):
        entry["compared"] = comparing.plain(pair.compared)
    return content
