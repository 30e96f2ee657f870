"""Pools beyond this process: rows are those of threads, bit by bit, whatever node computed them and
how often.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpo_bench.errors import RunError, UserError
from hpo_bench.experiments.carry_out import carry_out
from hpo_bench.progress import Silent
from hpo_bench.running import places as distributed
from hpo_bench.running import probe, ray_pool
from hpo_bench.running.execute import execute
from hpo_bench.running.places import open_pool
from hpo_bench.running.pool import Threads
from hpo_bench.running.ray_pool import (
    LEAST_ROWS,
    ClusterWatch,
    RayPool,
    SentTable,
    Slots,
    divide,
    slots,
    within,
)
from hpo_bench.running.trainer import Trainer, pick_device
from hpo_bench.settings.run import Settings
from hpo_bench.store.runs import Run, read_run, read_table, runs_folder, scan
from hpo_bench.store.writer import Writer
from tests.experiments.make_jobs import cells
from tests.experiments.test_carry_out import Narrow
from tests.failing import SAID, Dying, Failing, Raising
from tests.problems import make_settings, make_table

TIMINGS = ["seconds", "rows_in_block", "elapsed_s"]


def assert_same(one: Run, other: Run) -> None:
    """Same repetitions, each once, same numbers bit by bit."""
    assert one.run_id == other.run_id
    for table in ("final", "curves"):
        frames = [
            read_table(run, table).drop(columns=TIMINGS, errors="ignore") for run in (one, other)
        ]
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
    with pytest.raises(
        UserError, match=r"--on ray: Ray is not installed; pip install 'hpo-bench\[ray\]'"
    ):
        open_pool("ray")


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:", ":6379", "localhost:ray", "localhost:99999"]
)
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
    command = [
        sys.executable,
        "-m",
        "hpo_bench",
        "run",
        "--on",
        "rayy",
        f"results_dir={tmp_path}",
        "dataset=diabetes",
    ]
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
    loaded = SentTable(table).load(0.25)
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
    assert slots(mixed.nodes(), trainer_on(tmp_path, "cpu"), 2) == Slots(20, 1, 0.0, 16)
    assert slots(mixed.nodes(), trainer_on(tmp_path, "cpu", workers=3), 3).count == 3
    assert slots(mixed.nodes(), trainer_on(tmp_path, "cuda"), 1) == Slots(2, 1, 1.0, 16)
    assert slots(mixed.nodes(), trainer_on(tmp_path, "cuda", workers=4), 4) == Slots(8, 1, 0.25, 16)


def test_a_cluster_without_the_device_is_one_line(tmp_path):
    with pytest.raises(
        UserError, match="device=cuda: no node of the Ray cluster has a GPU; device=cpu works"
    ):
        slots(Cluster(({"CPU": 4.0},)).nodes(), trainer_on(tmp_path, "cuda"), 1)


# --- nothing waits for ever, or in silence ---


class Web(BaseHTTPRequestHandler):
    """A server that is not Ray."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["mute", "web"])
def other(request):
    """The port of something that is not Ray."""
    if request.param == "mute":
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]
        return
    with HTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_what_listens_without_being_ray_is_one_line_in_bounded_time(monkeypatch, capfd, other):
    pytest.importorskip("grpc", reason="Ray is not installed (pip install 'hpo-bench[ray]')")
    monkeypatch.setattr(distributed, "find_spec", lambda name: name)
    monkeypatch.setattr(probe, "CONNECT_SECONDS", 0.5)
    with pytest.raises(
        UserError,
        match=f"--on ray://127.0.0.1:{other}: something listens there, but does not answer",
    ):
        open_pool(f"ray://127.0.0.1:{other}")
    assert capfd.readouterr() == ("", "")


def test_auto_is_the_cluster_of_the_environment_or_one_line(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:7")
    assert probe.locate("auto") == "127.0.0.1:7"
    assert probe.locate("127.0.0.1:9") == "127.0.0.1:9"
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(probe, "_of_this_machine", lambda: None)
    with pytest.raises(UserError, match="--on ray://auto: this machine belongs to no Ray cluster"):
        probe.locate("auto")


@pytest.mark.parametrize("where", ["auto", "127.0.0.1:6379", "head:10001"])
def test_an_address_without_its_scheme_is_completed_in_the_error(where):
    with pytest.raises(UserError, match=f"--on {where}: did you mean ray://{where}"):
        open_pool(where)


def test_what_never_ends_is_left():
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer"):
        within(0.05, lambda: time.sleep(5))
    assert time.monotonic() - begin < 4
    with pytest.raises(KeyError):
        within(5, lambda: {}["missing"])


class StubRay:
    """A Ray whose tasks never begin."""

    class exceptions:
        RayError = OSError

    def __init__(self, *nodes: dict[str, float]) -> None:
        self.resources = nodes

    def nodes(self):
        return [
            {"Alive": True, "NodeID": str(at), "NodeManagerAddress": "host", "Resources": node}
            for at, node in enumerate(self.resources)
        ]

    def put(self, value):
        return value

    def remote(self, *_: object, **__: object):
        return self

    options = report = read = forget = remote

    def __getattr__(self, name):
        return self.remote if name in ("remote", "options") else None

    def wait(self, pending, **_: object):
        time.sleep(0.005)
        return [], pending

    def get(self, *_: object, **__: object):
        return {}

    def cancel(self, *_: object, **__: object):
        pass


class StubProgress:
    """Tells of no progress."""

    def __init__(self) -> None:
        self.read = self.forget = self

    def remote(self, *_: object):
        return None


def waiting(monkeypatch, tmp_path, nodes, answering=True, patience=0.2):
    """What is said, and the error, when blocks wait on a cluster of these nodes."""
    for name, seconds in {
        "IDLE_SECONDS": 0.01,
        "START_SECONDS": 0.01,
        "REMIND_SECONDS": 0.02,
        "POLL_SECONDS": 0.01,
        "HEARTBEAT_SECONDS": 0.01,
        "LOST_SECONDS": 0.2,
    }.items():
        monkeypatch.setattr(ray_pool, name, seconds)
    monkeypatch.setattr(ray_pool, "answers", lambda place, kind: answering)
    ray, reporter, pool = StubRay(*nodes), Counting(), RayPool(patience=patience)
    watch = ClusterWatch(ray, "host:1", probe.AddressKind.CLUSTER)
    pool._progress = StubProgress()
    monkeypatch.setattr(pool, "_connect", lambda reporter: (ray, watch))
    with pytest.raises(RunError) as caught:
        execute(make_settings(tmp_path, chunk=1), reporter, pool)
    watch.close()
    return reporter.lines[1:], str(caught.value)


def test_a_cluster_without_cpus_is_said_again_and_again_and_given_up(tmp_path, monkeypatch):
    lines, error = waiting(monkeypatch, tmp_path, [{"memory": 1.0}])
    assert len(lines) >= 3
    assert all(
        line.startswith("no node of the Ray cluster has a CPU (1 node, 0 CPUs, 0 GPUs): wait")
        for line in lines
    )
    assert (
        "failed: no node of the Ray cluster has a CPU (1 node, 0 CPUs, 0 GPUs), nor has one come in"
        in error
    )


def test_a_cluster_that_others_use_is_waited_for_with_a_line_until_it_is_lost(
    tmp_path, monkeypatch
):
    lines, error = waiting(monkeypatch, tmp_path, [{"CPU": 2.0}], answering=False)
    assert lines
    assert all("Ray (1 node, 2 CPUs, 0 GPUs) has begun no block for" in line for line in lines)
    assert (
        "failed: the Ray cluster no longer answers; finished blocks are kept, 0 of 3 repetitions"
        in error
    )


# --- Ray on this machine ---


class Counting(Silent):
    """Adds up what is told."""

    def __init__(self) -> None:
        self.units, self.lines = 0, []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, units: int) -> None:
        self.units += units


@pytest.fixture(scope="module")
def pool():
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'hpo-bench[ray]')")
    pool = RayPool(cpus=2)
    yield pool
    pool.close()


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_rows_from_ray_are_those_of_threads(tmp_path, pool, chunk):
    settings = make_settings(
        tmp_path / "ray", repetitions=18, chunk=chunk, save_hypergradients=True
    )
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
    weights = {
        f"w0/{name}": array
        for name, array in trainer.model.layout.arrays(drawn.weights.numpy()).items()
    }
    file = tmp_path / "init.npz"
    np.savez(
        file, **weights, **{f"raw/{name}": value.numpy()[:, 0] for name, value in drawn.raw.items()}
    )
    settings = replace(settings, start=replace(settings.start, file=file))
    here = execute(settings).run
    assert_same(execute(replace(settings, results_dir=tmp_path / "ray"), pool=pool).run, here)


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (UserError("chunk=99: not here"), UserError, "^chunk=99: not here$"),
        (
            RuntimeError("out of memory\nsecond line"),
            RunError,
            "failed: out of memory; finished blocks are kept",
        ),
    ],
)
def test_what_a_block_raises_surfaces_as_one_line(tmp_path, pool, error, expected, text):
    settings = make_settings(tmp_path, model=Failing(error, os.getpid()), chunk=1)
    with pytest.raises(expected, match=text) as caught:
        execute(settings, pool=pool)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "text"), SAID.items())
def test_what_a_users_own_class_says_comes_back_from_a_node(tmp_path, pool, name, text):
    with pytest.raises(RunError, match=f"failed: {text}; finished blocks are kept") as caught:
        execute(make_settings(tmp_path, model=Raising(name), chunk=1), pool=pool)
    assert "\n" not in str(caught.value)


def test_a_block_for_which_a_node_has_not_enough_memory_is_computed_in_halves(tmp_path, pool):
    settings = make_settings(tmp_path / "narrow", repetitions=5, chunk=5)
    reporter = Counting()
    narrow = execute(replace(settings, model=Narrow(2)), reporter, pool).run
    assert "not enough memory for 5 repetitions at once: going on with 3" in reporter.lines
    assert_same(narrow, execute(replace(settings, results_dir=tmp_path / "wide")).run)


def test_ray_leaves_the_signals_to_the_program(tmp_path, pool):
    before = signal.getsignal(signal.SIGTERM)
    execute(make_settings(tmp_path), pool=pool)
    assert signal.getsignal(signal.SIGTERM) is before
    assert "ray" not in str(getattr(before, "__module__", ""))


def test_the_ports_of_a_cluster_are_told_from_others(pool, tmp_path):
    execute(make_settings(tmp_path), pool=pool)
    place = pool._watch._place
    assert probe.ask(place) is probe.AddressKind.CLUSTER
    assert probe.answers(place, probe.AddressKind.CLUSTER)
    assert not probe.answers(place, probe.AddressKind.CLIENT)
    assert probe.check_address(place) is probe.AddressKind.CLUSTER


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
        frames = [
            read_table(each, table).drop(columns=TIMINGS, errors="ignore") for each in (run, here)
        ]
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
    script = Path(__file__).resolve().parents[2] / "scripts" / "ray_two_nodes.py"
    # So many blocks that the run goes on for seconds after the kill, however late the worker is.
    command = [sys.executable, str(script), str(tmp_path), "--blocks", "36", "--updates", "2000"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ray lost the node 127.0.0.2" in done.stdout
    (local,), (cluster,) = (list(scan(tmp_path / name)) for name in ("local", "cluster"))
    assert_same(cluster, local)
