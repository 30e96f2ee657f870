#!/usr/bin/env python
"""Make a large store out of a small real one, and time how fast its runs are read and summed up.

    hpo-bench run -m method=random,ours_wd_lr_m dataset=uci_energy repetitions=24 results_dir=small
    python scripts/replicate_store.py small large --repetitions 200 --datasets uci_energy,uci_power
    python scripts/replicate_store.py small large --repetitions 200 --per-run 1  # a folder each
    python scripts/replicate_store.py --measure large

Every stored run stands for its method on each of the datasets named; its repetitions are repeated
under new seeds, with their numbers as they are, until there are enough. The result is for timing
only: it is no experiment."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpo_bench.errors import UserError
from hpo_bench.store.runs import Run, read_arrow, scan
from hpo_bench.store.writer import Block, Writer


def copies(table: pa.Table, seeds: range, source_seeds: tuple[int, ...]) -> pa.Table:
    """Rows of ``seeds``, each those of the source repetition at its place, modulo how many there
    are.
    """
    parts = {
        seed: table.filter(pc.equal(table["seed"], seed)) for seed in dict.fromkeys(source_seeds)
    }
    made = []
    for seed in seeds:
        part = parts[source_seeds[seed % len(source_seeds)]]
        column = pa.array(np.full(part.num_rows, seed, dtype=np.int64))
        made.append(part.set_column(part.column_names.index("seed"), "seed", column))
    return pa.concat_tables(made).combine_chunks()


def as_dataset(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The configuration of the same run on another dataset, in name alone."""
    if config["dataset"]["name"] == name:
        return config
    return {**config, "dataset": {**config["dataset"], "name": name, "label": name}}


def write(target: Path, run: Run, dataset: str, tables: dict[str, pa.Table], seeds: range) -> None:
    """Write one replicated run."""
    config = {**as_dataset(run.config, dataset), "seed": seeds.start, "repetitions": len(seeds)}
    config_hash = hashlib.sha256(f"{run.config_hash} {dataset}".encode()).hexdigest()[:12]
    name = f"{dataset}-{run.method}-s{seeds.start}-n{len(seeds)}-{config_hash}"
    document = {
        "config": config,
        "config_hash": config_hash,
        "code": run.code,
        "environment": run.environment,
    }
    with Writer(target, name) as writer:
        if writer.complete() is None:
            made = {table: copies(content, seeds, run.seeds) for table, content in tables.items()}
            writer.write_block(Block(tuple(seeds), made, seconds=run.seconds))
            writer.commit(seeds, document)


def replicate(
    source: Path, target: Path, repetitions: int, per_run: int, datasets: list[str]
) -> Iterator[str]:
    """Write all runs of the large store; says what it does."""
    for run in scan(source):
        if run.status != "complete":
            continue
        tables = {name: read_arrow(run, name) for name in ("final", "curves")}
        for dataset in datasets or [run.dataset]:
            for first in range(0, repetitions, per_run):
                write(target, run, dataset, tables, range(first, min(first + per_run, repetitions)))
            yield f"{run.method} on {dataset}: {repetitions} repetitions in folders of {per_run}"


def measure(results: Path) -> Iterator[str]:
    """Time the steps of an analysis, each once, in this process."""
    from hpo_bench.analysis import frames, selection
    from hpo_bench.analysis.statistics import bootstrap
    from hpo_bench.analysis.summary import summarise

    def timed(name: str, begin: float, size: str) -> str:
        return f"{name:<28}{time.perf_counter() - begin:8.2f} s   {size}"

    begin = time.perf_counter()
    runs = selection.find(results)
    yield timed("find", begin, f"{len(runs)} runs")
    begin = time.perf_counter()
    chosen = selection.comparable(runs).runs
    yield timed("comparable", begin, f"{len(chosen)} runs")
    begin = time.perf_counter()
    frame = frames.finals(chosen)
    yield timed("finals", begin, f"{len(frame)} repetitions")
    begin = time.perf_counter()
    summaries = summarise(chosen)
    yield timed("default statistics", begin, f"{len(summaries)} methods × datasets")
    begin = time.perf_counter()
    thinned = frames.curves(chosen, ["test_metric"], every=10)
    yield timed("curves, every 10th step", begin, f"{len(thinned)} rows")
    begin = time.perf_counter()
    groups = thinned.groupby("configuration", observed=True)
    for _, group in groups:
        bootstrap.bootstrap_curve(frames.matrix(group, "test_metric")[2])
    yield timed("bootstrapped medians", begin, f"{groups.ngroups} curves")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="SOURCE TARGET, or with --measure one",
    )
    parser.add_argument(
        "--repetitions", type=int, default=200, help="of each method on each dataset"
    )
    parser.add_argument("--per-run", type=int, default=200, help="repetitions in one run folder")
    parser.add_argument(
        "--datasets", default="", help="names, comma-separated; by default each run keeps its own"
    )
    parser.add_argument("--measure", action="store_true", help="only time reading and summing up")
    options = parser.parse_args()
    if len(options.folders) != (1 if options.measure else 2):
        parser.error("needs SOURCE and TARGET, or one folder with --measure")
    try:
        if options.measure:
            lines = measure(options.folders[0])
        else:
            names = [name for name in options.datasets.split(",") if name]
            source, target = options.folders
            lines = replicate(source, target, options.repetitions, options.per_run, names)
        for line in lines:
            print(line, flush=True)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
