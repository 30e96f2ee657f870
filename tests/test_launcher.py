"""The default launcher: seeds of one sweep are one run, whose rows are those of the jobs on their
own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hpo_bench import cli
from hpo_bench.store.runs import Run, read_table, scan
from hydra_plugins.hpo_bench_launcher.launcher import Merged, families, merge

ROOT = Path(__file__).resolve().parents[1]
TINY = ("dataset=diabetes", "hyperparameter_updates=2")
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """``hpo-bench run -m`` in this process: exit code and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hpo-bench", "run", "-m", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), capsys.readouterr().err

    return call


def stored(folder: str) -> list[Run]:
    return list(scan(folder))


def rows(runs: list[Run]) -> pd.DataFrame:
    frames = [read_table(run, "curves").assign(method=run.method) for run in runs]
    return (
        pd.concat(frames)
        .sort_values(["method", "seed", "step"], ignore_index=True)
        .drop(columns="elapsed_s")
    )


# --- which jobs are merged ---


def test_families_differ_in_their_seed_alone() -> None:
    jobs = [
        ["method=a", "seed=0"],
        ["method=b", "seed=0"],
        ["method=a", "seed=1"],
        ["method=a", "seed=x"],
        ["seed=2"],
    ]
    assert families(jobs) == [[(0, 0), (2, 1)], [(1, 0)], [(3, None)], [(4, 2)]]


@pytest.mark.parametrize(
    ("seeds", "repetitions", "expected"),
    [
        ([0, 1, 2], 1, [(0, 3)]),
        ([2, 0, 1], 1, [(0, 3)]),
        ([0, 1, 5, 6, 9], 1, [(0, 2), (5, 2), (9, 1)]),
        ([0, 10, 20], 10, [(0, 30)]),
        ([0, 5], 10, [(0, 10), (5, 10)]),
        ([4, 4, 5], 1, [(4, 2)]),
    ],
)
def test_consecutive_seeds_are_one_run(
    seeds: list[int], repetitions: int, expected: list[tuple[int, int]]
) -> None:
    jobs = [["method=a", f"seed={seed}", "repetitions=7"] for seed in seeds]
    merged = merge(jobs, families(jobs)[0], repetitions)
    assert [(one.seed, one.repetitions) for one in merged] == expected
    assert sorted(number for one in merged for number in one.jobs) == list(range(len(seeds)))
    assert merged[0].task == ["method=a", f"seed={expected[0][0]}", f"repetitions={expected[0][1]}"]


def test_a_job_alone_keeps_its_overrides() -> None:
    assert Merged((0,), ("method=a", "seed=3")).task == ["method=a", "seed=3"]


# --- whole sweeps ---


def test_a_sweep_over_seeds_is_the_run_with_as_many_repetitions(call: Call) -> None:
    assert call("method=random,ours_wd_lr_m", *TINY, "seed=range(0,5)", "results_dir=seeds")[0] == 0
    assert (
        call("method=random,ours_wd_lr_m", *TINY, "repetitions=5", "results_dir=repetitions")[0]
        == 0
    )
    ours, theirs = stored("seeds"), stored("repetitions")
    assert [run.run_id for run in ours] == [run.run_id for run in theirs]
    assert len(ours) == 2
    pd.testing.assert_frame_equal(rows(ours), rows(theirs), rtol=0, atol=0)
    code, err = call("method=random,ours_wd_lr_m", *TINY, "repetitions=5", "results_dir=seeds")
    assert code == 0
    assert err.count("already complete") == 2


def test_another_launcher_keeps_the_jobs_apart_with_the_same_rows(call: Call) -> None:
    assert call("method=lorraine", *TINY, "seed=range(0,3)", "results_dir=merged")[0] == 0
    assert (
        call(
            "method=lorraine", *TINY, "seed=range(0,3)", "results_dir=apart", "hydra/launcher=basic"
        )[0]
        == 0
    )
    assert [len(stored(folder)) for folder in ("merged", "apart")] == [1, 3]
    pd.testing.assert_frame_equal(rows(stored("merged")), rows(stored("apart")), rtol=0, atol=0)


def test_jobs_with_a_start_file_are_not_merged(call: Call) -> None:
    import numpy as np
    import torch

    from hpo_bench.running.trainer import Trainer
    from hpo_bench.settings.compose import compose
    from hpo_bench.settings.parse import parse

    settings = parse(compose(["method=random", *TINY]))
    trainer = Trainer.of(settings, settings.source.load(0.2), torch.device("cpu"))
    start = trainer.start([0, 1])
    arrays = {
        f"w0/{name}": array
        for name, array in trainer.model.layout.arrays(start.weights.numpy()).items()
    }
    np.savez(
        "init.npz",
        **arrays,
        **{f"raw/{name}": value.numpy()[:, 0] for name, value in start.raw.items()},
    )
    assert call("method=random", *TINY, "seed=0,1", "init.file=init.npz")[0] == 0
    assert [run.seeds for run in stored("results")] == [(0,), (1,)]
    initial = [read_table(run, "final")["initial_lr"].iloc[0] for run in stored("results")]
    assert initial[0] == initial[1]


def test_a_mistake_in_one_job_is_one_line_and_the_others_run(call: Call) -> None:
    code, err = call("method=random", *TINY, "update_interval=0,10", "seed=0,1")
    assert code == 2
    assert "update_interval=0" in err
    assert [run.seeds for run in stored("results")] == [(0, 1)]


def test_the_plug_in_imports_nothing_heavy() -> None:
    code = (
        "import sys, hydra_plugins.hpo_bench_launcher; "
        "print([n for n in ('torch', 'pandas') if n in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(
    importlib.util.find_spec("joblib") is None
    or importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None,
    reason="hydra-joblib-launcher is not installed",
)
@pytest.mark.slow
def test_with_joblib_each_job_is_a_process(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "hpo_bench",
        "run",
        "-m",
        "method=random",
        *TINY,
        "seed=0,1",
        f"results_dir={tmp_path}",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    ]
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert [run.seeds for run in scan(tmp_path)] == [(0,), (1,)]


# --- one place, one Hydra ---


def test_a_sweep_and_a_run_are_kept_in_one_place_behind_a_tilde(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for spelling in ("results_dir=~/res", "results_dir='~/res'"):
        assert call(*TINY, "method=random", "seed=0,5", "hydra/launcher=basic", spelling)[0] == 0
    assert len(stored(str(tmp_path / "home" / "res"))) == 2
    assert (tmp_path / "home" / "res" / "multirun" / "multirun.yaml").is_file()
    assert not (tmp_path / "~").exists()


def test_the_command_works_inside_a_program_of_hydras(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("own: 1\n", encoding="utf-8")
    codes = []

    @hydra.main(config_path=str(tmp_path), config_name="config", version_base="1.3")
    def program(config: DictConfig) -> None:
        codes.append(call(*TINY, "method=random", "seed=0,1")[0])
        assert HydraConfig.get().job.config_name == "config"
        assert GlobalHydra.instance().is_initialized()

    monkeypatch.setattr(sys, "argv", ["program"])
    program()
    assert codes == [0]
    assert len(stored("results")) == 1


# --- sweeps that cannot be listed ---


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ("seed=range(3,0)", "names no value"),
        ("seed=glob(*)", "names no value"),
        ("method=glob(nothing*)", "names no value"),
        ("seed=range(0,100000000)", "more than 1000000 jobs"),
        ("seed=range(0,5,0)", "more than 1000000 jobs"),
        ("seed=range(0,1e9,0.1)", "more than 1000000 jobs"),
    ],
)
def test_a_sweep_of_no_job_or_of_too_many_is_one_line(call: Call, sweep: str, words: str) -> None:
    code, error = call(*TINY, sweep)
    (line,) = error.splitlines()
    assert code == 2
    assert line.startswith(f"error: {sweep}: {words}")


def test_of_a_sweep_given_twice_the_last_counts(call: Call) -> None:
    code, error = call(*TINY, "method=random", "seed=range(3,0)", "seed=0,1")
    assert code == 0, error
