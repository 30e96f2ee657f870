"""The results store: atomic, complete or absent, and clear about files that were damaged."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hpo_bench.errors import RunError, StoreError
from hpo_bench.running.execute import execute
from hpo_bench.store import files, runs
from hpo_bench.store import writer as writer_module
from tests.problems import make_settings


@pytest.fixture
def run(tmp_path):
    return execute(make_settings(tmp_path, save_weights=True, chunk=1)).run


def test_what_is_written_can_be_found_and_read(run, tmp_path):
    (found,) = runs.scan(tmp_path)
    assert found == run
    assert (found.dataset, found.method, found.status) == (
        "random_regression",
        "ours_wd_lr_m",
        "complete",
    )
    assert found.seeds == (0, 1, 2)
    assert runs.read_table(found, "final", ["seed"]).seed.tolist() == [0, 1, 2]
    assert len(runs.read_table(found, "curves")) == 3 * 51
    weights = np.load(run.path / "final_weights.npz")
    shapes = {name: weights[name].shape for name in weights.files}
    assert shapes["wT/layers.0.weight"] == (3, 7, 4)
    assert shapes["wT/layers.0.bias"] == (3, 7)
    assert shapes["wT/layers.2.weight"] == (3, 1, 7)
    assert shapes["wT/layers.2.bias"] == (3, 1)
    assert sorted(p.name for p in run.path.iterdir()) == [
        "curves.parquet",
        "final.parquet",
        "final_weights.npz",
        "run.json",
    ]


def test_an_empty_store_has_no_runs(tmp_path):
    assert list(runs.scan(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "complete"}', "\x00\x01"])
def test_a_damaged_run_json_is_named(run, tmp_path, content):
    (run.path / "run.json").write_text(content)
    with pytest.raises(StoreError, match=r"run\.json is damaged .*move .* aside") as caught:
        list(runs.scan(tmp_path))
    assert "\n" not in str(caught.value)
    problems = []
    assert list(runs.scan(tmp_path, problems.append)) == []
    assert len(problems) == 1


@pytest.mark.parametrize("keep", [0, 3, 100, -10])
def test_a_truncated_table_is_named(run, keep):
    file = run.path / "final.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(StoreError, match=r"final\.parquet is damaged") as caught:
        runs.read_table(run, "final")
    assert "\n" not in str(caught.value)


def test_a_missing_table_and_a_missing_column_are_named(run):
    files.write_table(run.path / "final.parquet", pa.table({"seed": [0, 1, 2]}))
    with pytest.raises(StoreError, match="lacks the column status"):
        runs.read_table(run, "final")
    with pytest.raises(StoreError, match=r"(?s)lacks|damaged|column"):
        runs.read_table(run, "final", ["seed", "test_metric"])
    (run.path / "final.parquet").unlink()
    with pytest.raises(StoreError, match=r"final\.parquet is missing"):
        runs.read_table(run, "final")


def test_an_atomic_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "sub" / "file.txt"

    def write(fail):
        with files.atomic(target) as temporary:
            temporary.write_text("new")
            if fail:
                raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        write(fail=True)
    assert list(target.parent.iterdir()) == []
    write(fail=False)
    assert target.read_text() == "new"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for path in (tmp_path / "pipe", tmp_path / "null"):
        with pytest.raises(OSError, match="not a regular file"), files.atomic(path):
            pass
    for path in (Path(os.devnull), Path("/dev/stdout")):
        with pytest.raises(OSError, match="not a regular file"):
            files._refuse_special(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "pipe"]


def test_json_that_no_parser_would_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line_and_what_was_finished_stays(tmp_path, monkeypatch):
    settings = make_settings(tmp_path, chunk=1, workers=1)
    real, count = files.write_table, []

    def full(path, table):
        count.append(path)
        if len(count) > 3:
            with open("/dev/full", "wb", buffering=0) as file:
                file.write(b"x")
        real(path, table)

    monkeypatch.setattr(writer_module, "write_table", full)
    with pytest.raises(
        RunError, match="No space left on device; what was finished before is kept"
    ) as caught:
        execute(settings)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert execute(settings).computed == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_files_get_the_permissions_of_the_umask(run):
    current = os.umask(0)
    os.umask(current)
    assert (run.path / "run.json").stat().st_mode & 0o777 == 0o666 & ~current


def test_run_json_is_plain_json(run):
    document = json.loads((run.path / "run.json").read_text())
    assert document["status"] == "complete"
    assert run.run_id.startswith("random_regression-ours_wd_lr_m-s0-n3-")
