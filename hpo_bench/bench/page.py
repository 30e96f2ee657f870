"""The Markdown page that `hpo-bench bench` writes: what was measured, on what, with which spread."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

import numpy as np

from hpo_bench.bench.compare import Comparison
from hpo_bench.bench.machine import Ceilings


def page(
    comparisons: Sequence[Comparison], scaling: Sequence[Comparison], ceilings: Ceilings, peak: int,
    environment: Mapping[str, object], updates: Mapping[str, int],
) -> str:  # fmt: skip
    """The page as Markdown."""
    described = ", ".join(f"{key} {value}" for key, value in environment.items() if key not in ("threads", "workers"))
    lines = [
        f"Measured {datetime.date.today().isoformat()} with one thread: {described}.",
        "",
        "Milliseconds per weight update and repetition. *sequential* trains one repetition at a time with autograd "
        "(`hpo_bench/bench/sequential.py`), *engine* trains `rows` at once; both record everything at every "
        "update, or nothing where batches are smaller than the training set (test evaluation is left out then). "
        "Rounds are taken in turns, ratios are formed round by round: median (lowest to highest).",
        "",
        "| dataset | method | updates | rows | engine, ms | sequential, ms | ratio | GFLOP/s of products |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in comparisons:
        lines.append(
            f"| {one.dataset} | {one.method} | {updates[one.dataset]} | {one.rows} | {_middle(one.engine)} | "
            f"{_middle(one.sequential)} | {_spread(one.ratios)} | {one.achieved / 1e9:.1f} |"
        )
    lines += ["", *_against_random(comparisons), "", "| rows at once | engine, ms |", "|---|---|"]
    lines += [f"| {one.rows} | {_middle(one.engine)} |" for one in scaling]
    lines += [
        "",
        f"That table: {scaling[0].method} on {scaling[0].dataset}. Ceilings of one core, measured in the same run: "
        f"{ceilings.flops / 1e9:.0f} GFLOP/s (large float32 products), {ceilings.bytes / 1e9:.1f} GB/s (copy). "
        f"Peak memory of the process: {peak / 2**20:.0f} MiB.",
        "",
    ]
    return "\n".join(lines)


def _against_random(comparisons: Sequence[Comparison]) -> list[str]:
    """One pass of each method in units of Random, per dataset."""
    lines = []
    for dataset in dict.fromkeys(one.dataset for one in comparisons):
        times = {one.method: np.median(one.engine) for one in comparisons if one.dataset == dataset}
        if "random" in times:
            others = ", ".join(f"{m} {t / times['random']:.2f} ×" for m, t in times.items() if m != "random")
            lines.append(f"One pass on {dataset}, engine, in units of random: {others}.")
    return lines


def _middle(values: Sequence[float]) -> str:
    return f"{np.median(values):.3f}"


def _spread(values: np.ndarray) -> str:
    return f"**{np.median(values):.1f}** ({values.min():.1f} to {values.max():.1f})"
