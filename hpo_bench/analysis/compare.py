"""Two stored runs side by side: what differs in what was asked, and who wins on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.rounding import NOTHING, rounded
from hpo_bench.analysis.selection import MACHINE, weight_updates
from hpo_bench.analysis.statistics.bootstrap import bootstrap
from hpo_bench.analysis.statistics.interval import RESAMPLES, Interval, survival_median
from hpo_bench.analysis.statistics.pairs import Comparison, bootstrap_two, paired_comparison
from hpo_bench.analysis.summary import Measure, measures
from hpo_bench.errors import UserError
from hpo_bench.settings.identity import UNKNOWN, numbers
from hpo_bench.store.runs import Run, told_apart

CODE = ("version", "numbers", "git_commit", "dirty")  # what is told of the code of a run
ENVIRONMENT = ("torch", "device", "cpu")  # and of where it ran
WIDEST_VALUE = 60  # characters of a setting's value as shown


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
    all_of_a, all_of_b = finals([a]).set_index("seed"), finals([b]).set_index("seed")

    # A seed means the same initialisation and the same batches only where the rows are the same.
    share_a, share_b = (numbers(run.config).get("validation_share") for run in (a, b))
    same_rows = share_a == share_b
    seeds = all_of_a.index.intersection(all_of_b.index).sort_values()
    paired = same_rows and len(seeds) > 0
    left, right = (all_of_a.loc[seeds], all_of_b.loc[seeds]) if paired else (all_of_a, all_of_b)
    shared = len(seeds) if paired else 0

    side_a, side_b = side(a, all_of_a), side(b, all_of_b)
    return Compared(
        a=side_a,
        b=side_b,
        differences=tuple(differences(a, b)),
        shared=shared,
        diverged=_diverged(left, right) if paired else (0, 0, 0),
        results=tuple(_result(left, right, measure, paired, seed) for measure in shown),
        time=bootstrap_two(
            _per_update(all_of_a), _per_update(all_of_b), "ratio", paired=False, seed=seed
        ),
        notes=tuple(_notes(side_a, side_b, same_rows, shared)),
        seed=seed,
    )


def _check_data(a: Run, b: Run) -> None:
    """Refuse what was trained or tested on different rows.

    Raises:
        UserError: names both.
    """
    if a.dataset_name == b.dataset_name and a.data_key == b.data_key:
        return
    metric_a, metric_b = a.config["dataset"].get("metric"), b.config["dataset"].get("metric")
    if metric_a != metric_b:
        raise UserError(
            f"{a.run_id} has the metric {metric_a} ({a.dataset}), "
            f"{b.run_id} {metric_b} ({b.dataset}): runs of different metrics cannot be compared"
        )
    a, b = told_apart([a, b])
    why = ""
    if a.variant.startswith(UNKNOWN) or b.variant.startswith(UNKNOWN):
        why = " (a run that an earlier version stored does not say what was in its table)"
    raise UserError(
        f"{a.run_id} is of {a.dataset_label}, {b.run_id} of {b.dataset_label}: "
        f"runs on different data cannot be compared{why}"
    )


# --- what differs ---


def differences(a: Run, b: Run) -> list[Difference]:
    """Settings that decide numbers and differ, then code and machine."""
    settings = _differing(numbers(a.config), numbers(b.config))
    return [*settings, *_differing(made_by(a), made_by(b))]


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """What differs between two flat mappings, in their order; the data are compared elsewhere."""
    return [
        Difference(key, a.get(key), b.get(key))
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key) and not key.startswith("dataset.")
    ]


def made_by(run: Run) -> dict[str, Any]:
    """The code of a run, that of its own components, and where it ran, by dotted key."""
    made_by: dict[str, Any] = {}
    for key in CODE:
        made_by[f"code.{key}"] = run.code.get(key)
    for component, digest in run.own_code.items():
        made_by[f"code of {component}"] = str(digest)[:12]
    for key in ENVIRONMENT:
        made_by[f"environment.{key}"] = run.environment.get(key)
    return made_by


# --- numbers ---


def side(run: Run, frame: pd.DataFrame) -> Side:
    first = frame.iloc[0]
    machine = "/".join(str(first[key]) for key in MACHINE)
    return Side(
        run_id=run.run_id,
        method=run.method,
        dataset=run.dataset,
        label=str(first["label"]),
        n=len(frame),
        first_seed=int(frame.index.min()),
        last_seed=int(frame.index.max()),
        diverged=int(_failed(frame).sum()),
        weight_updates=weight_updates(run),
        seconds_per_update=float(np.median(_per_update(frame))),
        conditions=f"{machine}, blocks of {int(frame['rows_in_block'].median())}",
    )


def _per_update(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Seconds of one repetition per weight update, (blocks,).

    There is one number a block, as its repetitions share a wall time.
    """
    blocks = frame.drop_duplicates("seconds")
    return (blocks["seconds"] / blocks["weight_updates"]).to_numpy(float)


def _failed(frame: pd.DataFrame) -> NDArray[np.bool_]:
    return (frame["status"] != "ok").to_numpy(dtype=bool)


def _diverged(a: pd.DataFrame, b: pd.DataFrame) -> tuple[int, int, int]:
    """How many seeds diverged in both, in A alone, in B alone."""
    in_a, in_b = _failed(a), _failed(b)
    return int((in_a & in_b).sum()), int((in_a & ~in_b).sum()), int((~in_a & in_b).sum())


def _result(a: pd.DataFrame, b: pd.DataFrame, measure: Measure, paired: bool, seed: int) -> Result:
    of_a = failure_aware(a, measure.column) * measure.scale
    of_b = failure_aware(b, measure.column) * measure.scale
    comparison = None
    if paired:
        comparison = paired_comparison(of_a, of_b, seed=seed)
        difference = comparison.difference
    else:
        difference = bootstrap_two(of_a, of_b, paired=False, seed=seed)
    return Result(
        measure.label, median_of(of_a, seed), median_of(of_b, seed), difference, comparison
    )


def median_of(values: NDArray[np.float64], seed: int) -> Interval:
    """Median of the runs with its bootstrap interval.

    The estimate is not that of `bootstrap`, so that two medians differ by what is shown.
    """
    interval = bootstrap(values, "median", seed=seed)
    return replace(interval, estimate=float(survival_median(values)))


def _notes(a: Side, b: Side, same_rows: bool, shared: int) -> list[str]:
    notes = []
    unpaired = "nothing is paired, all repetitions are compared as two samples"
    if not same_rows:
        notes.append(f"different validation parts: {unpaired}")
    elif not shared:
        notes.append(f"no shared seeds: {unpaired}")
    elif shared < max(a.n, b.n):
        notes.append(
            f"the {a.n - shared} repetitions of A and {b.n - shared} of B without a partner "
            "are left out"
        )
    if a.weight_updates != b.weight_updates:
        notes.append(
            f"trainings differ in length: {a.weight_updates} and {b.weight_updates} weight updates"
        )
    if a.conditions != b.conditions:
        notes.append(f"times are of different conditions: A {a.conditions}; B {b.conditions}")
    return notes


# --- as text ---


def text(compared: Compared) -> str:
    """The comparison for a reader, in plain columns."""
    lines = [heading("A", compared.a), heading("B", compared.b), ""]
    rows = [(each.key, shown_value(each.a), shown_value(each.b)) for each in compared.differences]
    if rows:
        lines += columns([("what differs", "A", "B"), *rows])
    else:
        lines.append("nothing differs but the seeds or the place")
    for result in compared.results:
        lines += ["", _title(compared, result), *columns(_result_rows(result), "  ")]
    lines += ["", *columns(_other_rows(compared))]
    lines += [f"note: {note}" for note in compared.notes]
    lines.append(
        f"intervals: 95 %, bootstrap of {RESAMPLES} resamples, seed {compared.seed}; "
        "diverged = +inf"
    )
    return "\n".join(lines) + "\n"


def heading(name: str, side: Side) -> str:
    return f"{name}: {side.run_id} ({side.label}, seeds {side.first_seed} to {side.last_seed})"


def _title(compared: Compared, result: Result) -> str:
    samples = f"{compared.shared} shared seeds" if compared.shared else "two samples"
    return f"{result.measure}, {samples}: {verdict(result)}"


def verdict(result: Result) -> str:
    """Who has the lower median, where the interval of the difference leaves no doubt."""
    low, high = result.difference.low, result.difference.high
    if math.isnan(low):
        return "too few repetitions to tell"
    if high < 0:
        return "A is lower (better)"
    if low > 0:
        return "B is lower (better)"
    return "no clear difference"


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


def _other_rows(compared: Compared) -> list[tuple[str, ...]]:
    """Rows about divergence and time."""
    a, b = compared.a, compared.b
    diverged = f"A {a.diverged}/{a.n}, B {b.diverged}/{b.n}"
    if compared.shared:
        both, only_a, only_b = compared.diverged
        diverged += f" (shared seeds: both {both}, A alone {only_a}, B alone {only_b})"
    of_a = rounded(1000 * a.seconds_per_update).text
    of_b = rounded(1000 * b.seconds_per_update).text
    times = f"{bounds(compared.time)} (a weight update: {of_a} ms and {of_b} ms)"
    return [("diverged", diverged), ("time of A ÷ B", times)]


def bounds(interval: Interval) -> str:
    """An estimate and its interval for a reader: ``0.53 [0.5, 0.6]``, rounded."""
    estimate = rounded(interval.estimate).text
    if math.isnan(interval.low):
        return estimate
    return f"{estimate} [{rounded(interval.low).text}, {rounded(interval.high).text}]"


def shown_value(value: Any) -> str:
    shown = NOTHING if value is None else str(value)
    return shown if len(shown) <= WIDEST_VALUE else f"{shown[: WIDEST_VALUE - 1]}…"


def columns(rows: Sequence[tuple[str, ...]], indent: str = "") -> list[str]:
    """Lines in which the cells of a column stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = map(str.ljust, row, widths)
        lines.append(indent + "  ".join(cells).rstrip())
    return lines


def plain(compared: Compared) -> dict[str, Any]:
    """The comparison for JSON, with a verdict on each result.

    What is not a number is null, infinite values are the texts ``inf`` and ``-inf``.
    """
    content: dict[str, Any] = jsonable(asdict(compared))
    for result, entry in zip(compared.results, content["results"], strict=True):
        entry["verdict"] = verdict(result)
    return content


def jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
