#!/usr/bin/env python
"""Kill a node of a real two-node Ray cluster in the middle of a run, and compare what is stored
with a local run.

    pip install 'hpo-bench[ray]'
    python scripts/ray_two_nodes.py [FOLDER]

Starts two nodes on this machine with ``ray start`` (a head and a worker, one CPU each, on ports of
their own), gives them a run in float64 by ``hpo-bench run … --on ray://HOST:PORT``, kills the
worker's raylet with SIGKILL when both nodes are computing and some blocks are stored, and waits for
the run's end. Then every repetition must be there once and every number must be, bit by bit, that
of ``hpo-bench run`` without ``--on``. Ends both nodes; touches no other Ray."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from hpo_bench.store.runs import read_table, scan

ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
TIMINGS = ("seconds", "rows_in_block", "elapsed_s")
WAIT_SECONDS = 240.0


def children(process: int) -> Iterator[int]:
    """All descendants of a process."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout.split()
    parent = dict(zip(map(int, listed[::2]), map(int, listed[1::2]), strict=True))
    for pid in parent:
        above = pid
        while above in parent and above != process:
            above = parent[above]
        if above == process and pid != process:
            yield pid


def title(process: int) -> str:
    """The command line of a process, empty when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    return ""


def wait(
    condition: Callable[[], bool], what: str, run: subprocess.Popen[bytes] | None = None
) -> None:
    """Wait until a condition holds.

    Raises:
        SystemExit: it took too long, or the run ended first.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline or (run is not None and run.poll() is not None):
            sys.exit(
                f"failed while waiting until {what}"
                + (f": the run ended, {run.returncode}" if run else "")
            )
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def node(log: Path, first_worker_port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Ray node with one CPU while the block lasts."""
    ports = [
        f"--min-worker-port={first_worker_port}",
        f"--max-worker-port={first_worker_port + 400}",
    ]
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--disable-usage-stats",
        "--num-cpus=1",
        "--object-store-memory=100000000",
        *ports,
        *arguments,
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, **ENVIRONMENT}
        )
    try:
        yield process
    finally:
        family = [process.pid, *children(process.pid)]
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def command(results: Path, blocks: int, hyperparameter_updates: int) -> list[str]:
    """One repetition a block, so that there is always something in flight."""
    return [
        sys.executable,
        "-m",
        "hpo_bench",
        "run",
        "method=ours_wd_lr_m",
        "dataset=diabetes",
        "precision=float64",
        f"repetitions={blocks}",
        "chunk=1",
        f"hyperparameter_updates={hyperparameter_updates}",
        f"results_dir={results}",
    ]


def computes(process: int) -> bool:
    """Whether a worker of this node is computing a block."""
    return any("ray::_compute" in title(pid) for pid in children(process))


def run_and_kill(folder: Path, blocks: int, updates: int) -> int:
    """Run on two nodes and kill one.

    Returns:
        How many blocks were stored when it was killed.
    """
    port, results = free_port(), folder / "cluster"
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch,
        node(
            folder / "head.log",
            20000,
            "--head",
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            f"--ray-client-server-port={free_port()}",
            "--include-dashboard=false",
            f"--temp-dir={scratch}",
        ) as head,
    ):
        wait(lambda: answers(port), "the head answers", head)
        with node(
            folder / "worker.log",
            21000,
            f"--address=127.0.0.1:{port}",
            "--node-ip-address=127.0.0.2",
        ) as worker:
            wait(lambda: alive(port) == 2, "the second node has joined", worker)
            with (folder / "run.log").open("wb") as output:
                run = subprocess.Popen(
                    [*command(results, blocks, updates), "--on", f"ray://127.0.0.1:{port}"],
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **ENVIRONMENT},
                )
            stored = lambda: len(list(results.glob("runs/*/blocks/*/block.json")))  # noqa: E731
            wait(
                lambda: stored() >= 2 and computes(head.pid) and computes(worker.pid),
                "both nodes are computing",
                run,
            )
            raylet = next(pid for pid in children(worker.pid) if "raylet/raylet" in title(pid))
            os.kill(raylet, signal.SIGKILL)
            at_kill = stored()
            if run.wait(WAIT_SECONDS):
                sys.exit(f"the run failed:\n{(folder / 'run.log').read_text()}")
    return at_kill


def answers(port: int) -> bool:
    """Whether something listens there."""
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def alive(port: int) -> int:
    """Nodes of the cluster, asked in another process, so that this one joins no cluster."""
    code = (
        f"import ray; ray.init('127.0.0.1:{port}', log_to_driver=False); "
        "print(sum(n['Alive'] for n in ray.nodes()))"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    return int(asked.stdout) if asked.returncode == 0 else 0


def compare(folder: Path, blocks: int) -> None:
    """Each repetition once, every number as in the local run.

    Raises:
        AssertionError: they differ.
    """
    (local,), (cluster,) = (list(scan(folder / name)) for name in ("local", "cluster"))
    assert (cluster.status, cluster.run_id) == ("complete", local.run_id)
    for table in ("final", "curves"):
        one, other = (
            read_table(run, table).drop(columns=[*TIMINGS], errors="ignore")
            for run in (local, cluster)
        )
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert read_table(cluster, "final").seed.tolist() == list(range(blocks))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, help="for results and logs; a new temporary one by default"
    )
    parser.add_argument("--blocks", type=int, default=16, help="blocks of one repetition each")
    parser.add_argument("--updates", type=int, default=200, help="hyperparameter updates of each")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="ray-two-nodes-"))
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(command(folder / "local", options.blocks, options.updates), check=True)
    at_kill = run_and_kill(folder, options.blocks, options.updates)
    compare(folder, options.blocks)
    print((folder / "run.log").read_text(), end="")
    print(
        f"killed one of two nodes when {at_kill} of {options.blocks} blocks were stored: the run "
        "is complete, each repetition is there once, all numbers equal the local run's bit by bit "
        f"({folder})"
    )


if __name__ == "__main__":
    main()
