"""Functions whose last digit is not left to a library: torch's own exp comes from one that chooses
by the processor.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from hpo_bench.core.native import kernels


def exp(values: Tensor) -> Tensor:
    """e^values of float64 numbers, within two units of the last place; torch's where there are no
    kernels.

    With kernels, and on a CPU, the bits are the same on every machine and for every place in a
    tensor; autograd is left to torch."""
    library = (
        kernels().library if values.device.type == "cpu" and not values.requires_grad else None
    )
    if library is None:
        return torch.exp(values)
    values = values.contiguous()
    result = torch.empty_like(values)
    library.exponentials(ctypes.c_long(values.numel()), address(values), address(result))
    return result


def address(values: Tensor) -> ctypes.c_void_p:
    """Where the numbers of a contiguous tensor lie."""
    return ctypes.c_void_p(values.data_ptr())
