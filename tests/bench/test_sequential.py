"""The reference for speed computes what the engine computes."""

import numpy as np
import pytest
import torch

from hpo_bench.bench.compare import compare
from hpo_bench.bench.sequential import Parts, batches, train
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer
from hpo_bench.store.runs import read_table
from tests.problems import make_settings, make_table


@pytest.mark.parametrize("method", ["random", "ours_wd_lr_m", "diff_through_opt"])
@pytest.mark.parametrize("batch_size", [None, 10])
def test_the_reference_is_the_engine(tmp_path, method, batch_size):
    table = make_table("regression" if batch_size is None else "classification")
    settings = make_settings(
        tmp_path, method, table, repetitions=2, hyperparameter_updates=8, batch_size=batch_size
    )
    curves = read_table(execute(settings).run, "curves")
    trainer = Trainer.of(settings, table, torch.device("cpu"))
    start = trainer.start(range(2))
    parts = Parts.of(table, torch.float64, settings.method.data_for_weights != "train")
    for row in range(2):
        weights = [view[row] for view in trainer.model.layout.views(start.weights).values()]
        rows = train(
            parts,
            weights,
            {name: value[row, 0] for name, value in start.raw.items()},
            updates=80,
            interval=10,
            estimator=settings.method.estimator,
            training=batches(parts.training, batch_size, table.name, "training", row),
            validation=batches(parts.validation, batch_size, table.name, "validation", row),
        ).numpy()
        own = curves[curves.seed == row]
        for index, column in enumerate(
            ("train_loss", "validation_loss", "test_loss", "lr", "weight_decay", "momentum")
        ):
            if own[column].notna().all():
                np.testing.assert_allclose(rows[:, index], own[column], rtol=1e-9, err_msg=column)


@pytest.mark.parametrize("batch_size", [None, 10])
def test_both_are_timed(tmp_path, batch_size):
    table = make_table("regression" if batch_size is None else "classification")
    settings = make_settings(tmp_path, "ours_wd_lr_m", table, batch_size=batch_size)
    compared = compare(settings, updates=20, rounds=2, rows=3)
    assert compared.rows == 3
    assert compared.ratios.shape == (2,)
    assert (compared.ratios > 0).all()
    assert compared.flops > 0
