"""``hpo-bench export``: files that other programs read hold the numbers that were stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from hpo_bench.cli import app
from hpo_bench.core.schedules import WarmupCosine
from hpo_bench.errors import UserError
from hpo_bench.models.mlp import Perceptron
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer, pick_device
from hpo_bench.settings.run import TRACKERS
from hpo_bench.store import export as exporting
from hpo_bench.store.runs import CURVE_COLUMNS, FINAL_COLUMNS, read_table
from hpo_bench.store.writer import Writer
from tests.event_files import scalars
from tests.make_store import make_run
from tests.problems import make_method, make_settings

ENERGY = "uci_energy"


def call(*arguments: object) -> list[Path]:
    """Files that ``hpo-bench export`` says it wrote."""
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    paths = [Path(line) for line in result.stdout.splitlines()]
    assert all(path.exists() for path in paths)
    return paths


def refused(*arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def results(tmp_path):
    random = np.random.default_rng(0)
    make_run(tmp_path, "random", ENERGY, [0.1 + 0.2, np.nan, 1 / 3])
    make_run(tmp_path, "ours_wd_lr_m", ENERGY, random.random((4, 6)), lr=random.random((4, 6)))
    return tmp_path


# --- CSV ---


def test_csv_holds_every_number_exactly(results, tmp_path):
    finals, *curves = call("--results", results, "--out", tmp_path / "out")
    runs = exporting.choose(results, [])
    frame = pd.read_csv(finals)
    assert list(frame.columns) == ["run_id", "dataset", "method", "config_hash", *FINAL_COLUMNS]
    assert len(curves) == len(runs) == 2
    for run in runs:
        own = frame[frame.run_id == run.run_id].reset_index(drop=True)[list(FINAL_COLUMNS)]
        pd.testing.assert_frame_equal(
            own, read_table(run, "final"), check_exact=True, check_dtype=False
        )
        curve = pd.read_csv(tmp_path / "out" / "curves" / f"{run.run_id}.csv")
        assert tuple(curve.columns) == CURVE_COLUMNS
        pd.testing.assert_frame_equal(
            curve, read_table(run, "curves"), check_exact=True, check_dtype=False
        )


def test_missing_values_are_empty_and_steps_whole(results, tmp_path):
    finals, *_ = call("--results", results, "--out", tmp_path / "out")
    frame = pd.read_csv(finals, dtype=str, keep_default_na=False)
    diverged = frame[(frame.method == "random") & (frame.seed == "1")].iloc[0]
    assert diverged.status == "diverged"
    assert diverged.diverged_at.isdigit()
    assert diverged.test_metric == ""
    assert set(frame[frame.status == "ok"].diverged_at) == {""}


def test_only_the_runs_that_are_named(results, tmp_path):
    run = exporting.choose(results, ["uci_energy-random"])[0]
    for name in (run.run_id, run.run_id[:20], run.path):
        finals, curves = call(name, "--results", results, "--out", tmp_path / "out")
        assert set(pd.read_csv(finals).run_id) == {run.run_id}
        assert curves.stem == run.run_id


def test_mistakes_are_one_line(results, tmp_path):
    with Writer(results, "begun") as writer:
        (writer.path / "blocks").mkdir()
    common = ("--results", results, "--out", tmp_path / "out")
    for arguments, texts in {
        ("--format", "cvs"): ["--format cvs: did you mean csv?"],
        ("uci_energy-randon-s0",): ["no such run in", "did you mean uci_energy-random-s0-n3"],
        ("uci_energy-",): ["fits 2 runs", "say more of the name"],
        ("begun",): ["is not finished"],
        ("--schedule", "--format", "tensorboard"): ["--schedule: is written as csv only"],
        ("--seed", "1"): ["--seed: goes with"],
        ("--schedule", "--seed", "9", "uci_energy-random"): ["--seed 9: ", "has the seeds 0 to 2"],
    }.items():
        message = refused(*arguments, *common)
        assert all(text in message for text in texts), message
    assert "no complete runs in" in refused("--results", tmp_path / "none")
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in refused("--results", results, "--out", tmp_path / "file")


# --- TensorBoard ---


def test_event_files_hold_medians_over_repetitions_and_chosen_seeds(results, tmp_path):
    pytest.importorskip(
        "tensorboardX",
        reason="tensorboardX is not installed (pip install 'hpo-bench[tensorboard]')",
    )
    (run,) = exporting.choose(results, ["uci_energy-ours"])
    arguments = (
        run.run_id,
        "--format",
        "tensorboard",
        "--seed",
        "2",
        "--results",
        results,
        "--out",
        tmp_path / "tb",
    )
    summary, single = call(*arguments)
    curves = read_table(run, "curves")
    table = curves.pivot(index="step", columns="seed", values="test_metric")
    written = scalars(summary)
    steps, values = zip(*written["curves/test_metric/median"], strict=True)
    assert list(steps) == list(table.index)
    np.testing.assert_allclose(values, table.median(axis=1), rtol=1e-6)
    assert [value for _, value in written["curves/n_ok"]] == [4.0] * 6
    own = curves[curves.seed == 2]
    np.testing.assert_allclose(
        [value for _, value in scalars(single)["curves/lr"]], own.lr, rtol=1e-6
    )
    assert "holds event files already" in refused(*arguments)


def test_event_files_without_the_extra_are_one_line(results, tmp_path, monkeypatch):
    monkeypatch.setattr("hpo_bench.store.curves.find_spec", lambda name: None)
    message = refused("--format", "tensorboard", "--results", results, "--out", tmp_path / "tb")
    assert "pip install 'hpo-bench[tensorboard]'" in message
    assert TRACKERS["tensorboard"] in message


# --- schedules ---


@pytest.mark.parametrize("method", ["ours_wd_lr_m", "random_lr_schedule", "baydin", "cosine"])
def test_a_schedule_replayed_with_torch_is_the_training_that_was_stored(tmp_path, method):
    interval = 1 if method == "baydin" else 10
    if method == "cosine":
        chosen = make_method("random", schedule=WarmupCosine(warmup=0.1))
    else:
        chosen = make_method(method, update_interval=interval)
    settings = make_settings(
        tmp_path, chosen, repetitions=3, update_interval=interval, hyperparameter_updates=20
    )
    settings.config.update(update_interval=interval, hyperparameter_updates=20, record_every=1)
    run = execute(settings).run
    (path,) = call(
        "--schedule", run.run_id, "--seed", "1", "--results", tmp_path, "--out", tmp_path / "out"
    )
    schedule = pd.read_csv(path).set_index("step")
    assert list(schedule.columns) == ["lr", "weight_decay", "momentum"]
    assert schedule.index[0] == 0
    trainer = Trainer.of(settings, settings.source.load(0.25), pick_device("cpu"))
    module = Perceptron([4, 7, 1]).double()
    module.load_state_dict(trainer.model.layout.views(trainer.start([1]).weights[0]))
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)

    def loss(rows: str) -> torch.Tensor:
        return torch.nn.functional.mse_loss(
            module(trainer.rows[rows].inputs), trainer.rows[rows].targets
        )

    losses = []
    for step in range(settings.weight_updates):
        if step in schedule.index:
            optimiser.param_groups[0].update(schedule.loc[step].to_dict())
        optimiser.zero_grad()
        value = loss(settings.method.data_for_weights)
        value.backward()
        optimiser.step()
        losses.append(value.item())
    losses.append(loss(settings.method.data_for_weights).item())
    np.testing.assert_allclose(
        losses, read_table(run, "curves").query("seed == 1").train_loss, rtol=1e-10
    )
    assert loss("test").item() == pytest.approx(
        read_table(run, "final").query("seed == 1").test_loss.item(), rel=1e-10
    )
