"""Models that fail in other processes than the test's own (a module, so that those can import
it).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
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


class Odd(Exception):
    """Cannot be made from its own message, as pickle would have it."""

    def __init__(self, one: int, two: int, three: int) -> None:
        super().__init__(f"odd: {one} {two} {three}\nsecond line")


class Mute(Exception):
    """Cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError("not shown")

    __repr__ = __str__


class Holding(Exception):
    """Holds what cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.held = threading.Lock()


RAISED: dict[str, Callable[[], BaseException]] = {
    "odd": lambda: Odd(1, 2, 3),
    "mute": Mute,
    "holding": lambda: Holding("held"),
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
}

SAID = {
    "odd": "Odd: odd: 1 2 3",
    "mute": "Mute",
    "holding": "Holding: held",
    "exit": "SystemExit: 3",
    "interrupt": "KeyboardInterrupt",
}


class Raising:
    """A model that raises one of `RAISED` in the middle of its training."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, table: Any, dtype: Any, device: Any) -> Any:
        model = MLP((7,)).build(table, dtype, device)
        linearise, calls = model.linearise, []

        def raising(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) > 2:
                raise RAISED[self.name]()
            return linearise(*arguments)

        model.linearise = raising  # type: ignore[method-assign]
        return model
