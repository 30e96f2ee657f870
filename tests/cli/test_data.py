"""``hpo-bench data``: what it prints and its exit codes."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpo_bench.cli.data import app
from hpo_bench.errors import UserError
from hpo_bench.settings import catalogue, yamls

Command = Callable[..., tuple[int, list[str]]]
YAML = """# @package _global_
dataset:
  name: {name}
  label: {name}
  task: regression
  source:
    _target_: hpo_bench.datasets.uci.UCI
    _convert_: all
    name: {name}
    data: {{_target_: hpo_bench.datasets.sources.RemoteFile, name: data.txt, size: {size},
      sha256: {sha256}, urls: ["https://example.invalid/owner/data.txt"]}}
    order: {{_target_: hpo_bench.datasets.sources.RemoteFile, name: order.txt, size: {size},
      sha256: {sha256}, urls: ["https://example.invalid/owner/order.txt"]}}
    inputs: 3
    training_and_validation: 16
    test: 4
validation_share: 0.25
"""


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Datasets ``first`` and ``second`` with two files each on a mirror, and diabetes; nothing
    cached.
    """
    content = b"content"
    configs = tmp_path / "configs"
    (configs / "dataset").mkdir(parents=True)
    bundled = (yamls.configs_folder() / "dataset" / "diabetes.yaml").read_text(encoding="utf-8")
    (configs / "dataset" / "diabetes.yaml").write_text(bundled, encoding="utf-8")
    for name in ("first", "second"):
        text = YAML.format(name=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        (configs / "dataset" / f"{name}.yaml").write_text(text, encoding="utf-8")
        (tmp_path / "mirror" / name).mkdir(parents=True)
        for file in ("data.txt", "order.txt"):
            (tmp_path / "mirror" / name / file).write_bytes(content)
    monkeypatch.setattr(catalogue, "configs_folder", lambda: configs)
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", str(tmp_path / "mirror"))
    return tmp_path


@pytest.fixture
def data() -> Command:
    """Run a command; errors that the caller of the app has to show are raised."""

    def data(*arguments: str) -> tuple[int, list[str]]:
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout.splitlines()

    return data


def row(lines: list[str], name: str) -> list[str]:
    return next(line.split() for line in lines if line.startswith(name))


def test_list_tells_sizes_and_what_is_here(data: Command, world: Path) -> None:
    code, lines = data("list")
    assert code == 0
    assert row(lines, "first") == [
        "first",
        "regression",
        "20",
        "3",
        "12/4/4",
        "example.invalid",
        "missing",
    ]
    assert row(lines, "diabetes")[-2:] == ["scikit-learn", "bundled"]
    assert str(world / "cache") in lines[-1]
    data("download", "first")
    (world / "cache" / "second").mkdir()
    (world / "cache" / "second" / "data.txt").write_bytes(b"cut")
    _, lines = data("list")
    assert row(lines, "first")[-1] == "cached"
    assert row(lines, "second")[-1] == "damaged"


def test_download_brings_the_files_of_the_named_datasets(data: Command, world: Path) -> None:
    code, lines = data("download", "first", "diabetes")
    assert code == 0
    cache = world / "cache"
    assert lines == [
        f"ok  {cache / 'first' / 'data.txt'}",
        f"ok  {cache / 'first' / 'order.txt'}",
        "ok  diabetes: nothing to download",
    ]
    assert {path.name for path in cache.iterdir()} == {"first"}


def test_download_all_brings_everything(data: Command, world: Path) -> None:
    code, lines = data("download", "--all")
    assert (code, len(lines)) == (0, 4)
    assert {path.name for path in (world / "cache").iterdir()} == {"first", "second"}


@pytest.mark.parametrize("arguments", [[], ["first", "--all"]])
def test_download_needs_names_or_all(data: Command, arguments: list[str]) -> None:
    with pytest.raises(UserError, match="needs either dataset names or --all"):
        data("download", *arguments)


@pytest.mark.parametrize("command", ["download", "verify"])
def test_a_misspelt_name_is_an_error_before_anything_is_done(
    data: Command, world: Path, command: str
) -> None:
    with pytest.raises(UserError, match="no dataset 'secnd': did you mean second"):
        data(command, "first", "secnd")
    assert not (world / "cache").exists()


def test_verify_passes_what_is_right_and_what_nobody_asked_for(data: Command) -> None:
    data("download", "first")
    code, lines = data("verify")
    assert code == 0
    assert [line.split()[0] for line in lines] == ["ok", "ok", "missing", "missing"]
    code, lines = data("verify", "first", "diabetes")
    assert (code, [line.split()[0] for line in lines]) == (0, ["ok"] * 3)


def test_verify_names_each_bad_file_on_a_line_and_exits_with_2(data: Command, world: Path) -> None:
    data("download", "--all")
    bad = [world / "cache" / "first" / "order.txt", world / "cache" / "second" / "data.txt"]
    for path in bad:
        path.write_bytes(b"another")
    code, lines = data("verify")
    assert code == 2
    assert [line.split()[0] for line in lines] == ["ok", "bad", "bad", "ok"]
    assert [str(path) in line for path, line in zip(bad, lines[1:3], strict=True)] == [True, True]
    assert "hpo-bench data download second --force" in lines[2]


def test_verify_wants_the_files_of_the_datasets_it_was_asked_for(data: Command) -> None:
    code, lines = data("verify", "second")
    assert code == 2
    assert [line.split()[0] for line in lines] == ["missing", "missing"]


def test_a_damaged_file_stops_the_download_and_force_mends_it(data: Command, world: Path) -> None:
    data("download", "first")
    (world / "cache" / "first" / "data.txt").write_bytes(b"another")
    with pytest.raises(UserError, match="is damaged"):
        data("download", "first")
    assert data("download", "first", "--force")[0] == 0
    assert data("verify", "first")[0] == 0


@pytest.fixture
def third(world: Path) -> Path:
    """A dataset ``third`` that has the files of ``first``."""
    folder = world / "configs" / "dataset"
    text = (folder / "first.yaml").read_text(encoding="utf-8").replace("name: first", "name: third")
    (folder / "third.yaml").write_text(
        text.replace("size:", "folder: first, size:"), encoding="utf-8"
    )
    return world


def test_files_that_two_datasets_share_are_fetched_and_told_once(
    data: Command, third: Path
) -> None:
    code, lines = data("download", "--all", "--force")
    assert (code, len(lines)) == (0, 4)
    assert {path.name for path in (third / "cache").iterdir()} == {"first", "second"}
    _, lines = data("list")
    assert row(lines, "third")[-1] == "cached"
    assert len(data("verify")[1]) == 4
    assert len(data("verify", "third")[1]) == 2


def test_download_all_goes_on_where_one_cannot_be_had(data: Command, world: Path) -> None:
    (world / "mirror" / "first" / "data.txt").write_bytes(b"another")
    code, lines = data("download", "--all")
    assert (code, [line.split()[0] for line in lines]) == (2, ["bad", "ok", "ok"])
    assert {path.name for path in (world / "cache" / "second").iterdir()} >= {
        "data.txt",
        "order.txt",
    }


def test_a_copy_that_a_package_brought_needs_no_download(data: Command, world: Path) -> None:
    (world / "data.gz").write_bytes(gzip.compress(b"content"))
    file = world / "configs" / "dataset" / "first.yaml"
    digest = hashlib.sha256(b"content").hexdigest()
    unpacked = f"packaged: [{world / 'data.gz'}], unpacked_sha256: {digest}, size:"
    file.write_text(file.read_text(encoding="utf-8").replace("size:", unpacked), encoding="utf-8")
    assert row(data("list")[1], "first")[-1] == "packaged"
    for command in ("verify", "download"):
        code, lines = data(command, "first")
        assert (code, [line.split() for line in lines]) == (
            0,
            [["ok", str(world / "data.gz")]] * len(lines),
        )
    assert not (world / "cache").exists()
    (world / "data.gz").write_bytes(gzip.compress(b"another"))
    assert data("verify", "first")[0] == 2
    data("download", "first")
    assert row(data("list")[1], "first")[-1] == "cached"


def test_help_needs_none_of_the_slow_libraries() -> None:
    code = (
        "import sys; from hpo_bench.cli.data import app; app(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'pandas', 'sklearn', 'hydra', 'omegaconf', 'numpy', 'matplotlib'} "
        "& set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"
