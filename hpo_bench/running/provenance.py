"""What ``run.json`` says of a run: its settings, its code, its machine, its cost."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpo_bench import __version__
from hpo_bench.core import native
from hpo_bench.core.table import Table
from hpo_bench.running import memory
from hpo_bench.running import work as counting
from hpo_bench.running.identify import described_data
from hpo_bench.running.trainer import Trainer, _chosen
from hpo_bench.settings import identity


def describe(trainer: Trainer, config_hash: str, chunk: memory.Chunk) -> dict[str, Any]:
    """What ``run.json`` says beside status, seconds and seeds."""
    return {
        "config": _as_found(trainer.settings.config, trainer.table),
        "config_hash": config_hash,
        "data": described_data(trainer.settings, trainer.table),
        "own_code": own_code(trainer.settings.config),
        "code": code_version(),
        "environment": environment(trainer.device, chunk.workers),
        "chunk": chunk.rows,
        "hypergradients": trainer.estimator_reason,
        "costs": costs(trainer),
    }


def costs(trainer: Trainer) -> dict[str, int] | None:
    """Weight updates, gradients and Hessian-vector products of one repetition;

    None for a search, whose trials tell.
    """
    settings = trainer.settings
    if settings.method.search is not None:
        return None
    estimator, _ = _chosen(
        settings, trainer.model, len(trainer.rows[settings.method.data_for_weights])
    )
    own = replace(trainer, plan=replace(trainer.plan, estimator=estimator))
    return counting.work(own).of(settings.weight_updates)


def own_code(config: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the file of each component that is one's own, by its ``_target_``: it decides
    numbers, too.
    """
    found = {}
    for key, target in identity.flat(config):
        if not key.endswith("_target_") or str(target).startswith(("hpo_bench.", "torch.")):
            continue
        parts = str(target).split(".")
        modules = (sys.modules.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
        file = next(
            (module.__file__ for module in modules if module and getattr(module, "__file__", None)),
            None,
        )
        with contextlib.suppress(OSError):
            if file is not None:
                found[str(target)] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return found


def _as_found(config: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """The configuration with what ``auto`` turned out to be (one's own table)."""
    dataset = dict(config["dataset"])
    if dataset.get("task") == "auto":
        dataset |= {"task": table.task, "metric": "mse" if table.task == "regression" else "error"}
    if dataset.get("label") == "auto":
        dataset["label"] = table.label or table.name
    return {**config, "dataset": dataset}


@cache
def code_version() -> dict[str, Any]:
    """Version of this package and, in a checkout, the commit and whether files differ from it."""
    root = Path(__file__).resolve().parents[2]
    commit, dirty = None, None
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        status = _git(root, "status", "--porcelain", "--untracked-files=no")
        dirty = None if status is None else bool(status)
    return {
        "version": __version__,
        "numbers": identity.NUMBERS,
        "git_commit": commit,
        "dirty": dirty,
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(device: torch.device, workers: int) -> dict[str, Any]:
    """Where a run was computed."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": _cpu_name(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "kernels": native.kernels().why if device.type == "cpu" else None,
        "workers": workers,
    }


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
