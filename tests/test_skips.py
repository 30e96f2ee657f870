"""CI fails where a test is skipped for a reason that is not on its list."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
LIST = "tests/allowed_skips.txt"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_skip_that_is_not_listed_fails(tmp_path: Path, listed: bool, workers: str) -> None:
    allowed = (
        (ROOT / LIST)
        .read_text(encoding="utf-8")
        .replace("no CUDA device", "no CUDA device" if listed else "")
    )
    (tmp_path / "list").write_text(allowed, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        workers,
        "-p",
        "no:cacheprovider",
        "tests/gpu",
    ]
    environment = {**os.environ, "HPO_BENCH_ALLOWED_SKIPS": str(tmp_path / "list")}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == (0 if listed else 1), done.stdout
    assert ("not allowed to be" in done.stdout) == (not listed)


def test_the_list_names_reasons_that_tests_give() -> None:
    told = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    lines = (ROOT / LIST).read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            assert line.rstrip("*") in told, line
