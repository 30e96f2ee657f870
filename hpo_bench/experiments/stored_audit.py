"""Keeping what an audit found: computed once, then read.

``RESULTS/audits/ID`` holds ``audit.json`` and one table, a row per repetition and comparison.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from hpo_bench.core.table import Table
from hpo_bench.errors import StoreError
from hpo_bench.running.identify import described_data, identify
from hpo_bench.running.provenance import code_version, environment
from hpo_bench.running.trainer import pick_device
from hpo_bench.settings.run import Settings
from hpo_bench.store import audits, documents
from hpo_bench.store.files import write_json, write_table


@dataclass(frozen=True)
class Audit:
    """A stored audit.

    Args:
        frame: a row per repetition, comparison and hyperparameter.
        path: the folder that they are in.
    """

    frame: pd.DataFrame
    path: Path


@dataclass(frozen=True)
class Asked:
    """What an audit was asked for beside its settings.

    Args:
        table: name of its table.
        columns: of the table.
        values: what decides the numbers, as the document tells it.
        key: the same as the audit's id is made from it.
    """

    table: str
    columns: Sequence[str]
    values: Mapping[str, Any]
    key: Sequence[Any]


def kept(
    settings: Settings,
    data: Table,
    asked: Asked,
    compute: Callable[[], pd.DataFrame],
    *,
    force: bool = False,
) -> Audit:
    """Make sure that an audit is stored, and read it.

    Args:
        settings: of its first training.
        data: what it is trained on.
        compute: makes the table.
        force: compute it also where it is stored.

    Raises:
        UserError: the device is not there, or what ``compute`` raises.
        StoreError: the folder cannot be written, or what is in it cannot be read.
    """
    run_id, config_hash = identify(settings, data)
    digest = hashlib.sha256(json.dumps([run_id, *asked.key]).encode()).hexdigest()[:12]
    name = f"{run_id.rpartition('-')[0]}-{digest}"
    path = audits.folder(settings.results_dir) / name
    file = path / f"{asked.table}.parquet"
    if force or not _is_stored(path / audits.DOCUMENT):
        device = pick_device(settings.device)
        begin = time.perf_counter()
        frame = compute()
        document = {
            "format": documents.FORMAT,
            "status": "complete",
            "config": settings.config,
            "config_hash": config_hash,
            "data": described_data(settings, data),
            "code": code_version(),
            "environment": environment(device, 1),
            "seconds": {"total": time.perf_counter() - begin},
            "seeds": list(settings.seeds),
            **asked.values,
        }
        try:
            write_table(file, pa.Table.from_pandas(frame, preserve_index=False))
            write_json(path / audits.DOCUMENT, document)
        except OSError as error:
            raise StoreError(f"cannot write to {path}: {error.strerror or error}") from None
    try:
        return Audit(pd.read_parquet(file, columns=list(asked.columns)), path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} cannot be read ({error}); --force computes it again") from None


def _is_stored(file: Path) -> bool:
    """Whether an audit is complete.

    Raises:
        StoreError: its document is damaged, or of a later format.
    """
    try:
        documents.read(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except documents.Newer as error:
        raise StoreError(f"{file} is {error}") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} is damaged ({error}); --force computes it again") from None
    return True
