"""The inputs of a dataset on the device."""

from __future__ import annotations

import ctypes
import mmap

import torch
from torch import Tensor

from hpo_bench.core.table import Table

LARGE_PAGE = 2 << 20  # bytes: of what is smaller, nothing would lie on one


def on_large_pages(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, not written yet, for which Linux is asked for large pages.

    Rows that are read in random order else cost a look-up of their page each: a tenth of an update
    of Fashion-MNIST. Where the system has none to give, or is another, nothing changes."""
    advice, size = getattr(mmap, "MADV_HUGEPAGE", None), tensor.numel() * tensor.element_size()
    if advice is None or tensor.device.type != "cpu" or size < 2 * LARGE_PAGE:
        return tensor
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages within the tensor
    end = (tensor.data_ptr() + size) // mmap.PAGESIZE * mmap.PAGESIZE
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is not None:
        madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), ctypes.c_int(advice))
    return tensor


BLOCK = 1 << 22  # numbers that are standardised at a time


def inputs_on(table: Table, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The inputs (N, …) of a dataset on the device; tokens stay int64.

    Inputs that come with `Table.centre` are standardised here, in float64 by blocks of `BLOCK`
    numbers: besides the result no more than a few blocks exist."""
    values = torch.from_numpy(table.inputs)
    if table.centre is None or table.scale is None:
        own = dtype if values.is_floating_point() else values.dtype
        return values.to(
            device=device, dtype=own
        ).contiguous()  # a table may lie in memory column by column
    centre, scale = (
        torch.from_numpy(table.centre).to(device),
        torch.from_numpy(table.scale).to(device),
    )
    result = on_large_pages(torch.empty(values.shape, dtype=dtype, device=device))
    rows = max(1, BLOCK * len(values) // max(values.numel(), 1))
    for part in (slice(at, at + rows) for at in range(0, len(values), rows)):
        result[part] = (values[part].to(device).to(torch.float64) - centre) / scale
    return result
