"""The one command for everything, with a stand-in for ``hpo-bench`` that notes what it is asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpo_bench.experiments import definition

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "reproduce_all.sh"


def started(
    folder: Path, *arguments: str, stand_in: str = ""
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script; what came of it, and the calls that it made."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    log = folder / "calls"
    program = programs / "hpo-bench"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{log}"\n{stand_in}\n', encoding="utf-8")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    calls = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return done, calls


def test_it_runs_every_experiment(tmp_path: Path) -> None:
    done, calls = started(tmp_path, str(tmp_path / "long"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("nothing is left out\n")
    reproduced = {call.split()[1] for call in calls if call.startswith("reproduce")}
    assert reproduced == set(definition.names())


def test_with_no_time_it_says_all_that_it_leaves_out(tmp_path: Path) -> None:
    _, everything = started(tmp_path, str(tmp_path / "long"))
    (tmp_path / "calls").unlink()
    done, calls = started(tmp_path, "--hours", "0", str(tmp_path / "long"))
    assert calls == []
    assert done.returncode == 3
    said = [line for line in done.stdout.splitlines() if line.startswith("left out: ")]
    assert said == [f"left out: hpo-bench {call}" for call in everything]


def test_a_command_that_takes_longer_is_interrupted_and_named(tmp_path: Path) -> None:
    hour = "0.0005"  # 1.8 seconds, of which whole ones count
    done, calls = started(
        tmp_path, "--hours", hour, str(tmp_path / "long"), stand_in="exec sleep 30"
    )
    assert len(calls) == 1
    assert done.returncode == 3
    assert f"left out: hpo-bench {calls[0]} (begun)\n" in done.stdout


def test_what_fails_is_named_and_the_others_run(tmp_path: Path) -> None:
    stand_in = 'case "$*" in *sensitivity*) exit 1;; esac'
    done, calls = started(tmp_path, str(tmp_path / "long"), stand_in=stand_in)
    assert done.returncode == 1
    assert done.stderr.startswith("failed: hpo-bench reproduce sensitivity")
    assert any("multi_pass" in call for call in calls)


@pytest.mark.parametrize("arguments", [(), ("--hours", "much", "x"), ("--hours",), ("a", "b")])
def test_mistakes_are_one_line_with_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done, calls = started(tmp_path, *arguments)
    assert (done.returncode, calls) == (2, [])
    assert len(done.stderr.splitlines()) == 1
