"""Live trackers: what they are told, that they cost nothing when off, and that no run is lost to
one.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo_bench.errors import RunError, UserError
from hpo_bench.progress import Silent
from hpo_bench.running import tracking
from hpo_bench.running.execute import execute
from hpo_bench.running.identify import identify
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.run import TRACKERS
from hpo_bench.store.curves import LOSSES, finite_points, summarise
from hpo_bench.store.runs import read_table
from tests.event_files import scalars
from tests.make_store import make_run
from tests.problems import make_settings


class Saying(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Noting:
    """A backend that keeps what it is told."""

    def __init__(self, results_dir, run_id, config, known=None) -> None:
        self.run_id, self.known, self.logged, self.closed = run_id, known, {}, []
        self.id, self.shown = known or f"id of {run_id}", ()

    def log(self, axis, points) -> None:
        for step, values in points:
            self.logged.setdefault(axis, {})[step] = values

    def close(self, complete) -> None:
        self.closed.append(complete)


@pytest.fixture
def noting(monkeypatch):
    """The backends that are made."""
    made: list[Noting] = []

    def make(*arguments):
        made.append(Noting(*arguments))
        return made[-1]

    monkeypatch.setitem(tracking.BACKENDS, "tensorboard", make)
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    return made


# --- what is shown ---


def test_summaries_are_failure_aware(tmp_path):
    metric = np.array([[4.0, 1.0], [4.0, 2.0], [4.0, np.nan], [4.0, np.nan]])
    run = make_run(
        tmp_path,
        "random",
        "uci_energy",
        metric,
        lr=np.array([[0.1, 0.1], [0.3, 0.3], [9.0] * 2, [9.0] * 2]),
    )
    summary = summarise(read_table(run, "curves"), read_table(run, "final"))
    assert summary.index.tolist() == [0, 10]
    assert summary["n_ok"].tolist() == [4, 2]
    assert summary["test_metric/median"].tolist() == [4.0, np.inf]
    assert summary["test_metric/q25"].tolist() == [4.0, 1.0]
    assert summary["test_metric/q75"].tolist() == [4.0, np.inf]
    assert summary["lr/median"].tolist() == pytest.approx([4.65, 0.2])
    assert [set(values) for _, values in finite_points(summary)][1].isdisjoint(
        {"test_metric/median", "test_metric/q75"}
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 60))
def test_thinned_curves_keep_both_ends(rows, points):
    curves = pd.DataFrame(
        {"seed": 0, "step": np.arange(rows) * 3} | dict.fromkeys((*LOSSES, "lr"), 1.0)
    )
    final = pd.DataFrame({"seed": [0], "diverged_at": [np.nan], "initial_lr": [1.0]})
    steps = summarise(curves, final, points).index
    assert (steps[0], steps[-1]) == (0, 3 * (rows - 1))
    assert len(steps) == min(rows, points)


def test_columns_that_a_run_does_not_have_are_not_shown(tmp_path):
    run = execute(make_settings(tmp_path, "random")).run
    summary = summarise(read_table(run, "curves"), read_table(run, "final"))
    assert not any(name.startswith("validation_loss") for name in summary.columns)
    assert "train_loss/median" in summary.columns


def test_every_hyperparameter_of_a_rule_is_shown(tmp_path, noting):
    settings = make_settings(tmp_path, "random_adam", repetitions=3, tracker="tensorboard")
    run = execute(settings).run
    summary = summarise(read_table(run, "curves"), read_table(run, "final"))
    assert "beta1/median" in summary.columns
    assert not any(name.startswith("momentum") for name in summary.columns)
    (backend,) = noting
    assert set(backend.logged) == {"finished", "curves"}
    for points in backend.logged.values():
        assert all("beta1/median" in values for values in points.values())


# --- while a run is computed ---


def test_a_tracker_is_told_of_every_block_and_of_the_whole(tmp_path, noting):
    settings = make_settings(tmp_path, repetitions=5, chunk=2, workers=1, tracker="tensorboard")
    run = execute(settings).run
    (backend,) = noting
    assert (backend.run_id, backend.closed) == (run.run_id, [True])
    assert list(backend.logged["finished"]) == [2, 4, 5]
    final, curves = read_table(run, "final"), read_table(run, "curves")
    assert backend.logged["finished"][5]["n_ok"] == 5
    assert backend.logged["finished"][5]["test_metric/median"] == final.test_metric.median()
    assert list(backend.logged["curves"]) == list(range(51))
    for step, own in curves.groupby("step"):
        assert backend.logged["curves"][step]["lr/median"] == pytest.approx(
            own.lr.median(), rel=1e-12
        )


def test_a_resumed_or_finished_run_is_told_as_a_whole_once(tmp_path, noting):
    settings = make_settings(tmp_path, repetitions=3, tracker="tensorboard")
    execute(settings)
    execute(settings)
    assert len(noting) == 1


def test_a_tracker_decides_no_numbers(tmp_path, noting):
    one = execute(make_settings(tmp_path / "with", tracker="tensorboard")).run
    other = execute(make_settings(tmp_path / "without")).run
    parsed = [parse(compose([f"tracker={name}"])) for name in ("null", "wandb")]
    assert parsed[0].config["tracker"] != parsed[1].config["tracker"]
    assert len({identify(each, each.source.load(each.validation_share)) for each in parsed}) == 1
    pd.testing.assert_frame_equal(
        read_table(one, "curves").drop(columns="elapsed_s"),
        read_table(other, "curves").drop(columns="elapsed_s"),
    )


@pytest.mark.parametrize("when", ["log", "close"])
def test_a_tracker_that_fails_costs_no_run(tmp_path, noting, monkeypatch, when):
    def fail(*_: object) -> None:
        raise OSError("no space\nleft")

    monkeypatch.setattr(Noting, when, fail)
    reporter = Saying()
    outcome = execute(make_settings(tmp_path, tracker="tensorboard", chunk=1), reporter)
    assert outcome.run.status == "complete"
    failures = [line for line in reporter.lines if "tracker" in line]
    assert failures == ["tracker=tensorboard failed (no space left); the run goes on without it"]


def test_a_failed_run_is_closed_as_failed(tmp_path, noting, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("hpo_bench.running.trainer.Trainer.block", fail)
    with pytest.raises(RunError):
        execute(make_settings(tmp_path, tracker="tensorboard"))
    assert noting[0].closed == [False]


def test_mistakes_are_told_before_anything_is_computed(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"tracker=tensorbord: did you mean tensorboard"):
        parse(compose(["tracker=tensorbord"]))
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    for name, module in TRACKERS.items():
        text = rf"tracker={name}: {module} is not installed; pip install 'hpo-bench\[{name}\]'"
        with pytest.raises(UserError, match=text):
            execute(make_settings(tmp_path, tracker=name))
    assert not (tmp_path / "runs").exists()


def test_no_tracker_is_imported_when_none_is_asked_for(tmp_path):
    code = (
        "import sys; from pathlib import Path; from hpo_bench.running.execute import execute\n"
        "from tests.problems import make_settings; "
        f"execute(make_settings(Path({str(tmp_path)!r})))\n"
        f"print([name for name in {sorted(TRACKERS.values())} if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "[]"


# --- a tracker that does not answer ---


class Mute(Noting):
    """A backend whose ``hangs`` never ends, as far as a test can tell."""

    hangs = ""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.hang("start")

    def hang(self, name: str) -> None:
        if name == self.hangs:
            threading.Event().wait(30)

    def log(self, axis, points) -> None:
        self.hang(axis)

    def close(self, complete) -> None:
        self.hang("close")


@pytest.fixture
def impatient(monkeypatch):
    """Seconds become tenths, and a tracker that was silent in another test is asked again."""
    monkeypatch.setattr(tracking, "_SILENT_SINCE", {})
    monkeypatch.setattr(tracking, "START_SECONDS", 1.0)
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 1.0)


def test_a_tracker_that_does_not_answer_at_the_start_is_one_line_soon(
    tmp_path, noting, impatient, monkeypatch
):
    monkeypatch.setitem(tracking.BACKENDS, "tensorboard", Mute)
    monkeypatch.setattr(Mute, "hangs", "start")
    begin = time.monotonic()
    with pytest.raises(
        UserError, match=r"tracker=tensorboard: cannot be started \(no answer within 1 s\)"
    ):
        execute(make_settings(tmp_path, tracker="tensorboard"))
    assert time.monotonic() - begin < 20


def test_many_runs_wait_once_for_a_tracker_that_does_not_answer(
    tmp_path, noting, impatient, monkeypatch
):
    monkeypatch.setitem(tracking.BACKENDS, "tensorboard", Mute)
    monkeypatch.setattr(Mute, "hangs", "start")
    begin = time.monotonic()
    for number in range(
        3
    ):  # each of several runs that are computed together, of which the first alone is begun
        runs = [
            (
                make_settings(tmp_path, tracker="tensorboard"),
                f"run-{number}-{each}",
                tmp_path / f"{number}-{each}",
            )
            for each in range(4)
        ]
        with (
            pytest.raises(UserError, match=r"cannot be started \(no answer within 1 s"),
            tracking.Trackers(runs, Saying()),
        ):
            pass
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("hangs", ["finished", "curves", "close"])
def test_a_tracker_that_falls_silent_holds_no_run_up(
    tmp_path, noting, impatient, monkeypatch, hangs
):
    monkeypatch.setitem(tracking.BACKENDS, "tensorboard", Mute)
    monkeypatch.setattr(Mute, "hangs", hangs)
    reporter, begin = Saying(), time.monotonic()
    assert (
        execute(make_settings(tmp_path, tracker="tensorboard", chunk=1), reporter).run.status
        == "complete"
    )
    assert time.monotonic() - begin < 20
    failures = [line for line in reporter.lines if "tracker" in line]
    assert failures == [
        "tracker=tensorboard failed (no answer within 1 s); the run goes on without it"
    ]


def test_a_slow_tracker_loses_points_and_not_the_end(tmp_path, noting, monkeypatch):
    monkeypatch.setattr(tracking, "QUEUED", 1)
    original = Noting.log

    def slowly(self, axis, points) -> None:
        time.sleep(0.3)
        original(self, axis, points)

    monkeypatch.setattr(Noting, "log", slowly)
    reporter = Saying()
    execute(make_settings(tmp_path, tracker="tensorboard", repetitions=9, chunk=1), reporter)
    assert (
        sum(
            "is slow: points of some finished repetitions are left out" in line
            for line in reporter.lines
        )
        == 1
    )
    assert len(noting[0].logged["finished"]) < 9
    assert noting[0].logged["curves"]
    assert noting[0].closed == [True]


# --- a run that was interrupted ---


class Interrupted(BaseException):
    """What stands for a kill."""


class Killed:
    """Threads that are killed after two blocks."""

    def run(self, program, blocks, workers, reporter):
        for count, rows in enumerate(blocks):
            if count == 2:
                raise Interrupted
            yield program.block(rows)


def interrupted(folder: Path, tracker: str):
    """A run of four blocks that was killed after two of them, and then finished."""
    settings = make_settings(folder, repetitions=4, chunk=1, workers=1, tracker=tracker)
    with pytest.raises(Interrupted):
        execute(settings, pool=Killed())
    reporter = Saying()
    run = execute(settings, reporter).run
    assert not [line for line in reporter.lines if "tracker" in line]
    return run


@pytest.mark.parametrize(
    ("shown", "told"), [((), [1, 2, 3, 4]), ((1, 2), [3, 4]), ((1,), [2, 3, 4])]
)
def test_a_resumed_run_goes_on_in_the_trackers_run(tmp_path, noting, monkeypatch, shown, told):
    original = Noting.__init__

    def begin(self, *arguments) -> None:
        original(self, *arguments)
        self.shown = shown if self.known else ()

    monkeypatch.setattr(Noting, "__init__", begin)
    run = interrupted(tmp_path, "tensorboard")
    first, second = noting
    assert (first.known, second.known) == (None, f"id of {run.run_id}")
    assert (first.closed, second.closed) == ([False], [True])
    assert list(second.logged["finished"]) == told
    assert second.logged["finished"][4]["n_ok"] == 4
    assert not (run.path / "blocks").exists()


def test_what_tensorboard_shows_of_a_resumed_run_is_that_of_an_undisturbed_one(tmp_path):
    pytest.importorskip(
        "tensorboardX",
        reason="tensorboardX is not installed (pip install 'hpo-bench[tensorboard]')",
    )
    run = interrupted(tmp_path / "killed", "tensorboard")
    execute(
        make_settings(tmp_path / "whole", repetitions=4, chunk=1, workers=1, tracker="tensorboard")
    )
    one, other = (
        scalars(tmp_path / name / "tensorboard" / run.run_id) for name in ("killed", "whole")
    )
    assert one == other
    assert [step for step, _ in one["finished/n_ok"]] == [1, 2, 3, 4]


def test_what_mlflow_shows_of_a_resumed_run_is_one_finished_run(tmp_path, monkeypatch):
    pytest.importorskip(
        "mlflow", reason="mlflow is not installed (pip install 'hpo-bench[mlflow]')"
    )
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = interrupted(tmp_path, "mlflow")
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    (tracked,) = client.search_runs([client.get_experiment_by_name("hpo-bench").experiment_id])
    assert (tracked.info.run_name, tracked.info.status) == (run.run_id, "FINISHED")
    history = client.get_metric_history(tracked.info.run_id, "finished/n_ok")
    assert [metric.step for metric in history] == [1, 2, 3, 4]


def test_wandb_has_a_resumed_run_once(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed (pip install 'hpo-bench[wandb]')")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    interrupted(tmp_path, "wandb")
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


# --- the real ones, where they are installed ---


def test_an_mlflow_server_that_accepts_and_never_answers_is_one_line(
    tmp_path, monkeypatch, impatient
):
    pytest.importorskip(
        "mlflow", reason="mlflow is not installed (pip install 'hpo-bench[mlflow]')"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(
            UserError, match=rf"tracker=mlflow: cannot be started \(no answer from {address} within"
        ):
            execute(make_settings(tmp_path, tracker="mlflow"))


@pytest.mark.parametrize("content", [None, b"no database" * 100], ids=["folder", "text"])
def test_an_mlflow_database_that_cannot_be_opened_is_one_line(
    tmp_path, monkeypatch, capfd, content
):
    pytest.importorskip(
        "mlflow", reason="mlflow is not installed (pip install 'hpo-bench[mlflow]')"
    )
    database = tmp_path / "mlflow.db"
    database.mkdir() if content is None else database.write_bytes(content)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    begin = time.monotonic()
    with pytest.raises(
        UserError, match=rf"cannot be started \(MLFLOW_TRACKING_URI=sqlite:///{database}: "
    ):
        execute(make_settings(tmp_path, tracker="mlflow"))
    assert time.monotonic() - begin < 30
    assert capfd.readouterr().err == ""


def test_event_files_that_cannot_be_written_cost_no_run(tmp_path, monkeypatch):
    pytest.importorskip(
        "tensorboardX",
        reason="tensorboardX is not installed (pip install 'hpo-bench[tensorboard]')",
    )
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(
        UserError,
        match=r"tracker=tensorboard: cannot be started \(cannot write to .*Not a directory",
    ):
        execute(make_settings(tmp_path, tracker="tensorboard"))
    (tmp_path / "tensorboard").unlink()

    def full(self: object) -> None:
        raise OSError(28, "No space left on device")

    reporter = Saying()
    settings = make_settings(tmp_path, tracker="tensorboard")
    monkeypatch.setattr("tensorboardX.event_file_writer.EventsWriter.close", full)
    assert execute(settings, reporter).run.status == "complete"
    assert any(
        "tracker=tensorboard failed ([Errno 28] No space left on device)" in line
        for line in reporter.lines
    )


def test_tensorboard_event_files_are_written_and_read(tmp_path):
    pytest.importorskip(
        "tensorboardX",
        reason="tensorboardX is not installed (pip install 'hpo-bench[tensorboard]')",
    )
    run = execute(
        make_settings(tmp_path, repetitions=4, chunk=2, workers=1, tracker="tensorboard")
    ).run
    written = scalars(tmp_path / "tensorboard" / run.run_id)
    curves = read_table(run, "curves").groupby("step")
    assert [step for step, _ in written["finished/n_ok"]] == [2, 4]
    np.testing.assert_allclose(
        [value for _, value in written["curves/test_metric/median"]],
        curves.test_metric.median(),
        rtol=1e-6,
    )


def test_mlflow_keeps_the_curves(tmp_path, monkeypatch):
    pytest.importorskip(
        "mlflow", reason="mlflow is not installed (pip install 'hpo-bench[mlflow]')"
    )
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = execute(make_settings(tmp_path, tracker="mlflow")).run
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    (tracked,) = client.search_runs([client.get_experiment_by_name("hpo-bench").experiment_id])
    assert (tracked.info.run_name, tracked.info.status) == (run.run_id, "FINISHED")
    assert tracked.data.params["dataset.name"] == run.dataset
    history = client.get_metric_history(tracked.info.run_id, "curves/test_metric/median")
    medians = read_table(run, "curves").groupby("step").test_metric.median()
    assert {metric.step: metric.value for metric in history} == medians.to_dict()


def test_wandb_is_offline_and_keeps_the_curves(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed (pip install 'hpo-bench[wandb]')")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    reporter = Saying()
    run = execute(make_settings(tmp_path, tracker="wandb"), reporter).run
    assert not [line for line in reporter.lines if "failed" in line]
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    content = b"".join(path.read_bytes() for path in folder.glob("*.wandb"))
    assert run.run_id.encode() in content
    assert b"curves/test_metric/median" in content
