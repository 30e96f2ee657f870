"""A training that was interrupted goes on to the numbers of one that was not; memory that runs out
costs time alone.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from hpo_bench.core import loop
from hpo_bench.core.loop import beginning, train
from hpo_bench.core.optimisers import Adam
from hpo_bench.core.table import Table
from hpo_bench.core.tree import take_rows
from hpo_bench.errors import RunError
from hpo_bench.models.mlp import MLP
from hpo_bench.progress import Silent
from hpo_bench.running import memory
from hpo_bench.running.checkpoint import Checkpoints
from hpo_bench.running.execute import execute
from hpo_bench.running.program import Program, Row
from hpo_bench.running.trainer import Trainer
from hpo_bench.store.runs import read_table
from tests.problems import BEYOND, METHODS, make_settings, make_table


class Interrupted(BaseException):
    """What stands for a kill."""


def trainer_of(settings, folder=None):
    trainer = Trainer.of(settings, settings.source.load(0.25), torch.device("cpu"))
    return replace(trainer, checkpoints=None if folder is None else Checkpoints(folder, 0))


def killed_after(updates):
    """A progress function that raises once so many weight updates are made."""
    done = 0

    def on_progress(count):
        nonlocal done
        done += count
        if done >= updates:
            raise Interrupted

    return on_progress


def tables_of(block):
    frames = {name: table.to_pandas() for name, table in block.tables.items()}
    return {
        name: frame.drop(columns=["seconds", "elapsed_s"], errors="ignore")
        for name, frame in frames.items()
    }


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_block_goes_on_bit_by_bit(tmp_path, method, batch_size):
    common = {
        "batch_size": batch_size,
        "precision": "float32",
        "save_hypergradients": True,
        "save_weights": True,
    }
    settings = make_settings(tmp_path, method, **common)
    whole = trainer_of(settings).block([0, 1, 2])
    trainer = trainer_of(settings, tmp_path)
    for updates in (
        20,
        20,
    ):  # killed twice: the first kill leaves 10 updates, the second, resumed, 20 or more
        with pytest.raises(Interrupted):
            trainer.block([0, 1, 2], killed_after(updates))
    told = []
    resumed = trainer.block([0, 1, 2], told.append)
    assert told[0] >= 10
    assert sum(told) == 50
    for name, frame in tables_of(whole).items():
        pd.testing.assert_frame_equal(frame, tables_of(resumed)[name], rtol=0, atol=0)
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(array, resumed.weights[name])


@pytest.mark.parametrize("method", [*METHODS, *BEYOND])
def test_a_long_interval_is_stopped_and_saved_in_its_middle(tmp_path, method, monkeypatch):
    common = {"batch_size": 7, "update_interval": 23, "hyperparameter_updates": 2}
    settings = make_settings(tmp_path, method, **common, save_hypergradients=True)
    whole = trainer_of(settings).block([0, 1, 2])
    monkeypatch.setattr(loop, "LONGEST", 4)
    trainer = trainer_of(settings, tmp_path)
    for _ in range(2):
        with pytest.raises(Interrupted):
            trainer.block([0, 1, 2], killed_after(13))
    told = []
    resumed = trainer.block([0, 1, 2], told.append)
    assert sum(told) == 46
    assert told[0] < 23 or trainer.plan.window >= 20  # a hypergradient looks at the whole interval
    assert max(told[1:]) <= 4 + trainer.plan.window
    for name, frame in tables_of(whole).items():
        pd.testing.assert_frame_equal(frame, tables_of(resumed)[name], rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["cut", "other seeds", "other model", "nonsense"])
def test_a_checkpoint_that_does_not_fit_is_passed_over(tmp_path, damage):
    settings = make_settings(tmp_path)
    trainer = trainer_of(settings, tmp_path)
    with pytest.raises(Interrupted):
        trainer.block([0, 1, 2], killed_after(30))
    (file,) = tmp_path.glob("checkpoint-*.npz")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-200])
    elif damage == "nonsense":
        file.write_text("nonsense")
    elif damage == "other seeds":
        with pytest.raises(Interrupted):
            trainer.block([0, 1], killed_after(30))
        trainer.checkpoints.path([0, 1]).rename(file)
    else:
        trainer = trainer_of(replace(settings, model=MLP((8,))), tmp_path)
    told = []
    block = trainer.block([0, 1, 2], told.append)
    assert told == [10] * 5
    fresh = replace(trainer, checkpoints=None).block([0, 1, 2])
    pd.testing.assert_frame_equal(
        tables_of(block)["curves"], tables_of(fresh)["curves"], rtol=0, atol=0
    )


def test_a_run_that_was_interrupted_in_its_blocks_goes_on_with_them(tmp_path):
    whole = execute(make_settings(tmp_path / "whole", repetitions=4)).run
    settings = make_settings(
        tmp_path / "parts", repetitions=4, chunk=2, workers=1, checkpoint_every=0.0
    )

    class Stopping(Silent):
        """Stops when the second block is half done."""

        updates = 0

        def advance(self, units):
            self.updates += units
            if self.updates > 2 * 50 + 2 * 20:
                raise Interrupted

    with pytest.raises(Interrupted):
        execute(settings, Stopping())
    (folder,) = (tmp_path / "parts" / "runs").iterdir()
    assert [path.name for path in folder.glob("blocks/block-*")] == ["block-0-1"]
    assert [path.name for path in folder.glob("blocks/*.npz")] == ["checkpoint-2-3.npz"]
    said = []

    class Telling(Silent):
        def say(self, text):
            said.append(text)

    outcome = execute(settings, Telling())
    assert outcome.computed == 2
    assert "1 goes on from a checkpoint" in said[0]
    columns = ["seed", "step", "train_loss", "test_metric", "lr"]
    pd.testing.assert_frame_equal(
        read_table(whole, "curves", columns),
        read_table(outcome.run, "curves", columns),
        rtol=0,
        atol=0,
    )
    assert not (folder / "blocks").exists()


def test_begun_blocks_overlap_with_nothing_finished_and_obey_chunk(tmp_path):
    settings = make_settings(tmp_path)
    checkpoints = Checkpoints(tmp_path, 0)
    trainer = trainer_of(settings, tmp_path)
    for seeds in ([0, 1, 2], [3, 4], [4, 5]):
        with pytest.raises(Interrupted):
            trainer.block(seeds, killed_after(30))

    def begun(missing, chunk=None):
        program = Program.of(
            [replace(settings, chunk=chunk)], trainer.table, trainer.device, [checkpoints]
        )
        return [
            tuple(row.seed for row in rows)
            for rows in program.begun([Row(0, seed) for seed in missing])
        ]

    assert begun(range(6)) == [(0, 1, 2), (3, 4)]
    assert begun(range(6), 2) == [(3, 4)]
    assert begun([1, 2, 4, 5]) == [(4, 5)]
    assert begun([]) == []


def test_segments_are_one_training_and_rows_can_be_taken_along(tmp_path):
    settings = make_settings(tmp_path, repetitions=3)
    trainer = trainer_of(settings)
    problem, start = trainer.problem([0, 1, 2]), trainer.start([0, 1, 2])
    recorder, parts = trainer.recorder(3), trainer.recorder(3)
    end = train(problem, trainer.plan, start, recorder)
    middle = train(problem, trainer.plan, start, parts, until=20)
    assert middle.number == 20
    again = train(problem, trainer.plan, start, parts, snapshot=middle)
    torch.testing.assert_close(end.state.weights, again.state.weights, rtol=0, atol=0)
    for name, column in recorder.curves().items():
        np.testing.assert_array_equal(column, parts.curves()[name])
    two = take_rows(middle, torch.tensor([2, 0]))
    alone = train(trainer.problem([2, 0]), trainer.plan, start, trainer.recorder(2), snapshot=two)
    torch.testing.assert_close(alone.state.weights, end.state.weights[[2, 0]], rtol=0, atol=0)


def test_the_beginning_is_the_start(tmp_path):
    trainer = trainer_of(make_settings(tmp_path))
    start = trainer.start([0])
    snapshot = beginning(trainer.problem([0]), trainer.plan, start)
    assert snapshot.number == 0
    assert snapshot.state.weights is start.weights
    assert snapshot.memory == Adam(0.05).init(
        {name: start.raw[name] for name in ("weight_decay", "lr", "momentum")}
    )


class Narrow:
    """A model builder that has memory for ``rows`` repetitions at once."""

    def __init__(self, rows, error):
        self.rows, self.error = rows, error

    def build(self, table: Table, dtype, device):
        model = MLP((7,)).build(table, dtype, device)
        linearise = model.linearise

        def narrow(weights, *arguments):
            if len(weights) > self.rows:
                raise self.error
            return linearise(weights, *arguments)

        model.linearise = narrow
        return model


EXHAUSTED = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
    ),
]


@pytest.mark.parametrize("error", EXHAUSTED, ids=lambda error: type(error).__name__)
def test_a_block_that_does_not_fit_is_computed_in_halves(tmp_path, error):
    assert memory.is_exhausted(error)
    table = make_table()
    said, units = [], []

    class Telling(Silent):
        def say(self, text):
            said.append(text)

        def advance(self, count):
            units.append(count)

    settings = make_settings(
        tmp_path / "narrow", table=table, repetitions=5, chunk=5, model=Narrow(2, error)
    )
    narrow = execute(settings, Telling()).run
    assert "not enough memory for 5 repetitions at once: going on with 3" in said
    assert sum(units) == 5 * 50
    wide = execute(make_settings(tmp_path / "wide", table=table, repetitions=5)).run
    columns = ["seed", "test_metric", "lr"]
    pd.testing.assert_frame_equal(
        read_table(wide, "final", columns), read_table(narrow, "final", columns), rtol=0, atol=0
    )


def test_one_repetition_that_does_not_fit_is_an_error_and_so_is_another_error(tmp_path):
    with pytest.raises(RunError, match=r"out of memory.*smaller chunk"):
        execute(make_settings(tmp_path, repetitions=2, model=Narrow(0, EXHAUSTED[1])))
    with pytest.raises(RunError, match="shapes"):
        execute(make_settings(tmp_path, repetitions=2, model=Narrow(0, RuntimeError("shapes"))))
    assert not memory.is_exhausted(RuntimeError("shapes"))
