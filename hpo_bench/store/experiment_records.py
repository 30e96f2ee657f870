"""Records of experiments: ``experiments/NAME.json`` in a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo_bench.store import documents, held
from hpo_bench.store.held import Wanted

FOLDER = "experiments"


@dataclass(frozen=True)
class ExperimentRecord:
    """The runs that an experiment was found to consist of, and from what.

    Args:
        overrides: what the user asked for on top.
        key: hash of everything that decides what the experiment consists of.
        wanted: the repetitions of the runs; none where the record does not tell them.
        missing: a line for each dataset or method that is not there.
        drawn: whether all figures and tables were made; the first records do not tell, and theirs
            were.
    """

    experiment: str
    scale: str
    overrides: tuple[str, ...]
    key: str
    run_ids: tuple[str, ...]
    wanted: tuple[Wanted, ...]
    missing: tuple[str, ...]
    drawn: bool

    def plain(self) -> dict[str, Any]:
        """Write the record as an object for JSON, which `of` reads."""
        return {
            "format": documents.FORMAT,
            "experiment": self.experiment,
            "scale": self.scale,
            "overrides": list(self.overrides),
            "key": self.key,
            "run_ids": list(self.run_ids),
            "wanted": [each.plain() for each in self.wanted],
            "missing": list(self.missing),
            "drawn": self.drawn,
        }

    @staticmethod
    def of(content: Mapping[str, Any]) -> ExperimentRecord:
        """Read what `plain` wrote.

        Raises:
            ValueError: a part is not there, or is something else.
        """
        return ExperimentRecord(
            experiment=_text(content, "experiment"),
            scale=_text(content, "scale"),
            overrides=_texts(content, "overrides"),
            key=str(content.get("key", "")),
            run_ids=_texts(content, "run_ids"),
            wanted=held.recorded(content),
            missing=_texts(content, "missing") if "missing" in content else (),
            drawn=content.get("drawn", True) is True,
        )


def read(file: Path) -> ExperimentRecord:
    """Read one record.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else.
    """
    return ExperimentRecord.of(documents.read(file))


def read_all(
    results_dir: Path,
    experiment: str | None = None,
    on_error: Callable[[Path, Exception], None] = lambda file, error: None,
) -> list[ExperimentRecord]:
    """Records of a folder of results, by the names of their files.

    Args:
        experiment: whose records; those of all by default.
        on_error: is told of each file that cannot be read, which is passed over.
    """
    pattern = "*.json" if experiment is None else f"{experiment}-*.json"
    records = []
    for file in sorted((results_dir / FOLDER).glob(pattern)):
        try:
            record = read(file)
        except (OSError, ValueError) as error:
            on_error(file, error)
            continue
        if experiment in (None, record.experiment):
            records.append(record)
    return records


def _text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key}: must be a text")
    return value


def _texts(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = content.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key}: must be a list of texts")
    return tuple(values)
