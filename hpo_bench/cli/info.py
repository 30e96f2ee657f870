"""``hpo-bench list``: showing what can be run and made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo_bench.errors import UserError, nearest
from hpo_bench.settings import identity
from hpo_bench.settings.run import HYPERPARAMETERS

if TYPE_CHECKING:
    from rich.table import Table

Rows = Iterator[tuple[str, ...]]


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[datasets|methods|experiments|figures|tables]", help="All by default."
        ),
    ] = None,
) -> None:
    """Show the datasets, methods, experiments, figures and tables that there are."""
    from hpo_bench.progress import console

    if kind is not None and kind not in KINDS:
        raise UserError(f"list {kind}: {nearest(kind, KINDS)}")
    screen = console()
    for name in [kind] if kind else KINDS:
        table = _table(name)
        if table.row_count:
            screen.print(table)
        else:
            screen.print(f"{name}: none yet")
        if kind is None:
            screen.print()


def _table(kind: str) -> Table:
    from rich.table import Table

    headings, rows = KINDS[kind]
    table = Table(*headings, box=None, pad_edge=False)
    for row in rows():
        table.add_row(*row)
    return table


def _datasets() -> Rows:
    from omegaconf import OmegaConf

    for name, content in _yamls("dataset"):
        dataset = OmegaConf.create(content).dataset  # a label may depend on other keys
        files = "embedded" if dataset.get("offline") else "downloaded on first use"
        label = "Own table" if dataset["label"] == "auto" else dataset["label"]
        yield (
            name,
            label,
            dataset["task"],
            dataset["metric_label"],
            "your file" if name == "csv" else files,
        )


def _methods() -> Rows:
    methods = sorted(_yamls("method"), key=lambda item: item[1]["method"]["order"])
    for name, content in methods:
        method = {**identity.METHOD_DEFAULTS, **content["method"]}
        components = [method[part] for part in ("search", "estimator") if method.get(part)]
        classes = [component["_target_"].rpartition(".")[2] for component in components]
        # A search draws all of them anew for each trial.
        tuned = HYPERPARAMETERS if method["search"] else content.get("tuned", [])
        yield (
            name,
            method["label"],
            ", ".join(tuned) or "nothing",
            " over ".join(classes) or "none",
            method["data_for_weights"].replace("_", " "),
        )


def _experiments() -> Rows:
    for name, content in _yamls("experiment"):
        yield name, content["title"], ", ".join((*content["figures"], *content["tables"]))


def _figures() -> Rows:
    from hpo_bench import figures

    for name in figures.names():
        yield name, figures.find(name).TITLE


def _tables() -> Rows:
    from hpo_bench.analysis.tables import TABLES

    for name, table in TABLES.items():
        yield name, table.title


def _yamls(group: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from hpo_bench.settings.yamls import configs_folder, read_yaml

    folder: Path = configs_folder() / group
    for file in sorted(folder.glob("*.yaml")):
        yield file.stem, read_yaml(file)


KINDS: dict[str, tuple[tuple[str, ...], Callable[[], Rows]]] = {
    "datasets": (("dataset", "name", "task", "metric", "files"), _datasets),
    "methods": (
        ("method", "label", "tunes", "search, hypergradient", "weights trained on"),
        _methods,
    ),
    "experiments": (("experiment", "shows", "figures and tables"), _experiments),
    "figures": (("figure", "shows"), _figures),
    "tables": (("table", "shows"), _tables),
}
