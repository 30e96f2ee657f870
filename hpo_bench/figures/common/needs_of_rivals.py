"""The runs that the figures of the comparison with today's optimisers are made from."""

from __future__ import annotations

import pandas as pd

from hpo_bench.analysis import paper, rivals
from hpo_bench.analysis.statistics.ranks import FEWEST_SETS
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common import standard, templates
from hpo_bench.figures.common.conditions import Preferably
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.figures.common.templates import Panel
from hpo_bench.store.runs import Run

# Each method as it is meant to be used; --where data_for_weights=train shows the other version.
AS_MEANT = {**standard.STANDARD, "data_for_weights": Preferably("method")}
NEEDS = (
    Need(rivals.DATASETS, rivals.METHODS, paper.REPETITIONS["uci"], AS_MEANT),
    Need(rivals.OFFLINE, rivals.METHODS, paper.REPETITIONS["uci"], AS_MEANT, optional=True),
)
NONE = "no runs of a rival"


def with_rivals(selection: NeededRuns) -> list[Panel]:
    """A panel for each dataset on which a rival was run."""
    shown = []
    for name, title, runs in templates.by_dataset(selection):
        if any(run.method in rivals.RIVALS for run in runs):
            shown.append((name, title, runs))
    return shown


def on_all(selection: NeededRuns) -> tuple[list[Run], tuple[str, ...]]:
    """Comparable runs of the methods and datasets that can be ranked, and notes on those left out.

    There are none on fewer than two datasets: what is said over datasets needs several.
    """
    chosen: list[Run] = []
    notes: list[str] = []
    for _, _, runs in with_rivals(selection):
        alike, passed_over = common.alike(runs)
        chosen += alike
        notes += passed_over
    if len({run.dataset for run in chosen}) < FEWEST_SETS:
        return [], (*notes, f"needs rivals on at least {FEWEST_SETS} datasets")
    datasets = [run.dataset for run in chosen]
    there = pd.crosstab(pd.Series(datasets), pd.Series([run.method for run in chosen])) > 0
    block = rivals.compared_on_all(there)
    for dataset in there.index.difference(block.index):
        of_all = f"{there.loc[dataset].sum()} of {len(there.columns)} methods"
        notes.append(f"{dataset}: left out, it has {of_all}")
    for method in there.columns.difference(block.columns):
        lacking = block.index[~there.loc[block.index, method]]
        notes.append(f"{method}: left out, it has no runs on {', '.join(lacking)}")
    ranked = [run for run in chosen if run.dataset in block.index and run.method in block.columns]
    ordered = sorted(ranked, key=lambda run: list(selection.datasets).index(run.dataset))
    return ordered, tuple(notes)
