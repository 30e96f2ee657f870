"""What is remembered of an experiment that is finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo_bench.experiments.carry_out import carry_out
from hpo_bench.experiments.definition import narrow, read
from hpo_bench.experiments.expand import expand
from hpo_bench.experiments.records import finished_record, remember
from hpo_bench.settings import compose as composing
from hpo_bench.settings import identity
from hpo_bench.store.runs import runs_folder


def test_a_finished_experiment_is_known_without_composing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = narrow(
        read("sensitivity", "smoke"), ["dataset=diabetes", "method=random", "repetitions=1"]
    )
    words = ["dataset=diabetes", "method=random", "repetitions=1"]
    found = expand(chosen, tmp_path)
    remember(tmp_path, found, words)
    assert finished_record(tmp_path, "sensitivity", "smoke", words) is None
    carry_out(found.jobs, "")
    monkeypatch.setattr(composing, "compose", None)
    ids = tuple(own.run_id for own in found.jobs)
    finished = finished_record(tmp_path, "sensitivity", "smoke", words)
    assert finished is not None
    assert tuple(each.run_id for each in finished) == tuple(ids)
    assert finished_record(tmp_path, "sensitivity", "small", words) is None
    assert finished_record(tmp_path, "sensitivity", "smoke", [*words, "init.file=x.npz"]) is None
    monkeypatch.setattr(identity, "NUMBERS", 0)
    assert finished_record(tmp_path, "sensitivity", "smoke", words) is None
    monkeypatch.undo()
    (runs_folder(tmp_path) / ids[0] / "run.json").unlink()
    assert finished_record(tmp_path, "sensitivity", "smoke", words) is None
