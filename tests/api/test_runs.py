"""`run` and `sweep` store what the command stores, wherever they are called."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra

import hpo_bench
from hpo_bench import progress
from hpo_bench.cli import run as command
from hpo_bench.settings.compose import compose
from hpo_bench.store.index import folders

SMALL: dict[str, Any] = {
    "method": "random",
    "dataset": "diabetes",
    "repetitions": 2,
    "hyperparameter_updates": 3,
}
WORDS = [f"{key}={value}" for key, value in SMALL.items()]


def test_run_stores_what_the_command_stores(tmp_path: Path) -> None:
    results = hpo_bench.run(results_dir=tmp_path / "own", **SMALL)
    assert command.call_hydra(command.split([*WORDS, f"results_dir={tmp_path / 'command'}"])) == []
    assert results.run_ids == folders(tmp_path / "command" / "runs")
    stored = hpo_bench.load(tmp_path / "command")
    timings = ["seconds"]
    pd.testing.assert_frame_equal(
        results.final.drop(columns=timings), stored.final.drop(columns=timings)
    )
    assert list(results.final["seed"]) == [0, 1]
    assert set(results.curves.columns) > {"run_id", "seed", "step", "test_metric", "lr"}
    assert results.trials is None


def test_a_stored_run_is_not_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = hpo_bench.run(*WORDS, results_dir=tmp_path)
    file = first.runs[0].path / "run.json"
    written = file.stat().st_mtime_ns
    capsys.readouterr()
    again = hpo_bench.run(*WORDS, results_dir=tmp_path)
    assert again.run_ids == first.run_ids
    assert file.stat().st_mtime_ns == written
    assert "already complete" in capsys.readouterr().err
    hpo_bench.run(*WORDS, results_dir=tmp_path, force=True, progress=False)
    assert file.stat().st_mtime_ns > written
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "given",
    [
        {"metod": "random"},
        {"method": "rndom"},
        {"method": None},
        {"dataset": ["diabetes", "digits"]},
        {"hyper": {"lrr": 0.1}},
        {"hyper": {"lr": "fast"}},
        {"seed": -1},
        {"dataset.target": "y"},
        {"tuned": ["lr"], "method": "random"},
        {"device": "cuda:99"},
    ],
    ids=str,
)
def test_mistakes_are_the_commands_one_line(given: dict[str, Any], tmp_path: Path) -> None:
    from hpo_bench.api.overrides import written

    with pytest.raises(hpo_bench.UserError) as told:
        hpo_bench.run(results_dir=tmp_path, **given)
    try:
        failures = command.call_hydra(command.split([*written(given), f"results_dir={tmp_path}"]))
    except hpo_bench.UserError as error:
        failures = [error]
    assert str(told.value) == str(failures[0])
    assert "\n" not in str(told.value)


def test_several_values_ask_for_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(hpo_bench.UserError, match="names several values"):
        hpo_bench.run("method=random,baydin", results_dir=tmp_path)


def test_a_run_that_fails_is_a_run_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaving.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self): super().__init__(10, 1)\n"
        "    def forward(self, inputs):\n"
        "        raise SystemExit(3)\n",
        encoding="utf-8",
    )
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "leaving.yaml").write_text(
        "# @package _global_\nmodel:\n  _target_: hpo_bench.models.custom.Custom\n"
        "  module: {_target_: leaving.Net}\n  version: 1\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises((hpo_bench.RunError, hpo_bench.UserError)):
        hpo_bench.run(
            results_dir=tmp_path, config_dir=tmp_path / "mine", **{**SMALL, "model": "leaving"}
        )


def test_what_the_disk_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(hpo_bench.UserError, match="a file, not a folder"):
        hpo_bench.run(results_dir=tmp_path / "taken", **SMALL)


# --- where it is called ---


@pytest.fixture
def initialised() -> Iterator[None]:
    with hydra.initialize(version_base=None, config_path=None):
        yield


def test_beside_a_hydra_of_the_callers(tmp_path: Path, initialised: None) -> None:
    theirs = GlobalHydra.instance()
    hpo_bench.run(results_dir=tmp_path, **SMALL)
    assert GlobalHydra.instance() is theirs
    assert hydra.compose(overrides=["+mine=1"]).mine == 1


def test_in_threads_side_by_side(tmp_path: Path) -> None:
    made: list[hpo_bench.Results] = []

    def work(name: str) -> None:
        made.append(hpo_bench.run(results_dir=tmp_path / name, **SMALL))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "a")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    assert len({tuple(results.run_ids) for results in made}) == 1


def test_it_leaves_no_signal_handler_and_no_argument_behind(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    streams, arguments = (sys.stdout, sys.stderr), list(sys.argv)
    hpo_bench.run(results_dir=tmp_path, **SMALL)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert (sys.stdout, sys.stderr) == streams
    assert sys.argv == arguments


class Display:
    """What a notebook shows, and how it changes."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, what: object, *, display_id: bool) -> Display:
        assert display_id
        self.shown.append(repr(what))
        return self

    def update(self, what: object) -> None:
        self.shown.append(repr(what))


def test_a_notebook_shows_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Display()
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    reporter = progress.default_reporter()
    assert isinstance(reporter, progress.NotebookBar)
    reporter.every = 0
    with progress.Shown(reporter, "random on diabetes", 10, 5):
        reporter.advance(2)
        reporter.say("a line")
    assert shown.shown[0] == f"random on diabetes {'█' * 15}{'░' * 15}  50%"
    assert shown.shown[1].startswith(f"random on diabetes {'█' * 21}{'░' * 9}  70%, about")
    assert shown.shown[-1] == ""
    assert capsys.readouterr() == ("a line\n", "")
    hpo_bench.run(results_dir=tmp_path, **SMALL)
    assert shown.shown[-2].endswith("%") or "left" in shown.shown[-2]


def test_lines_wait_for_something_to_tell_of(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress.Lines(every=0)
    lines.begin("label", 10)
    for units in (0, 3, -3):  # a block that is computed again takes back what it had reported
        lines.advance(units)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("label: 30%, about")


# --- sweeps ---


def test_sweep_stores_what_a_multirun_stores(tmp_path: Path) -> None:
    results = hpo_bench.sweep(
        method=["random", "lorraine"],
        dataset="diabetes",
        seed=range(3),
        hyperparameter_updates=[2, 3],
        results_dir=tmp_path / "own",
    )
    words = [
        "method=random,lorraine",
        "dataset=diabetes",
        "seed=range(0,3)",
        "hyperparameter_updates=2,3",
        f"results_dir={tmp_path / 'command'}",
    ]
    assert command.call_hydra(command.split(["-m", *words])) == []
    assert sorted(results.run_ids) == folders(tmp_path / "command" / "runs")
    assert len(results) == 4
    assert len(results.final) == 12
    assert set(results.summary()["hyperparameter_updates"]) == {2, 3}
    again = hpo_bench.sweep(
        "method=random,lorraine",
        "seed=range(0,3)",
        "hyperparameter_updates=2,3",
        dataset="diabetes",
        results_dir=tmp_path / "own",
    )
    assert again.run_ids == results.run_ids


def test_a_list_of_a_list_setting_is_its_value(tmp_path: Path) -> None:
    shared = {**SMALL, "method": "ours_wd_lr_m", "repetitions": 1, "results_dir": tmp_path}
    one = hpo_bench.sweep(tuned=["lr", "momentum"], **shared)
    two = hpo_bench.sweep(tuned=[["lr"], ["momentum", "lr"]], **shared)
    assert len(one) == 1
    assert one.runs[0].config["tuned"] == ["lr", "momentum"]
    assert len(two) == 2
    assert one.run_ids[0] in two.run_ids
    assert set(two.final["tuned"]) == {("lr",), ("lr", "momentum")}


def test_look_backs_of_a_sweep_are_one_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hpo_bench.sweep(look_back=[1, 2, 3], **{**SMALL, "method": "lorraine"}, results_dir=tmp_path)
    assert "3 runs of lorraine on diabetes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"method": ["random", "rndom"]}, r"^method=rndom: no such method; did you mean"),
        ({"metod": ["random"]}, r"^metod: no such setting"),
        ({"method": []}, r"^method=\[\]: names no value"),
        ({"seed": [0, -1]}, r"^seed=-1: must be"),
        ({"seed": range(2000), "look_back": range(1, 1000)}, "more than 1000000 runs"),
    ],
    ids=str,
)
def test_mistakes_in_sweeps_are_one_line(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(hpo_bench.UserError, match=told):
        hpo_bench.sweep(**{**SMALL, **given}, results_dir=tmp_path)
    assert folders(tmp_path / "runs") == []


def test_a_launcher_goes_with_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(hpo_bench.UserError, match="in one pool"):
        hpo_bench.sweep("hydra/launcher=joblib", method=["random", "baydin"])


@pytest.mark.slow
def test_an_experiment_is_carried_out(tmp_path: Path) -> None:
    results = hpo_bench.run(
        experiment="batchnorm",
        scale="smoke",
        method=["random"],
        dataset=["diabetes"],
        repetitions=1,
        hyperparameter_updates=2,
        results_dir=tmp_path,
    )
    assert len(results) >= 1
    assert set(results.final["method"]) == {"random"}
    assert (tmp_path / "experiments").is_dir()


def test_settings_without_arguments_are_the_commands() -> None:
    from hpo_bench.settings.compose import DEFAULT

    assert compose(DEFAULT).method.name == "ours_wd_lr_m"
