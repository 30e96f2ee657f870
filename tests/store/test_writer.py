"""The results store: atomic, complete or absent, and clear about files that were damaged."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hpo_bench.analysis import selection
from hpo_bench.errors import RunError, StoreError
from hpo_bench.running.execute import execute
from hpo_bench.store import documents, files, runs
from hpo_bench.store import writer as writer_module
from hpo_bench.store.runs import read_arrow, read_table
from hpo_bench.store.writer import Block, Writer
from tests.damage import bad
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


def test_what_is_of_a_later_format_is_refused_and_kept(results: Path) -> None:
    with Writer(results, "begun") as writer:
        table = pq.read_table(bad(results) / "final.parquet")
        curves = pq.read_table(bad(results) / "curves.parquet")
        writer.write_block(Block((0, 1, 2), {"final": table, "curves": curves}))
        assert writer.finished_seeds() == {0, 1, 2}
        file = next(writer.blocks.glob("*/block.json"))
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))
        with pytest.raises(StoreError, match="newer hpo-bench"):
            writer.finished_seeds()
        assert file.exists()


def test_blocks_that_overlap_are_joined_once(results: Path) -> None:
    """As two processes leave them that computed one run where there are no locks."""
    (run,) = selection.find(results, methods=["baydin"])
    final, curves = (pq.read_table(run.path / f"{name}.parquet") for name in ("final", "curves"))

    def block(*seeds: int) -> Block:
        tables = {"final": final, "curves": curves}
        kept = {
            name: table.filter(np.isin(table["seed"].to_numpy(), seeds))
            for name, table in tables.items()
        }
        return Block(seeds, kept, {"w": np.array(seeds, float)})

    with Writer(results, "twice") as writer:
        for seeds in ((0, 1), (1, 2), (0, 1, 2)):
            writer.write_block(block(*seeds))
        done = writer.commit((0, 1, 2), json.loads((run.path / "run.json").read_text()))
    assert read_table(done, "final").equals(final.to_pandas())
    assert read_table(done, "curves").equals(curves.to_pandas())
    with np.load(done.path / "final_weights.npz") as weights:
        assert weights["w"].tolist() == [0, 1, 2]


def test_damaged_blocks_are_computed_again_and_unreadable_ones_kept(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = selection.find(results, methods=["baydin"])
    tables = {name: pq.read_table(run.path / f"{name}.parquet") for name in ("final", "curves")}
    with Writer(results, "begun") as writer:
        writer.write_block(Block((0, 1, 2), tables))
        folder = next(writer.blocks.iterdir())

        def refuse(*_: object) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(documents, "read", refuse)
            with pytest.raises(StoreError, match=r"cannot read .*Input/output error"):
                writer.finished_seeds()
        assert folder.is_dir()
        (folder / "curves.parquet").write_bytes(b"PAR1")
        assert writer.finished_seeds() == set()
        assert not folder.exists()


def test_a_block_of_another_run_is_no_block_of_this_one(results: Path, tmp_path: Path) -> None:
    runs = selection.find(results)
    tables = {name: read_arrow(runs[0], name) for name in ("final", "curves")}
    with Writer(tmp_path, "one") as writer:
        writer.write_block(Block((0, 1, 2), tables))
        assert writer.finished_seeds() == {0, 1, 2}
    shutil.copytree(tmp_path / "runs" / "one", tmp_path / "runs" / "other")
    with Writer(tmp_path, "other") as writer:
        assert writer.finished_seeds() == set()
