"""Copy complete runs into ``results/`` with their curves thinned, small enough to be part of the repository.

python scripts/keep_results.py FROM [TO]      (TO: results)

Finals and trials are copied as they are (of a hundred thousand trials: what they cost and reached), hypergradients
where they are small (those of the first hyperparameter update, for Figure 7). Of the curves every fourth of the steps
that figures show stays, all of the first few, and where weights are put back the last steps before; ``run.json`` says
so. Where only final values are shown, both ends stay. Runs that are in TO already are left alone.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpo_bench import index
from hpo_bench.analysis.summary import GROUP_SOURCE
from hpo_bench.figures.common.paper import SHARES
from hpo_bench.figures.common.points import before_resets, thinning
from hpo_bench.store import Run, read_run, runs_folder, scan, write_json, write_table

EVERY = 4  # of so many points that a figure would show one stays
FIRST = 10  # points that all stay, for logarithmic axes
LANDSCAPE = 500  # repetitions of Figure 3's background, of which final values are shown
SMALL = 64_000  # bytes of hypergradients that stay
LARGE = 1_000_000  # bytes of trials from which these columns are emptied
EMPTIED = (
    "initial_lr", "initial_weight_decay", "initial_momentum", "lr", "weight_decay", "momentum", "train_loss",
    "test_loss",
)  # fmt: skip


def kept_steps(steps: np.ndarray, run: Run) -> np.ndarray:
    """Those of the sorted ``steps`` that stay."""
    if run.config["method"].get("reset_weights"):
        return steps[before_resets(steps, int(run.config["update_interval"]))]
    if run.config["validation_share"] in SHARES or len(run.seeds) == LANDSCAPE or run.method == GROUP_SOURCE:
        return steps[[0, -1]]
    apart = thinning([run])
    few = (steps % apart == 0) & (steps <= FIRST * apart)
    return steps[few | (steps % (EVERY * apart) == 0) | (steps == steps[-1])]


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
        trials = pq.read_table(copied, partitioning=None)
        for column in EMPTIED:
            place = trials.column_names.index(column)
            trials = trials.set_column(place, trials.field(place), pa.nulls(len(trials), trials.field(place).type))
        write_table(copied, trials)
    write_table(folder / "curves.parquet", curves.filter(pc.is_in(curves["step"], value_set=pc.cast(steps, "int64"))))
    document = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    document |= {"curves_thinned_to": len(steps), "config": {**document["config"], "results_dir": "results"}}
    write_json(folder / "run.json", document)
    index.note(folder.parent, run.run_id, document)
    return sum(path.stat().st_size for path in folder.iterdir())


def main(source: Path, target: Path) -> None:
    """See above."""
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
