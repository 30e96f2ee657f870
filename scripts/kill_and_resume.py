"""Kill a run in the middle of a training, start it again, and compare with one that was never
killed.

python scripts/kill_and_resume.py dataset=fashion_mnist method=ours_wd_lr_m repetitions=2
hyperparameter_updates=60

Arguments are those of ``hpo-bench run``. The run is killed (SIGKILL) as soon as it has left a
checkpoint; every number of both must be the same. Exit code 0: they are; 1: they are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from pandas.testing import assert_frame_equal

from hpo_bench.store.runs import read_table, scan

TIMES = ("seconds", "rows_in_block", "elapsed_s")
DEFAULT = [
    "dataset=diabetes",
    "method=ours_wd_lr_m",
    "repetitions=4",
    "hyperparameter_updates=3000",
]
EVERY = "checkpoint_every=1"  # second


def command(overrides: list[str], folder: Path) -> list[str]:
    """One run in a process of its own."""
    return [sys.executable, "-m", "hpo_bench", "run", *overrides, EVERY, f"results_dir={folder}"]


def kill_at_a_checkpoint(overrides: list[str], folder: Path) -> float:
    """Start a run and kill it when a checkpoint is there; seconds that it lived.

    Raises:
        SystemExit: it ended first.
    """
    begin = time.monotonic()
    process = subprocess.Popen(
        command(overrides, folder), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while not list(folder.glob("runs/*/blocks/checkpoint-*.npz")):
        if process.poll() is not None:
            sys.exit("the run ended before it left a checkpoint: make it longer")
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic() - begin


def numbers(folder: Path, table: str) -> pd.DataFrame:
    """A table of the one complete run in a folder, without times."""
    (run,) = (run for run in scan(folder) if run.status == "complete")
    frame = read_table(run, table)
    return frame.drop(columns=[name for name in TIMES if name in frame])


def main(overrides: list[str]) -> int:
    """Kill a run and resume it, and compare it with one that was left alone."""
    with tempfile.TemporaryDirectory(prefix="hpo-bench-") as name:
        killed, whole = Path(name) / "killed", Path(name) / "whole"
        print(f"killed after {kill_at_a_checkpoint(overrides, killed):.1f} s, with a checkpoint")
        done = subprocess.run(
            command(overrides, killed), check=True, capture_output=True, text=True
        )
        said = [line for line in done.stderr.splitlines() if "from a checkpoint" in line]
        print(said[0] if said else "no block went on from a checkpoint")
        subprocess.run(command(overrides, whole), check=True, capture_output=True)
        for table in ("final", "curves"):
            try:
                assert_frame_equal(numbers(killed, table), numbers(whole, table), rtol=0, atol=0)
            except AssertionError as error:
                print(f"{table} differs: {error}")
                return 1
        print("the same numbers, bit by bit, as without the kill")
        return 0 if said else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or DEFAULT))
