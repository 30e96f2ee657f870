"""Hydra's launchers for other processes and clusters: each job stays a job, rows are those of one
run.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pandas as pd
import pytest

from hpo_bench.store.runs import Run, read_table, scan

TIMINGS = ["seconds", "rows_in_block", "elapsed_s"]
TINY = (
    "dataset=diabetes",
    "method=ours_wd_lr_m",
    "repetitions=2",
    "hyperparameter_updates=3",
    "precision=float64",
)
submitit = pytest.mark.skipif(
    find_spec("hydra_plugins.hydra_submitit_launcher") is None,
    reason="hydra-submitit-launcher is not installed (pip install 'hpo-bench[submitit]')",
)
joblib = pytest.mark.skipif(
    find_spec("hydra_plugins.hydra_joblib_launcher") is None,
    reason="hydra-joblib-launcher is not installed (pip install 'hpo-bench[joblib]')",
)


def run(
    results: Path, *arguments: str, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "hpo_bench",
        "run",
        *TINY,
        f"results_dir={results}",
        *arguments,
    ]
    environment = (
        {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"} if path else None
    )
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def rows(runs: list[Run], table: str) -> pd.DataFrame:
    frames = [read_table(each, table).drop(columns=TIMINGS, errors="ignore") for each in runs]
    return pd.concat(frames, ignore_index=True).sort_values(
        ["seed"], kind="stable", ignore_index=True
    )


def assert_rows_of_one_run(jobs: Path, whole: Path) -> None:
    """Seeds 0 to 3, in two runs of two repetitions each, as in one run of four."""
    assert run(whole, "repetitions=4").returncode == 0
    one, two = list(scan(whole)), list(scan(jobs))
    assert [each.seeds for each in two] == [(0, 1), (2, 3)]
    for table in ("final", "curves"):
        pd.testing.assert_frame_equal(rows(two, table), rows(one, table), check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(
            ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], marks=joblib, id="joblib"
        ),
        pytest.param(
            ["hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=1"],
            marks=submitit,
            id="submitit_local",
        ),
    ],
)
def test_jobs_in_other_processes_hold_the_same_rows(tmp_path, launcher):
    done = run(tmp_path / "jobs", "-m", "seed=0,2", *launcher)
    assert done.returncode == 0, done.stderr
    assert_rows_of_one_run(tmp_path / "jobs", tmp_path / "whole")


SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[-1]).read()
open({record!r}, "w").write(text)
first, last = map(int, re.search(r"--array=(\\d+)-(\\d+)", text).groups())
for task in range(first, last + 1):
    environment = {{
        **os.environ, "SLURM_JOB_ID": str(900 + task), "SLURM_ARRAY_JOB_ID": "777",
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "localhost",
    }}
    nothing = subprocess.DEVNULL
    streams = dict(stdout=nothing, stderr=nothing)
    subprocess.Popen(["bash", sys.argv[-1]], env=environment, start_new_session=True, **streams)
print("Submitted batch job 777")
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do
  case "$1" in --output|--error) shift;; esac
  shift
done
exec "$@"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """A folder with an ``sbatch`` that keeps its script in ``script.sh`` and starts the array's
    tasks at once.
    """
    folder = tmp_path / "slurm"
    folder.mkdir()
    sbatch = SBATCH.format(python=sys.executable, record=str(folder / "script.sh"))
    for name, text in {
        "sbatch": sbatch,
        "srun": SRUN,
        "sacct": "#!/bin/sh\n",
        "scancel": "#!/bin/sh\n",
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    return folder


@pytest.mark.slow
@submitit
def test_slurm_is_given_one_array_with_its_limits_and_its_tasks_store_the_rows(tmp_path, slurm):
    limits = (
        "hydra.launcher.array_parallelism=1",
        "hydra.launcher.partition=short",
        "hydra.launcher.timeout_min=90",
        "hydra.launcher.cpus_per_task=2",
        "hydra.launcher.mem_gb=4",
    )
    done = run(
        tmp_path / "jobs", "-m", "seed=0,2", "hydra/launcher=submitit_slurm", *limits, path=slurm
    )
    assert done.returncode == 0, done.stderr
    script = (slurm / "script.sh").read_text().splitlines()
    assert script[0] == "#!/bin/bash"
    wanted = (
        "array=0-1%1",
        "partition=short",
        "time=90",
        "cpus-per-task=2",
        "mem=4GB",
        "ntasks-per-node=1",
        "nodes=1",
    )
    assert {f"#SBATCH --{option}" for option in wanted} <= set(script)
    assert_rows_of_one_run(tmp_path / "jobs", tmp_path / "whole")


@pytest.mark.slow
@submitit
def test_a_mistake_in_a_job_elsewhere_is_one_line_here(tmp_path):
    done = run(
        tmp_path, "-m", "seed=0", "repetitions=1", "chunk=auto,-1", "hydra/launcher=submitit_local"
    )
    assert done.returncode == 2
    assert "error: chunk=-1: must be auto or a whole number" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(scan(tmp_path))) == 1


NET = """
import os
from torch import nn

calls = []


class Odd(Exception):
    def __init__(self, one, two, three):
        super().__init__(f"odd: {one} {two} {three}")


class Net(nn.Linear):
    def __init__(self, dies=False):
        super().__init__(10, 1)
        self.dies = dies

    def forward(self, inputs):
        calls.append(1)
        if len(calls) > 40 and self.dies:
            os._exit(7)
        if len(calls) > 40:
            raise Odd(1, 2, 3)
        return super().forward(inputs)
"""
ODD = """
_target_: hpo_bench.models.custom.Custom
module: {_target_: odd_network.Net, dies: false}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [pytest.param("joblib", marks=joblib), pytest.param("submitit_local", marks=submitit)],
)
@pytest.mark.parametrize(
    ("dies", "told"),
    [(False, "failed: Odd: odd: 1 2 3; finished"), (True, "error: a job ended without a word")],
)
def test_an_error_of_a_users_own_class_or_a_lost_process_is_one_line_here(
    tmp_path, monkeypatch, launcher, dies, told
):
    (tmp_path / "odd_network.py").write_text(NET)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "odd.yaml").write_text(ODD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    own = (
        "--config-dir",
        str(tmp_path / "mine"),
        "model=odd",
        f"model.module.dies={dies}",
        "hyperparameter_updates=9",
    )
    done = run(tmp_path / "results", "-m", "seed=0,2", f"hydra/launcher={launcher}", *own)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("joblib", marks=joblib),
        pytest.param("submitit_local", marks=submitit),
        "basic",
        "hpo_bench",
    ],
)
def test_every_job_that_fails_is_told(tmp_path, launcher):
    done = run(tmp_path, "-m", "chunk=-1,-2,auto", f"hydra/launcher={launcher}")
    assert done.returncode == 2
    for value in ("-1", "-2"):
        assert done.stderr.count(f"error: chunk={value}: must be auto or a whole number") == 1, (
            done.stderr
        )
    assert "Error executing job" not in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(scan(tmp_path))) == 1


@submitit
@pytest.mark.skipif(which("srun") is not None, reason="this machine has srun")
def test_without_slurm_its_launcher_is_one_line(call, tmp_path):
    code, _, err = call("run", "-m", "seed=0,2", "hydra/launcher=submitit_slurm")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: hydra/launcher=submitit_slurm: there is no srun here")


HIDDEN = """
import pkgutil, sys
original = pkgutil.walk_packages
def walk(path=None, prefix="", onerror=None):
    return (each for each in original(path, prefix, onerror) if "submitit" not in each.name)
pkgutil.walk_packages = walk
from hpo_bench.cli import main
main()
"""


def test_without_the_extra_its_install_command_is_named(tmp_path):
    """Hydra finds its plug-ins by walking through their packages."""
    words = [
        "run",
        *TINY,
        f"results_dir={tmp_path}",
        "-m",
        "seed=0,1",
        "hydra/launcher=submitit_slurm",
    ]
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    told = (
        "error: hydra/launcher=submitit_slurm: is not installed; pip install 'hpo-bench[submitit]'"
    )
    assert done.stderr.splitlines() == [told]
