"""Put complete runs into packs of ``results/``, small enough to be part of the repository.

    python scripts/keep_results.py FROM [TO] [--as NAME] [--again]

FROM is a store that `hpo-bench run` or `reproduce` wrote, TO is ``results`` unless it is given. A
run goes into the pack that is called like an experiment that was begun in FROM and consists of it
(uci_main, or the first by name), else like its dataset; or into NAME. Runs that are in TO already
are left alone; ``--again`` takes them anew.

Finals are kept as they are, hypergradients where they are few (those of the first hyperparameter
update, for Figure 7). Of the curves of a training every fourth of the steps that figures show
stays (every eighth of those of `rivals` that tune nothing), all of the first few, and where weights
are put back the last steps before; losses that no figure shows are emptied. Where only final values
are shown, both ends stay. The curves of a search are short and stay whole; of very many trials
those stay that found a lower validation loss than all before, and the last. What was left out is
said in the run's document. A run that was kept once is kept again without change.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpo_bench.analysis.incumbent import is_search
from hpo_bench.analysis.paper import GROUP_SOURCE, LARGER_VALIDATION_SHARES
from hpo_bench.analysis.rivals import RIVALS
from hpo_bench.errors import UserError
from hpo_bench.figures.common.points import before_resets, thinning
from hpo_bench.store import experiment_records, packed, packing
from hpo_bench.store.packing import WholeRun
from hpo_bench.store.runs import Run, read_run, runs_folder, scan

MAIN = "uci_main"  # whose runs other experiments show, too
EVERY = 4  # of so many points that a figure would show one stays
EVERY_OF_RIVALS = 8  # the same for what is shown against its cost alone, one curve beside many
FIRST = 10  # points that all stay, for logarithmic axes
LANDSCAPE = 500  # repetitions of Figure 3's background, of which final values are shown
FEW = 1000  # rows of hypergradients that stay
MANY = 10_000  # rows of trials of which not all stay
EMPTIED = ("train_loss", "validation_loss")  # of the curves of a training


def kept_steps(steps: np.ndarray, run: Run) -> np.ndarray:
    """Those of the sorted ``steps`` of a training that stay."""
    if run.config["method"].get("reset_weights"):
        return steps[before_resets(steps, int(run.config["update_interval"]))]
    alone = run.config["chunk"] == 1  # Figure 14: how long it took
    last = run.method == GROUP_SOURCE or len(run.seeds) == LANDSCAPE
    if alone or last or run.config["validation_share"] in LARGER_VALIDATION_SHARES:
        return steps[[0, -1]]
    apart = thinning([run])
    every = EVERY_OF_RIVALS if run.method in RIVALS else EVERY
    few = (steps % apart == 0) & (steps <= FIRST * apart)
    return steps[few | (steps % (every * apart) == 0) | (steps == steps[-1])]


def emptied(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The same table with nulls in some of its columns."""
    for column in columns:
        place = table.column_names.index(column)
        table = table.set_column(
            place, table.field(place), pa.nulls(len(table), table.field(place).type)
        )
    return table


def not_shown(run: Run, columns: Sequence[str]) -> tuple[str, ...]:
    """Columns of a training's curves that no figure or table reads."""
    # The loss of a regression is the metric but for a factor.
    same = ("test_loss",) if run.config["dataset"]["metric"] == "mse" else ()
    # The spread of learning rates for each weight is not shown.
    spread = (name for name in columns if name.startswith("lr_q"))
    return (*EMPTIED, *same, *spread)


def improving(trials: pa.Table) -> pa.Table:
    """Of each seed the trials that found a lower validation loss than all before, and the last."""
    seeds = trials["seed"].to_numpy()
    losses = trials["validation_loss"].to_numpy()
    stays = np.zeros(len(trials), bool)
    for seed in np.unique(seeds):
        rows = np.flatnonzero(seeds == seed)
        usable = rows[np.isfinite(losses[rows])]
        lowest = np.minimum.accumulate(losses[usable])
        stays[usable[:1]] = stays[rows[-1]] = True
        stays[usable[1:][lowest[1:] < lowest[:-1]]] = True
    return trials.filter(pa.array(stays))


def kept(run: Run) -> WholeRun:
    """What stays of a run."""
    content = packing.whole(run)
    if run.thinned:
        return content
    tables = dict(content.tables)
    said: dict[str, Any] = {"config": {**run.config, "results_dir": "results"}}
    if not is_search(run):
        curves = tables["curves"]
        steps = kept_steps(np.unique(curves["step"].to_numpy()), run)
        left_out = not_shown(run, curves.column_names)
        stays = pc.is_in(curves["step"], value_set=pc.cast(steps, "int64"))
        tables["curves"] = emptied(curves, left_out).filter(stays)
        said |= {"curves_thinned_to": len(steps), "curves_emptied_of": list(left_out)}
    if "trials" in tables and len(tables["trials"]) > MANY:
        tables["trials"] = improving(tables["trials"])
        said["trials_thinned_to"] = len(tables["trials"])
    if "hypergradients" in tables and len(tables["hypergradients"]) > FEW:
        del tables["hypergradients"]
    return replace(content, document={**content.document, **said}, tables=tables)


def experiments(source: Path) -> Mapping[str, str]:
    """By configuration the first experiment that consists of it, as the records of a store tell."""
    found: dict[str, str] = {}
    records = experiment_records.read_all(source)
    records.sort(key=lambda record: (record.experiment != MAIN, record.experiment))
    for record in records:
        for wanted in record.wanted:
            for config_hash in wanted.hashes:
                found.setdefault(config_hash, record.experiment)
    return found


def main(source: Path, target: Path, name: str | None = None, again: bool = False) -> None:
    """Pack what is not there yet, and say how large it is.

    Args:
        name: of the pack of all runs.
        again: also what is there.
    """
    if name is not None and not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"--as {name}: must be a plain name")
    names = experiments(source)
    chosen: dict[str, list[Run]] = defaultdict(list)
    for run in scan(source):
        stored = read_run(runs_folder(target) / run.run_id)
        if run.status != "complete" or (stored is not None and not again):
            continue
        pack = name or names.get(run.config_hash, run.dataset_name)
        if stored is not None and stored.pack is not None:
            pack = stored.pack.path.name
        chosen[pack].append(run)
    for pack, runs in sorted(chosen.items()):
        made = packing.add(target, pack, [kept(run) for run in runs])
        print(f"{made.path}: {len(runs)} runs, of {len(made.lines)} in all: {megabytes(made.path)}")
    print(f"{packed.folder(target)}: {megabytes(packed.folder(target))}")


def megabytes(folder: Path) -> str:
    """The size of all files in a folder."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="FROM", type=Path)
    parser.add_argument("target", metavar="TO", type=Path, nargs="?", default=Path("results"))
    parser.add_argument("--as", dest="name", metavar="NAME")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    try:
        main(options.source, options.target, options.name, options.again)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
