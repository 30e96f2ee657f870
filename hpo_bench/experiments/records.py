"""What an experiment was found to consist of, remembered beside its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo_bench import __version__
from hpo_bench.experiments.expand import Expansion
from hpo_bench.settings import identity
from hpo_bench.settings.yamls import configs_folder
from hpo_bench.store import documents, held, index
from hpo_bench.store.files import write_json
from hpo_bench.store.held import Wanted
from hpo_bench.store.runs import runs_folder
from hpo_bench.system import notices


@dataclass(frozen=True)
class ExperimentRecord:
    """``results/experiments/NAME.json``: the runs that an experiment was found to consist of, and
    from what.
    """

    experiment: str
    scale: str
    overrides: tuple[str, ...]
    key: str
    run_ids: tuple[str, ...]
    missing: tuple[str, ...]


def fingerprint(name: str, scale: str, overrides: Sequence[str]) -> str:
    """Hash of everything that `expand` reads: all yamls, the version, what was asked for."""
    digest = hashlib.sha256(
        json.dumps([name, scale, list(overrides), __version__, identity.NUMBERS]).encode()
    )
    folder = configs_folder()
    for file in sorted(folder.rglob("*.yaml")):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _record_file(results_dir: Path, name: str, scale: str, overrides: Sequence[str]) -> Path:
    own = (
        "-" + hashlib.sha256(json.dumps(sorted(overrides)).encode()).hexdigest()[:8]
        if overrides
        else ""
    )
    return results_dir / "experiments" / f"{name}-{scale}{own}.json"


def remember(
    results_dir: Path, expansion: Expansion, overrides: Sequence[str], *, drawn: bool = False
) -> None:
    """Write the record of an expansion, or warn: without it, the next call plans again.

    Args:
        drawn: whether all figures and tables are made from what is stored.
    """
    chosen = expansion.experiment
    content = {
        "format": documents.FORMAT,
        "experiment": chosen.name,
        "scale": chosen.scale,
        "overrides": list(overrides),
        "key": fingerprint(chosen.name, chosen.scale, overrides),
        "run_ids": [job.run_id for job in expansion.jobs],
        "wanted": [job.wanted.plain() for job in expansion.jobs],
        "missing": list(expansion.missing),
        "drawn": drawn,
    }
    _write_record(_record_file(results_dir, chosen.name, chosen.scale, overrides), content)


def _write_record(file: Path, content: Mapping[str, Any]) -> None:
    try:
        write_json(file, content)
    except OSError as error:
        notices.warn(
            f"cannot write {file}: {error.strerror or error}; the next call will plan again"
        )


def note_drawn(results_dir: Path, name: str, scale: str, overrides: Sequence[str]) -> None:
    """Add to a record that the figures and tables are made."""
    file = _record_file(results_dir, name, scale, overrides)
    with suppress(OSError, ValueError):
        _write_record(file, {**documents.read(file), "drawn": True})


def was_drawn(results_dir: Path, name: str, scale: str, overrides: Sequence[str]) -> bool:
    """Whether the figures and tables of an experiment were all made, as its record tells."""
    try:
        content = documents.read(_record_file(results_dir, name, scale, overrides))
    except (OSError, ValueError):
        return False
    return content.get("drawn", True) is True  # the first records do not tell


@dataclass(frozen=True)
class Begun:
    """One way in which an experiment was begun in a folder, as its record tells."""

    scale: str
    overrides: tuple[str, ...]
    wanted: tuple[Wanted, ...]
    missing: tuple[str, ...]


def begun(results_dir: Path, name: str) -> list[Begun]:
    """The ways in which an experiment was begun in a folder; records that cannot be read are passed
    over.
    """
    ways = []
    for file in sorted((results_dir / "experiments").glob(f"{name}-*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = documents.read(file)
            if content["experiment"] == name:
                overrides, missing = tuple(content["overrides"]), tuple(content["missing"])
                wanted = held.recorded(content)
                ways.append(Begun(str(content["scale"]), overrides, wanted, missing))
    return ways


def finished_record(
    results_dir: Path, name: str, scale: str, overrides: Sequence[str]
) -> tuple[Wanted, ...] | None:
    """What an experiment that is known to be complete consists of, without composing anything; None
    if it is not known.

    What the yamls do not fix (one's own table or start file) is never taken from a record.
    """
    if any(
        override.startswith(("dataset=csv", "dataset.", "init.file=")) for override in overrides
    ):
        return None
    file = _record_file(results_dir, name, scale, overrides)
    try:
        content = documents.read(file)
        known, missing = content["key"], content["missing"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    wanted = held.recorded(content)
    if missing or not wanted or known != fingerprint(name, scale, overrides):
        return None
    lacking = held.missing(index.read(runs_folder(results_dir)), wanted)
    return wanted if not any(lacking.values()) else None
