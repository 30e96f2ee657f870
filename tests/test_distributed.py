"""Pools beyond this process: rows are those of threads, bit by bit, whatever node computed them and how often."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpo_bench import distributed
from hpo_bench.distributed import open_pool
from hpo_bench.distributed.ray_pool import LEAST_ROWS, Loaded, RayPool, Slots, divide, slots
from hpo_bench.errors import RunError, UserError
from hpo_bench.experiment import Threads, Trainer, execute, pick_device
from hpo_bench.progress import Silent
from hpo_bench.reproduce import carry_out
from hpo_bench.settings import Settings
from hpo_bench.store import Run, Writer, read_run, read_table, runs_folder, scan
from tests.failing import Dying, Failing
from tests.problems import make_settings, make_table
from tests.test_reproduce import cells

TIMINGS = ["seconds", "rows_in_block", "elapsed_s"]


def assert_same(one: Run, other: Run) -> None:
    """Same repetitions, each once, same numbers bit by bit."""
    assert one.run_id == other.run_id
    for table in ("final", "curves"):
        frames = [read_table(run, table).drop(columns=TIMINGS, errors="ignore") for run in (one, other)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)


# --- what --on may say ---


def test_threads_are_the_default():
    assert open_pool() == open_pool("threads") == Threads()


@pytest.mark.parametrize("where", ["rya", "RAY", "ray:", "ray://", "slurm", "threads://x", ""])
def test_another_place_is_one_line_with_what_is_allowed(where):
    with pytest.raises(UserError) as caught:
        open_pool(where)
    assert str(caught.value).startswith(f"--on {where}: ")
    assert all(place in str(caught.value) for place in distributed.PLACES)
    assert "\n" not in str(caught.value)


def test_without_the_extra_its_install_command_is_named(monkeypatch):
    monkeypatch.setattr(distributed, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--on ray: Ray is not installed; pip install 'hpo-bench\[ray\]'"):
        open_pool("ray")


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":6379", "localhost:ray", "localhost:99999"])
def test_an_address_without_host_and_port_is_refused(monkeypatch, address):
    monkeypatch.setattr(distributed, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="must be ray://HOST:PORT"):
        open_pool(f"ray://{address}")


def test_where_nothing_answers_is_one_line_at_once(monkeypatch):
    monkeypatch.setattr(distributed, "find_spec", lambda name: name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UserError, match=f"--on ray://127.0.0.1:{port}: nothing answers there"):
        open_pool(f"ray://127.0.0.1:{port}")


def test_the_command_line_takes_the_place(tmp_path):
    command = [sys.executable, "-m", "hpo_bench", "run", "--on", "rayy", f"results_dir={tmp_path}", "dataset=diabetes"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --on rayy: did you mean ray")


# --- how blocks are divided and sent ---


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 100))
def test_divided_blocks_hold_every_seed_once_in_order_and_stay_large(sizes, slots):
    seeds = iter(range(sum(sizes)))
    blocks = [[next(seeds) for _ in range(size)] for size in sizes]
    parts = divide(blocks, slots)
    assert [seed for part in parts for seed in part] == list(range(sum(sizes)))
    assert min(map(len, parts)) >= min(LEAST_ROWS, *sizes)
    if len(blocks) >= slots:
        assert parts == blocks
    elif all(size >= LEAST_ROWS * slots for size in sizes):
        assert len(parts) >= slots


def test_what_is_sent_needs_no_file_and_may_be_written_to():
    table = make_table()
    table.inputs.flags.writeable = table.targets.flags.writeable = False
    loaded = Loaded(table).load(0.25)
    np.testing.assert_array_equal(loaded.inputs, table.inputs)
    assert loaded.inputs.flags.writeable
    assert loaded.targets.flags.writeable
    assert loaded.fingerprint == table.fingerprint


@dataclass(frozen=True)
class Cluster:
    """What `slots` asks of Ray: nodes with resources."""

    resources: tuple[dict[str, float], ...]

    def nodes(self):
        return [{"Alive": True, "Resources": node} for node in self.resources] + [
            {"Alive": False, "Resources": {"CPU": 1000.0, "GPU": 1000.0}}
        ]


def trainer_on(tmp_path: Path, device: str, workers: int | None = None) -> Trainer:
    settings = make_settings(tmp_path, device=device, workers=workers)
    trainer = Trainer.of(settings, settings.source.load(0.25), pick_device("cpu"))
    return replace(trainer, device=torch.device(device))


def test_a_block_takes_a_cpu_or_its_share_of_a_gpu(tmp_path):
    mixed = Cluster(({"CPU": 4.0}, {"CPU": 16.0, "GPU": 2.0}))
    assert slots(mixed, trainer_on(tmp_path, "cpu"), 2) == Slots(20, 1, 0.0, 16)
    assert slots(mixed, trainer_on(tmp_path, "cpu", workers=3), 3).count == 3
    assert slots(mixed, trainer_on(tmp_path, "cuda"), 1) == Slots(2, 1, 1.0, 16)
    assert slots(mixed, trainer_on(tmp_path, "cuda", workers=4), 4) == Slots(8, 1, 0.25, 16)


def test_a_cluster_without_the_device_is_one_line(tmp_path):
    with pytest.raises(UserError, match="device=cuda: no node of the Ray cluster has a GPU; device=cpu works"):
        slots(Cluster(({"CPU": 4.0},)), trainer_on(tmp_path, "cuda"), 1)


# --- Ray on this machine ---


class Counting(Silent):
    """Adds up what is told."""

    def __init__(self) -> None:
        self.units, self.lines = 0, []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, units: int) -> None:
        assert units > 0
        self.units += units


@pytest.fixture(scope="module")
def pool():
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'hpo-bench[ray]')")
    pool = RayPool(cpus=2)
    yield pool
    pool.close()


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_rows_from_ray_are_those_of_threads(tmp_path, pool, chunk):
    settings = make_settings(tmp_path / "ray", repetitions=18, chunk=chunk, save_hypergradients=True)
    reporter = Counting()
    outcome = execute(settings, reporter, pool)
    assert outcome.computed == 18
    assert reporter.units == 18 * settings.weight_updates
    assert_same(outcome.run, execute(replace(settings, results_dir=tmp_path / "here")).run)


def test_cells_of_a_grid_are_rows_of_one_program_on_ray_too(tmp_path, pool):
    jobs = cells(tmp_path / "ray", "ours_wd_lr_m", (1, 3), repetitions=5, chunk=4)
    assert carry_out(jobs, "", pool=pool).computed == 2
    for own in jobs:
        run = read_run(runs_folder(tmp_path / "ray") / own.run_id)
        assert_same(run, execute(replace(own.settings, results_dir=tmp_path / "here")).run)


def test_only_what_is_missing_goes_to_ray(tmp_path, pool):
    settings = make_settings(tmp_path / "ray", repetitions=5, chunk=1)
    reference = execute(replace(settings, results_dir=tmp_path / "here")).run
    trainer = Trainer.of(settings, settings.source.load(0.25), pick_device("cpu"))
    with Writer(settings.results_dir, reference.run_id) as writer:
        writer.write_block(trainer.block([1]))
        writer.write_block(trainer.block([3]))
    outcome = execute(settings, pool=pool)
    assert outcome.computed == 3
    assert_same(outcome.run, reference)


def test_a_start_file_need_not_be_on_the_nodes(tmp_path, pool):
    settings = make_settings(tmp_path / "here", repetitions=4, seed=3, chunk=1)
    trainer = Trainer.of(settings, settings.source.load(0.25), pick_device("cpu"))
    drawn = trainer.start(range(4))
    weights = {f"w0/{name}": array for name, array in trainer.model.layout.arrays(drawn.weights.numpy()).items()}
    file = tmp_path / "init.npz"
    np.savez(file, **weights, **{f"raw/{name}": value.numpy()[:, 0] for name, value in drawn.raw.items()})
    settings = replace(settings, start=replace(settings.start, file=file))
    here = execute(settings).run
    assert_same(execute(replace(settings, results_dir=tmp_path / "ray"), pool=pool).run, here)


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (UserError("chunk=99: not here"), UserError, "^chunk=99: not here$"),
        (RuntimeError("out of memory\nsecond line"), RunError, "failed: out of memory; finished blocks are kept"),
    ],
)
def test_what_a_block_raises_surfaces_as_one_line(tmp_path, pool, error, expected, text):
    settings = make_settings(tmp_path, model=Failing(error, os.getpid()), chunk=1)
    with pytest.raises(expected, match=text) as caught:
        execute(settings, pool=pool)
    assert "\n" not in str(caught.value)


def dying(tmp_path: Path, times: int) -> Settings:
    (tmp_path / "marks").mkdir()
    model = Dying(tmp_path / "marks", times, os.getpid())
    return make_settings(tmp_path / "ray", model=model, repetitions=3, chunk=1, workers=1)


def test_a_lost_process_costs_its_block_only_and_no_row_is_doubled(tmp_path, pool):
    run = execute(dying(tmp_path, 2), pool=pool).run
    assert len(list((tmp_path / "marks").iterdir())) == 2
    assert Counter(read_table(run, "final").seed) == {0: 1, 1: 1, 2: 1}
    here = execute(make_settings(tmp_path / "here", repetitions=3)).run
    for table in ("final", "curves"):
        frames = [read_table(each, table).drop(columns=TIMINGS, errors="ignore") for each in (run, here)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_a_block_that_kills_every_process_ends_the_run_with_one_line(tmp_path, pool):
    with pytest.raises(RunError, match="Ray gave up on seeds 0 to 0") as caught:
        execute(dying(tmp_path, 99), pool=RayPool(retries=1))
    assert "\n" not in str(caught.value)
    assert len(list((tmp_path / "marks").iterdir())) == 2
    (folder,) = (tmp_path / "ray" / "runs").glob("*/")
    assert read_run(folder).status == "failed"


@pytest.mark.slow
def test_a_killed_node_of_two_costs_no_row_and_no_bit(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'hpo-bench[ray]')")
    script = Path(__file__).resolve().parent.parent / "scripts" / "ray_two_nodes.py"
    command = [sys.executable, str(script), str(tmp_path), "--blocks", "12", "--updates", "100"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ray lost the node 127.0.0.2" in done.stdout
    (local,), (cluster,) = (list(scan(tmp_path / name)) for name in ("local", "cluster"))
    assert_same(cluster, local)
