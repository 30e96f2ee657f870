"""A repetition (configuration, data, seed) is stored once any complete run holds it, and is not
computed again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from hpo_bench.analysis import frames, selection
from hpo_bench.cli import app
from hpo_bench.experiments.artefacts import stored_runs
from hpo_bench.experiments.definition import narrow, read
from hpo_bench.experiments.expand import expand
from hpo_bench.experiments.records import remember
from hpo_bench.running import execute as engine
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer
from hpo_bench.settings import identity
from hpo_bench.store import held, index
from hpo_bench.store.held import Wanted
from hpo_bench.store.runs import Run, read_table, runs_folder
from tests.make_store import make_run
from tests.problems import make_settings

KEPT = {"save_weights": True, "save_hypergradients": True, "hyperparameter_updates": 2}


class Said:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Remember a line."""
        self.lines.append(text)

    def begin(self, label: str, total: int, done: int = 0) -> None:
        """Nothing."""

    def advance(self, units: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


def assert_same(one: Run, other: Run) -> None:
    """All that was computed is equal, bit by bit."""
    for name in ("final", "curves", "hypergradients"):
        times = ["seconds", "rows_in_block", "elapsed_s"]
        tables = [
            read_table(run, name).drop(columns=times, errors="ignore") for run in (one, other)
        ]
        pd.testing.assert_frame_equal(*tables, rtol=0, atol=0)
    with (
        np.load(one.path / "final_weights.npz") as a,
        np.load(other.path / "final_weights.npz") as b,
    ):
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_only_missing_repetitions_are_computed(tmp_path: Path) -> None:
    first = execute(make_settings(tmp_path, "ours_wd_lr_m", seed=1, repetitions=2, **KEPT)).run
    said = Said()
    outcome = execute(make_settings(tmp_path, "ours_wd_lr_m", repetitions=5, **KEPT), said)
    assert outcome.computed == 3
    assert said.lines[0].endswith(f": 2 of 5 repetitions are stored in {first.run_id}, computing 3")
    undisturbed = execute(
        make_settings(tmp_path / "other", "ours_wd_lr_m", repetitions=5, **KEPT)
    ).run
    assert_same(outcome.run, undisturbed)
    assert outcome.run.seeds == (0, 1, 2, 3, 4)
    (source,) = outcome.run.taken_from
    assert (source["run_id"], source["seeds"], source["code"]) == (first.run_id, "1-2", first.code)
    assert undisturbed.taken_from == ()


def test_repetitions_of_several_runs_make_a_run_without_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 2):
        execute(make_settings(tmp_path, "random", seed=seed, repetitions=2, **KEPT))
    monkeypatch.setattr(Trainer, "block", None)
    for seed, repetitions in ((0, 4), (1, 2), (3, 1)):
        outcome = execute(
            make_settings(tmp_path, "random", seed=seed, repetitions=repetitions, **KEPT)
        )
        assert outcome.computed == 0
        assert outcome.run.seeds == tuple(range(seed, seed + repetitions))
    assert len(frames.finals(selection.find(tmp_path))) == 4


@pytest.mark.parametrize(
    "change", [{"hyperparameter_updates": 3}, {"save_weights": False}, {"gradient_clip_norm": 1.0}]
)
def test_repetitions_of_other_settings_are_not_taken(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    execute(make_settings(tmp_path, "random", repetitions=2, **KEPT))
    assert (
        execute(make_settings(tmp_path, "random", repetitions=3, **{**KEPT, **change})).computed
        == 3
    )


def test_force_computes_everything(tmp_path: Path) -> None:
    execute(make_settings(tmp_path, "random", repetitions=2, **KEPT))
    outcome = execute(make_settings(tmp_path, "random", repetitions=3, force=True, **KEPT))
    assert (outcome.computed, outcome.run.taken_from) == (3, ())


def test_a_damaged_run_gives_nothing(tmp_path: Path) -> None:
    run = execute(make_settings(tmp_path, "random", repetitions=2, **KEPT)).run
    (run.path / "curves.parquet").write_bytes(b"PAR1")
    assert execute(make_settings(tmp_path, "random", repetitions=3, **KEPT)).computed == 3


def test_runs_on_other_numbers_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(make_settings(tmp_path, "random", repetitions=2, **KEPT))
    monkeypatch.setattr(identity, "NUMBERS", identity.NUMBERS + 1)
    assert execute(make_settings(tmp_path, "random", repetitions=3, **KEPT)).computed == 3


def thin(run: Run) -> None:
    document = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(document | {"curves_thinned_to": 2}))


def test_thinned_curves_are_not_mixed_with_whole_ones(tmp_path: Path) -> None:
    for seed in (0, 2):
        thin(execute(make_settings(tmp_path, "random", seed=seed, repetitions=2, **KEPT)).run)
    assert execute(make_settings(tmp_path, "random", repetitions=5, **KEPT)).computed == 5
    assert execute(make_settings(tmp_path, "random", seed=1, repetitions=2, **KEPT)).computed == 0


def test_repetitions_keep_the_machine_that_computed_them(tmp_path: Path) -> None:
    first = execute(make_settings(tmp_path, "random", repetitions=2, **KEPT)).run
    document = json.loads((first.path / "run.json").read_text())
    document["environment"]["cpu"] = "another"
    (first.path / "run.json").write_text(json.dumps(document))
    run = execute(make_settings(tmp_path, "random", repetitions=3, **KEPT)).run
    cpus = frames.finals([run]).set_index("seed")["cpu"]
    assert list(cpus[[0, 1]]) == ["another"] * 2
    assert cpus[2] == run.environment["cpu"]


def test_an_interrupted_copy_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = execute(make_settings(tmp_path, "random", repetitions=2, **KEPT)).run
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_carry_out", None)
        with pytest.raises(TypeError):
            execute(make_settings(tmp_path, "random", repetitions=3, **KEPT))
    outcome = execute(make_settings(tmp_path, "random", repetitions=3, **KEPT))
    assert outcome.computed == 1
    assert [source["run_id"] for source in outcome.run.taken_from] == [first.run_id]


# --- whole experiments ---


def test_runs_that_hold_the_repetitions_stand_in_for_the_run(tmp_path: Path) -> None:
    shards = [
        make_run(tmp_path, "random", "uci_energy", [1.0, 2.0, 3.0], first_seed=seed)
        for seed in (0, 3)
    ]
    code = shards[0].config_hash
    whole, more = Wanted("a", code, tuple(range(5))), Wanted("b", code, tuple(range(7)))
    listing = index.read(runs_folder(tmp_path))
    assert held.missing(listing, [whole, more]) == {"a": set(), "b": {6}}
    runs = stored_runs(tmp_path, [whole])
    assert [(run.run_id, run.seeds) for run in runs] == [
        (shards[0].run_id, (0, 1, 2)),
        (shards[1].run_id, (3, 4)),
    ]
    assert sorted(frames.finals(runs)["seed"]) == [0, 1, 2, 3, 4]
    assert set(frames.curves(runs, ["lr"])["seed"]) == {0, 1, 2, 3, 4}
    assert stored_runs(tmp_path, [more]) == []


def test_a_plan_counts_repetitions_wherever_they_lie(tmp_path: Path) -> None:
    words = ["dataset=diabetes", "method=random", "repetitions=3"]
    chosen = narrow(read("sensitivity", "smoke"), words)
    whole = expand(chosen, tmp_path)
    for job in whole.jobs:
        for seed, repetitions in ((0, 2), (2, 2)):
            settings = {**job.settings.config, "seed": seed, "repetitions": repetitions}
            execute(replace(job.settings, seed=seed, repetitions=repetitions, config=settings))
    remember(tmp_path, whole, words)
    arguments = ["reproduce", "sensitivity", *words, "--scale", "smoke", "--results", str(tmp_path)]
    done = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert (
        f"{len(whole.jobs)} runs, {len(whole.jobs)} stored; to compute: 0 runs, 0 repetitions"
        in done.output
    )
    status = CliRunner().invoke(app, ["status", "sensitivity", "--results", str(tmp_path)])
    count = len(whole.jobs)
    assert status.output.splitlines()[1].split()[-6:] == [
        str(count),
        str(count),
        str(3 * count),
        "0",
        "0",
        "0",
    ]


def test_a_plan_counts_what_an_earlier_version_rounded_otherwise_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["dataset=diabetes", "method=random", "repetitions=3"]
    chosen = narrow(read("sensitivity", "smoke"), words)
    arguments = [
        "reproduce",
        "sensitivity",
        *words,
        "--scale",
        "smoke",
        "--results",
        str(tmp_path),
        "--dry-run",
    ]
    now = identity.NUMBERS
    with monkeypatch.context() as earlier:
        earlier.setattr(identity, "NUMBERS", now - 1)
        (job, *others) = expand(chosen, tmp_path).jobs
        assert not others
        execute(
            replace(job.settings, repetitions=2, config={**job.settings.config, "repetitions": 2})
        )
    assert "to compute: 1 runs, 3 repetitions" in CliRunner().invoke(app, arguments).output, (
        "not all of them"
    )

    with monkeypatch.context() as earlier:
        earlier.setattr(identity, "NUMBERS", now - 1)
        execute(job.settings)
    monkeypatch.setattr(identity, "ROUNDED", (now - 1,))
    done = CliRunner().invoke(app, arguments).output
    assert "1 runs, 1 stored; to compute: 0 runs" in done
    assert "1 of the stored runs is of an earlier version" in done
    runs = stored_runs(tmp_path, [each.wanted for each in expand(chosen, tmp_path).jobs])
    assert [run.run_id for run in runs] == [job.run_id]

    monkeypatch.setattr(identity, "ROUNDED", ())  # a change of the maths
    assert "to compute: 1 runs, 3 repetitions" in CliRunner().invoke(app, arguments).output
