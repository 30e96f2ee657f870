"""Records of experiments: what is written comes back, and what is damaged is passed over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo_bench.store.experiment_records import FOLDER, ExperimentRecord, read_all
from hpo_bench.store.held import Wanted

RECORD = ExperimentRecord(
    experiment="uci_main",
    scale="smoke",
    overrides=("a=1",),
    key="k",
    run_ids=("one", "two"),
    wanted=(Wanted("one", "hash", (0, 1, 2, 7)),),
    missing=("dataset=x: no such dataset",),
    drawn=False,
)


def test_a_record_comes_back_as_it_was_written() -> None:
    assert ExperimentRecord.of(json.loads(json.dumps(RECORD.plain()))) == RECORD


def test_early_records_do_not_tell_everything() -> None:
    content = RECORD.plain()
    for key in ("wanted", "missing", "drawn"):
        del content[key]
    assert ExperimentRecord.of(content) == replace(RECORD, wanted=(), missing=(), drawn=True)


@pytest.mark.parametrize(
    ("key", "value"), [("scale", None), ("run_ids", "one"), ("overrides", [1]), ("missing", None)]
)
def test_what_is_no_record_is_told_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key):
        ExperimentRecord.of({**RECORD.plain(), key: value})


def test_records_of_a_folder_are_read_but_for_those_that_are_damaged(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "uci_main-smoke.json").write_text(json.dumps(RECORD.plain()))
    (folder / "uci_main-paper.json").write_text("{")
    (folder / "other-smoke.json").write_text(json.dumps({**RECORD.plain(), "scale": 3}))
    told: list[str] = []
    assert read_all(tmp_path, on_error=lambda file, error: told.append(file.name)) == [RECORD]
    assert told == ["other-smoke.json", "uci_main-paper.json"]
    assert read_all(tmp_path, "uci_main") == [RECORD]
    assert read_all(tmp_path, "other") == []
    assert read_all(tmp_path / "nowhere") == []
