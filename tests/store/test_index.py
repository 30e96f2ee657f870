"""The index of a store: always what the folders say, whatever happened to them or to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpo_bench.errors import StoreError
from hpo_bench.store import index
from hpo_bench.store.runs import read_run
from tests.damage import bad
from tests.make_store import make_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for method in ("random", "lorraine", "baydin"):
        make_run(tmp_path, method, "uci_energy", [1.0, 2.0])
    return tmp_path / "runs"


def methods(runs: Path) -> list[str]:
    return sorted(entry.method for entry in index.read(runs).entries.values())


def test_writers_note_their_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len((runs / index.FILE).read_text().splitlines()) == 3
    monkeypatch.setattr(index, "entry", None)  # nothing is read from run.json
    listing = index.read(runs)
    assert [(entry.status, entry.repetitions) for entry in listing.entries.values()] == [
        ("complete", 2)
    ] * 3


@pytest.mark.parametrize("damage", ["", "[1, 2", "nonsense\n[]\n", "\0\xff\n", "{}\n[1,2,3]\n"])
def test_a_lost_or_damaged_index_is_made_again(runs: Path, damage: str) -> None:
    before = index.read(runs)
    (runs / index.FILE).write_text(damage, encoding="latin-1")
    assert index.read(runs) == before
    assert index.read(runs) == before
    (runs / index.FILE).unlink()
    assert index.read(runs) == before


def test_half_a_line_costs_that_line_alone(runs: Path) -> None:
    file = runs / index.FILE
    file.write_text(file.read_text()[:-20])
    assert methods(runs) == ["baydin", "lorraine", "random"]
    make_run(runs.parent, "ours_wd_lr", "uci_energy", [1.0])
    assert len([line for line in file.read_text().splitlines() if line.endswith("]")]) == 4
    assert len(methods(runs)) == 4


def test_deleted_changed_and_copied_runs_are_seen(runs: Path) -> None:
    first, second, third = sorted(path for path in runs.iterdir() if path.is_dir())
    shutil.rmtree(first)
    (second / "run.json").unlink()
    document = json.loads((third / "run.json").read_text()) | {"status": "failed", "error": "disk"}
    (third / "run.json").write_text(json.dumps(document))
    listing = index.read(runs)
    assert [(entry.run_id, entry.status, entry.error) for entry in listing.entries.values()] == [
        (third.name, "failed", "disk")
    ]
    assert listing.unfinished == (second.name,)
    assert index.statuses(runs, [first.name, second.name, third.name]) == {
        first.name: "missing",
        second.name: "unfinished",
        third.name: "failed",
    }
    (third / "run.json").write_text("{")
    assert list(index.read(runs).damaged) == [third.name]


def test_stale_lines_are_cleared_away(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SLACK", 5)
    for time in range(1, 12):
        for path in runs.glob("*/run.json"):
            os.utime(path, (time, time))
        assert len(methods(runs)) == 3
        assert len((runs / index.FILE).read_text().splitlines()) <= 3 + 5


def test_several_processes_may_add_at_once(runs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hpo_bench.store import index\n"
        "runs = Path(sys.argv[1]); line = (runs / index.FILE).read_text().splitlines()[0] + '\\n'\n"
        "for _ in range(300): index._append(runs, [line])"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(runs)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    lines = (runs / index.FILE).read_text().splitlines()
    assert len(lines) == 3 + 900
    assert len(set(lines)) == 3


def test_a_folder_that_cannot_be_written_is_still_listed(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs / index.FILE).unlink()

    def refuse(*_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(index, "_append", refuse)
    assert len(methods(runs)) == 3


def test_no_store_is_an_empty_listing(tmp_path: Path) -> None:
    assert index.read(tmp_path / "runs") == index.Listing({}, (), {})


def test_what_cannot_be_read_is_not_unfinished(results: Path) -> None:
    file = bad(results) / "run.json"
    file.unlink()
    file.symlink_to(file.name)
    listing = index.read(results / "runs")
    assert listing.unfinished == ()
    assert "cannot read" in listing.damaged[bad(results).name]


@pytest.mark.parametrize(
    "line", ['[2,1,1,1,1,"a","complete","d","m",null,"h",null]', "[1,2]", "{}", "7", "[[]]"]
)
def test_odd_lines_of_an_index_are_passed_over(results: Path, line: str) -> None:
    before = index.read(results / "runs")
    with (results / "runs" / index.FILE).open("a") as file:
        file.write(f"{line}\n")
    assert index.read(results / "runs") == before


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(results: Path) -> None:
    runs = results / "runs"
    for file in (bad(results) / "run.json", runs / index.FILE):
        file.unlink()
        os.mkfifo(file)
    (runs / ".ipynb_checkpoints").mkdir()
    listing = index.read(runs)
    assert (len(listing.entries), listing.unfinished) == (2, ())
    assert "not a regular file" in listing.damaged[bad(results).name]
    with pytest.raises(StoreError, match="not a regular file"):
        read_run(bad(results))


def test_seeds_as_text() -> None:
    for seeds, text in (((0, 1, 2), "0-2"), ((5,), "5"), ((9, 0, 1, 3), "0-1,3,9"), ((), "")):
        assert index.spans(seeds) == text
        assert [seed for series in index.consecutive(text) for seed in series] == sorted(seeds)
