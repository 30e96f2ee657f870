"""Memory that a block of repetitions really took, beside what `Trainer.need` had said, each in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
TIGHT = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc gives freed memory back at once


@dataclass(frozen=True)
class MemoryUse:
    """One block.

    Args:
        rows: repetitions in it.
        predicted, measured: bytes for all of them; measured is the process's peak less what it held before.
    """

    name: str
    rows: int
    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / max(self.measured, 1)


def memory_use(overrides: Sequence[str], rows: int) -> MemoryUse:
    """Train ``rows`` repetitions at once in a new process and look at its peak.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", __name__, str(rows), *overrides]
    done = subprocess.run(command, env={**os.environ, **TIGHT}, capture_output=True, text=True, check=True)
    predicted, measured = json.loads(done.stdout.splitlines()[-1])
    return MemoryUse(" ".join(overrides), rows, predicted, measured)


def _main(rows: int, overrides: Sequence[str]) -> None:
    import torch

    from hpo_bench.bench.machine import peak_memory
    from hpo_bench.config import compose, parse
    from hpo_bench.experiment import Trainer

    torch.set_num_threads(1)
    settings = parse(compose(overrides))
    trainer = Trainer.of(settings, settings.source.load(settings.validation_share), torch.device("cpu"))
    one = parse(compose([*overrides, "hyperparameter_updates=1"]))
    Trainer.of(one, trainer.table, torch.device("cpu")).block([settings.seed])  # libraries take their own once
    before = resident()
    trainer.block(range(settings.seed, settings.seed + rows))
    print(json.dumps([trainer.need() * rows, peak_memory() - before]))


def resident() -> int:
    """Memory that this process holds now, bytes; where the system does not tell, the largest so far."""
    from hpo_bench.bench.machine import peak_memory

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return peak_memory()
    return pages * resource.getpagesize()


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
