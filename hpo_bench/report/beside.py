"""What the page tells of configurations that a reader puts side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hpo_bench.analysis import selection
from hpo_bench.analysis.compare import made_by
from hpo_bench.analysis.frames import finals
from hpo_bench.analysis.paper import shown_label
from hpo_bench.analysis.rounding import NOTHING, rounded
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics.interval import Statistics
from hpo_bench.analysis.summary import summarise
from hpo_bench.report.grid import bounded, ranges, share, with_error
from hpo_bench.report.sections import configurations as by_configuration
from hpo_bench.settings.identity import numbers
from hpo_bench.store.runs import Run


def configurations(runs: Runs, mode: Statistics, seed: int) -> bytes:
    """Every configuration, in the order of `sections.runs_grid`, as JSON.

    Returns:
        objects of ``label``, ``runs`` (ids), ``facts`` (pairs of name and text; the same names for
        all of a task) and ``settings`` (texts by dotted key).
    """
    told = [_told(group, mode, seed) for group in by_configuration(runs)]
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def _told(group: Sequence[Run], mode: Statistics, seed: int) -> dict[str, Any]:
    first = group[0]
    return {
        "label": f"{shown_label(first.method, first.method_label)} on {first.dataset_label}",
        "runs": [run.run_id for run in group],
        "facts": _facts(list(group), mode, seed),
        "settings": _settings(first),
    }


def _facts(group: Runs, mode: Statistics, seed: int) -> list[tuple[str, str]]:
    """Seeds, final values by each measure, and what an update costs."""
    seeds = ranges(sorted({each for run in group for each in run.seeds}))
    facts = [("Seeds", seeds), ("Weight updates", str(selection.weight_updates(group[0])))]
    summaries = summarise(group, mode, seed)
    facts.append(("n_ok/n", share(summaries[0].n_ok, summaries[0].n).text))
    for row in summaries:
        facts += [
            (f"{row.measure}: median", bounded(row.median).text),
            (f"{row.measure}: mean ± standard error", with_error(row.mean).text),
            (f"{row.measure}: best", rounded(row.best).text),
        ]
    return [*facts, ("ms per weight update", _milliseconds(group))]


def _milliseconds(group: Runs) -> str:
    """Time of one repetition per weight update, the median over blocks."""
    blocks = finals(group).drop_duplicates("seconds")
    seconds = (blocks["seconds"] / blocks["weight_updates"]).median()
    return rounded(1000 * float(seconds)).text


def _settings(run: Run) -> dict[str, str]:
    """What decides the numbers of a run, and what made it."""
    values: Mapping[str, Any] = {**numbers(run.config), **made_by(run)}
    told = {}
    for key, value in values.items():
        if not key.startswith("dataset.source."):  # the data are told by the dataset's name
            told[key] = NOTHING if value is None else str(value)
    return told
