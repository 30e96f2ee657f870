"""Bundles: the same content is the same bytes, and nothing of a stranger's is believed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hpo_bench.cli import app
from hpo_bench.errors import RunError, UserError
from hpo_bench.store import bundle
from hpo_bench.store import merge as merging
from hpo_bench.store.runs import Run, scan
from hpo_bench.system import locks
from tests.make_store import make_run

ENERGY = "uci_energy"


def contents(run: Run) -> dict[str, bytes]:
    return {name: file.read_bytes() for name, file in bundle.files_of(run.path).items()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "theirs", "random", ENERGY, [0.5, np.nan, 0.3])


def described(files: dict[str, bytes]) -> dict[str, Any]:
    """The manifest that `bundle.write` would write."""
    import hashlib

    listed = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }
    return {"format": 1, "kind": bundle.KIND, "files": listed}


def zipped(
    path: Path,
    entries: list[tuple[str | zipfile.ZipInfo, bytes]],
    manifest: object = None,
    method: int = zipfile.ZIP_STORED,
) -> Path:
    """An archive as somebody else may have made it, with a manifest that fits unless given."""
    named = {
        entry if isinstance(entry, str) else entry.filename: content for entry, content in entries
    }
    text = json.dumps(described(named) if manifest is None else manifest)
    with zipfile.ZipFile(path, "w", method) as archive:
        for entry, content in [*entries, (bundle.MANIFEST, text.encode())]:
            archive.writestr(entry, content)
    return path


def refusal(path: Path, results: Path) -> str:
    """The one line that the command says of an archive; nothing is left of it."""
    result = CliRunner().invoke(app, ["merge", str(path), "--results", str(results)])
    assert isinstance(result.exception, UserError), result.output
    assert "\n" not in str(result.exception)
    assert str(path) in str(result.exception)
    assert not results.exists()
    return str(result.exception)


# --- what is written ---


def test_the_same_content_is_the_same_bytes(run: Run, tmp_path: Path) -> None:
    files = {**bundle.files_of(run.path), "README.md": b"text"}
    backwards = dict(reversed(files.items()))
    for name, given in (("a.zip", files), ("b.zip", backwards)):
        os.utime(run.path / "run.json", (len(name), 10**9))
        size = bundle.write(tmp_path / name, given, {"title": "ünï"})
        assert size == (tmp_path / name).stat().st_size
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*sorted(files), bundle.MANIFEST]
        assert {entry.date_time for entry in archive.infolist()} == {bundle.TIME}
        manifest = json.loads(archive.read(bundle.MANIFEST))
    assert manifest["title"] == "ünï"
    assert set(manifest["files"]) == set(files)


def test_a_bundle_appears_whole_or_not_at_all(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out.zip").write_bytes(b"before")
    lacking = {**bundle.files_of(run.path), "z": tmp_path / "nowhere"}
    with pytest.raises(UserError, match="nowhere"):
        bundle.write(tmp_path / "out.zip", lacking, {})
    assert (tmp_path / "out.zip").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zip", "theirs"]


# --- what is taken in ---


def merge(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["merge", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_runs_are_taken_in_byte_by_byte(run: Run, tmp_path: Path) -> None:
    own = make_run(tmp_path / "own", "lorraine", ENERGY, [0.7])
    bundle.write(tmp_path / "b.zip", {**bundle.files_of(run.path), "report.html": b"<p>"}, {})
    line = merge(tmp_path / "b.zip", "--results", tmp_path / "own")
    assert line.startswith("copied 1 runs (3 repetitions)")
    stored = {each.run_id: each for each in scan(tmp_path / "own")}
    assert sorted(stored) == sorted([run.run_id, own.run_id])
    assert contents(stored[run.run_id]) == contents(run)
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["runs"]
    again = merge(tmp_path / "b.zip", tmp_path / "theirs", "--results", tmp_path / "own")
    assert again.startswith("copied 0 runs")
    assert "2 identical" in again


def test_what_another_program_zipped_again_is_taken_in(run: Run, tmp_path: Path) -> None:
    entries: list[tuple[str | zipfile.ZipInfo, bytes]] = [("runs/", b""), *contents(run).items()]
    zipped(tmp_path / "b.zip", entries, described(contents(run)), zipfile.ZIP_DEFLATED)
    assert merge(tmp_path / "b.zip", "--results", tmp_path / "own").startswith("copied 1 runs")


def test_a_source_may_be_named_twice_and_a_folder_end_like_a_file(run: Run, tmp_path: Path) -> None:
    bundle.write(tmp_path / "b.zip", bundle.files_of(run.path), {})
    line = merge(tmp_path / "b.zip", tmp_path / "b.zip", "--results", tmp_path / "own.zip")
    assert line.startswith("copied 1 runs")
    line = merge(tmp_path / "own.zip", "--results", tmp_path / "all")
    assert line.startswith("copied 1 runs")


def test_repetitions_that_disagree_are_told_by_the_bundles_name(run: Run, tmp_path: Path) -> None:
    bundle.write(tmp_path / "b.zip", bundle.files_of(run.path), {})
    shutil.rmtree(run.path)
    make_run(tmp_path / "theirs", "random", ENERGY, [0.5, np.nan, 0.4])
    with pytest.raises(UserError, match="different numbers for seed 2") as told:
        merge(tmp_path / "b.zip", "--results", tmp_path / "theirs")
    assert f"{tmp_path / 'b.zip'}/runs/" in str(told.value)
    assert ".unpacked" not in str(told.value)


NAMES = [
    "../out",
    "runs/../../out",
    "runs/..",
    "/etc/out",
    "//server/out",
    "C:/out",
    "C:out",
    "runs\\..\\out",
    "..\\out",
    "runs/./run.json",
    "runs//run.json",
    "./run.json",
    "runs/x/run.json:stream",
    "runs/a\nb/run.json",
    "runs/a\x1bb/run.json",
    "runs/.hidden/run.json",
    "runs/dot./run.json",
    "runs/NUL/run.json",
    "com1.txt",
    "runs/blank /run.json",
    "runs/*/run.json",
    "runs/a|b/run.json",
    f"runs/{'x' * 256}/run.json",
    "",
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_no_name_leads_out_of_the_store(name: str, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name  # as no constructor would leave it
    path = zipped(tmp_path / "b.zip", [(info, b"text")], described({name: b"text"}))
    told = refusal(path, tmp_path / "inside" / "own")
    assert "not allowed" in told or "without a name" in told
    found = {file.name for file in tmp_path.rglob("*")} - {"b.zip", "inside"}
    assert not found


def test_a_name_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "b.zip", [("runs/x/run.jsonAtail", b"text")])
    path.write_bytes(path.read_bytes().replace(b"run.jsonAtail", b"run.json\0tail"))
    refusal(path, tmp_path / "own")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_what_is_no_plain_file_is_refused(kind: int, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("runs/x/run.json")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    path = zipped(tmp_path / "b.zip", [(info, b"/etc/passwd")])
    assert "is not a plain file" in refusal(path, tmp_path / "own")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_one_file_somewhere_are_refused(tmp_path: Path) -> None:
    for first, second, told in (
        ("runs/x/run.json", "runs/x/run.json", "twice"),
        ("runs/x/run.json", "runs/X/run.json", "one file on some systems"),
        ("runs/ü/run.json", "runs/u\u0308/run.json", "one file on some systems"),
        ("runs/x", "runs/x/run.json", "lies in what is a file"),
        ("a", "A/b", "lies in what is a file"),
    ):
        path = zipped(tmp_path / "b.zip", [(first, b"1"), (second, b"2")])
        assert told in refusal(path, tmp_path / "own")


def test_bombs_are_refused(tmp_path: Path) -> None:
    zeros = bytes(2**22)
    path = zipped(tmp_path / "b.zip", [("runs/x/run.json", zeros)], method=zipfile.ZIP_DEFLATED)
    assert "would be 4194304 bytes out of" in refusal(path, tmp_path / "own")


@pytest.mark.parametrize("declared", [10, 2000])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_size_that_is_not_the_real_one_is_refused(
    declared: int, method: int, tmp_path: Path
) -> None:
    content = np.random.default_rng(0).bytes(1000)
    manifest = described({"report.html": content})
    manifest["files"]["report.html"]["bytes"] = declared
    path = zipped(tmp_path / "b.zip", [("report.html", content)], manifest, method)
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(mark) + place
        data[at : at + 4] = declared.to_bytes(4, "little")
    path.write_bytes(data)
    refusal(path, tmp_path / "own")


def test_files_on_top_of_each_other_are_refused(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    manifest = described({"a": content, "b": content})
    path = zipped(tmp_path / "b.zip", [("a", content)], manifest)
    data = path.read_bytes()
    begin = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x01\x02", begin + 1)
    entry = bytearray(data[begin:end])
    entry[46:47] = b"b"
    doubled = bytearray(data[:begin] + entry + data[begin:])
    tail = doubled.index(b"PK\x05\x06")
    for place in (8, 10):
        doubled[tail + place : tail + place + 2] = (3).to_bytes(2, "little")
    size = int.from_bytes(doubled[tail + 12 : tail + 16], "little") + len(entry)
    doubled[tail + 12 : tail + 16] = size.to_bytes(4, "little")
    path.write_bytes(doubled)
    assert "larger than itself" in refusal(path, tmp_path / "own")


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    manifest = described({"report.html": b"text"})
    change(manifest)
    return manifest


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (changed(lambda m: m.update(kind="other")), "is no bundle"),
        (changed(lambda m: m.update(format=2)), "a newer hpo-bench wrote"),
        (changed(lambda m: m.update(files=[])), "is no bundle"),
        (changed(lambda m: m["files"].update(more={})), "must say bytes and sha256"),
        (changed(lambda m: m["files"].update({"b": m["files"]["report.html"]})), "lacks b"),
        (changed(lambda m: m["files"].clear()), "holds report.html, which"),
        (changed(lambda m: m["files"]["report.html"].update(bytes=3)), "has 4 bytes"),
        (changed(lambda m: m["files"]["report.html"].update(sha256="0")), "SHA-256 differs"),
        ([], "must be one object"),
        ("text", "must be one object"),
    ],
    ids=str,
)
def test_a_manifest_that_does_not_fit_is_refused(
    manifest: object, told: str, tmp_path: Path
) -> None:
    path = zipped(tmp_path / "b.zip", [("report.html", b"text")], manifest)
    assert told in refusal(path, tmp_path / "own")


@pytest.mark.parametrize("name", ["runs/x/other.txt", "runs/run.json", "runs/x/y/run.json"])
def test_what_runs_do_not_have_is_refused(name: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "b.zip", [(name, b"text")])
    assert "is no file of a run" in refusal(path, tmp_path / "own")


def test_what_is_no_archive_is_one_line(run: Run, tmp_path: Path) -> None:
    bundle.write(tmp_path / "whole.zip", bundle.files_of(run.path), {})
    whole = (tmp_path / "whole.zip").read_bytes()
    path = tmp_path / "b.zip"
    for content in (b"", b"text", whole[:-30], whole[: len(whole) // 2], whole[200:]):
        path.write_bytes(content)
        refusal(path, tmp_path / "own")
    assert "no such file" in refusal(tmp_path / "nowhere.zip", tmp_path / "own")
    zipfile.ZipFile(path, "w").close()
    assert "has no manifest.json" in refusal(path, tmp_path / "own")


def test_any_byte_may_be_damaged(run: Run, tmp_path: Path) -> None:
    bundle.write(tmp_path / "whole.zip", bundle.files_of(run.path), {})
    whole = (tmp_path / "whole.zip").read_bytes()
    path, refused = tmp_path / "b.zip", 0
    for at in np.random.default_rng(0).integers(len(whole), size=60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        result = CliRunner().invoke(app, ["merge", str(path), "--results", str(tmp_path / "own")])
        if result.exception is None:  # a byte that says nothing, such as of a time
            (stored,) = scan(tmp_path / "own")
            assert contents(stored) == contents(run)
            shutil.rmtree(tmp_path / "own")
        else:
            assert isinstance(result.exception, UserError), (at, result.exception)
            assert not (tmp_path / "own").exists()
            refused += 1
    assert refused > 30


def test_encrypted_and_unusual_archives_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "b.zip", [("a", b"text" * 9)], method=zipfile.ZIP_BZIP2)
    assert "compressed in a way" in refusal(path, tmp_path / "own")
    path = zipped(tmp_path / "b.zip", [("a", b"text")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "encrypted" in refusal(path, tmp_path / "own")


def test_too_many_and_too_much_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.write(tmp_path / "b.zip", bundle.files_of(run.path), {})
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda folder: usage(10, 10, 0))
        assert "GiB are free" in refusal(tmp_path / "b.zip", tmp_path / "own")
    with monkeypatch.context() as patched:
        patched.setattr(bundle, "ENTRIES", 2)
        assert "more than 2" in refusal(tmp_path / "b.zip", tmp_path / "own")
    with monkeypatch.context() as patched:
        patched.setattr(bundle, "MANIFEST_BYTES", 2)
        assert "larger than 2 bytes" in refusal(tmp_path / "b.zip", tmp_path / "own")


def test_a_full_disk_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.write(tmp_path / "b.zip", bundle.files_of(run.path), {})

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle, "_take", full)
    assert "No space left" in refusal(tmp_path / "b.zip", tmp_path / "own")


def test_a_killed_merge_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_run(tmp_path / "theirs", "lorraine", ENERGY, [0.5])
    files = {**bundle.files_of(run.path), **bundle.files_of(other.path)}
    bundle.write(tmp_path / "b.zip", files, {})
    copy = merging.copy

    class Killed(BaseException):
        pass

    def once(*arguments: Any) -> None:
        copy(*arguments)
        raise Killed

    results = tmp_path / "own"
    with monkeypatch.context() as patched:
        patched.setattr(merging, "copy", once)
        patched.setattr(bundle, "_clear", lambda folder: None)  # a killed process clears nothing
        with pytest.raises(Killed):
            merge(tmp_path / "b.zip", "--results", results)
    (left,) = results.glob(".unpacked-*")
    assert (left / "runs").is_dir()
    assert len(list(scan(results))) == 1
    (left / "runs" / "strange").mkdir()
    assert "copied 1 runs" in merge(tmp_path / "b.zip", "--results", results)
    assert sorted(each.run_id for each in scan(results)) == sorted([run.run_id, other.run_id])
    assert [path.name for path in results.iterdir()] == ["runs"]


def test_two_processes_do_not_unpack_one_bundle_at_once(run: Run, tmp_path: Path) -> None:
    bundle.write(tmp_path / "b.zip", bundle.files_of(run.path), {})
    with bundle.unpacked(tmp_path / "b.zip", tmp_path / "own") as folder:
        assert locks.fcntl is not None
        with (
            pytest.raises(RunError, match="wait for it"),
            bundle.unpacked(tmp_path / "b.zip", tmp_path / "own"),
        ):
            pass
        assert list(scan(folder))
    assert not (tmp_path / "own").exists()
