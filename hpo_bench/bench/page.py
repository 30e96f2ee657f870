"""The Markdown page that ``hpo-bench bench`` writes: what was measured, on what, how exactly."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hpo_bench.analysis.paper import PLAIN
from hpo_bench.bench.compare import SpeedComparison
from hpo_bench.bench.cores import Cores
from hpo_bench.bench.machine import Ceilings
from hpo_bench.bench.memory_use import MIB, MemoryUse


def page(
    comparisons: Sequence[SpeedComparison],
    scaling: Sequence[SpeedComparison],
    ceilings: Ceilings,
    peak: int,
    environment: Mapping[str, object],
    updates: Mapping[str, int],
    cores: Sequence[Cores] = (),
    memory: Sequence[MemoryUse] = (),
) -> str:
    """The page as Markdown."""
    parts = [
        f"{key} {value}" for key, value in environment.items() if key not in ("threads", "workers")
    ]
    columns = ("dataset", "method", "updates", "rows")
    numbers = ("engine, ms", "sequential, ms", "ratio", "GFLOP/s of products")
    lines = [
        f"Measured {datetime.date.today().isoformat()} with one thread: {', '.join(parts)}.",
        "",
        "Milliseconds per weight update and repetition. *sequential* trains one repetition at a "
        "time with autograd (`hpo_bench/bench/sequential.py`), *engine* trains `rows` at once; "
        "both record everything at every update, or nothing where batches are smaller than the "
        "training set (test evaluation is left out then). Rounds are taken in turns, ratios are "
        "formed round by round: median (lowest to highest).",
        "",
        f"| {' | '.join((*columns, *numbers))} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in comparisons:
        lines.append(
            f"| {one.dataset} | {one.method} | {updates[one.dataset]} | {one.rows} | "
            f"{_middle(one.engine)} | {_middle(one.sequential)} | {_spread(one.ratios)} | "
            f"{one.achieved / 1e9:.1f} |"
        )
    lines += ["", *_against_random(comparisons), "", "| rows at once | engine, ms |", "|---|---|"]
    lines += [f"| {one.rows} | {_middle(one.engine)} |" for one in scaling]
    lines += [
        "",
        f"That table: {scaling[0].method} on {scaling[0].dataset}. Ceilings of one core, measured "
        f"in the same run: {ceilings.flops / 1e9:.0f} GFLOP/s (large float32 products), "
        f"{ceilings.bytes / 1e9:.1f} GB/s (copy). "
        f"Peak memory of the process: {peak / 2**20:.0f} MiB.",
        "",
        *_several_cores(cores),
        *_memory(memory),
    ]
    return "\n".join(lines)


def _against_random(comparisons: Sequence[SpeedComparison]) -> list[str]:
    """One pass of each method in units of Random, per dataset."""
    lines = []
    for dataset in dict.fromkeys(one.dataset for one in comparisons):
        times = {one.method: np.median(one.engine) for one in comparisons if one.dataset == dataset}
        plain = times.pop(PLAIN, None)
        if plain is not None:
            others = [f"{method} {time / plain:.2f} ×" for method, time in times.items()]
            lines.append(f"One pass on {dataset}, engine, in units of random: {', '.join(others)}.")
    return lines


def _several_cores(cores: Sequence[Cores]) -> list[str]:
    """What all cores bring beside one worker."""
    if not cores:
        return []
    ratios = [
        f"{one.name} {_spread(np.array(one.ratios))} × with {one.workers} workers" for one in cores
    ]
    return [f"Cores, against one worker: {', '.join(ratios)}.", ""]


def _memory(uses: Sequence[MemoryUse]) -> list[str]:
    """Memory that was foretold and that was taken, a row a block."""
    if not uses:
        return []
    lines = ["| block of | rows | foretold, MiB | taken, MiB | ratio |", "|---|---|---|---|---|"]
    for use in uses:
        numbers = f"{use.predicted / MIB:.0f} | {use.measured / MIB:.0f} | {use.ratio:.2f}"
        lines.append(f"| {use.name} | {use.rows} | {numbers} |")
    return [*lines, ""]


def _middle(values: Sequence[float]) -> str:
    return f"{np.median(values):.3f}"


def _spread(values: NDArray[np.float64]) -> str:
    return f"**{np.median(values):.1f}** ({values.min():.1f} to {values.max():.1f})"
