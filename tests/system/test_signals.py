"""SIGTERM: blocks in training write a checkpoint, whatever was asked for, and the same command goes
on from it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hpo_bench.progress import Silent
from hpo_bench.running.execute import execute
from hpo_bench.search.asha import ASHA
from hpo_bench.search.pbt import PopulationBasedTraining
from hpo_bench.store.runs import read_table
from hpo_bench.system import signals
from tests.problems import make_method, make_settings

COLUMNS = ["seed", "step", "train_loss", "test_metric", "lr"]


class Terminating(Silent):
    """Sends the signal once so much is done."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)

    def advance(self, units: int) -> None:
        """Count down."""
        self.after -= units
        if self.after <= 0:
            os.kill(os.getpid(), signal.SIGTERM)
            self.after = 10**9
            time.sleep(0.1)


@pytest.mark.parametrize(
    "search", [None, ASHA(trials=8, grace=100), PopulationBasedTraining(population=4, interval=100)]
)
def test_a_checkpoint_is_left_without_being_asked_for(tmp_path: Path, search: object) -> None:
    method = make_method("random_validation", search=search) if search else "ours_wd_lr_m"
    changes = {"hyperparameter_updates": 40, "repetitions": 2, "workers": 1, "record_every": 10}
    whole = execute(make_settings(tmp_path / "whole", method, **changes)).run
    settings = make_settings(tmp_path / "parts", method, **changes)
    with pytest.raises(signals.Terminated), signals.handled():
        execute(settings, Terminating(300))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert len(list((tmp_path / "parts").rglob("checkpoint-*.npz"))) >= 1
    telling = Terminating(10**9)
    resumed = execute(settings, telling).run
    assert any("from a checkpoint" in line for line in telling.said)
    assert read_table(resumed, "curves", COLUMNS).equals(read_table(whole, "curves", COLUMNS))
    assert not list((tmp_path / "parts").rglob("checkpoint-*.npz"))


def test_what_is_being_written_is_finished_first() -> None:
    done = []
    with pytest.raises(signals.Terminated), signals.handled():  # noqa: PT012
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            done.append("written")
        done.append("not reached")
    assert done == ["written"]


def test_it_is_raised_once() -> None:
    with pytest.raises(signals.Terminated), signals.handled():  # noqa: PT012
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # checkpoints are being written
            time.sleep(0.05)


def test_the_handlers_of_others_are_left_alone() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        mine = signal.getsignal(signal.SIGTERM)
        with signals.handled():
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)

    def elsewhere() -> None:
        with signals.handled(), signals.deferred():
            found.append(signal.getsignal(signal.SIGTERM))

    found: list[object] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.slow
def test_the_command_ends_with_143_and_goes_on(tmp_path: Path) -> None:
    arguments = [
        "run",
        "method=ours_wd_lr_m",
        "dataset=diabetes",
        "repetitions=2",
        "results_dir=results",
    ]
    command = [
        sys.executable,
        "-m",
        "hpo_bench",
        *arguments,
        "hyperparameter_updates=20000",
        "record_every=1000",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "repetitions on" in process.stderr.readline()
    time.sleep(1)
    process.terminate()
    *_, last = process.stderr.read().splitlines()
    assert process.wait() == 143
    assert last == "terminated; run the same command again to go on"
    assert list(tmp_path.rglob("checkpoint-*.npz"))


@pytest.mark.slow
def test_the_same_command_twice_at_once_is_computed_once(tmp_path: Path) -> None:
    arguments = [
        "run",
        "-m",
        "method=random,baydin",
        "dataset=diabetes",
        "repetitions=2",
        "results_dir=results",
    ]
    command = [
        sys.executable,
        "-m",
        "hpo_bench",
        *arguments,
        "hyperparameter_updates=800",
        "record_every=1000",
    ]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("repetitions on" in line for text in said for line in text.splitlines()) == 2
    assert any("is computing it; waiting" in text for text in said)
    assert any("stored by the other process" in text for text in said)


@pytest.mark.slow
def test_workers_of_joblib_write_their_checkpoints_first(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    arguments = [
        "run",
        "-m",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "method=ours_wd_lr_m,baydin",
    ]
    lasting = [
        "dataset=diabetes",
        "repetitions=1",
        "hyperparameter_updates=100000",
        "record_every=1000",
    ]
    command = [sys.executable, "-m", "hpo_bench", *arguments, *lasting, "results_dir=results"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    begun = [process.stderr.readline() for _ in range(2)]
    assert all("repetition on" in line for line in begun), begun
    time.sleep(1)
    process.terminate()
    said = process.stderr.read().splitlines()
    assert process.wait() == 143
    # a process of joblib's own that outlives the program may add a warning of what it tidies up
    assert said.count("terminated; run the same command again to go on") == 1, said
    assert len(list(tmp_path.rglob("checkpoint-*.npz"))) == 2
    assert not list(tmp_path.rglob(".lock"))
