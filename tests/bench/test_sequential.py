"""The reference for speed computes what the engine computes."""

import numpy as np
import pytest
import torch

from hpo_bench.bench.sequential import Parts, train
from hpo_bench.experiment import Trainer, execute
from hpo_bench.store import read_table
from tests.problems import make_settings, make_table


@pytest.mark.parametrize("method", ["random", "ours_wd_lr_m", "diff_through_opt"])
def test_the_reference_is_the_engine(tmp_path, method):
    table = make_table()
    settings = make_settings(tmp_path, method, table, repetitions=2, hyperparameter_updates=8)
    curves = read_table(execute(settings).run, "curves")
    trainer = Trainer.of(settings, table, torch.device("cpu"))
    start = trainer.start(range(2))
    parts = Parts.of(table, torch.float64, settings.method.data_for_weights != "train")
    for row in range(2):
        weights = [view[row] for view in trainer.model.layout.views(start.weights).values()]
        rows = train(
            parts, weights, {name: value[row, 0] for name, value in start.raw.items()},
            updates=80, interval=10, estimator=settings.method.estimator, hidden=7,
        ).numpy()  # fmt: skip
        own = curves[curves.seed == row]
        for index, column in enumerate(
            ("train_loss", "validation_loss", "test_loss", "lr", "weight_decay", "momentum")
        ):
            if own[column].notna().all():
                np.testing.assert_allclose(rows[:, index], own[column], rtol=1e-9, err_msg=column)
