"""Measure `hpo-bench status` and a resumed experiment on many runs: python scripts/many_runs.py
[COUNT] [FOLDER].

Makes COUNT (50 000) small run folders, then times `hpo-bench status` without and with the index,
and with a tenth of the folders deleted. The folder is removed afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = ("random", "lorraine", "baydin", "ours_wd_lr_m")


def make(runs: Path, count: int) -> None:
    """Run folders as the store writes them, without their tables."""
    for number in range(count):
        method = METHODS[number % len(METHODS)]
        folder = runs / f"uci_energy-{method}-s{number}-n1-{number:012x}"
        folder.mkdir(parents=True)
        config = {
            "dataset": {"name": "uci_energy"},
            "method": {"name": method},
            "seed": number,
            "repetitions": 1,
        }
        document = {
            "format": 1,
            "status": "complete",
            "config": config,
            "config_hash": "0" * 12,
            "seeds": [number],
        }
        (folder / "run.json").write_text(json.dumps(document, indent=2), encoding="utf-8")


def timed(results: Path, what: str) -> None:
    """One call of the command."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "hpo_bench", "status", "--results", str(results)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    total = sum(int(line.split()[2]) for line in text.splitlines()[1:])
    print(f"{what}: {time.perf_counter() - begin:.2f} s ({total} runs)")


def main() -> None:
    """Make a store of many runs, measure what looking at it takes, and remove it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    results = Path(tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None))
    try:
        make(results / "runs", count)
        timed(results, "status, no index yet")
        timed(results, "status, with the index")
        for folder in sorted((results / "runs").glob("*/"))[: count // 10]:
            shutil.rmtree(folder)
        timed(results, "status, a tenth deleted")
    finally:
        shutil.rmtree(results)


if __name__ == "__main__":
    main()
