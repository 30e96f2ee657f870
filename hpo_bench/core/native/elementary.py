"""Functions whose last digit is not left to a library: torch's own exp comes from one that chooses
by the processor, and so do its square roots, of which one in a hundred thousand is not the exact
one.
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
    library = _library(values)
    if library is None:
        return torch.exp(values)
    values = values.contiguous()
    result = torch.empty_like(values)
    library.exponentials(ctypes.c_long(values.numel()), address(values), address(result))
    return result


def sqrt(values: Tensor) -> Tensor:
    """√values, rounded exactly; torch's where there are no kernels, or none for this type."""
    library, is_known = _library(values), values.dtype in (torch.float32, torch.float64)
    if library is None or not is_known:
        return torch.sqrt(values)
    values = values.contiguous()
    result = torch.empty_like(values)
    kind = "float64" if values.dtype == torch.float64 else "float32"
    roots = library[f"square_roots_{kind}"]
    roots(ctypes.c_long(values.numel()), address(values), address(result))
    return result


def _library(values: Tensor) -> ctypes.CDLL | None:
    """The kernels, where they can take these numbers: on a CPU, with no derivative to be noted."""
    own = values.device.type == "cpu" and not values.requires_grad
    return kernels().library if own else None


def address(values: Tensor) -> ctypes.c_void_p:
    """Where the numbers of a contiguous tensor lie."""
    return ctypes.c_void_p(values.data_ptr())
