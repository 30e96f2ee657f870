"""The datasets that there are: the yamls of ``configs/dataset``, read one by one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpo_bench.core.table import Source
from hpo_bench.datasets.sources import DatasetSummary, RemoteFile
from hpo_bench.errors import UserError, nearest
from hpo_bench.settings.yamls import configs_folder, read_yaml


class ListedSource(Source, Protocol):
    """A source that also tells what it is made of before it is loaded."""

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """The files that have to be downloaded; empty for datasets that need no network."""
        ...

    def summary(self, validation_share: float) -> DatasetSummary:
        """What the dataset holds, without reading it."""
        ...


@dataclass(frozen=True)
class Dataset:
    """One dataset yaml.

    Args:
        name: its id, as in ``dataset=NAME``.
        label: its name in figures and tables.
        task: regression or classification; ``auto`` if only the file can tell.
        source: loads it.
        summary: its size, with the yaml's validation share.
    """

    name: str
    label: str
    task: str
    source: ListedSource
    summary: DatasetSummary


def dataset_names(configs: Path | None = None) -> list[str]:
    """Ids of all datasets, sorted."""
    folder = (configs or configs_folder()) / "dataset"
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_dataset(name: str, configs: Path | None = None) -> Dataset:
    """Read one dataset's yaml and build its source.

    Raises:
        UserError: there is no such dataset.
    """
    # Hydra takes long to import: names alone are asked for more often.
    from hydra.utils import instantiate

    content: Any = _read_yaml(name, configs or configs_folder())
    source: ListedSource = instantiate(content.dataset.source)
    summary = source.summary(content.validation_share)
    return Dataset(name, content.dataset.label, content.dataset.task, source, summary)


def _read_yaml(name: str, configs: Path) -> Any:
    from omegaconf import OmegaConf

    names = dataset_names(configs)
    if name not in names:
        raise UserError(f"no dataset {name!r}: {nearest(name, names)}")
    return OmegaConf.create(read_yaml(configs / "dataset" / f"{name}.yaml"))
