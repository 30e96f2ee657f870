"""What holds for every command, whatever it inherits: streams, a home folder, variables; and text
stays as it is.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from make_store import make_run

from hpo_bench import cli

Call = Callable[..., tuple[int, str, str]]
LABEL = "Lü [/kWh] [kWh] :smile: ✓"


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that there is, with its words."""
    group: Any = typer.main.get_command(cli.app)
    for name in cli.COMMANDS:
        yield from _below((name,), group.get_command(None, name))


def _below(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _below((*words, name), below)


WORDS = [words for words, _ in commands()]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A few runs with a label that a terminal, a formula and markup would each take for something
    else.
    """
    for method in ("random", "ours_wd_lr_m"):
        config = {"dataset.label": LABEL, "method.label": f"{method} $x^ [/] [b]"}
        make_run(tmp_path / "results", method, "uci_energy", [0.5, 0.4, 0.3], config=config)
    return tmp_path / "results"


def reading(store: Path, out: Path) -> dict[str, tuple[str, ...]]:
    """Commands that show what is stored."""
    first, second = sorted(path.name for path in (store / "runs").iterdir() if path.is_dir())
    results = f"--results={store}"
    return {
        "status": ("status", results),
        "list": ("list", "methods"),
        "compare": ("compare", first, second, results),
        "table": ("table", "uci_main", "--dataset=uci_energy", results),
        "plot": ("plot", "fig09", "--dataset=uci_energy", results, f"--out={out}", "--format=svg"),
        "export": ("export", results, f"--out={out}"),
        "data": ("data", "list"),
        "merge": ("merge", str(store), f"--results={out}"),
        "mistake": ("run", "dataset.path=ü(1).csv"),
    }


READING = ("status", "list", "compare", "table", "plot", "export", "data", "merge", "mistake")


class Stream(io.TextIOWrapper):
    """A stream in a narrow encoding."""

    def __init__(self, encoding: str) -> None:
        self.content = io.BytesIO()
        super().__init__(self.content, encoding=encoding, errors="strict", write_through=True)

    @property
    def text(self) -> str:
        """What has been written."""
        return self.content.getvalue().decode(self.encoding)


class Deaf:
    """A stream that takes nothing and cannot say what it is."""

    def write(self, text: str) -> int:
        """Fail, as a disk that is full."""
        raise OSError(28, "No space left on device")


def call_with(streams: tuple[Any, Any], *arguments: str) -> Any:
    """Run the program with its standard streams replaced; its exit code."""
    held = sys.stdout, sys.stderr, sys.argv
    sys.stdout, sys.stderr, sys.argv = *streams, ["hpo-bench", *arguments]
    try:
        with pytest.raises(SystemExit) as caught:
            cli.main()
    finally:
        sys.stdout, sys.stderr, sys.argv = held
    return caught.value.code or 0


# --- streams ---


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_every_command_explains_itself_on_any_stream(words: tuple[str, ...]) -> None:
    for encoding in ("ascii", "cp1252"):
        stream = Stream(encoding)
        assert call_with((stream, stream), *words, "--help") == 0
        assert stream.text
    assert call_with((None, None), *words, "--help") == 0
    assert call_with((Deaf(), Deaf()), *words, "--help") in (0, 1)


@pytest.mark.parametrize("kind", READING)
def test_what_a_stream_cannot_carry_is_substituted(kind: str, store: Path, tmp_path: Path) -> None:
    arguments = reading(store, tmp_path / "out")[kind]
    out, error = Stream("ascii"), Stream("ascii")
    code = call_with((out, error), *arguments)
    assert (code, "internal" in error.text) == (2 if kind == "mistake" else 0, False), error.text
    if kind == "compare":
        assert "A - B" in out.text


@pytest.mark.parametrize("kind", READING)
def test_only_a_command_whose_text_is_lost_fails(kind: str, store: Path, tmp_path: Path) -> None:
    arguments = reading(store, tmp_path / "out")[kind]
    assert call_with((None, None), *arguments) == (2 if kind == "mistake" else 0)
    wanted = 2 if kind == "mistake" else 0 if arguments[0] in cli.STORING else 1
    error = Stream("utf-8")
    assert call_with((Deaf(), error), *arguments) == wanted
    assert ("cannot write to standard output: No space left" in error.text) == (wanted == 1)


def test_what_is_written_to_files_stays_utf_8(store: Path, tmp_path: Path) -> None:
    arguments = (
        "table",
        "uci_main",
        "--dataset=uci_energy",
        f"--results={store}",
        f"--out={tmp_path / 'table.md'}",
    )
    assert call_with((Stream("ascii"), Stream("ascii")), *arguments) == 0
    assert LABEL in (tmp_path / "table.md").read_text(encoding="utf-8")


# --- text ---


def test_labels_are_neither_markup_nor_formulas(call: Call, store: Path, tmp_path: Path) -> None:
    code, out, _ = call("table", "uci_main", "--dataset=uci_energy", f"--results={store}")
    assert (code, LABEL in out) == (0, True)
    code, out, _ = call(
        "plot",
        "fig09",
        "--dataset=uci_energy",
        f"--results={store}",
        "--out=figures",
        "--format=svg",
    )
    assert code == 0, out
    assert "random $x^ [/] [b]" in (tmp_path / "figures" / "fig09-uci_energy.json").read_text(
        encoding="utf-8"
    )


@pytest.mark.usefixtures("store")
def test_a_failure_is_shown_as_it_was_written(call: Call, tmp_path: Path) -> None:
    file = next((tmp_path / "results" / "runs").glob("*/run.json"))
    text = file.read_text(encoding="utf-8").replace(
        '"status": "complete"', '"status": "failed", "error": "[/oh] [no]"'
    )
    file.write_text(text, encoding="utf-8")
    assert "[/oh] [no]" in call("status")[1]


# --- paths ---


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_every_path_of_a_command_knows_the_home_folder(words: tuple[str, ...]) -> None:
    """What a command calls is given expanded paths, so that an option added later is no
    exception.
    """
    function = dict(commands())[words].callback
    assert function is None or function.__code__ is cli._prepared(print).__code__


def test_values_that_are_paths_are_expanded_also_in_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    called = cli._prepared(lambda **values: values)
    assert called(one=Path("~/a"), many=[Path("~/b"), Path("c")], text="~/d", nothing=None) == {
        "one": Path("/home/me/a"),
        "many": [Path("/home/me/b"), Path("c")],
        "text": "~/d",
        "nothing": None,
    }


@pytest.mark.parametrize(
    "kind", ["export", "merge", "plot", "status", "report", "table", "compare", "run"]
)
def test_a_tilde_makes_no_folder_of_that_name(
    kind: str, call: Call, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    store.rename(tmp_path / "home" / "res")
    first = next((tmp_path / "home" / "res" / "runs").glob("uci_energy-*")).name
    arguments = {
        "export": ("export", "--results=~/res", f"~/res/runs/{first}", "--out=~/made"),
        "merge": ("merge", "~/res", "--results=~/made"),
        "plot": (
            "plot",
            "fig09",
            "--dataset=uci_energy",
            "--results=~/res",
            "--out=~/made",
            "--format=svg",
        ),
        "status": ("status", "--results=~/res"),
        "report": ("report", "--results=~/nothing", "--out=~/made"),
        "table": ("table", "uci_main", "--dataset=uci_energy", "--results=~/res", "--out=~/made"),
        "compare": ("compare", f"~/res/runs/{first}", f"~/res/runs/{first}"),
        "run": ("run", "results_dir=~/made", "--cfg", "hydra"),
    }[kind]
    code, out, err = call(*arguments)
    assert not (tmp_path / "~").exists()
    if kind in ("export", "merge", "plot", "table"):
        assert code == 0, err
        assert (tmp_path / "home" / "made").exists()
    if kind == "status":
        assert "uci_energy" in out
    if kind == "compare":
        assert "named twice" in err
    assert "no such run" not in err


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../results", "x" * 5000, "~nobody-of-this-name/x", "-"]
)
@pytest.mark.parametrize("command", ["compare", "export"])
def test_a_name_that_is_no_run_is_one_line(
    command: str, name: str, call: Call, store: Path
) -> None:
    arguments = ("--", name, name) if command == "compare" else ("--", name)
    code, _, err = call(command, f"--results={store}", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert "no such run" in err


# --- variables and the working directory ---


@pytest.mark.parametrize("backend", ["nonsense", "qtagg", "module://nothing"])
def test_a_backend_of_matplotlib_is_not_needed(
    backend: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", backend)
    assert call("plot", "fig02", "--format=svg", "--out=figures")[0] == 0
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.parametrize("words", [("run",), ("status",), ("doctor",), ("list",)])
def test_a_working_directory_that_was_deleted_is_said(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    gone, before = tmp_path / "gone", Path.cwd()
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        error = Stream("utf-8")
        assert call_with((Stream("utf-8"), error), *words) == 2
    finally:
        os.chdir(before)
    assert "working directory has been deleted" in error.text


def test_a_byte_order_mark_that_an_editor_left_is_no_damage(call: Call, store: Path) -> None:
    for file in store.glob("runs/*/run.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    code, out, err = call("status", f"--results={store}")
    assert (code, err) == (0, "")
    assert call("export", f"--results={store}", "--out=made")[0] == 0
    assert "uci_energy" in out


# --- command lines ---


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("table", "summary", "--seed", "1e3"), "--seed"),
        (("table", "summary", "--seed", "-1"), "--seed"),
        (("plot", "--seed", "-1"), "--seed"),
        (("report", "--seed", "-1"), "--seed"),
        (("compare", "a", "b", "--seed", "-1"), "--seed"),
        (("export", "--seed", "-1"), "--seed"),
        (("compare", "a"), "RUN"),
        (("doctor", "results_dir=x"), "results_dir=x"),
        (("status", "--result", "x"), "--result"),
        (("data", "lisst"), "lisst"),
        (("--verson",), "--verson"),
        (("merge",), "Missing"),
    ],
    ids=str,
)
def test_words_that_a_command_cannot_use_are_one_line(words: tuple[str, ...], names: str) -> None:
    out, error = Stream("utf-8"), Stream("utf-8")
    assert call_with((out, error), *words) == 2
    (line,) = error.text.splitlines()
    assert line.startswith("error: ")
    assert names in line


STORES = [
    ("status", "--results", "R"),
    ("table", "summary", "--results", "R"),
    ("report", "--results", "R", "--out", "page.html"),
    ("plot", "--results", "R"),
    ("compare", "a", "b", "--results", "R"),
    ("export", "--results", "R", "--out", "x"),
    ("merge", "R", "--results", "made"),
    ("reproduce", "uci_main", "--scale", "smoke", "--results", "R"),
    ("run", "results_dir=R", "hyperparameter_updates=1"),
    ("run", "-m", "results_dir=R", "hyperparameter_updates=1"),
]


@pytest.mark.parametrize("words", STORES, ids=" ".join)
@pytest.mark.parametrize("kind", ["file", "loop", "nowhere"])
def test_a_store_that_is_no_folder_is_one_line(
    words: tuple[str, ...], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Path("R")
    if kind == "file":
        store.write_text("")
    else:
        store.symlink_to("R" if kind == "loop" else "gone")
    error = Stream("utf-8")
    assert call_with((Stream("utf-8"), error), *words) == 2
    (line,) = error.text.splitlines()
    assert line.startswith("error: ")
    assert "R" in line
