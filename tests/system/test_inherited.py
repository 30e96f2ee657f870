"""What a process inherits: streams, variables and folders that are not as they should be."""

from __future__ import annotations

import io
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo_bench.errors import UserError
from hpo_bench.system import inherited
from hpo_bench.system.inherited import (
    Careful,
    careful_streams,
    carried,
    expanded,
    home,
    tell,
    user_cache,
)


class Writes:
    """What some notebooks put in the place of a stream: no ``isatty``, no ``flush``, no
    ``encoding``.
    """

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Raises:
    """A stream that has gone bad."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.fixture(params=["none", "closed", "writes", "raises", "object"])
def stream(request: pytest.FixtureRequest) -> Any:
    """Streams that a process may find in the place of its own."""
    return {
        "none": None,
        "closed": closed(),
        "writes": Writes(),
        "raises": Raises(),
        "object": object(),
    }[request.param]


def test_nothing_is_raised_by_a_stream_that_is_none(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    tell("said, or not")
    with careful_streams() as (out, _):
        print("text", flush=True)
        assert not sys.stderr.isatty()
        assert isinstance(sys.stdout.encoding, str)
        sys.stderr.writelines(["a", "b"])
    assert sys.stdout is stream
    if isinstance(stream, Writes):
        assert stream.text == "said, or not\ntext\nab"
    assert (out.lost is None) == (stream is None or isinstance(stream, Writes))


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("✓ done → 3 × 4 …", "ascii", "+ done -> 3 x 4 ..."),
        ("Lü \U0001f600", "ascii", "L\\xfc \\U0001f600"),
        ("Lü ✓", "latin-1", "Lü +"),
        ("Lü → \udcff", "utf-8", "Lü → \\udcff"),
        ("€ ∞", "cp1252", "€ inf"),
        ("as it is", "no-such-encoding", "as it is"),
        ("ü", None, "ü"),
    ],
)
def test_what_an_encoding_lacks_is_substituted(
    text: str, encoding: str | None, expected: str
) -> None:
    assert carried(text, encoding) == expected


def test_an_ascii_stream_is_given_ascii() -> None:
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding="ascii", errors="strict")
    Careful(stream).write("ü ✓\n")
    stream.flush()
    assert content.getvalue() == b"\\xfc +\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("how", [">/dev/full", ">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_process_ends_as_if_it_had_been_heard(how: str) -> None:
    code = (
        "from hpo_bench.system.inherited import *\n"
        "with careful_streams():\n"
        "    import sys, os\n"
        "    print('a'); print('b', file=sys.stderr)\n"
        "    opened = open(os.devnull)\n"
        "    assert opened.fileno() > 2, opened\n"
    )
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {how}', sys.executable, code], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "Error" not in done.stderr
    assert "Exception" not in done.stderr


# --- variables ---


def test_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "RAY_ADDRESS", "HOME", "OTHER"):
        monkeypatch.setenv(name, " ")
        assert inherited.variable(name) is None
    monkeypatch.setenv("MLFLOW_RUN_ID", "3")
    inherited.drop_empty_variables()
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert "WANDB_MODE" not in os.environ
    assert "HOME" not in os.environ
    assert os.environ["OTHER"] == " "
    assert inherited.variable("MLFLOW_RUN_ID") == "3"


# --- folders ---


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No HOME, and a user whom the system does not know."""

    def unknown(_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "HPO_BENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    return


@pytest.mark.usefixtures("homeless")
def test_without_a_home_there_is_a_temporary_folder() -> None:
    from hpo_bench.system.inherited import cache_folder

    assert home() is None
    assert user_cache() == cache_folder() == inherited.temporary_cache()
    with pytest.raises(UserError, match="no home folder"):
        expanded("~/x")
    assert expanded("x/~") == Path("x/~")


@pytest.mark.usefixtures("homeless")
def test_trackers_get_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    inherited.settle_for_trackers()
    assert home() is not None
    assert Path(os.environ["HOME"]).parent == tmp_path
    monkeypatch.delenv("HOME")


@pytest.mark.parametrize("value", ["", "relative"])
def test_a_home_that_is_none_is_not_used(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", value)
    assert user_cache().is_absolute()


def test_the_cache_of_the_system_is_used_where_it_is_a_whole_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "hpo-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "hpo-bench"
