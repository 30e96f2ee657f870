"""What an experiment was found to consist of, remembered beside its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hpo_bench import __version__
from hpo_bench.experiments.expand import Expansion
from hpo_bench.settings import identity
from hpo_bench.settings.yamls import configs_folder
from hpo_bench.store import experiment_records, held, index
from hpo_bench.store.experiment_records import ExperimentRecord
from hpo_bench.store.files import write_json
from hpo_bench.store.held import Wanted
from hpo_bench.store.runs import runs_folder
from hpo_bench.system import notices

# What these overrides ask for lies in files of one's own, which no yaml fixes.
FROM_FILES = ("dataset=csv", "dataset.", "init.file=")


def fingerprint(name: str, scale: str, overrides: Sequence[str]) -> str:
    """Hash of everything that `expand` reads: all yamls, the version, what was asked for."""
    asked = json.dumps([name, scale, list(overrides), __version__, identity.NUMBERS])
    digest = hashlib.sha256(asked.encode())
    folder = configs_folder()
    for file in sorted(folder.rglob("*.yaml")):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _record_file(results_dir: Path, name: str, scale: str, overrides: Sequence[str]) -> Path:
    """Where the record lies: each set of overrides has a file of its own."""
    stem = f"{name}-{scale}"
    if overrides:
        digest = hashlib.sha256(json.dumps(sorted(overrides)).encode())
        stem += f"-{digest.hexdigest()[:8]}"
    return results_dir / experiment_records.FOLDER / f"{stem}.json"


def remember(
    results_dir: Path, expansion: Expansion, overrides: Sequence[str], *, drawn: bool = False
) -> None:
    """Write the record of an expansion, or warn: without it, the next call plans again.

    Args:
        drawn: whether all figures and tables are made from what is stored.
    """
    chosen = expansion.experiment
    record = ExperimentRecord(
        experiment=chosen.name,
        scale=chosen.scale,
        overrides=tuple(overrides),
        key=fingerprint(chosen.name, chosen.scale, overrides),
        run_ids=tuple(job.run_id for job in expansion.jobs),
        wanted=tuple(job.wanted for job in expansion.jobs),
        missing=expansion.missing,
        drawn=drawn,
    )
    _write(_record_file(results_dir, chosen.name, chosen.scale, overrides), record)


def _write(file: Path, record: ExperimentRecord) -> None:
    try:
        write_json(file, record.plain())
    except OSError as error:
        notices.warn(
            f"cannot write {file}: {error.strerror or error}; the next call will plan again"
        )


def note_drawn(results_dir: Path, name: str, scale: str, overrides: Sequence[str]) -> None:
    """Add to a record that the figures and tables are made."""
    file = _record_file(results_dir, name, scale, overrides)
    with suppress(OSError, ValueError):
        _write(file, replace(experiment_records.read(file), drawn=True))


def was_drawn(results_dir: Path, name: str, scale: str, overrides: Sequence[str]) -> bool:
    """Whether the figures and tables of an experiment were all made, as its record tells."""
    try:
        return experiment_records.read(_record_file(results_dir, name, scale, overrides)).drawn
    except (OSError, ValueError):
        return False


def begun(results_dir: Path, name: str) -> list[ExperimentRecord]:
    """The ways in which an experiment was begun in a folder, a record each.

    Records that cannot be read are passed over.
    """
    return experiment_records.read_all(results_dir, name)


def finished_record(
    results_dir: Path, name: str, scale: str, overrides: Sequence[str]
) -> tuple[Wanted, ...] | None:
    """What an experiment consists of, where it is known to be complete; None where it is not.

    Nothing is composed. What the yamls do not fix (one's own table or start file) is never taken
    from a record.
    """
    if any(override.startswith(FROM_FILES) for override in overrides):
        return None
    try:
        record = experiment_records.read(_record_file(results_dir, name, scale, overrides))
    except (OSError, ValueError):
        return None
    if record.missing or not record.wanted or record.key != fingerprint(name, scale, overrides):
        return None
    lacking = held.missing(index.read(runs_folder(results_dir)), record.wanted)
    return None if any(lacking.values()) else record.wanted
