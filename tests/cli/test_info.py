"""``hpo-bench list``, ``status`` and ``doctor``."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from make_store import make_run

from hpo_bench.datasets import sources
from hpo_bench.datasets.catalogue import configs_folder, dataset_names

Call = Callable[..., tuple[int, str, str]]


# --- list ---


@pytest.mark.parametrize("kind", ["datasets", "methods", "experiments"])
def test_list_names_every_yaml(call: Call, kind: str) -> None:
    code, out, _ = call("list", kind)
    names = {path.stem for path in (configs_folder() / kind.removesuffix("s")).glob("*.yaml")}
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()[1:]} == names


def test_list_shows_all_kinds(call: Call) -> None:
    code, out, _ = call("list")
    assert code == 0
    for word in ("uci_energy", "ours_wd_lr_m", "experiment", "fig09", "uci_main"):
        assert word in out


def test_list_of_something_else_is_a_mistake(call: Call) -> None:
    code, _, err = call("list", "method")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "did you mean methods" in err


# --- status ---


def test_status_of_an_empty_folder(call: Call) -> None:
    code, out, _ = call("status")
    assert (code, "no runs yet" in out) == (0, True)


def test_status_counts_runs_by_dataset_and_method(call: Call, tmp_path: Path) -> None:
    make_run(tmp_path / "results", "random", "uci_energy", [1.0, 2.0, np.nan])
    make_run(tmp_path / "results", "random", "uci_energy", [1.0], first_seed=3)
    make_run(tmp_path / "results", "lorraine", "uci_kin8nm", [1.0])
    failed = make_run(tmp_path / "results", "random", "uci_kin8nm", [1.0]).path / "run.json"
    failed.write_text(failed.read_text().replace('"complete"', '"failed", "error": "no memory"'), encoding="utf-8")
    block = tmp_path / "results" / "runs" / "begun" / "blocks" / "block-0-1"
    block.mkdir(parents=True)
    (block / "block.json").write_text(json.dumps({"seeds": [0, 1], "seconds": {}}), encoding="utf-8")
    code, out, err = call("status")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["uci_energy", "random", "2", "4", "0"] in rows
    assert ["uci_kin8nm", "lorraine", "1", "1", "0"] in rows
    assert ["uci_kin8nm", "random", "0", "0", "1"] in rows
    assert "unfinished: begun: 2 repetitions so far" in out
    assert "no memory" in out


def test_status_reports_a_damaged_run_and_shows_the_others(call: Call, tmp_path: Path) -> None:
    make_run(tmp_path / "here", "random", "uci_energy", [1.0])
    (make_run(tmp_path / "here", "lorraine", "uci_energy", [1.0]).path / "run.json").write_text("{", encoding="utf-8")
    code, out, err = call("status", "--results", "here")
    assert code == 2
    assert "random" in out
    assert "damaged" in err
    assert len(err.splitlines()) == 1


# --- doctor ---


def marks(out: str) -> dict[str, str]:
    """What each line is about, and its mark."""
    return {line[2:].partition(":")[0]: line[0] for line in out.splitlines()[:-1]}


@pytest.fixture
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which all is well."""
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("HPO_BENCH_DATA_MIRROR", raising=False)
    return tmp_path


def test_doctor_finds_what_is_there_and_makes_nothing(call: Call, healthy: Path) -> None:
    code, out, _ = call("doctor")
    assert code == 0
    assert "✗" not in out
    assert "torch" in out
    assert set(dataset_names()) <= set(out.replace(",", " ").split())
    assert list(healthy.iterdir()) == []


def test_doctor_says_what_is_broken_and_how_to_mend_it(
    call: Call, healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (healthy / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", str(healthy / "nowhere"))
    monkeypatch.setenv("HPO_BENCH_DATA", str(healthy / "file" / "cache"))
    code, out, _ = call("doctor", "--results", str(healthy / "file" / "results"))
    assert code == 1
    assert {name for name, mark in marks(out).items() if mark == "✗"} == {"mirror", "data cache", "results"}
    assert all("→" in line for line in out.splitlines() if line.startswith("✗"))
    assert "3 problems" in out


def test_doctor_knows_a_damaged_file(call: Call, healthy: Path) -> None:
    (healthy / "cache" / "uci_wine").mkdir(parents=True)
    (healthy / "cache" / "uci_wine" / "data.txt").write_text("short", encoding="utf-8")
    code, out, _ = call("doctor")
    assert (code, marks(out)["uci_wine"]) == (1, "✗")
    assert "hpo-bench data download --force uci_wine" in out


def test_doctor_counts_what_is_cached(call: Call, mirror: Path, healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo_bench.datasets.catalogue import read_dataset

    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", str(mirror))
    for file in read_dataset("uci_yacht").source.files:
        sources.fetch("uci_yacht", file)
    lines = call("doctor")[1].splitlines()
    assert any("datasets here" in line and "uci_yacht" in line for line in lines)
    assert any("datasets not here" in line and "uci_wine" in line for line in lines)


@pytest.fixture
def url() -> Iterator[str]:
    """A server that has no page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_doctor_asks_the_mirror(call: Call, healthy: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", url)
    assert marks(call("doctor")[1])["mirror"] == "✓"
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", "http://127.0.0.1:9")
    assert marks(call("doctor")[1])["mirror"] == "✗"
