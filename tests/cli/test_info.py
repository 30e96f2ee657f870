"""``hpo-bench list``, ``status`` and ``doctor``."""

from __future__ import annotations

import ctypes
import http.server
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from make_store import make_run

from hpo_bench.bench.kernels import speeds
from hpo_bench.core import native
from hpo_bench.datasets import sources
from hpo_bench.errors import UserError
from hpo_bench.settings.catalogue import dataset_names
from hpo_bench.settings.yamls import configs_folder

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
    failed.write_text(
        failed.read_text().replace('"complete"', '"failed", "error": "no memory"'), encoding="utf-8"
    )
    block = tmp_path / "results" / "runs" / "begun" / "blocks" / "block-0-1"
    block.mkdir(parents=True)
    (block / "block.json").write_text(
        json.dumps({"seeds": [0, 1], "seconds": {}}), encoding="utf-8"
    )
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
    (make_run(tmp_path / "here", "lorraine", "uci_energy", [1.0]).path / "run.json").write_text(
        "{", encoding="utf-8"
    )
    code, out, err = call("status", "--results", "here")
    assert code == 2
    assert "random" in out
    assert "damaged" in err
    assert len(err.splitlines()) == 1


# --- doctor ---


def marks(out: str) -> dict[str, str]:
    """What each line is about, and its mark."""
    return {line[2:].partition(":")[0]: line[0] for line in out.splitlines()[:-1]}


def with_kernels(monkeypatch: pytest.MonkeyPatch, variant: str, **measured: float) -> None:
    """Pretend that these kernels are used, and that a measurement found this."""
    used = native.Kernels(ctypes.CDLL(None), f"{variant}, from the package", 0.0, variant)
    monkeypatch.setattr(native, "look", lambda keep: used)
    found = {name.replace("_", "-"): value for name, value in measured.items()}
    monkeypatch.setattr("hpo_bench.bench.kernels.speeds", lambda used: found)


@pytest.fixture
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which all is well."""
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("HPO_BENCH_DATA_MIRROR", raising=False)
    with_kernels(monkeypatch, "x86-64-v4", x86_64_v4=5.0, torch=60.0)
    return tmp_path


def test_doctor_finds_what_is_there_and_makes_nothing(call: Call, healthy: Path) -> None:
    code, out, _ = call("doctor")
    assert code == 0
    assert "✗" not in out
    assert "torch" in out
    assert set(dataset_names()) <= set(out.replace(",", " ").split())
    assert list(healthy.iterdir()) == []


@pytest.mark.parametrize(
    ("measured", "advice"),
    [
        ({"x86_64_v4": 5.0, "x86_64_v3": 9.0, "torch": 60.0}, None),
        ({"x86_64_v4": 9.5, "x86_64_v3": 9.0, "torch": 60.0}, None),
        (
            {"x86_64_v4": 19.0, "x86_64_v3": 9.0, "torch": 60.0},
            "HPO_BENCH_NATIVE=x86-64-v3 is faster here, with the same",
        ),
        (
            {"x86_64_v4": 9.0, "x86_64_v3": 9.0, "torch": 6.0},
            "HPO_BENCH_NATIVE=0 is faster here, but its numbers",
        ),
    ],
)
def test_doctor_measures_the_kernels_and_leaves_the_choice_alone(
    call: Call,
    healthy: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: dict[str, float],
    advice: str | None,
) -> None:
    with_kernels(monkeypatch, "x86-64-v4", **measured)
    code, out, _ = call("doctor")
    (line,) = (line for line in out.splitlines() if "kernels:" in line)
    assert code == 0
    assert (
        "x86-64-v4, from the package; loss and gradient of UCI Energy's size take "
        f"{measured['x86_64_v4']} µs" in line
    )
    assert (advice or "") in line
    assert ("→" in line) == (advice is not None)


def test_doctor_goes_on_without_kernels_and_refuses_a_wrong_wish(
    call: Call, healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        native, "look", lambda keep: native.Kernels(None, "none: nothing of the kind")
    )
    code, out, _ = call("doctor")
    assert (code, marks(out)["kernels"]) == (0, "·")

    def wrong(keep: Path) -> native.Kernels:
        raise UserError("HPO_BENCH_NATIVE=avx: must be 0")

    monkeypatch.setattr(native, "look", wrong)
    code, out, _ = call("doctor")
    assert (code, marks(out)["kernels"]) == (1, "✗")


@pytest.mark.skipif(native.kernels().library is None, reason="no compiled kernels")
def test_a_second_measures_each_kernel_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = speeds(native.kernels(), 0.05)
    assert {str(native.kernels().variant), "torch"} <= set(found)
    assert all(0 < value < 1e6 for value in found.values())
    assert not list(tmp_path.iterdir())


def test_doctor_says_what_is_broken_and_how_to_mend_it(
    call: Call, healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (healthy / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", str(healthy / "nowhere"))
    monkeypatch.setenv("HPO_BENCH_DATA", str(healthy / "file" / "cache"))
    code, out, _ = call("doctor", "--results", str(healthy / "file" / "results"))
    assert code == 1
    assert {name for name, mark in marks(out).items() if mark == "✗"} == {
        "mirror",
        "data cache",
        "results",
    }
    assert all("→" in line for line in out.splitlines() if line.startswith("✗"))
    assert "3 problems" in out


def test_doctor_knows_a_damaged_file(call: Call, healthy: Path) -> None:
    (healthy / "cache" / "uci_wine").mkdir(parents=True)
    (healthy / "cache" / "uci_wine" / "data.txt").write_text("short", encoding="utf-8")
    code, out, _ = call("doctor")
    assert (code, marks(out)["uci_wine"]) == (1, "✗")
    assert "hpo-bench data download --force uci_wine" in out


def test_doctor_counts_what_is_cached(
    call: Call, mirror: Path, healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpo_bench.settings.catalogue import read_dataset

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


def test_doctor_asks_the_mirror(
    call: Call, healthy: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", url)
    assert marks(call("doctor")[1])["mirror"] == "✓"
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", "http://127.0.0.1:9")
    assert marks(call("doctor")[1])["mirror"] == "✗"
