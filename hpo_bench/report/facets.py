"""What the page is filtered by: datasets, methods, and experiments with the runs that they show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo_bench.analysis.paper import shown_label, shown_name
from hpo_bench.analysis.selection import Runs
from hpo_bench.errors import UserError
from hpo_bench.settings.yamls import configs_folder, read_yaml
from hpo_bench.store import experiment_records
from hpo_bench.store.runs import Run


@dataclass(frozen=True)
class Facets:
    """What a row, a table or a figure is about; each empty where it is about all or none."""

    datasets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()

    def of(self) -> dict[str, str]:
        """The names of each kind, separated by ``|``; only the kinds that have some."""
        kinds = {
            "dataset": self.datasets,
            "method": self.methods,
            "experiment": self.experiments,
        }
        return {kind: "|".join(names) for kind, names in kinds.items() if names}


@dataclass(frozen=True)
class Choice:
    """One kind of things to choose from: pairs of id and label, in the page's order."""

    kind: str
    heading: str
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ExperimentPlan:
    """What an experiment's yaml says.

    Args:
        parts: the datasets and methods of each of its parts.
    """

    name: str
    title: str
    figures: tuple[str, ...]
    parts: tuple[tuple[frozenset[str], frozenset[str]], ...]

    def includes(self, run: Run) -> bool:
        """Whether a part of it has this method on this dataset."""
        return any(
            run.dataset_name in datasets and run.method in methods
            for datasets, methods in self.parts
        )


def plans() -> list[ExperimentPlan]:
    """All experiments that there are, by name; a yaml that cannot be read is passed over."""
    found = []
    for file in sorted((configs_folder() / "experiment").glob("*.yaml")):
        try:
            found.append(_plan(file))
        except (UserError, KeyError, TypeError, AttributeError):
            continue  # hpo-bench reproduce says what is wrong with it
    return found


def _plan(file: Path) -> ExperimentPlan:
    content: Mapping[str, Any] = read_yaml(file)
    parts = [
        (frozenset(map(str, part["datasets"])), frozenset(map(str, part["methods"])))
        for part in content["parts"].values()
    ]
    figures = tuple(map(str, content["figures"]))
    return ExperimentPlan(file.stem, str(content["title"]), figures, tuple(parts))


@dataclass(frozen=True)
class Membership:
    """Which experiments each run belongs to, by run id."""

    plans: tuple[ExperimentPlan, ...]
    of_run: Mapping[str, tuple[str, ...]]

    def facets(self, runs: Iterable[Run]) -> Facets:
        """What some runs are about."""
        kept = list(runs)
        experiments = {name for run in kept for name in self.of_run.get(run.run_id, ())}
        return Facets(
            tuple(dict.fromkeys(run.dataset for run in kept)),
            tuple(dict.fromkeys(shown_name(run.method) for run in kept)),
            tuple(sorted(experiments)),
        )

    def facets_of(self, runs: Runs, dataset: str, *methods: str) -> Facets:
        """What the runs of some methods, by the ids they are shown under, are about."""
        return self.facets(
            run for run in runs if run.dataset == dataset and shown_name(run.method) in methods
        )

    def choices(self, runs: Runs) -> tuple[Choice, ...]:
        """What can be chosen of each kind: what runs are there of."""
        datasets = {run.dataset: run.dataset_label for run in runs}
        methods = {
            shown_name(run.method): shown_label(run.method, run.method_label)
            for run in sorted(runs, key=_order)
        }
        there = {name for names in self.of_run.values() for name in names}
        titles = {plan.name: plan.title for plan in self.plans}
        experiments = {name: titles.get(name, name) for name in sorted(there)}
        return (
            Choice("dataset", "Datasets", tuple(datasets.items())),
            Choice("method", "Methods", tuple(methods.items())),
            Choice("experiment", "Experiments", tuple(experiments.items())),
        )


def _order(run: Run) -> tuple[float, str]:
    return float(run.config["method"].get("order", 0)), run.method


def membership(results_dir: Path, runs: Runs, drawn: Mapping[str, Sequence[str]]) -> Membership:
    """Which experiments each run belongs to.

    They are those whose figures show it and that have its method on its dataset, and those whose
    records in this store name it.

    Args:
        drawn: ids of the runs on each figure, by its name.
    """
    all_plans = plans()
    by_id = {run.run_id: run for run in runs}
    found: dict[str, set[str]] = {run_id: set() for run_id in by_id}
    for plan in all_plans:
        for figure in plan.figures:
            for run_id in drawn.get(figure, ()):
                if run_id in by_id and plan.includes(by_id[run_id]):
                    found[run_id].add(plan.name)
    for record in experiment_records.read_all(results_dir):
        for run_id in record.run_ids:
            if run_id in found:
                found[run_id].add(record.experiment)
    of_run = {run_id: tuple(sorted(names)) for run_id, names in found.items() if names}
    return Membership(tuple(all_plans), of_run)
