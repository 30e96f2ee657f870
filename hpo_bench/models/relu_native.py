"""`ReLURegression` by a compiled kernel: the same numbers to rounding, without a trip to memory
between the operations.

What torch does in six passes over hidden activations of 50 numbers a column, the kernel does on up
to 640 columns at a time in the first cache; only the mask is written, a bit a number. A row's
numbers do not depend on the others, nor on the instruction set that a kernel was compiled for
(`hpo_bench.core.native`), bit by bit."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hpo_bench.core import native
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.model import Batch, Following, Stretch
from hpo_bench.core.sgd import SGDStep
from hpo_bench.core.update import Linearisation, State
from hpo_bench.models.relu_regression import VECTOR, ReLURegression

WEIGHT_VECTORS = 8  # vectors of P numbers that a weight update holds


def make(
    features: int, hidden: int, target_scale: float, dtype: torch.dtype, device: torch.device
) -> ReLURegression:
    """By the kernel on a CPU where there is one, else by torch."""
    library = native.kernels().library if device.type == "cpu" else None
    if library is None:
        return ReLURegression(features, hidden, target_scale, dtype)
    return NativeReLURegression(features, hidden, target_scale, dtype, library)


class _Batch(ctypes.Structure):
    """The struct ``batch`` of ``relu_regression.c``."""

    _fields_ = (
        ("columns", ctypes.c_long),
        ("count", ctypes.c_long),
        ("inputs", ctypes.c_void_p),
        ("targets", ctypes.c_void_p),
        ("inputs_apart", ctypes.c_long),
        ("targets_apart", ctypes.c_long),
    )

    @staticmethod
    def of(batch: Batch) -> _Batch:
        """Addresses of a batch (as `ReLURegression.batch` makes it), which must outlive this
        value.
        """
        inputs, targets = batch.inputs, batch.targets
        apart = (0, 0) if batch.shared else (inputs.stride(0), targets.stride(0))
        return _Batch(inputs.shape[-1], batch.count, inputs.data_ptr(), targets.data_ptr(), *apart)


class _Hyper(ctypes.Structure):
    """The struct ``hyper`` of ``relu_regression.c``."""

    tensor: Tensor
    _fields_ = (("values", ctypes.c_void_p), ("row", ctypes.c_long), ("weight", ctypes.c_long))

    @staticmethod
    def of(values: Tensor) -> _Hyper:
        """Address and strides of a hyperparameter (R, 1) or (R, P), which lives on as long as this
        does.
        """
        one = values.shape[-1] == 1
        values = values if one else values.contiguous()
        found = _Hyper(values.data_ptr(), values.stride(0), 0 if one else 1)
        found.tensor = values
        return found


class _Kept(NamedTuple):
    """What Hessian-vector products need of a linearisation: inner products (R, H, d+1), and the
    mask as bits.
    """

    inner: Tensor
    mask: Tensor


class NativeReLURegression(ReLURegression):
    """See the module. All tensors are on the CPU."""

    fuses_batches = False
    fuses_steps = True

    def __init__(
        self,
        features: int,
        hidden: int,
        target_scale: float,
        dtype: torch.dtype,
        library: ctypes.CDLL,
    ) -> None:
        super().__init__(features, hidden, target_scale, dtype)
        self._library, self._kind = library, "float64" if dtype == torch.float64 else "float32"
        self._size = library[f"mask_bytes_{self._kind}"]
        self._size.restype = ctypes.c_long

    def _call(self, name: str, weights: Tensor, *arguments: object) -> None:
        """A kernel for the rows of ``weights``; addresses for tensors, C's long for numbers.

        Raises:
            MemoryError: there is none for its working space.
        """
        code = self._library[f"{name}_{self._kind}"](
            ctypes.c_long(len(weights)),
            self.hidden,
            self.features,
            *map(_passed, (weights, *arguments)),
        )
        if code:
            raise MemoryError("no memory for a kernel's working space")

    def _mask_bytes(self, columns: int) -> int:
        return int(self._size(self.hidden, self.features, ctypes.c_long(columns)))

    def linearise(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any], second_order: bool
    ) -> Linearisation:
        """Loss, gradient and Hessian-vector products."""
        weights, kept = weights.contiguous(), self._room(weights, batch)
        loss, gradient = weights.new_empty(len(weights)), torch.empty_like(weights)
        self._call("linearise", weights, batch, loss, gradient, *kept)
        return self._linearisation(weights, batch, kept, loss, gradient, carried)

    def _room(self, weights: Tensor, batch: Batch) -> _Kept:
        """Where a linearisation is to be kept."""
        mask = torch.empty(
            len(weights), self._mask_bytes(batch.inputs.shape[-1]), dtype=torch.uint8
        )
        return _Kept(weights.new_empty(len(weights), self.hidden, self.features + 1), mask)

    def _linearisation(
        self,
        weights: Tensor,
        batch: Batch,
        kept: _Kept,
        loss: Tensor,
        gradient: Tensor,
        carried: Mapping[str, Any],
    ) -> Linearisation:
        """What was kept, with the products that it allows."""

        def hessian_products(vectors: Tensor) -> Tensor:
            vectors = vectors.contiguous()
            results = torch.empty_like(vectors)
            self._call("products", weights, batch, *kept, len(vectors), vectors, results)
            return results

        def hessian_product(vector: Tensor) -> Tensor:
            return hessian_products(vector.unsqueeze(0)).squeeze(0)

        def series(vector: Tensor, lr: Tensor, weight_decay: Tensor, terms: int) -> Tensor:
            vector, total = vector.contiguous(), torch.empty_like(weights)
            factors = _Hyper.of(lr), _Hyper.of(weight_decay)
            self._call("series", weights, batch, *kept, terms, vector, *factors, total)
            return total

        return Linearisation(loss, gradient, hessian_product, carried, hessian_products, series)

    def loss(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Mean squared error (R,)."""
        weights = weights.contiguous()
        loss = weights.new_empty(len(weights))
        self._call("linearise", weights, batch, loss, None, None, None)
        return loss, carried

    def updates(
        self,
        state: State,
        batches: Sequence[Batch],
        hyperparameters: Hyperparameters,
        recorded: Sequence[bool],
        validation: Sequence[Batch],
        test: Batch,
        following: Following | None = None,
    ) -> Stretch:
        """See `FusedUpdates.updates`; one repetition after the other makes all of its updates."""
        batch = batches[0]
        assert all(other is batch for other in batches)
        assert all(other is validation[0] for other in validation)
        weights, buffer = (
            value.clone(memory_format=torch.contiguous_format)
            for value in (state.weights, state.buffer)
        )
        others = [test, *validation[:1]]
        finite = weights.new_empty(len(recorded), len(weights))
        losses = weights.new_empty(1 + len(others), sum(recorded), len(weights))
        natural = (
            hyperparameters["lr"],
            hyperparameters["weight_decay"],
            hyperparameters["momentum"],
        )
        seconds = ctypes.c_double(0.0)
        before = State(torch.empty_like(weights), torch.empty_like(buffer))
        kept = self._room(weights, batch)
        last = (
            (before.weights, before.buffer, *kept)
            if following is not None
            else (None, None, None, None)
        )
        self._call(
            "updates",
            weights,
            buffer,
            batch,
            len(recorded),
            *map(_Hyper.of, natural),
            bytes(map(int, recorded)),
            len(others),
            (_Batch * len(others))(*map(_Batch.of, others)),
            finite,
            losses,
            ctypes.byref(seconds),
            *last,
        )
        columns = dict(zip(("train_loss", "test_loss", "validation_loss"), losses, strict=False))
        columns["test_metric"] = columns["test_loss"] * self.target_scale**2
        step = None
        if following is not None:
            unknown = weights.new_empty(0)
            linearisation = self._linearisation(
                before.weights, batch, kept, unknown, unknown, state.carried
            )
            step = SGDStep(
                before.weights, before.buffer, linearisation, None, hyperparameters, buffer, buffer
            )
        return Stretch(State(weights, buffer, state.carried), finite, columns, seconds.value, step)

    def row_bytes(self, batch_rows: int, window: int) -> int:
        """The masks that are kept, or the last one, one in the making, and vectors of weights."""
        mask = (max(window, 1) + 1) * self._mask_bytes(-(-batch_rows // VECTOR) * VECTOR)
        return mask + self.dtype.itemsize * (WEIGHT_VECTORS + 4 * window) * self.layout.count

    def evaluation_bytes(self, rows: int) -> int:
        """Nothing that depends on the rows."""
        return 0

    def working_set(self, batch_rows: int) -> int:
        """Vectors of weights: the activations of one repetition are gone when the next one's are
        made.
        """
        return self.dtype.itemsize * 2 * WEIGHT_VECTORS * self.layout.count


def _passed(argument: object) -> object:
    """What C gets for an argument."""
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, Batch):
        return ctypes.byref(_Batch.of(argument))
    if isinstance(argument, _Hyper):
        return ctypes.byref(argument)
    return ctypes.c_long(argument) if isinstance(argument, int) else argument
