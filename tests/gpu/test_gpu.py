"""The same numbers on a GPU as on a CPU; reference traces follow in `tests/test_golden.py`
(``device=auto``).
"""

import numpy as np
import pandas as pd
import pytest
import torch

from hpo_bench.models.mlp import MLP
from hpo_bench.running.execute import execute
from hpo_bench.store.runs import read_table
from tests.problems import METHODS, make_settings, make_table

pytestmark = pytest.mark.gpu
COLUMNS = ["seed", "step", "train_loss", "test_metric", "lr", "weight_decay", "momentum"]
RELATIVE = {"float64": 1e-9, "float32": 2e-3}


def curves(settings):
    return read_table(execute(settings).run, "curves", COLUMNS)


def on_both(tmp_path, method, table, **changes):
    return [
        curves(make_settings(tmp_path / device, method, table, device=device, **changes))
        for device in ("cpu", "cuda")
    ]


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_gives_the_numbers_of_a_cpu(tmp_path, method, batch_size, precision):
    table = make_table()
    cpu, cuda = on_both(tmp_path, method, table, batch_size=batch_size, precision=precision)
    pd.testing.assert_frame_equal(
        cpu, cuda, rtol=RELATIVE[precision], atol=1e-6 if precision == "float32" else 1e-12
    )


@pytest.mark.parametrize("closed_form", [True, False])
def test_classification_too(tmp_path, closed_form):
    model = MLP((7,), closed_form=closed_form)
    cpu, cuda = on_both(
        tmp_path, "ours_wd_lr_m", make_table("classification"), batch_size=9, model=model
    )
    pd.testing.assert_frame_equal(cpu, cuda, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", ["random", "ours_wd_hdlr_m", "diff_through_opt"])
def test_a_run_can_be_repeated_bit_by_bit(tmp_path, method):
    table = make_table()
    first, second = (
        curves(
            make_settings(
                tmp_path / name, method, table, device="cuda", precision="float32", repetitions=16
            )
        )
        for name in ("first", "second")
    )
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=0)


def test_chunks_do_not_change_rows(tmp_path):
    table = make_table()
    whole, parts = (
        curves(
            make_settings(
                tmp_path / str(chunk),
                "ours_wd_lr_m",
                table,
                device="cuda",
                repetitions=6,
                chunk=chunk,
            )
        )
        for chunk in (6, 2)
    )
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-10, atol=1e-12)


def test_a_block_beyond_the_memory_goes_on_in_halves(tmp_path):
    """With a cap of the allocator far below what 64 repetitions of this table need at once."""
    table = make_table(rows=20_000, features=8)
    common = {"device": "cuda", "repetitions": 64, "hyperparameter_updates": 1, "model": MLP((50,))}
    free = curves(make_settings(tmp_path / "free", "diff_through_opt", table, **common))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(
            (torch.cuda.memory_reserved() + (1 << 30)) / total
        )
        capped = curves(
            make_settings(tmp_path / "capped", "diff_through_opt", table, chunk=64, **common)
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(free["test_metric"], capped["test_metric"], rtol=1e-9)
