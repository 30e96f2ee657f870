"""Runs as a whole: rows depend on neither chunk nor shard; runs are stored once, resumed, and say
what failed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from hpo_bench.core.optimisers import Adam
from hpo_bench.errors import RunError, UserError
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.models.mlp import MLP
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer, pick_device
from hpo_bench.store.runs import CURVE_COLUMNS, FINAL_COLUMNS, read_run, read_table
from hpo_bench.store.writer import Writer
from tests.failing import SAID, Raising
from tests.problems import METHODS, make_method, make_settings, make_table

NUMBERS = [name for name in FINAL_COLUMNS if name not in ("seconds", "rows_in_block")]


def finals(run, columns=NUMBERS):
    return read_table(run, "final", columns)


def curves(run):
    return read_table(run, "curves").drop(columns="elapsed_s")


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("method", METHODS)
def test_a_row_does_not_depend_on_chunk_or_shard(tmp_path, method, batch_size, precision):
    """Bitwise for the closed-form models, in float32 as in float64."""
    common = {
        "precision": precision,
        "batch_size": batch_size,
        "hyperparameter_updates": 3,
        "save_hypergradients": True,
    }
    whole = execute(make_settings(tmp_path / "whole", method, repetitions=5, **common)).run
    chunked = execute(
        make_settings(tmp_path / "chunks", method, repetitions=5, chunk=2, workers=2, **common)
    ).run
    shards = [
        execute(
            make_settings(tmp_path / "shards", method, seed=seed, repetitions=count, **common)
        ).run
        for seed, count in ((0, 1), (1, 4))
    ]
    pd.testing.assert_frame_equal(finals(whole), finals(chunked), rtol=0, atol=0)
    pd.testing.assert_frame_equal(curves(whole), curves(chunked), rtol=0, atol=0)
    joined = pd.concat([curves(shard) for shard in shards], ignore_index=True)
    pd.testing.assert_frame_equal(curves(whole), joined, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["random", "baydin", "ours_wd_hdlr_m", "diff_through_opt"])
def test_a_classification_row_does_not_depend_on_its_neighbours(tmp_path, method):
    table = make_table("classification")
    whole = execute(
        make_settings(tmp_path / "whole", method, table, repetitions=4, batch_size=10)
    ).run
    alone = execute(
        make_settings(tmp_path / "alone", method, table, seed=2, batch_size=10, repetitions=1)
    ).run
    pd.testing.assert_frame_equal(
        finals(whole).iloc[[2]].reset_index(drop=True),
        finals(alone),
        rtol=1e-11,
        atol=1e-13,
        check_dtype=False,
    )


def test_methods_are_paired(tmp_path):
    starts = ["seed", "initial_lr", "initial_weight_decay", "initial_momentum"]
    frames = [
        finals(execute(make_settings(tmp_path, m, repetitions=3)).run, starts) for m in METHODS
    ]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frames[0], frame)
    first = [
        curves(execute(make_settings(tmp_path, m, repetitions=3)).run)
        for m in ("lorraine", "diff_through_opt")
    ]
    before_the_first_hyper_update = [frame[frame.step <= 10] for frame in first]
    for column in ("train_loss", "test_metric"):
        np.testing.assert_array_equal(
            *(frame[column].to_numpy() for frame in before_the_first_hyper_update)
        )


@pytest.mark.parametrize("method", METHODS)
def test_columns_are_those_of_the_contract(tmp_path, method):
    run = execute(make_settings(tmp_path, method)).run
    final, curve = read_table(run, "final"), read_table(run, "curves")
    assert tuple(final.columns) == FINAL_COLUMNS
    assert tuple(curve.columns)[: len(CURVE_COLUMNS)] == CURVE_COLUMNS
    assert (tuple(curve.columns)[len(CURVE_COLUMNS) :] != ()) == (method == "ours_wd_hdlr_m")
    assert curve.groupby("seed").step.apply(list).map(lambda steps: steps == list(range(51))).all()
    no_validation = method in ("random", "random_lr_schedule")
    for column in ("validation_loss", "best_validation_step", "test_metric_at_best_validation"):
        assert final[column].isna().all() == no_validation
    last = curve[curve.step == 50].reset_index(drop=True)
    for column in ("train_loss", "test_loss", "test_metric", "lr", "weight_decay", "momentum"):
        np.testing.assert_array_equal(final[column], last[column])
    document = json.loads((run.path / "run.json").read_text())
    assert {"status", "config", "config_hash", "code", "environment", "seconds", "seeds"} <= set(
        document
    )
    assert {"version", "git_commit", "dirty"} <= set(document["code"])
    assert {"python", "torch", "device", "cpu", "threads"} <= set(document["environment"])
    assert set(document["seconds"]) == {"train", "evaluate", "total"}


def test_tuned_hyperparameters_move_and_the_others_stay(tmp_path):
    for method in METHODS:
        final = finals(execute(make_settings(tmp_path, method)).run)
        moved = {
            n
            for n in ("lr", "weight_decay", "momentum")
            if (final[n] != final[f"initial_{n}"]).all()
        }
        expected = set(make_method(method).tuned) | (
            {"lr"} if method == "random_lr_schedule" else set()
        )
        assert moved == expected, method


def test_best_validation_step_is_the_arg_min_of_the_curve(tmp_path):
    run = execute(make_settings(tmp_path, "ours_wd_lr_m")).run
    final, curve = finals(run).set_index("seed"), curves(run).set_index("step")
    for seed, own in curve.groupby("seed"):
        assert final.best_validation_step[seed] == own.validation_loss.idxmin()
        assert (
            final.test_metric_at_best_validation[seed]
            == own.test_metric[own.validation_loss.idxmin()]
        )


def test_full_validation_is_the_loss_of_the_whole_validation_set(tmp_path):
    table = make_table()
    settings = make_settings(tmp_path, "random_validation", table, batch_size=5, save_weights=True)
    run = execute(settings).run
    trainer = Trainer.of(settings, table, torch.device("cpu"))
    archive = np.load(run.path / "final_weights.npz")
    flat = trainer.model.layout.flatten({name[3:]: archive[name] for name in archive.files})
    validation = trainer.rows["validation"].batch(trainer.model)
    loss, _ = trainer.model.loss(torch.from_numpy(flat), validation, {})
    np.testing.assert_allclose(finals(run).validation_loss, loss.numpy(), rtol=1e-14)


def test_a_diverged_row_is_a_result_and_stays_alone(tmp_path):
    init = tmp_path / "init.npz"
    table = make_table()
    trainer = Trainer.of(make_settings(tmp_path, table=table), table, torch.device("cpu"))
    weights = {
        f"w0/{k}": v
        for k, v in trainer.model.layout.arrays(
            np.stack([trainer.model.initial_weights(np.random.default_rng(r)) for r in range(3)])
        ).items()
    }
    np.savez(
        init,
        **weights,
        **{
            "raw/lr": [-1.0, 3.0, -1.0],
            "raw/weight_decay": np.full(3, -4.0),
            "raw/momentum": np.zeros(3),
        },
    )
    start = replace(make_settings(tmp_path).start, file=init)
    settings = make_settings(tmp_path / "with", table=table, start=start, hyperparameter_updates=8)
    final, curve = (read_table(execute(settings).run, table) for table in ("final", "curves"))
    assert final.status.tolist() == ["ok", "diverged", "ok"]
    at = int(final.diverged_at[1])
    assert final.diverged_at.isna().tolist() == [True, False, True]
    own = curve[curve.seed == 1]
    assert own.step.max() == at
    assert np.isfinite(own[own.step < at].train_loss).all()
    assert (curve[curve.seed != 1].groupby("seed").size() == 81).all()
    np.savez(
        init,
        **weights,
        **{
            "raw/lr": [-1.0, -1.0, -1.0],
            "raw/weight_decay": np.full(3, -4.0),
            "raw/momentum": np.zeros(3),
        },
    )
    healthy = read_table(execute(replace(settings, results_dir=tmp_path / "without")).run, "curves")
    for seed in (0, 2):
        np.testing.assert_array_equal(
            healthy[healthy.seed == seed].test_loss, curve[curve.seed == seed].test_loss
        )


def test_weights_are_reset_after_every_hyper_update_but_the_last(tmp_path):
    run = execute(
        make_settings(
            tmp_path, "long_diff_through_opt", update_interval=6, hyperparameter_updates=3
        )
    ).run
    curve = curves(run).pivot(index="step", columns="seed", values="test_loss")
    assert (curve.loc[6] == curve.loc[0]).all()
    assert (curve.loc[12] == curve.loc[0]).all()
    assert (curve.loc[18] != curve.loc[0]).all()


def test_a_run_is_computed_once(tmp_path):
    settings = make_settings(tmp_path)
    first = execute(settings)
    stamp = (first.run.path / "final.parquet").stat().st_mtime_ns
    again = execute(settings)
    assert (first.computed, again.computed) == (3, 0)
    assert (first.run.path / "final.parquet").stat().st_mtime_ns == stamp
    assert execute(replace(settings, force=True)).computed == 3


def test_only_missing_blocks_are_computed_and_the_result_is_the_same(tmp_path):
    reference = execute(make_settings(tmp_path / "a", repetitions=6, chunk=2)).run
    settings = make_settings(tmp_path / "b", repetitions=6, chunk=2)
    table = settings.source.load(0.25)
    trainer = Trainer.of(settings, table, torch.device("cpu"))
    with Writer(settings.results_dir, reference.run_id) as writer:
        writer.write_block(trainer.block([2, 3]))
        broken = writer.path / "blocks" / "block-4-5"
        writer.write_block(trainer.block([4, 5]))
        (broken / "curves.parquet").write_bytes(b"PAR1 cut short")
    outcome = execute(settings)
    assert outcome.run.run_id == reference.run_id
    assert outcome.computed == 4
    assert not (outcome.run.path / "blocks").exists()
    pd.testing.assert_frame_equal(curves(outcome.run), curves(reference), rtol=0, atol=0)
    pd.testing.assert_frame_equal(finals(outcome.run), finals(reference), rtol=0, atol=0)


KILLED = """
import sys
from pathlib import Path
from hpo_bench.running.execute import execute
from tests.problems import make_settings
print("started", flush=True)
short = dict(repetitions=8, chunk=1, workers=1, hyperparameter_updates=60)
outcome = execute(make_settings(Path(sys.argv[1]), **short))
print(outcome.computed, outcome.run.path)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("killed/runs/*/blocks/*/block.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("killed/runs/*/run.json"))
    kept = len(list(tmp_path.glob("killed/runs/*/blocks/*/block.json")))
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(done[1]) == 8 - kept
    settings = make_settings(tmp_path / "whole", repetitions=8, hyperparameter_updates=60)
    whole, resumed = (
        execute(settings).run,
        execute(replace(settings, results_dir=tmp_path / "killed")),
    )
    assert resumed.computed == 0
    pd.testing.assert_frame_equal(curves(whole), curves(resumed.run), rtol=0, atol=0)


def test_a_run_id_depends_on_what_decides_the_numbers_and_on_nothing_else(tmp_path):
    base = execute(make_settings(tmp_path)).run.run_id
    same = execute(make_settings(tmp_path, chunk=1, workers=2)).run.run_id
    assert same == base
    others = [
        execute(make_settings(tmp_path, **change)).run.run_id
        for change in (
            {"seed": 1},
            {"repetitions": 2},
            {"look_back": 4},
            {"precision": "float32"},
            {"record_every": 10},
        )
    ]
    others.append(execute(make_settings(tmp_path, table=make_table(rows=61))).run.run_id)
    assert len({base, *others}) == 7


class Broken:
    """A model that fails in the second block."""

    def build(self, table, dtype, device):
        model = MLP((7,)).build(table, dtype, device)
        good, blocks = model.initial_carried, []

        def initial_carried(rows):
            blocks.append(rows)
            if len(blocks) > 1:
                raise RuntimeError("out of memory, or so\nsecond line")
            return good(rows)

        model.initial_carried = initial_carried
        return model


def test_a_failed_run_says_so_keeps_its_blocks_and_can_be_finished(tmp_path):
    settings = make_settings(tmp_path, chunk=1, workers=1)
    with pytest.raises(RunError, match="out of memory, or so") as caught:
        execute(replace(settings, model=Broken()))
    assert "\n" not in str(caught.value)
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    run = read_run(folder)
    assert (run.status, run.error) == ("failed", "out of memory, or so")
    outcome = execute(settings)
    assert (outcome.run.status, outcome.computed) == ("complete", 2)


@pytest.mark.parametrize(("name", "text"), SAID.items())
def test_whatever_a_model_raises_is_told_with_its_class_and_marks_the_run(tmp_path, name, text):
    settings = make_settings(tmp_path, chunk=1, workers=1, model=Raising(name))
    with pytest.raises(
        RunError, match=rf"failed: {text}; finished blocks are kept, 0 of 3 repetitions"
    ) as caught:
        execute(settings)
    assert "\n" not in str(caught.value)
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    run = read_run(folder)
    assert (run.status, run.error) == ("failed", text)


def test_a_pool_that_is_lost_says_what_is_stored_and_how_to_go_on(tmp_path):
    class Lost:
        def run(self, program, blocks, workers, reporter):
            yield program.block(blocks[0])
            raise RuntimeError("the Ray cluster no longer answers")

    settings = make_settings(tmp_path, chunk=1, workers=1)
    with pytest.raises(RunError) as caught:
        execute(settings, pool=Lost())
    assert str(caught.value).endswith(
        "failed: the Ray cluster no longer answers; finished blocks are kept, 1 of 3 repetitions; "
        "the same command goes on with the rest"
    )
    assert execute(settings).computed == 2


def test_two_processes_do_not_compute_the_same_run(tmp_path):
    settings = make_settings(tmp_path)
    run = execute(settings).run
    with Writer(tmp_path, run.run_id), pytest.raises(RunError, match="another process"):
        execute(settings)


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "results").write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"results_dir=.*: is a file, not a folder$"):
        execute(make_settings(tmp_path / "results"))


def test_what_an_estimator_cannot_tune_is_refused(tmp_path):
    method = replace(make_method("baydin"), tuned=("lr", "momentum"))
    with pytest.raises(UserError, match=r"cannot tune momentum; allowed: lr"):
        execute(make_settings(tmp_path, method=method))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line():
    assert pick_device("auto").type == "cpu"
    with pytest.raises(UserError, match=r"device=cuda: .* 0 CUDA devices; allowed here: auto, cpu"):
        pick_device("cuda")


def test_saved_hypergradients_are_the_steps_that_were_taken(tmp_path):
    method = replace(make_method("ours_wd_lr_m"), estimator=Neumann(5), optimiser=Adam(0.05))
    run = execute(make_settings(tmp_path, method=method, save_hypergradients=True)).run
    steps, curve = read_table(run, "hypergradients"), curves(run)
    assert sorted(steps.hyper_step.unique()) == [0, 1, 2, 3, 4]
    first = steps[steps.hyper_step == 0]  # Adam's first step is lr against the sign
    np.testing.assert_allclose(first.step_lr, -0.05 * np.sign(first.hypergradient_lr), rtol=1e-5)
    for seed, own in curve.groupby("seed"):
        at = own.set_index("step").lr.loc[[0, 10, 20, 30, 40, 50]]
        np.testing.assert_allclose(
            np.diff(np.log10(at)), steps[steps.seed == seed].step_lr, rtol=1e-9
        )


def test_the_saved_hypergradient_of_an_unrolled_window_is_a_finite_difference(tmp_path):
    """Through the whole engine: first hyper update, window = T, so that the window starts at the
    initial weights.
    """
    method = replace(make_method("diff_through_opt"), estimator=Unroll(4))
    common = {
        "method": method,
        "update_interval": 4,
        "look_back": 4,
        "hyperparameter_updates": 1,
        "repetitions": 1,
    }
    base = make_settings(tmp_path, **common, save_hypergradients=True)
    hyper = read_table(execute(base).run, "hypergradients")
    trainer = Trainer.of(base, base.source.load(0.25), torch.device("cpu"))
    start, init, epsilon = trainer.start([0]), tmp_path / "nudged.npz", 1e-5
    weights = {f"w0/{k}": v for k, v in trainer.model.layout.arrays(start.weights.numpy()).items()}
    frozen = replace(make_method("random"), data_for_weights="train", name="frozen")
    for name in ("lr", "weight_decay", "momentum"):
        losses = []
        for sign in (1, -1):
            raw = {
                f"raw/{k}": v.numpy()[:, 0] + (sign * epsilon if k == name else 0)
                for k, v in start.raw.items()
            }
            np.savez(init, **weights, **raw)
            settings = make_settings(
                tmp_path / f"{name}{sign}",
                **{**common, "method": frozen},
                start=replace(base.start, file=init),
            )
            losses.append(finals(execute(settings).run).validation_loss[0])
        difference = (losses[0] - losses[1]) / (2 * epsilon)
        assert hyper[f"hypergradient_{name}"][0] == pytest.approx(difference, rel=1e-5, abs=1e-10)
