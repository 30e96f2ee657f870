"""The tables of ``hpo-bench table``, each made from stored runs alone.

Every module here but `cells` and `commands` is one kind of table, with

    make(runs, mode, seed)   -> `cells.Parts`: what it shows, marks in bold, holds and says

and, where not all comparable runs stand side by side, the function that chooses them. `TABLES` says
which kind shows which methods on which data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo_bench.analysis import paper, submission
from hpo_bench.analysis import rivals as compared
from hpo_bench.analysis.paper import MULTI_PASS, ONE_PASS, shown_name
from hpo_bench.analysis.render import RenderedTable
from hpo_bench.analysis.selection import Runs, Selection, comparable, find
from hpo_bench.analysis.statistics.interval import Statistics
from hpo_bench.analysis.tables import (
    divergence,
    final,
    horizons,
    hyperparameters,
    multi_pass,
    pairs,
    printed,
    rivals,
    runtime,
)
from hpo_bench.analysis.tables.cells import Parts
from hpo_bench.analysis.tables.commands import missing, run_command
from hpo_bench.errors import UserError, nearest


@dataclass(frozen=True)
class TableKind:
    """A table that can be asked for.

    Args:
        title: what it shows.
        make: from comparable runs, the statistics and the seed.
        datasets, methods: what it is about unless asked otherwise; empty = all that is stored.
        repetitions: how many the paper has.
        select: which runs stand side by side, by the methods that the table is about.
        printed: its rows are those that the paper printed, with runs or without.
    """

    title: str
    make: Callable[[Runs, Statistics, int], Parts]
    datasets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    repetitions: int = 200
    select: Callable[[Runs, Collection[str]], Selection] = comparable
    printed: bool = False


def build(
    name: str,
    results_dir: str | Path = "results",
    *,
    mode: Statistics = "default",
    datasets: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> RenderedTable:
    """Make a table from the runs of a store.

    Args:
        name: one of `TABLES`.
        datasets, methods: ids; the table's own by default.
        where: settings that the runs must have, see `selection.find`.
        seed: of the bootstrap.

    Raises:
        UserError: no such table, or no runs for it (with the command that makes them), or damaged
            files.
    """
    if name not in TABLES:
        raise UserError(f"no table {name}; {nearest(name, TABLES)}")
    kind = TABLES[name]
    wanted = tuple(datasets or kind.datasets)
    chosen = tuple(methods or ())
    command = run_command(chosen or kind.methods or ONE_PASS, wanted, kind.repetitions, results_dir)
    runs = find(
        results_dir, datasets=wanted or None, methods=chosen or None, where=where, command=command
    )
    looked_for = chosen or kind.methods
    selection = kind.select(runs, looked_for)
    body, bold, data, label = kind.make(selection.runs, mode, seed)
    if kind.printed:
        asked_for = data["dataset"].isin(wanted) & data["method"].isin(map(shown_name, looked_for))
        body, bold, data = (part[asked_for.to_numpy()] for part in (body, bold, data))
        if data.empty:
            of_what = f"{', '.join(looked_for)} on {', '.join(wanted)}"
            raise UserError(f"table {name}: the paper printed no number of {of_what}")
        lacking = submission.commands(selection.runs, wanted, looked_for, results_dir)
    else:
        lacking = missing(selection.runs, wanted, looked_for, kind.repetitions, results_dir)
    return RenderedTable(name, kind.title, body, bold, data, label, selection.notes, lacking)


_UCI = paper.UCI_OF_THE_TABLES
_TITLE = "Final test performance"
TABLES: dict[str, TableKind] = {
    "uci_main": TableKind(f"{_TITLE} on UCI sets", final.make, _UCI, ONE_PASS),
    "fashion_mnist": TableKind(
        f"{_TITLE} on Fashion-MNIST", final.make, ("fashion_mnist",), ONE_PASS, 100
    ),
    "batchnorm": TableKind(
        f"{_TITLE} with batch norm", final.make, ("fashion_mnist_batchnorm",), ONE_PASS, 100
    ),
    "cifar10": TableKind(f"{_TITLE} on CIFAR-10", final.make, ("cifar10",), ONE_PASS, 50),
    "penn_treebank": TableKind(
        f"{_TITLE} on Penn Treebank", final.make, ("penn_treebank",), ONE_PASS, 50
    ),
    "larger_scale": TableKind(
        f"{_TITLE} on the larger sets",
        final.make,
        paper.LARGER,
        ONE_PASS,
        50,
    ),
    "summary": TableKind(f"{_TITLE} on everything stored", final.make),
    "pairs": TableKind("Methods compared on shared seeds", pairs.make),
    "divergence": TableKind("Runs that diverged", divergence.make),
    "runtime": TableKind("Run time", runtime.make),
    "multi_pass": TableKind(
        "One-pass methods and multi-pass searches at equal budgets",
        multi_pass.make,
        (*_UCI, "fashion_mnist"),
        MULTI_PASS,
    ),
    "any_update": TableKind(
        "Tuning through AdamW", final.make, compared.DATASETS, (*compared.ADAMW, "ours_wd_lr_m")
    ),
    "horizons": TableKind(
        "Horizons that do not end, over their discount",
        horizons.make,
        paper.UCI,
        ("random", "ours_wd_lr_m", "ours_discounted"),
        100,
        horizons.all_discounts,
    ),
    "rivals": TableKind(
        "Hypergradients and today's optimisers at their costs",
        rivals.make,
        compared.DATASETS,
        compared.METHODS,
        select=rivals.comparable_in_versions,
    ),
    "submission": TableKind(
        "What the paper printed, and what came out here",
        printed.make,
        tuple(submission.PROTOCOLS),
        ONE_PASS,
        select=printed.everything,
        printed=True,
    ),
    "hyperparameters": TableKind(
        "Hyperparameters at the start and at the end", hyperparameters.make
    ),
}
