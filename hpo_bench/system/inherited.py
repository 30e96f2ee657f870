"""What a process inherits: streams, environment variables, a home folder.

None of it can be relied on. A stream may be closed, full, replaced, or unable to carry a letter; a
variable may be set to nothing; there may be no home folder. Nothing of that is a reason to lose a
run: what cannot be said is not said, and what is not there has a stand-in.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hpo_bench.errors import UserError

# --- streams ---

# What our own signs become where a stream cannot carry them.
PLAIN_SIGNS = {
    "✓": "+",
    "✗": "x",
    "·": "-",
    "…": "...",
    "→": "->",
    "×": "x",
    "÷": "/",
    "−": "-",
    "–": "-",
    "—": "-",
    "±": "+/-",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "∞": "inf",
    "’": "'",
    "“": '"',
    "”": '"',
}
SUBSTITUTE = "hpo_bench.substitute"  # the name of `_substitute` among Python's error handlers


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Encode our signs by plain ones, every other character as ``\\xNN`` or ``\\uNNNN``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    plain = (
        PLAIN_SIGNS.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs
    )
    return "".join(plain), error.end


codecs.register_error(SUBSTITUTE, _substitute)


def carried(text: str, encoding: str | None) -> str:
    """The text as a stream of that encoding can carry it, with signs that it lacks substituted."""
    name = encoding or "utf-8"
    try:
        text.encode(name)
    except UnicodeEncodeError:
        return text.encode(name, SUBSTITUTE).decode(name)
    except LookupError:  # a stream that names an encoding of its own
        return text
    return text


class Careful:
    """A text stream that never fails, in front of another one, which may.

    Args:
        stream: the other one.

    Attributes:
        lost: the first error that kept something from being written, or None.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.lost: Exception | None = None

    @property
    def encoding(self) -> str:
        """The other stream's encoding; UTF-8 where it does not say."""
        try:
            name = self.stream.encoding
        except Exception:  # a replaced stream need not have one
            return "utf-8"
        return name if isinstance(name, str) else "utf-8"

    def write(self, text: str) -> int:
        """Write a text, or what of it can be written; returns its length, as any stream does."""
        if not isinstance(text, str):
            raise TypeError(f"a text stream writes text, not {type(text).__name__}")
        self._guarded("write", carried(text, self.encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts, one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written, where the stream keeps any of it back."""
        lost = self.lost
        self._guarded("flush")
        # A stream that cannot be flushed keeps nothing back.
        if isinstance(self.lost, AttributeError):
            self.lost = lost

    def isatty(self) -> bool:
        """Whether the other stream is a terminal, at which somebody may look."""
        return is_terminal(self.stream)

    def _guarded(self, name: str, *arguments: str) -> None:
        try:
            getattr(self.stream, name)(*arguments)
        except Exception as error:  # whatever a replaced stream may raise
            self.lost = self.lost or error

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "reconfigure", "detach"):  # ways past this class
            raise AttributeError(name)
        return getattr(self.stream, name)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; not where there is no stream, or one that cannot tell."""
    try:
        return bool(stream.isatty())
    except Exception:  # None, closed, or replaced by something that has no such method
        return False


def tell(text: str) -> None:
    """Print a line on standard error, if it can be said there."""
    if sys.stderr is None:
        return
    stream = Careful(sys.stderr)
    stream.write(f"{text}\n")
    stream.flush()


@contextlib.contextmanager
def careful_streams() -> Iterator[tuple[Careful, Careful]]:
    """Put `Careful` streams in the place of standard output and error while the context lasts."""
    _occupy_standard_descriptors()
    with contextlib.ExitStack() as stack:
        originals = sys.stdout, sys.stderr
        careful = _in_front_of(sys.stdout, stack), _in_front_of(sys.stderr, stack)
        sys.stdout, sys.stderr = careful
        try:
            yield careful
        finally:
            for stream in careful:
                stream.flush()
                _give_up(stream)
            sys.stdout, sys.stderr = originals


def _in_front_of(stream: Any, stack: contextlib.ExitStack) -> Careful:
    if isinstance(stream, Careful):
        return Careful(stream.stream)
    if stream is None:
        stream = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    return Careful(stream)


def _occupy_standard_descriptors() -> None:
    """Open descriptors 0 to 2 that are closed on nothing, for good."""
    # The next file that is opened would take such a number, and be written to by whatever prints.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.close(opened)
                continue
            os.set_inheritable(descriptor, True)


def _give_up(careful: Careful) -> None:
    """Turn a descriptor that takes nothing more to nowhere."""
    # Python would write once more when it ends, and complain.
    if not isinstance(careful.lost, OSError):
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = careful.stream.fileno()
        if descriptor in (1, 2):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
            careful.stream.flush()


def is_closed_pipe(error: Exception) -> bool:
    """Whether the reader of a stream has gone (``| head``): it wants no more, nothing is wrong."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE


# --- environment variables ---

TRACKER_PREFIXES = ("MLFLOW_", "WANDB_", "RAY_")  # of variables that trackers and Ray read
FOLDER_VARIABLES = (
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "MPLCONFIGDIR",
)


def variable(name: str) -> str | None:
    """An environment variable; None where it is not set, or set to nothing."""
    value = os.environ.get(name, "")
    return value if value.strip() else None


def drop_empty_variables() -> None:
    """Unset variables that are set to nothing, which MLflow, wandb and Ray take for a value."""
    for name in list(os.environ):
        if (name.startswith(TRACKER_PREFIXES) or name in FOLDER_VARIABLES) and variable(
            name
        ) is None:
            del os.environ[name]


def settle_for_trackers() -> None:
    """Give trackers an environment that they can start in.

    It has no empty variables, and some home folder.
    """
    drop_empty_variables()
    if home() is None:
        folder = temporary_cache()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["HOME"] = str(folder)


# --- folders ---


def expanded(path: str | Path) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder.

    Raises:
        UserError: there is no such home folder.
    """
    try:
        folder = Path(path).expanduser()
    except RuntimeError:  # there is none, which Python says in one of two ways
        folder = Path(path)
    if str(path).startswith("~") and not folder.is_absolute():
        raise UserError(f"{path}: there is no home folder for the ~; give the whole path")
    return folder


def home() -> Path | None:
    """The user's home folder; None without HOME where the system does not know the user."""
    try:
        return expanded("~")
    except UserError:
        return None


def user_cache() -> Path:
    """The folder for what may be made again.

    It is where XDG_CACHE_HOME says, else in the home folder, else a temporary one.
    """
    base = variable("XDG_CACHE_HOME")
    if base is not None and Path(base).is_absolute():
        return Path(base) / "hpo-bench"
    home_folder = home()
    if home_folder is None:
        return temporary_cache()
    return home_folder / ".cache" / "hpo-bench"


def temporary_cache() -> Path:
    """The user's own folder among the temporary files."""
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"hpo-bench-{user}"


def working_directory_is_gone() -> bool:
    """Whether the folder that the process was started in has been deleted."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def cache_folder() -> Path:
    """The folder where downloads are kept: ``$HPO_BENCH_DATA``, else `user_cache`."""
    choice = variable("HPO_BENCH_DATA")
    return expanded(choice) if choice is not None else user_cache()
