"""Memory that a block of repetitions really took, beside what `Trainer.need` had said.

Each block is trained in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo_bench.bench.machine import peak_memory

MIB = 1 << 20
TIGHT = {
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}  # glibc gives freed memory back at once


@dataclass(frozen=True)
class MemoryUse:
    """One block.

    Args:
        rows: repetitions in it.
        predicted, measured: bytes for all of them; measured is the process's peak less what it held
            before.
    """

    name: str
    rows: int
    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        """The predicted over the measured bytes."""
        return self.predicted / max(self.measured, 1)


def memory_use(overrides: Sequence[str], rows: int) -> MemoryUse:
    """Train ``rows`` repetitions at once in a new process and look at its peak.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", __name__, str(rows), *overrides]
    done = subprocess.run(
        command, env={**os.environ, **TIGHT}, capture_output=True, text=True, check=True
    )
    predicted, measured = json.loads(done.stdout.splitlines()[-1])
    return MemoryUse(" ".join(overrides), rows, predicted, measured)


def _main(rows: int, overrides: Sequence[str]) -> None:
    import torch

    from hpo_bench.running.trainer import Trainer
    from hpo_bench.settings.compose import compose
    from hpo_bench.settings.parse import parse

    torch.set_num_threads(1)
    settings = parse(compose(overrides))
    trainer = Trainer.of(
        settings, settings.source.load(settings.validation_share), torch.device("cpu")
    )
    one = parse(compose([*overrides, "hyperparameter_updates=1"]))
    Trainer.of(one, trainer.table, torch.device("cpu")).block(
        [settings.seed]
    )  # libraries take their own once
    _forget_peak()
    before = _status("VmRSS")
    trainer.block(range(settings.seed, settings.seed + rows))
    print(json.dumps([trainer.need() * rows, _status("VmHWM") - before]))


def _forget_peak() -> None:
    """Begin the process's peak anew, where the system can: loading a dataset may have taken more
    than training does.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(name: str) -> int:
    """A line of ``/proc/self/status``, bytes; where the system has none, the process's peak
    (`peak_memory`).

    ``getrusage`` would not do here: its peak begins at that of the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return peak_memory()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
