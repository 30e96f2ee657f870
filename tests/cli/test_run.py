"""``hpo-bench run``: its arguments, Hydra behind it, exit codes and messages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from make_store import make_run

import hpo_bench.running.execute
from hpo_bench.cli.closing import closing_numbers
from hpo_bench.cli.run import split
from hpo_bench.errors import RunError, UserError
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.run import Settings
from hpo_bench.settings.yamls import configs_folder

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Settings]:
    """What would have been run; a small stored run stands for the results."""
    jobs: list[Settings] = []
    made = make_run(tmp_path / "made", "random", "uci_energy", [2.0, 1.0])

    def execute(settings: Settings, *_: Any) -> hpo_bench.running.execute.Outcome:
        jobs.append(settings)
        return hpo_bench.running.execute.Outcome(made, 2)

    monkeypatch.setattr(hpo_bench.running.execute, "execute", execute)
    return jobs


def program(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hpo_bench", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


# --- what is run ---


def test_without_arguments_the_headline_method_runs_on_embedded_data(
    call: Call, executed: list[Settings]
) -> None:
    code, out, err = call("run")
    (settings,) = executed
    assert (settings.method.name, settings.dataset, settings.repetitions) == (
        "ours_wd_lr_m",
        "diabetes",
        20,
    )
    assert (code, settings.force) == (0, False)
    assert err.splitlines() == [
        "no arguments: running method=ours_wd_lr_m dataset=diabetes repetitions=20"
    ]
    assert "2/2" in out


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_overrides_and_force_arrive(
    call: Call, executed: list[Settings], force: tuple[str, ...]
) -> None:
    assert (
        call("run", "method=random", *force, "dataset=digits", "repetitions=3", "hyper.lr=0.1")[0]
        == 0
    )
    (settings,) = executed
    expected = parse(
        compose(["method=random", "dataset=digits", "repetitions=3", "hyper.lr=0.1"]),
        force=bool(force),
    )
    assert settings == replace(expected, source=settings.source, model=settings.model)


@pytest.mark.parametrize("order", ["-m first", "flag between", "last"])
def test_multirun_in_any_order_of_flags(
    call: Call, executed: list[Settings], order: str, tmp_path: Path
) -> None:
    arguments = {
        "-m first": ["-m", "method=random,lorraine", "look_back=range(1,4)"],
        "flag between": ["method=random,lorraine", "--multirun", "look_back=range(1,4)"],
        "last": ["method=random,lorraine", "look_back=range(1,4)", "-m"],
    }[order]
    assert call("run", *arguments)[0] == 0
    jobs = [(settings.method.name, settings.look_back) for settings in executed]
    assert jobs == [
        (method, look_back) for method in ("random", "lorraine") for look_back in (1, 2, 3)
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"results", "made"}


def test_multirun_takes_pairs_into_account(
    call: Call, executed: list[Settings], tmp_path: Path
) -> None:
    (tmp_path / "mine" / "method_dataset").mkdir(parents=True)
    pair = tmp_path / "mine" / "method_dataset" / "random__digits.yaml"
    pair.write_text("# @package _global_\nlook_back: 7\n", encoding="utf-8")
    sweep = ("method=random,lorraine", "dataset=diabetes,digits")
    assert call("run", *sweep, "--config-dir", str(tmp_path / "mine"), "-m")[0] == 0
    assert [settings.look_back for settings in executed] == [5, 7, 5, 5]


def test_a_run_leaves_nothing_but_results(call: Call, tmp_path: Path) -> None:
    arguments = ("repetitions=2", "hyperparameter_updates=2", "results_dir=here", "method=random")
    code, out, _ = call("run", *arguments)
    assert code == 0
    (folder,) = (tmp_path / "here" / "runs").glob("*/")
    assert {path.name for path in folder.iterdir()} == {
        "run.json",
        "final.parquet",
        "curves.parquet",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert str(folder.relative_to(tmp_path)) in out
    assert "already complete" in call("run", *arguments)[2]
    assert "already complete" not in call("run", *arguments, "--force")[2]


# --- the closing table ---


def test_the_closing_numbers_count_diverged_repetitions() -> None:
    def numbers(values: list[float], scale: float = 1) -> tuple[str, ...]:
        status = ["ok" if np.isfinite(value) else "diverged" for value in values]
        return closing_numbers(pd.DataFrame({"status": status, "test_metric": values}), scale)

    nan = float("nan")
    assert numbers([1.0, 3.0, 8.0]) == ("3", "4", "1", "3/3")
    assert numbers([1.0, 3.0, nan]) == ("3", "2", "1", "2/3")
    assert numbers([1.0, nan]) == ("diverged", "1", "1", "1/2")
    assert numbers([nan]) == ("diverged", "-", "-", "0/1")
    assert numbers([0.004, 0.006], 1000) == ("5", "5", "4", "2/2")


# --- messages and exit codes ---

MISTAKES = {
    ("method=ours_wd_lrm",): "did you mean ours_wd_lr_m",
    ("datset=diabetes",): "did you mean dataset",
    ("sead=1",): "did you mean seed",
    ("method=random,typo", "-m"): "method=typo: no such method",
    ("seed=-1",): "seed=-1: must be",
    ("seed=range(0,2)",): "add -m",
    ("--multirn",): "did you mean --multirun",
    ("--cfg",): "--cfg: needs a value",
    ("--cfg", "jb"): "did you mean job",
    ("--info=al",): "did you mean all",
    ("--resolve", "seed=1"): "--resolve goes with --cfg",
    ("--cfg", "job", "-m"): "do not go together",
    ("--config-dir", "no_such_folder"): "no such folder",
    ("--config-name", "nothing", "seed=1"): "nothing",
    ("dataset=csv",): "dataset.path",
    ("init.file=no.npz",): "no such file",
    ("results_dir=file/in/a/file", "hyperparameter_updates=1", "method=random"): "cannot write",
    ("results_dir=file/in/a/file", "seed=0,1", "-m"): "cannot write",
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_and_exit_code_2(
    call: Call, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    code, out, err = call("run", *arguments)
    line = err.splitlines()[-1]
    assert code == 2
    assert line.startswith("error: ")
    assert MISTAKES[arguments] in line
    assert "Traceback" not in err + out
    assert [one for one in err.splitlines() if "on cpu in" not in one] == [line]
    assert out == ""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("a mistake"), 2, "error: a mistake"),
        (RunError("went wrong\nin two lines"), 1, "error: went wrong in two lines"),
        (
            OSError(28, "No space left on device", "a/file"),
            1,
            "error: a/file: No space left on device",
        ),
        (
            PermissionError(13, "Permission denied", "a", None, "b"),
            1,
            "error: a -> b: Permission denied",
        ),
        (OSError("of a library"), 1, "error: OSError: of a library"),
        (
            KeyError("x"),
            1,
            "error: internal error: KeyError: 'x' (set HPO_BENCH_DEBUG=1 to see where)",
        ),
    ],
)
def test_what_a_run_raises_decides_the_exit_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, text: str
) -> None:
    def execute(settings: Settings, *_: Any) -> None:
        raise error

    monkeypatch.setattr(hpo_bench.running.execute, "execute", execute)
    assert call("run", "seed=1") == (code, "", text + "\n")


@pytest.mark.parametrize(
    "words",
    [
        ["--foo"],
        ["compare"],
        ["compare", "a", "b", "--foo"],
        ["table", "--seed=a", "x"],
        ["data", "x"],
        ["merge"],
    ],
)
def test_what_a_command_does_not_take_is_one_line(call: Call, words: list[str]) -> None:
    code, out, error = call(*words)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith("error: ")
    assert error.rstrip().endswith("--help")


def test_an_internal_error_keeps_its_traceback_when_asked(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(settings: Settings, *_: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr(hpo_bench.running.execute, "execute", execute)
    monkeypatch.setenv("HPO_BENCH_DEBUG", "1")
    with pytest.raises(KeyError):
        call("run", "seed=1")


def test_the_other_jobs_of_a_multirun_still_run(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def execute(settings: Settings, *_: Any) -> None:
        begun.append(settings.look_back)
        raise UserError("mistake") if settings.look_back > 1 else RunError("failure")

    monkeypatch.setattr(hpo_bench.running.execute, "execute", execute)
    code, _, err = call("run", "-m", "look_back=1,2,3")
    assert begun == [1, 2, 3]
    assert (code, sorted(err.splitlines())) == (
        1,
        ["error: failure", "error: mistake", "error: mistake"],
    )


def test_ctrl_c_says_how_to_go_on(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(settings: Settings, *_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hpo_bench.running.execute, "execute", execute)
    assert call("run", "seed=1") == (130, "", "interrupted; run the same command again to go on\n")


def test_an_unknown_command_names_the_nearest(call: Call) -> None:
    code, out, err = call("rnu")
    assert (code, out) == (2, "")
    assert err.startswith("error: rnu: no such command; did you mean run?")
    assert len(err.splitlines()) == 1


# --- Hydra's own flags ---


def test_the_configuration_is_shown_as_it_would_run(call: Call, executed: list[Settings]) -> None:
    code, out, err = call(
        "run", "--cfg", "job", "method=baydin", "dataset=uci_wine", "hyper.lr=0.5"
    )
    assert (code, err, executed) == (0, "", [])
    shown = yaml.safe_load(out)
    assert (shown["method"]["name"], shown["dataset"]["name"], shown["hyper"]["lr"]) == (
        "baydin",
        "uci_wine",
        0.5,
    )
    section = yaml.safe_load(
        call("run", "method=lorraine", "--cfg=job", "--resolve", "-p", "method.estimator")[1]
    )
    assert section["look_back"] == 5


def test_help_names_groups_settings_and_flags(call: Call) -> None:
    code, out, _ = call("run", "--help")
    assert code == 0
    for text in (
        "long_diff_through_opt",
        "uci_yacht",
        "look_back: 5",
        "--force",
        "--config-dir",
        "--multirun",
    ):
        assert text in out


def test_a_users_own_method(call: Call, tmp_path: Path) -> None:
    (tmp_path / "own" / "method").mkdir(parents=True)
    base = (configs_folder() / "method" / "ours_wd_lr.yaml").read_text(encoding="utf-8")
    own = tmp_path / "own" / "method" / "mine.yaml"
    own.write_text(base.replace("name: ours_wd_lr", "name: mine"), encoding="utf-8")
    arguments = ("method=mine", "hyperparameter_updates=2", "--config-dir", "own")
    assert call("run", *arguments)[0] == 0
    (folder,) = (tmp_path / "results" / "runs").glob("*/")
    assert folder.name.startswith("diabetes-mine-")
    own.write_text(base.replace("  name:", "  nmae:"), encoding="utf-8")
    assert "method.nmae: no such setting; did you mean name" in call("run", *arguments)[2]


def test_the_arguments_taken_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    line = split(
        ["seed=2", "-cd", "here", "method=a", "--force", "--info", "x=1", "--package=hyper"]
    )
    assert line.overrides == ["seed=2", "method=a", "x=1"]
    assert line.for_hydra == [
        *line.overrides,
        "--config-dir",
        "here",
        "--info",
        "all",
        "--package",
        "hyper",
    ]
    assert (line.force, line.config_dir) == (True, Path("here"))


# --- the real program ---


def test_the_real_program_shows_a_configuration_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom hpo_bench.cli import main\n"
        "try: main()\nfinally: assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    for arguments in (
        ["--help"],
        ["list", "methods"],
        ["run", "--cfg", "job", "method=random"],
        ["run", "--help"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert (done.returncode, done.stderr) == (0, ""), arguments
        assert done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "method=ours_wd_lrm"), 2),
        (("run", "device=cuda:99"), 2),
        (("--version",), 0),
        (("run", "method=random", "--info", "defaults-tree"), 0),
        (("run", "method=random", "hyperparameter_updates=1"), 0),
    ],
)
def test_the_real_programs_exit_code(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    done = program(*arguments, cwd=tmp_path, HPO_BENCH_DATA=str(tmp_path / "cache"))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    assert done.stdout or code
