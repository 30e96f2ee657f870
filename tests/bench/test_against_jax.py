"""The benchmark against JAX: the same mathematics on both sides, and what is said without JAX."""

import numpy as np
import pytest
import torch

from hpo_bench.bench import against_jax
from hpo_bench.bench.against_jax import Versus
from hpo_bench.cli import bench
from hpo_bench.core.loop import train
from hpo_bench.errors import UserError
from hpo_bench.running import graphs
from hpo_bench.running.trainer import Trainer
from tests.problems import make_settings, make_table

UPDATES = 50


@pytest.mark.parametrize("method", against_jax.METHODS)
@pytest.mark.parametrize(
    ("task", "batch_size"), [("regression", None), ("classification", None), ("classification", 6)]
)
def test_jax_and_the_engine_train_alike(tmp_path, task, batch_size, method):
    pytest.importorskip("jax", reason="JAX is not installed (extra [jax])")
    from hpo_bench.bench.against_jax import JaxRun

    table = make_table(task, rows=60, features=5)
    settings = make_settings(
        tmp_path,
        method,
        table,
        precision="float32",
        batch_size=batch_size,
        hyperparameter_updates=UPDATES // 10,
    )
    trainer = Trainer.of(settings, table, torch.device("cpu"))
    seeds, rows = list(settings.seeds), settings.repetitions
    recorder = trainer.recorder(rows)
    end = train(
        trainer.problem(seeds), trainer.plan, trainer.start(seeds), recorder, engine=graphs.of
    )
    weights, raw, seen = JaxRun.of(trainer, rows)()

    close = {"rtol": 1e-5, "atol": 1e-5}
    curves = recorder.curves()
    losses = np.asarray(seen).reshape(rows, UPDATES, 3).transpose(2, 1, 0)
    np.testing.assert_allclose(losses[0], curves["train_loss"][:-1], **close)
    np.testing.assert_allclose(losses[1], curves["test_loss"][:-1], **close)
    if method != "random":
        np.testing.assert_allclose(losses[2], curves["validation_loss"][:-1], **close)
    for name, view in trainer.model.layout.views(end.state.weights).items():
        np.testing.assert_allclose(np.asarray(weights[name]), view.numpy(), **close)
    for name, value in end.raw.items():
        np.testing.assert_allclose(np.asarray(raw[name]), value[:, 0].numpy(), **close)


def test_without_jax_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(against_jax, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^--against jax: JAX is not installed; pip install 'hpo-bench\[jax\]'$"
    ):
        bench._against_jax(["uci_energy"], True)


def test_the_page_has_both_times_their_ratio_and_the_machine():
    found = [
        Versus(
            "uci_energy", "random", "x86-64-v3", True, 32, 1, (10.0, 12.0, 11.0), (50.0, 54.0, 55.0)
        ),
        Versus(
            "uci_energy",
            "ours_wd_lr_m",
            "x86-64-v3",
            True,
            32,
            4,
            (15.0, 15.0, 15.0),
            (60.0, 60.0, 75.0),
        ),
    ]
    text = against_jax.page(found, {"cpu": "Some CPU", "threads": 1}, {"jax": "1.2.3"})
    assert "cpu Some CPU, jax 1.2.3." in text
    assert (
        "| uci_energy | random | x86-64-v3 | 32, 1 | 11.0 | 54.0 | **5.0** (4.5 to 5.0) |" in text
    )
    assert "uci_energy, x86-64-v3: engine, ours_wd_lr_m takes 1.36 × random." in text
