"""Models that fail in other processes than the test's own (a module, so that those can import it)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from hpo_bench.models.mlp import MLP


class Failing:
    """A model that cannot be built where it is asked for."""

    def __init__(self, error: Exception, process: int) -> None:
        self.error, self.process = error, process

    def build(self, table: Any, dtype: Any, device: Any) -> Any:
        if os.getpid() != self.process:
            raise self.error
        return MLP((7,)).build(table, dtype, device)


class Dying:
    """A model that takes its process with it, ``times`` times."""

    def __init__(self, marks: Path, times: int, process: int) -> None:
        self.marks, self.times, self.process = marks, times, process

    def build(self, table: Any, dtype: Any, device: Any) -> Any:
        if os.getpid() != self.process:
            died = len(list(self.marks.iterdir()))
            if died < self.times:
                (self.marks / str(died)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return MLP((7,)).build(table, dtype, device)
