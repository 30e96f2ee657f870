"""Copy complete runs into ``results/``, small enough to be part of the repository.

    python scripts/keep_results.py FROM [TO]      (TO: results)

Finals and trials are copied as they are (of a hundred thousand trials: what they cost and reached),
hypergradients where they are small (those of the first hyperparameter update, for Figure 7). Of the
curves every fourth of the steps that figures show stays, all of the first few, and where weights
are put back the last steps before; losses that no figure shows are emptied. ``run.json`` says so.
Where only final values are shown, both ends stay. Runs that are in TO already are left alone; what
was kept once can be kept again, without change."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpo_bench.analysis.incumbent import is_search
from hpo_bench.analysis.paper import GROUP_SOURCE, LARGER_VALIDATION_SHARES
from hpo_bench.figures.common.points import before_resets, thinning
from hpo_bench.store import index
from hpo_bench.store.files import write_json, write_table
from hpo_bench.store.runs import Run, read_run, runs_folder, scan

EVERY = 4  # of so many points that a figure would show one stays
FIRST = 10  # points that all stay, for logarithmic axes
LANDSCAPE = 500  # repetitions of Figure 3's background, of which final values are shown
SMALL = 64_000  # bytes of hypergradients that stay
LARGE = 1_000_000  # bytes of trials from which these columns are emptied
EMPTIED_IN_CURVES = ("train_loss", "validation_loss")
EMPTIED_IN_TRIALS = (
    "initial_lr",
    "initial_weight_decay",
    "initial_momentum",
    "lr",
    "weight_decay",
    "momentum",
    "train_loss",
    "test_loss",
)


def kept_steps(steps: np.ndarray, run: Run) -> np.ndarray:
    """Those of the sorted ``steps`` that stay."""
    if run.config["method"].get("reset_weights"):
        return steps[before_resets(steps, int(run.config["update_interval"]))]
    alone = run.config["chunk"] == 1  # Figure 14: how long it took
    last = run.method == GROUP_SOURCE or len(run.seeds) == LANDSCAPE
    if alone or last or run.config["validation_share"] in LARGER_VALIDATION_SHARES:
        return steps[[0, -1]]
    apart = thinning([run])
    few = (steps % apart == 0) & (steps <= FIRST * apart)
    return steps[few | (steps % (EVERY * apart) == 0) | (steps == steps[-1])]


def emptied(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The same table with nulls in some of its columns."""
    for column in columns:
        place = table.column_names.index(column)
        table = table.set_column(
            place, table.field(place), pa.nulls(len(table), table.field(place).type)
        )
    return table


def not_shown(run: Run, columns: Sequence[str]) -> tuple[str, ...]:
    """Columns of a training's curves that no figure or table reads; a search's choices are read off
    them all.
    """
    if is_search(run):
        return ()
    # The loss of a regression is the metric but for a factor.
    same = ("test_loss",) if run.config["dataset"]["metric"] == "mse" else ()
    # The spread of learning rates for each weight is not shown.
    spread = (name for name in columns if name.startswith("lr_q"))
    return (*EMPTIED_IN_CURVES, *same, *spread)


def keep(run: Run, target: Path) -> int:
    """Copy one run; the bytes that it takes."""
    folder = runs_folder(target) / run.run_id
    curves = pq.read_table(run.path / "curves.parquet", partitioning=None)
    steps = kept_steps(np.unique(curves["step"].to_numpy()), run)
    folder.mkdir(parents=True)
    for name in ("final.parquet", "trials.parquet", "hypergradients.parquet"):
        found = run.path / name
        if found.exists() and (name != "hypergradients.parquet" or found.stat().st_size < SMALL):
            shutil.copyfile(found, folder / name)
    copied = folder / "trials.parquet"
    if copied.exists() and copied.stat().st_size > LARGE:
        write_table(copied, emptied(pq.read_table(copied, partitioning=None), EMPTIED_IN_TRIALS))
    left_out = not_shown(run, curves.column_names)
    curves = emptied(curves, left_out)
    write_table(
        folder / "curves.parquet",
        curves.filter(pc.is_in(curves["step"], value_set=pc.cast(steps, "int64"))),
    )
    document = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    document |= {
        "curves_thinned_to": len(steps),
        "curves_emptied_of": list(left_out),
        "config": {**document["config"], "results_dir": "results"},
    }
    write_json(folder / "run.json", document)
    index.note(folder.parent, run.run_id, document)
    return sum(path.stat().st_size for path in folder.iterdir())


def main(source: Path, target: Path) -> None:
    """Copy what is not there yet, and say how large it is."""
    total = 0
    for run in scan(source):
        if run.status != "complete" or read_run(runs_folder(target) / run.run_id) is not None:
            continue
        size = keep(run, target)
        total += size
        print(f"{run.run_id}: {size / 1e6:.2f} MB")
    print(f"{total / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "results"))
