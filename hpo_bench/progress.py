"""Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from hpo_bench.system.inherited import is_terminal, tell, variable

if TYPE_CHECKING:
    from rich.console import Console

LINE = 160  # letters of a line of a table where nobody looks at it
NARROW = 80  # on a terminal that does not say how wide it is
CELLS = 30  # letters of a bar in a notebook


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: names, labels and messages are never taken for markup or
    emoji.
    """
    from rich.console import Console

    width: int | None = LINE
    if is_terminal(
        sys.stderr if stderr else sys.stdout
    ):  # Rich looks how wide it is, and would believe COLUMNS=0
        width = NARROW if variable("COLUMNS") == "0" else None
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


class Reporter(Protocol):
    """What long work tells of itself; all methods may be called from any thread."""

    def say(self, text: str) -> None:
        """One line for the reader."""
        ...

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """A task of ``total`` units starts, ``done`` of them finished earlier."""
        ...

    def advance(self, units: int) -> None:
        """``units`` more are done."""
        ...

    def end(self) -> None:
        """The task is over."""
        ...


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Nothing."""

    def advance(self, units: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Lines:
    """A plain line at the start, every ``every`` seconds, and at the end (for logs and pipes)."""

    def __init__(self, every: float = 10.0) -> None:
        self.every = every
        self._guard = threading.Lock()
        self._label, self._total, self._done, self._fresh = "", 0, 0, 0
        self._begun = self._said = 0.0

    def say(self, text: str) -> None:
        """Print a line."""
        tell(text)

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Start counting."""
        self._label, self._total, self._done, self._fresh = label, total, done, 0
        self._begun = self._said = time.monotonic()

    def advance(self, units: int) -> None:
        """Count, and print a line when the last is old."""
        with self._guard:
            self._done += units
            self._fresh += units
            now = time.monotonic()
            if now - self._said < self.every or self._done >= self._total:
                return
            if self._fresh <= 0:  # nothing is done yet, or all of it is to be done again
                return
            self._said = now
            left = (now - self._begun) / self._fresh * (self._total - self._done)
            self.say(f"{self._label}: {self._done / self._total:.0%}, about {duration(left)} left")

    def end(self) -> None:
        """Nothing more to say: the caller reports the outcome."""


class Bar:
    """A Rich progress bar with the time left."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: int | None = None

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text)

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Show the bar."""
        self._progress.start()
        self._task = self._progress.add_task(label, total=total, completed=done)

    def advance(self, units: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, units)  # type: ignore[arg-type]

    def end(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._progress.remove_task(self._task)  # type: ignore[arg-type]
            self._progress.stop()
            self._task = None


class NotebookBar:
    """A bar below a notebook's cell: one display, replaced as the work goes on. It needs no
    widgets.

    Args:
        every: seconds between two states of the bar.
    """

    def __init__(self, every: float = 0.2) -> None:
        self.every = every
        self._guard = threading.Lock()
        self._handle: Any = None
        self._label, self._total, self._done, self._fresh = "", 0, 0, 0
        self._begun = self._shown = 0.0

    def say(self, text: str) -> None:
        """Print a line below the cell; on standard output, as a notebook paints the other one
        red.
        """
        print(text)

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Show the bar."""
        from IPython.display import display

        self._label, self._total, self._done, self._fresh = label, total, done, 0
        self._begun = self._shown = time.monotonic()
        self._handle = display(_Text(self._line()), display_id=True)

    def advance(self, units: int) -> None:
        """Count, and show the bar again when it is old."""
        with self._guard:
            self._done += units
            self._fresh += units
            now = time.monotonic()
            if self._handle is None or now - self._shown < self.every:
                return
            self._shown = now
            self._handle.update(_Text(self._line()))

    def end(self) -> None:
        """Leave an empty line in the bar's place."""
        with self._guard:
            if self._handle is not None:
                self._handle.update(_Text(""))
                self._handle = None

    def _line(self) -> str:
        share = min(self._done / self._total, 1.0) if self._total else 1.0
        full = round(share * CELLS)
        text = f"{self._label} {'█' * full}{'░' * (CELLS - full)} {share:4.0%}"
        if self._fresh <= 0 or self._done >= self._total:
            return text
        passed = time.monotonic() - self._begun
        return f"{text}, about {duration(passed / self._fresh * (self._total - self._done))} left"


@dataclass(frozen=True)
class _Text:
    """Text as a notebook displays it: the text itself, without quotation marks."""

    text: str

    def __repr__(self) -> str:
        return self.text


class Shown:
    """Context: a task that is shown while it lasts."""

    def __init__(self, reporter: Reporter, label: str, total: int, done: int = 0) -> None:
        self.reporter, self._arguments = reporter, (label, total, done)

    def __enter__(self) -> Reporter:
        self.reporter.begin(*self._arguments)
        return self.reporter

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.reporter.end()


def default_reporter() -> Reporter:
    """A bar in a notebook and where standard error is a terminal, lines elsewhere."""
    if in_notebook():
        return NotebookBar()
    return Bar() if is_terminal(sys.stderr) else Lines()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, as Jupyter's."""
    shell = sys.modules.get("IPython")
    if shell is None:  # nobody else asks for it, and importing it takes a while
        return False
    return getattr(shell.get_ipython(), "kernel", None) is not None


def duration(seconds: float) -> str:
    """Seconds for a reader: ``42 s``, ``3 min 10 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
