"""Two stored runs side by side: what differs in what was asked, and who wins on the same seeds (no
torch).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo_bench.analysis import selection
from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.rounding import NOTHING, rounded
from hpo_bench.analysis.selection import MACHINE
from hpo_bench.analysis.statistics import bootstrap, pairs
from hpo_bench.analysis.statistics.interval import RESAMPLES, Interval, survival_median
from hpo_bench.analysis.statistics.pairs import Comparison
from hpo_bench.analysis.summary import Measure, measures
from hpo_bench.errors import UserError
from hpo_bench.settings.identity import UNKNOWN, numbers
from hpo_bench.store.runs import Run, told_apart

ENVIRONMENT = ("torch", "device", "cpu")
WIDEST = 60  # of a setting's value as shown


@dataclass(frozen=True)
class Difference:
    """A setting whose values differ; None where a run does not have it."""

    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Side:
    """One of the runs.

    Args:
        diverged: repetitions, of all ``n``.
        seconds_per_update: of one repetition (wall time of its block ÷ rows), median over blocks.
        conditions: machine and rows in a block, as run times depend on them.
    """

    run_id: str
    method: str
    dataset: str
    label: str
    n: int
    first_seed: int
    last_seed: int
    diverged: int
    weight_updates: int
    seconds_per_update: float
    conditions: str


@dataclass(frozen=True)
class Result:
    """One measure of the final state; lower is better, a diverged repetition counts as +inf.

    Args:
        a, b: medians with bootstrap intervals.
        difference: median of A minus median of B, paired where ``paired`` is.
        paired: on shared seeds; None where there are none.
    """

    measure: str
    a: Interval
    b: Interval
    difference: Interval
    paired: Comparison | None


@dataclass(frozen=True)
class Compared:
    """Run A against run B.

    Args:
        shared: seeds that are compared in pairs; 0 where all repetitions are compared as two
            samples.
        diverged: of the shared seeds: in both, in A alone, in B alone.
        time: seconds per update of A ÷ those of B, bootstrap over blocks.
        notes: what the numbers should be read with.
        seed: of the bootstrap.
    """

    a: Side
    b: Side
    differences: tuple[Difference, ...]
    shared: int
    diverged: tuple[int, int, int]
    results: tuple[Result, ...]
    time: Interval
    notes: tuple[str, ...]
    seed: int


def compare(a: Run, b: Run, seed: int = 0) -> Compared:
    """Compare two complete runs by their final values.

    Args:
        seed: of the bootstrap.

    Raises:
        UserError: it is one run, the data differ, or a file is damaged.
    """
    if a.path.resolve() == b.path.resolve():
        raise UserError(f"{a.run_id}: named twice; name two runs to compare")
    _check_data(a, b)
    shown = measures([a])
    frames = [finals([run]).set_index("seed") for run in (a, b)]
    same = numbers(a.config).get("validation_share") == numbers(b.config).get("validation_share")
    seeds = (
        frames[0].index.intersection(frames[1].index).sort_values() if same else frames[0].index[:0]
    )
    left, right = (frame.loc[seeds] if len(seeds) else frame for frame in frames)
    sides = _side(a, frames[0]), _side(b, frames[1])
    return Compared(
        *sides,
        tuple(differences(a, b)),
        len(seeds),
        _diverged(left, right) if len(seeds) else (0, 0, 0),
        tuple(_result(left, right, measure, len(seeds) > 0, seed) for measure in shown),
        pairs.bootstrap_two(
            _per_update(frames[0]), _per_update(frames[1]), "ratio", paired=False, seed=seed
        ),
        tuple(_notes(*sides, same, len(seeds))),
        seed,
    )


def _check_data(a: Run, b: Run) -> None:
    """Refuse what was trained or tested on different rows.

    Raises:
        UserError: names both.
    """
    if a.dataset_name == b.dataset_name and a.data_key == b.data_key:
        return
    metrics = [run.config["dataset"].get("metric") for run in (a, b)]
    if metrics[0] != metrics[1]:
        raise UserError(
            f"{a.run_id} has the metric {metrics[0]} ({a.dataset}), {b.run_id} {metrics[1]} ({b.dataset}): "
            "runs of different metrics cannot be compared"
        )
    a, b = told_apart([a, b])
    unknown = any(run.variant.startswith(UNKNOWN) for run in (a, b))
    why = (
        " (a run that an earlier version stored does not say what was in its table)"
        if unknown
        else ""
    )
    raise UserError(
        f"{a.run_id} is of {a.dataset_label}, {b.run_id} of {b.dataset_label}: "
        f"runs on different data cannot be compared{why}"
    )


# --- what differs ---


def differences(a: Run, b: Run) -> list[Difference]:
    """Settings that decide numbers and differ, then code and machine."""
    found = []
    for mine, theirs in ((numbers(a.config), numbers(b.config)), (_made_by(a), _made_by(b))):
        keys = dict.fromkeys([*mine, *theirs])
        found += [
            Difference(key, mine.get(key), theirs.get(key))
            for key in keys
            if mine.get(key) != theirs.get(key)
        ]
    return [each for each in found if not each.key.startswith("dataset.")]


def _made_by(run: Run) -> dict[str, Any]:
    code = {
        f"code.{key}": run.code.get(key) for key in ("version", "numbers", "git_commit", "dirty")
    }
    code |= {f"code of {target}": str(digest)[:12] for target, digest in run.own_code.items()}
    return {**code, **{f"environment.{key}": run.environment.get(key) for key in ENVIRONMENT}}


# --- numbers ---


def _side(run: Run, frame: pd.DataFrame) -> Side:
    first = frame.iloc[0]
    machine = "/".join(str(first[key]) for key in MACHINE)
    return Side(
        run.run_id,
        run.method,
        run.dataset,
        str(first["label"]),
        len(frame),
        int(frame.index.min()),
        int(frame.index.max()),
        int((frame["status"] != "ok").sum()),
        selection.weight_updates(run),
        float(np.median(_per_update(frame))),
        f"{machine}, blocks of {int(frame['rows_in_block'].median())}",
    )


def _per_update(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Seconds of one repetition per weight update, one number a block: its repetitions share a wall
    time.
    """
    blocks = frame.drop_duplicates("seconds")
    return (blocks["seconds"] / blocks["weight_updates"]).to_numpy(float)


def _diverged(a: pd.DataFrame, b: pd.DataFrame) -> tuple[int, int, int]:
    mine, theirs = ((frame["status"] != "ok").to_numpy() for frame in (a, b))
    return int((mine & theirs).sum()), int((mine & ~theirs).sum()), int((~mine & theirs).sum())


def _result(a: pd.DataFrame, b: pd.DataFrame, measure: Measure, paired: bool, seed: int) -> Result:
    mine, theirs = (failure_aware(frame, measure.column) * measure.scale for frame in (a, b))
    comparison = pairs.paired_comparison(mine, theirs, seed=seed) if paired else None
    difference = (
        comparison.difference
        if comparison
        else pairs.bootstrap_two(mine, theirs, paired=False, seed=seed)
    )
    return Result(measure.label, _median(mine, seed), _median(theirs, seed), difference, comparison)


def _median(values: NDArray[np.float64], seed: int) -> Interval:
    """Median of the runs, so that two of them differ by the difference that is shown, with its
    bootstrap interval.
    """
    return replace(
        bootstrap.bootstrap(values, "median", seed=seed), estimate=float(survival_median(values))
    )


def _notes(a: Side, b: Side, same: bool, shared: int) -> list[str]:
    found = []
    if not same:
        found.append(
            "different validation parts: nothing is paired, all repetitions are compared as two samples"
        )
    elif not shared:
        found.append(
            "no shared seeds: nothing is paired, all repetitions are compared as two samples"
        )
    elif shared < max(a.n, b.n):
        found.append(
            f"the {a.n - shared} repetitions of A and {b.n - shared} of B without a partner are left out"
        )
    if a.weight_updates != b.weight_updates:
        found.append(
            f"trainings differ in length: {a.weight_updates} and {b.weight_updates} weight updates"
        )
    if a.conditions != b.conditions:
        found.append(f"times are of different conditions: A {a.conditions}; B {b.conditions}")
    return found


# --- as text ---


def text(found: Compared) -> str:
    """For a reader, in plain columns."""
    lines = [_heading("A", found.a), _heading("B", found.b), ""]
    rows = [(each.key, _value(each.a), _value(each.b)) for each in found.differences]
    lines += (
        _columns([("what differs", "A", "B"), *rows])
        if rows
        else ["nothing differs but the seeds or the place"]
    )
    for result in found.results:
        lines += ["", _title(found, result), *_columns(_result_rows(result), "  ")]
    lines += ["", *_columns(_other_rows(found))]
    lines += [f"note: {note}" for note in found.notes]
    lines.append(
        f"intervals: 95 %, bootstrap of {RESAMPLES} resamples, seed {found.seed}; diverged = +inf"
    )
    return "\n".join(lines) + "\n"


def _heading(name: str, side: Side) -> str:
    return f"{name}: {side.run_id} ({side.label}, seeds {side.first_seed} to {side.last_seed})"


def _title(found: Compared, result: Result) -> str:
    return f"{result.measure}, {f'{found.shared} shared seeds' if found.shared else 'two samples'}: {verdict(result)}"


def verdict(result: Result) -> str:
    """Who has the lower median, where the interval of the difference leaves no doubt."""
    low, high = result.difference.low, result.difference.high
    if math.isnan(low):
        return "too few repetitions to tell"
    return (
        "A is lower (better)"
        if high < 0
        else "B is lower (better)"
        if low > 0
        else "no clear difference"
    )


def _result_rows(result: Result) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("median A", bounds(result.a)),
        ("median B", bounds(result.b)),
        ("A − B", bounds(result.difference)),
    ]
    if result.paired is not None:
        rows.append(("P(A beats B)", bounds(result.paired.probability)))
        p = result.paired.p_value
        rows.append(("p (Wilcoxon)", "< 0.001" if p < 0.001 else rounded(p).text))
    return rows


def _other_rows(found: Compared) -> list[tuple[str, ...]]:
    both, only_a, only_b = found.diverged
    of_shared = (
        f" (shared seeds: both {both}, A alone {only_a}, B alone {only_b})" if found.shared else ""
    )
    seconds = " and ".join(
        f"{rounded(1000 * side.seconds_per_update).text} ms" for side in (found.a, found.b)
    )
    return [
        (
            "diverged",
            f"A {found.a.diverged}/{found.a.n}, B {found.b.diverged}/{found.b.n}{of_shared}",
        ),
        ("time of A ÷ B", f"{bounds(found.time)} (a weight update: {seconds})"),
    ]


def bounds(interval: Interval) -> str:
    """Estimate and interval, rounded."""
    estimate, low, high = (
        rounded(value).text for value in (interval.estimate, interval.low, interval.high)
    )
    return estimate if math.isnan(interval.low) else f"{estimate} [{low}, {high}]"


def _value(value: Any) -> str:
    shown = NOTHING if value is None else str(value)
    return shown if len(shown) <= WIDEST else f"{shown[: WIDEST - 1]}…"


def _columns(rows: Sequence[tuple[str, ...]], indent: str = "") -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        indent
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def plain(found: Compared) -> dict[str, Any]:
    """For JSON: what is not a number is null, infinite values are the texts ``inf`` and
    ``-inf``.
    """
    verdicts = [verdict(result) for result in found.results]
    content = _jsonable(asdict(found))
    for result, words in zip(content["results"], verdicts, strict=True):
        result["verdict"] = words
    return dict(content)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
