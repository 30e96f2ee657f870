"""Which datasets there are: the yamls of ``configs/dataset``, read without composing a whole configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpo_bench.datasets.base import Source
from hpo_bench.datasets.sources import RemoteFile, Summary
from hpo_bench.errors import UserError, nearest


class ListedSource(Source, Protocol):
    """A source that also tells what it is made of before it is loaded."""

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """What has to be downloaded; empty for datasets that need no network."""
        ...

    def summary(self, validation_share: float) -> Summary:
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
    summary: Summary


def configs_folder() -> Path:
    """The folder of the yamls: inside the package when installed from a wheel, else the checkout's.

    Raises:
        UserError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"the configuration files are missing from {package}; install hpo-bench again")


def dataset_names(configs: Path | None = None) -> list[str]:
    """Ids of all datasets, sorted."""
    return sorted(path.stem for path in ((configs or configs_folder()) / "dataset").glob("*.yaml"))


def read_dataset(name: str, configs: Path | None = None) -> Dataset:
    """Read one dataset's yaml and build its source.

    Raises:
        UserError: there is no such dataset.
    """
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


def read_yaml(file: Path) -> Any:
    """The content of a yaml as Hydra reads it: ``1e-3`` is a number, interpolations stay as they are.

    Raises:
        UserError: it cannot be read, is not UTF-8 or is no yaml; the file is named.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.create(read_text(file)))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from None


def read_text(file: Path) -> str:
    """The text of a file in UTF-8, without the byte-order mark that it may begin with.

    Raises:
        UserError: it cannot be read or is not UTF-8; the file is named.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{file} is not UTF-8 text (line {line} has the byte 0x{content[error.start]:02x}); save it as UTF-8"
        ) from None
