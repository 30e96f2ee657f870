"""Division of repetitions into blocks: everything is trained, nothing outgrows the memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpo_bench.core import model
from hpo_bench.errors import UserError
from hpo_bench.running import inputs, memory

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@given(
    repetitions=st.integers(1, 500),
    row_kib=st.integers(1, 2**21),
    share=st.floats(0.01, 1.0),
    chunk=st.none() | st.integers(1, 600),
    workers=st.none() | st.integers(1, 40),
    device=st.sampled_from([CPU, GPU]),
)
def test_a_plan_covers_all_and_fits(repetitions, row_kib, share, chunk, workers, device):
    row_bytes = row_kib * 1024
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda _: 8 * memory.GIB)
        plan = memory.choose(repetitions, row_bytes, int(row_bytes * share), device, chunk, workers)
    assert 1 <= plan.rows <= repetitions
    blocks = -(-repetitions // plan.rows)
    assert 1 <= plan.workers <= blocks
    assert plan.bytes == plan.rows * plan.workers * row_bytes
    if chunk is None:
        assert plan.bytes <= 8 * memory.GIB * memory.SHARE
    else:
        assert plan.rows == min(chunk, repetitions)
    if workers is not None:
        assert plan.workers <= workers


def test_what_does_not_fit_is_one_line(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda _: memory.GIB)
    with pytest.raises(
        UserError, match=r"one repetition needs about 2\.0 GiB, cpu has 1\.0 GiB free"
    ):
        memory.choose(3, 2 * memory.GIB, 1, CPU, None, None)


def test_free_memory_and_cores_are_plausible():
    assert 2**26 < memory.free_bytes(CPU) < 2**50
    assert memory.cores() >= 1


def test_cpu_blocks_stay_in_cache_and_keep_all_workers_busy():
    plan = memory.choose(200, 10**6, model.CACHE_BYTES // 16, CPU, None, 2)
    assert plan.rows <= 16
    assert -(-200 // plan.rows) % 2 == 0


@pytest.mark.parametrize("numbers", [0, 10, 3 << 20])
def test_a_tensor_on_large_pages_is_an_ordinary_one(numbers):
    tensor = torch.empty(numbers)
    asked = inputs.on_large_pages(tensor[1:])
    asked.fill_(1)
    assert asked.data_ptr() == tensor[1:].data_ptr()
    assert asked.sum() == max(numbers - 1, 0)


def test_without_large_pages_nothing_changes(monkeypatch):
    monkeypatch.delattr(inputs.mmap, "MADV_HUGEPAGE", raising=False)
    assert inputs.on_large_pages(torch.ones(3 << 20)).sum() == 3 << 20
