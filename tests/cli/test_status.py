"""``hpo-bench status``: what a store holds."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from hpo_bench.cli import app
from tests.make_store import make_run


def test_status_counts_a_repetition_once(tmp_path: Path) -> None:
    make_run(tmp_path, "random", "uci_energy", [1.0, 2.0, 3.0])
    make_run(tmp_path, "random", "uci_energy", [2.0, 3.0], first_seed=1)
    done = CliRunner().invoke(app, ["status", "--results", str(tmp_path)])
    assert done.output.splitlines()[1].split() == ["uci_energy", "random", "2", "3", "0"]
