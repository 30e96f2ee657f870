"""CUDA graphs of intervals: the numbers of the plain loop, for every kind of model."""

import numpy as np
import pytest
import torch

from hpo_bench.models.mlp import MLP
from hpo_bench.running import graphs
from tests.models.test_lstm import words_settings
from tests.models.test_resnet import TINY, make_images
from tests.problems import METHODS, make_settings, make_table, trained

pytestmark = pytest.mark.gpu


def both(settings):
    """Records of the plain loop and of one by graphs, which were used."""
    _, plain, _ = trained(settings, device="cuda")
    _, replayed, (engine,) = trained(settings, graphs.of, device="cuda")
    assert engine._programs
    assert engine._usable
    return plain, replayed


def compare(settings):
    plain, replayed = both(settings)
    np.testing.assert_array_equal(plain.diverged_at(), replayed.diverged_at())
    for name, values in plain.curves().items():
        np.testing.assert_array_equal(values, replayed.curves()[name], err_msg=name)


@pytest.mark.parametrize("batch_size", [None, 12])
@pytest.mark.parametrize("method", METHODS)
def test_perceptrons_on_regression(tmp_path, method, batch_size):
    compare(
        make_settings(
            tmp_path,
            method,
            make_table(),
            batch_size=batch_size,
            precision="float32",
            hyperparameter_updates=16,
            record_every=5,
            device="cuda",
        )
    )


@pytest.mark.parametrize(
    "model", [MLP((7,)), MLP((7,), closed_form=False), MLP((7,), batch_norm=True)]
)
def test_perceptrons_on_classification(tmp_path, model):
    table = make_table("classification")
    compare(
        make_settings(
            tmp_path,
            "ours_wd_lr_m",
            table,
            batch_size=9,
            model=model,
            hyperparameter_updates=16,
            device="cuda",
        )
    )


@pytest.mark.parametrize("method", ["random", "ours_wd_lr_m", "diff_through_opt"])
def test_an_lstm(tmp_path, method):
    compare(words_settings(tmp_path, method, device="cuda", hyperparameter_updates=40))


@pytest.mark.parametrize("method", ["random", "ours_wd_lr_m", "diff_through_opt"])
def test_a_resnet(tmp_path, method):
    compare(
        make_settings(
            tmp_path,
            method,
            make_images(),
            model=TINY,
            batch_size=8,
            hyperparameter_updates=16,
            device="cuda",
        )
    )


def test_rows_are_taken_in_the_order_of_the_seeds(tmp_path):
    """A GPU sorts the random numbers of a pass itself."""
    settings = make_settings(tmp_path, "random", make_table(), batch_size=7)
    from hpo_bench.running.trainer import Trainer

    on = {
        device: Trainer.of(settings, make_table(), torch.device(device)).problem([0, 5, 9]).training
        for device in ("cpu", "cuda")
    }
    for number in (0, 3, 11, 200):
        assert torch.equal(on["cpu"].places(number), on["cuda"].places(number).cpu())
