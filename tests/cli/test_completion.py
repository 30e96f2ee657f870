"""What a shell completes, by the functions and by the protocol that the shells speak."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from hpo_bench import figures
from hpo_bench.analysis.tables import TABLES
from hpo_bench.cli import app, completion
from hpo_bench.experiments import definition
from hpo_bench.settings.catalogue import dataset_names
from tests.make_store import make_run


def test_overrides_are_groups_their_options_and_settings() -> None:
    assert completion.overrides("meth") == ["method.", "method="]
    assert completion.overrides("method=ours_wd_lr") == ["method=ours_wd_lr", "method=ours_wd_lr_m"]
    assert completion.overrides("dataset=uci_e") == ["dataset=uci_energy"]
    assert completion.overrides("experiment=uci") == ["experiment=uci_main"]
    assert completion.overrides("hyp") == ["hyper.", "hyperparameter_updates="]
    assert completion.overrides("hyper.l") == ["hyper.lr="]
    assert completion.overrides("no_such=") == []
    assert "results_dir=" in completion.overrides("")


def completed(monkeypatch: pytest.MonkeyPatch, *words: str, shell: str = "bash") -> list[str]:
    """What a shell is offered for the last of some words."""
    if shell == "bash":
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    else:
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", " ".join(words))
    monkeypatch.setenv("_HPO_BENCH_COMPLETE", f"complete_{shell}")
    done = CliRunner().invoke(app, [], prog_name="hpo-bench")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["reproduce", ""], definition.names()),
        (["reproduce", "uci"], ["uci_main"]),
        (["reproduce", "uci_main", "--scale", "sm"], ["small", "smoke"]),
        (["reproduce", "uci_main", "hyper.l"], ["hyper.lr="]),
        (["status", "sens"], ["sensitivity"]),
        (["pack", "batch"], ["batchnorm"]),
        (["pack", "batchnorm", "--scale", "p"], ["paper"]),
        (["plot", "fig0"], [name for name in figures.names() if name.startswith("fig0")]),
        (["plot", "fig09", "--dataset", "uci_"], dataset_names()),
        (["plot", "fig09", "--method", "lorr"], ["lorraine"]),
        (["table", ""], sorted(TABLES)),
        (["table", "uci_main", "--method", "lorr"], ["lorraine"]),
        (["data", "download", "uci_e"], ["uci_energy"]),
        (["run", "dataset", "=", "uci_e"], ["uci_energy"]),
        (["run", "-m", "method", "=", "lorr"], ["lorraine"]),
        (["run", "experiment", "="], definition.names()),
        (["audit", "method", "=", "lorr"], ["lorraine"]),
        (["pac"], ["pack"]),
    ],
    ids=" ".join,
)
def test_bash_is_offered_what_there_is(
    words: list[str], wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [name for name in wanted if name.startswith(words[-1].strip("="))]
    assert sorted(completed(monkeypatch, "hpo-bench", *words)) == sorted(known or wanted)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_offered_whole_words(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    for words, wanted in (
        (("run", "method=lorr"), "method=lorraine"),
        (("reproduce", "uci"), "uci_main"),
    ):
        offered = completed(monkeypatch, "hpo-bench", *words, shell=shell)
        assert wanted in " ".join(offered)


def test_stored_runs_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = make_run(tmp_path / "results", "random", "uci_energy", [1.0])
    there = make_run(tmp_path / "other", "lorraine", "uci_energy", [1.0])
    monkeypatch.chdir(tmp_path)
    assert completed(monkeypatch, "hpo-bench", "compare", "uci") == [here.run_id]
    assert completed(monkeypatch, "hpo-bench", "compare", here.run_id, "uci") == [here.run_id]
    assert completed(monkeypatch, "hpo-bench", "export", "uci") == [here.run_id]
    words = ("hpo-bench", "export", "--results", "other", "uci")
    assert completed(monkeypatch, *words) == [there.run_id]
    nowhere = SimpleNamespace(params={"results": here.path / "run.json"})
    assert completion.runs(nowhere, "") == []


def test_completing_imports_neither_torch_nor_pandas_for_experiments() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from hpo_bench.cli import completion as c;"
        "assert c.experiments('') and c.figures('') and c.overrides('method=');"
        "print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr
