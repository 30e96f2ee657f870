"""Experiments carried out: cells together equal cells alone, work is shared and survives kills and
failures.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo_bench.experiments.carry_out import carry_out
from hpo_bench.experiments.expand import units
from hpo_bench.models.mlp import MLP
from hpo_bench.progress import Silent
from hpo_bench.running import tracking
from hpo_bench.running.execute import execute
from hpo_bench.running.pool import Threads
from hpo_bench.running.program import Program
from hpo_bench.store.runs import read_run, runs_folder
from hpo_bench.store.writer import Writer
from tests.experiments.make_jobs import cells, job, rows
from tests.problems import make_settings

ROOT = Path(__file__).resolve().parents[2]

# --- cells as rows of one program ---


@pytest.mark.parametrize("chunk", [None, 2, 100])
@pytest.mark.parametrize("method", ["ours_wd_lr_m", "ours_wd_hdlr_m", "diff_through_opt"])
def test_cells_together_are_the_runs_that_they_would_be_alone(
    tmp_path: Path, method: str, chunk: int | None
) -> None:
    kept = {"save_hypergradients": True, "save_weights": True, "repetitions": 3, "chunk": chunk}
    jobs = cells(tmp_path / "together", method, (1, 4, 2, 3), **kept)
    assert [len(unit) for unit in units(jobs)] == [4]
    assert carry_out(jobs, "").computed == 4
    for own in jobs:
        together = read_run(runs_folder(tmp_path / "together") / own.run_id)
        assert together is not None
        alone = execute(replace(own.settings, results_dir=tmp_path / "alone", chunk=None)).run
        assert (together.run_id, together.config_hash, together.seeds) == (
            alone.run_id,
            alone.config_hash,
            alone.seeds,
        )
        assert together.config["look_back"] == own.settings.look_back
        # one learning rate per weight: torch.pow rounds the last elements of a tensor in its own
        # way, cells or not
        tolerance = 1e-11 if "hdlr" in method else 0.0
        for table in ("final", "curves", "hypergradients"):
            pd.testing.assert_frame_equal(
                rows(together, table), rows(alone, table), rtol=tolerance, atol=0
            )
        archives = [np.load(run.path / "final_weights.npz") for run in (together, alone)]
        for name in archives[0].files:
            np.testing.assert_allclose(archives[0][name], archives[1][name], rtol=tolerance, atol=0)


def test_a_diverged_row_of_one_cell_leaves_the_others_whole(tmp_path: Path) -> None:
    start = replace(make_settings(tmp_path).start, log10_lr=(-2.0, 1.5))
    jobs = cells(
        tmp_path / "together",
        "ours_wd_lr_m",
        (1, 3),
        repetitions=6,
        start=start,
        chunk=100,
        clip_log10_lr=None,
    )
    carry_out(jobs, "")
    lengths = set()
    for own in jobs:
        together = read_run(runs_folder(tmp_path / "together") / own.run_id)
        assert together is not None
        alone = execute(replace(own.settings, results_dir=tmp_path / "alone")).run
        pd.testing.assert_frame_equal(
            rows(together, "curves"), rows(alone, "curves"), rtol=0, atol=0
        )
        lengths |= set(rows(together, "curves").groupby("seed").size())
    assert len(lengths) > 1, "some repetition was to diverge"


def test_interrupted_cells_are_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = cells(tmp_path, "ours_wd_lr_m", (1, 2, 3), repetitions=4, chunk=1, workers=1)
    whole = {
        own.run_id: execute(replace(own.settings, results_dir=tmp_path / "whole")).run
        for own in jobs
    }
    original, written = Writer.write_block, []

    def write(self: Writer, block: Any) -> None:
        if len(written) == 6:
            raise KeyboardInterrupt
        written.append(block.seeds)
        original(self, block)

    monkeypatch.setattr(Writer, "write_block", write)
    with pytest.raises(KeyboardInterrupt):
        carry_out(jobs, "")
    monkeypatch.setattr(Writer, "write_block", original)
    again = carry_out(jobs, "")
    assert (again.repetitions, again.computed, again.elsewhere) == (3 * 4 - 6, 2, 1)
    for own in jobs:
        run = read_run(runs_folder(tmp_path) / own.run_id)
        assert run is not None
        pd.testing.assert_frame_equal(
            rows(run, "curves"), rows(whole[own.run_id], "curves"), rtol=0, atol=0
        )


class Interrupted(BaseException):
    """What stands for a kill."""


class Stopping(Silent):
    """Keeps what is said, and stops the work after so many weight updates."""

    def __init__(self, updates: float = float("inf")) -> None:
        self.left, self.lines = updates, []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            raise Interrupted


def test_cells_are_computed_where_the_pool_is(tmp_path: Path) -> None:
    seen = []

    class Elsewhere:
        def run(self, program: Program, blocks: Any, workers: int, reporter: Any) -> Any:
            seen.append([settings.look_back for settings in program.runs])
            return Threads().run(program, blocks, workers, reporter)

    jobs = cells(tmp_path, "ours_wd_lr_m", (1, 2))
    assert carry_out(jobs, "", pool=Elsewhere()).computed == 2
    assert seen == [[1, 2]]


@pytest.mark.parametrize("chunk", [None, 4])
def test_cells_leave_checkpoints_and_go_on_from_them(tmp_path: Path, chunk: int | None) -> None:
    changes = {"repetitions": 2, "chunk": chunk, "workers": 1, "hyperparameter_updates": 10}
    jobs = cells(tmp_path, "ours_wd_lr_m", (1, 2, 3), checkpoint_every=0.0, **changes)
    with pytest.raises(Interrupted):
        carry_out(jobs, "", Stopping(6 * 20))
    files = list(tmp_path.glob("runs/*/blocks/checkpoint-*.npz"))
    assert files
    reporter = Stopping()
    assert carry_out(jobs, "", reporter).computed == 3
    assert any("from a checkpoint" in line for line in reporter.lines)
    assert not list(tmp_path.glob("runs/*/blocks"))
    for own in jobs:
        run = read_run(runs_folder(tmp_path) / own.run_id)
        assert run is not None
        alone = execute(
            replace(own.settings, results_dir=tmp_path / "alone", checkpoint_every=None)
        ).run
        pd.testing.assert_frame_equal(rows(run, "curves"), rows(alone, "curves"), rtol=0, atol=0)


def test_a_checkpoint_of_cells_is_nothing_to_one_of_them_alone(tmp_path: Path) -> None:
    jobs = cells(
        tmp_path, "ours_wd_lr_m", (1, 2), repetitions=2, chunk=4, workers=1, checkpoint_every=0.0
    )
    with pytest.raises(Interrupted):
        carry_out(jobs, "", Stopping(4 * 8))
    run = execute(jobs[0].settings).run
    alone = execute(
        replace(jobs[0].settings, results_dir=tmp_path / "alone", checkpoint_every=None)
    ).run
    pd.testing.assert_frame_equal(rows(run, "curves"), rows(alone, "curves"), rtol=0, atol=0)
    assert carry_out(jobs, "").computed == 1


def test_cells_for_which_there_is_not_enough_memory_are_computed_in_halves(tmp_path: Path) -> None:
    jobs = cells(tmp_path, "ours_wd_lr_m", (1, 2, 3), repetitions=2, chunk=6)
    narrow = [replace(own, settings=replace(own.settings, model=Narrow(2))) for own in jobs]
    reporter = Stopping()
    assert carry_out(narrow, "", reporter).computed == 3
    assert "not enough memory for 6 repetitions at once: going on with 3" in reporter.lines
    for own in jobs:
        run = read_run(runs_folder(tmp_path) / own.run_id)
        assert run is not None
        alone = execute(replace(own.settings, results_dir=tmp_path / "alone")).run
        pd.testing.assert_frame_equal(rows(run, "curves"), rows(alone, "curves"), rtol=0, atol=0)


def test_each_cell_has_its_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    class Noting:
        def __init__(self, results_dir: Path, run_id: str, config: Any, known: str | None) -> None:
            self.id, self.shown = run_id, ()

        def log(self, axis: str, points: Any) -> None:
            pass

        def close(self, complete: bool) -> None:
            closed.append((self.id, complete))

    monkeypatch.setitem(tracking.BACKENDS, "tensorboard", Noting)
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    jobs = cells(tmp_path, "ours_wd_lr_m", (1, 2), tracker="tensorboard")
    carry_out(jobs, "")
    assert sorted(closed) == sorted((own.run_id, True) for own in jobs)


def test_cells_fail_without_their_tracker_as_one_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    jobs = cells(tmp_path, "ours_wd_lr_m", (1, 2), tracker="tensorboard")
    tally = carry_out(jobs, "")
    assert tally.failed.keys() == {own.run_id for own in jobs}
    alone = carry_out(cells(tmp_path, "ours_wd_lr_m", (3,), tracker="tensorboard"), "")
    assert len(alone.failed) == 1
    messages = {str(error) for error in (*tally.failed.values(), *alone.failed.values())}
    assert len(messages) == 1, "two cells of one program fail as one alone does"
    assert "tensorboardX is not installed" in messages.pop()
    assert not (tmp_path / "runs").exists()


# --- failures ---


@dataclass(frozen=True)
class Narrow:
    """A model with memory for ``rows`` repetitions at once."""

    rows: int

    def build(self, *arguments: Any) -> Any:
        model = MLP((7,)).build(*arguments)
        linearise = model.linearise

        def narrow(weights: Any, *others: Any) -> Any:
            if len(weights) > self.rows:
                raise MemoryError
            return linearise(weights, *others)

        model.linearise = narrow  # type: ignore[method-assign]
        return model


@dataclass(frozen=True)
class Broken:
    """A model that cannot be trained."""

    def build(self, *arguments: Any) -> Any:
        model = MLP((3,)).build(*arguments)

        def linearise(*_: Any) -> None:
            raise RuntimeError("out of memory, or so")

        model.linearise = linearise  # type: ignore[method-assign]
        return model


def test_others_go_on_when_a_run_fails(tmp_path: Path) -> None:
    broken = [
        replace(own, settings=replace(own.settings, model=Broken()))
        for own in cells(tmp_path, "lorraine", (1, 2))
    ]
    good = job(make_settings(tmp_path, "random"))
    tally = carry_out([*broken, good], "")
    assert (tally.computed, set(tally.failed)) == (1, {own.run_id for own in broken})
    for own in broken:
        run = read_run(runs_folder(tmp_path) / own.run_id)
        assert run is not None
        assert (run.status, run.error) == ("failed", "out of memory, or so")
    again = carry_out(cells(tmp_path, "lorraine", (1, 2)), "")
    assert (again.computed, again.failed) == (2, {})


# --- sharing the work ---


def test_a_locked_run_is_left_to_the_other_and_met_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [*cells(tmp_path, "ours_wd_lr_m", (1, 2)), job(make_settings(tmp_path, "random"))]
    first = jobs[0]
    writer = Writer(tmp_path, first.run_id).__enter__()  # another process works on it, and dies
    timer = threading.Timer(1.0, lambda: writer.__exit__())
    timer.start()
    tally = carry_out(jobs, "")
    timer.join()
    assert (tally.computed, tally.elsewhere, tally.failed) == (3, 0, {})


CONCURRENT = """
import sys
from pathlib import Path
from hpo_bench.experiments.carry_out import carry_out
from hpo_bench.experiments.expand import expand
from hpo_bench.store.writer import Writer
from tests.experiments.make_jobs import SMALL, experiment
from dataclasses import replace
original = Writer.write_block
def write(self, block):
    with open(sys.argv[2], "a") as log:
        log.write(f"{self.path.name} {block.seeds}\\n")
    original(self, block)
Writer.write_block = write
methods = ("random", "lorraine", "baydin", "ours_wd_lr", "ours_wd_lr_m")
part = replace(SMALL, repetitions=4, methods=methods,
               overrides=("hyperparameter_updates=%s", "chunk=2", "workers=1"))
print("ready", flush=True)
tally = carry_out(expand(experiment(part), Path(sys.argv[1])).jobs, "")
print(tally.computed, tally.elsewhere, len(tally.failed))
"""


def start(folder: Path, updates: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CONCURRENT % updates, str(folder), str(folder / "log")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)


def blocks(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines() if (folder / "log").exists() else []


@pytest.mark.slow
def test_two_processes_share_an_experiment(tmp_path: Path) -> None:
    processes = [start(tmp_path, 4) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split()[1:] for process in processes]
    computed, elsewhere, failed = (sum(int(output[at]) for output in outputs) for at in range(3))
    assert computed == 5
    assert (elsewhere, failed) == (5, 0)
    assert len(blocks(tmp_path)) == len(set(blocks(tmp_path))) == 10
    assert len(list(runs_folder(tmp_path).glob("*/run.json"))) == 5


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_experiment_loses_the_blocks_in_flight_alone(tmp_path: Path) -> None:
    process = start(tmp_path, 30)
    limit = time.monotonic() + 60
    while len(blocks(tmp_path)) < 3 and time.monotonic() < limit:
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = blocks(tmp_path)
    assert 3 <= len(before) < 10
    again = start(tmp_path, 30)
    assert again.communicate(timeout=120)[0].split()[3] == "0"
    done = blocks(tmp_path)
    assert len(set(done)) == 10
    assert len(done) - len(set(done)) <= 1, "the block in flight was computed again, nothing else"
    assert len(list(runs_folder(tmp_path).glob("*/run.json"))) == 5
