"""Files of the store: whole or absent, and nothing replaced that is no file."""

import os
from pathlib import Path

import pytest

from hpo_bench.store import files


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
