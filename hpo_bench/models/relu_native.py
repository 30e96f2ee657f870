"""`ReLURegression` by a compiled kernel: the same numbers to rounding, without a trip to memory between the operations.

What torch does in six passes over hidden activations of 50 numbers a column, the kernel does on 192 columns at a time
in the first cache; only the mask is written, a byte a number. A row's numbers do not depend on the others, bit by bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpo_bench import native
from hpo_bench.core.update import Linearisation
from hpo_bench.models.base import Batch
from hpo_bench.models.relu_regression import ReLURegression

UNITS = 4  # HB in the kernel: hidden units are padded to a multiple
WEIGHT_VECTORS = 8  # vectors of P numbers that a weight update holds


def make(features: int, hidden: int, target_scale: float, dtype: torch.dtype, device: torch.device) -> ReLURegression:
    """By the kernel on a CPU where one could be compiled, else by torch."""
    library = native.kernels().library if device.type == "cpu" else None
    if library is None:
        return ReLURegression(features, hidden, target_scale, dtype)
    return NativeReLURegression(features, hidden, target_scale, dtype, library)


class NativeReLURegression(ReLURegression):
    """See the module. All tensors are on the CPU."""

    def __init__(
        self, features: int, hidden: int, target_scale: float, dtype: torch.dtype, library: ctypes.CDLL
    ) -> None:
        super().__init__(features, hidden, target_scale, dtype)
        kind = "float64" if dtype == torch.float64 else "float32"
        self._linearise, self._products = library[f"linearise_{kind}"], library[f"products_{kind}"]

    def _common(self, weights: Tensor, batch: Batch) -> tuple[Any, ...]:
        """R, H, d, columns, rows, weights, inputs and how far apart two rows' inputs are."""
        columns = batch.inputs.shape[-1]
        apart = 0 if batch.shared else (self.features + 1) * columns
        return (
            _long(len(weights)), self.hidden, self.features, _long(columns), _long(batch.count),
            _address(weights), _address(batch.inputs), _long(apart),
        )  # fmt: skip

    def _forwarded(self, weights: Tensor, batch: Batch, kept: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
        """Loss (R,); with ``kept``, writes the gradient, the inner products and the mask there."""
        loss = weights.new_empty(len(weights))
        apart = _long(0 if batch.shared else batch.targets.shape[-1])
        places = (None, None, None) if kept is None else tuple(_address(tensor) for tensor in kept)
        _check(self._linearise(*self._common(weights, batch), _address(batch.targets), apart, _address(loss), *places))
        return loss

    def linearise(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any], second_order: bool) -> Linearisation:
        """Loss, gradient and Hessian-vector products."""
        weights, rows = weights.contiguous(), len(weights)
        units = -(-self.hidden // UNITS) * UNITS
        gradient = torch.empty_like(weights)
        inner = weights.new_empty(rows, self.hidden, self.features + 1)
        mask = torch.empty(rows, units, batch.inputs.shape[-1], dtype=torch.int8)
        loss = self._forwarded(weights, batch, (gradient, inner, mask))

        def hessian_products(vectors: Tensor) -> Tensor:
            vectors = vectors.contiguous()
            results = torch.empty_like(vectors)
            places = (_address(tensor) for tensor in (inner, mask, vectors, results))
            _check(self._products(_long(len(vectors)), *self._common(weights, batch), *places))
            return results

        def hessian_product(vector: Tensor) -> Tensor:
            return hessian_products(vector.unsqueeze(0)).squeeze(0)

        return Linearisation(loss, gradient, hessian_product, carried, hessian_products)

    def loss(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
        """Mean squared error (R,)."""
        return self._forwarded(weights.contiguous(), batch, None), carried

    def row_bytes(self, batch_rows: int, window: int) -> int:
        """The masks that are kept, or the last one, one in the making, and vectors of weights."""
        mask = (max(window, 1) + 1) * -(-self.hidden // UNITS) * UNITS * batch_rows
        return mask + self.dtype.itemsize * (WEIGHT_VECTORS + 4 * window) * self.layout.count

    def evaluation_bytes(self, rows: int) -> int:
        """Nothing that depends on the rows."""
        return 0

    def working_set(self, batch_rows: int) -> int:
        """Vectors of weights: the activations of one repetition are gone when the next one's are made."""
        return self.dtype.itemsize * 2 * WEIGHT_VECTORS * self.layout.count


_long = ctypes.c_long


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _check(code: int) -> None:
    if code:
        raise MemoryError("no memory for a kernel's working space")
