"""What the small files of a store must hold, key by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpo_bench.store import documents

RUN: dict[str, Any] = {
    "status": "failed",
    "config": {"dataset": {"name": "diabetes"}, "method": {"name": "random"}},
    "config_hash": "abc",
    "seeds": [],
}


@pytest.mark.parametrize("version", [True, "1", 0, None, 1.5])
def test_a_format_is_a_whole_number_from_1_up(version: object) -> None:
    with pytest.raises(ValueError, match="format must be a whole number from 1 up"):
        documents.parsed(json.dumps({"format": version}))


def test_a_later_format_is_told_from_damage() -> None:
    with pytest.raises(documents.Newer, match="of format 2, which a newer hpo-bench wrote"):
        documents.parsed('{"format": 2}')


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"status": "begun"}, 'status must be complete or failed, not "begun"'),
        ({"config": []}, "config must be an object, not a list"),
        ({"config_hash": 7}, "config_hash must be text, not 7"),
        ({"seeds": [0, True]}, "seeds must be a list of whole numbers, not a list"),
        ({"seconds": {"train": "long"}}, 'seconds.train must be a number, not "long"'),
        ({"environment": None}, "environment must be an object, not null"),
        ({"status": "complete"}, "config.update_interval must be a whole number, not null"),
    ],
)
def test_a_key_of_another_type_is_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        documents.parsed_run(json.dumps(RUN | changes))
    assert str(caught.value) == text


def test_what_may_be_null_or_left_out_is_read() -> None:
    assert documents.parsed_run(json.dumps(RUN))["seeds"] == []
    assert documents.parsed_run(json.dumps(RUN | {"costs": None, "unknown": 1}))["costs"] is None


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(12) + b"PAR2"])
def test_what_is_not_all_of_a_parquet_file_is_damage(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "final.parquet"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"empty|not all of a Parquet file"):
        documents.check_table(file)
