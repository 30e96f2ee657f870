"""`ReLURegression` by a compiled kernel: the same numbers to rounding, without a trip to memory
between the operations.

What torch does in six passes over hidden activations of 50 numbers a column, the kernel does on up
to 640 columns at a time in the first cache; only the mask is written, a bit a number. A row's
numbers do not depend on the others, nor on the instruction set that a kernel was compiled for
(`hpo_bench.core.native`), bit by bit."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hpo_bench.core import native, tree
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.model import Batch, Carried, Following, Stretch
from hpo_bench.core.rule import Fusable
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.core.update import Linearisation, Operands, Phase, State
from hpo_bench.models.relu_regression import VECTOR, ReLURegression

# Of ``weight_update.h``: the rules, and SGD's hyperparameters, in the order of its enums.
KERNELS = ("sgd", "adamw")
TUNED = ("lr", "weight_decay", "momentum")
HYPERS, MEMORIES, ADAMW_SUMS = 6, 4, 6
_SGD = MomentumSGD()
_ROWS = torch.contiguous_format
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


class _Rule(ctypes.Structure):
    """``rule`` of ``weight_update.h``."""

    operands: Operands
    _fields_ = (
        ("kind", ctypes.c_long),
        ("hypers", _Hyper * HYPERS),
        ("eps", ctypes.c_double),
        ("memory", ctypes.c_void_p * MEMORIES),
    )

    @staticmethod
    def of(operands: Operands, memory: object) -> _Rule:
        """Addresses of the hyperparameters, which live on as long as this does, and of what the
        rule carries, which must outlive it.
        """
        hypers = [_Hyper.of(values) for values in operands.hyperparameters]
        found = _Rule(
            KERNELS.index(operands.kernel),
            (_Hyper * HYPERS)(*hypers),
            operands.eps,
            _addresses(memory),
        )
        found.operands = replace(operands, hyperparameters=tuple(h.tensor for h in hypers))
        return found


class _Tangents(ctypes.Structure):
    """``tangents`` of ``weight_update.h``."""

    others: tuple[object, ...]
    _fields_ = (
        ("count", ctypes.c_long),
        ("names", ctypes.c_char_p),
        ("slopes", ctypes.POINTER(_Hyper)),
        ("discount", ctypes.c_double),
        ("weights", ctypes.c_void_p),
        ("buffer", ctypes.c_void_p),
    )

    @staticmethod
    def of(carried: Carried, tangents: Phase, hyperparameters: Hyperparameters) -> _Tangents:
        """What is ``carried``; the ``tangents`` must outlive this value."""
        slopes = [_Hyper.of(hyperparameters.slope(name)) for name in carried.names]
        array = (_Hyper * len(slopes))(*slopes)
        found = _Tangents(
            len(slopes),
            bytes(TUNED.index(name) for name in carried.names),
            array,
            carried.discount,
            tangents.weights.data_ptr(),
            tangents.memory.data_ptr(),
        )
        found.others = (array, [slope.tensor for slope in slopes])
        return found


class _Kept(NamedTuple):
    """What Hessian-vector products need of a linearisation: inner products (R, H, d+1), and the
    mask as bits.
    """

    inner: Tensor
    mask: Tensor


class _Last(ctypes.Structure):
    """``last`` of ``relu_regression.c``."""

    before: State
    slope: Tensor
    kept: _Kept
    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("memory", ctypes.c_void_p * MEMORIES),
        ("gradient", ctypes.c_void_p),
        ("inner", ctypes.c_void_p),
        ("masks", ctypes.c_void_p),
    )

    @staticmethod
    def of(weights: Tensor, buffer: object, kept: _Kept) -> _Last:
        """Room for what was there before an update, shaped like what is there now."""
        before = State(torch.empty_like(weights), tree.change(buffer, torch.empty_like))
        gradient = torch.empty_like(weights)
        found = _Last(
            before.weights.data_ptr(),
            _addresses(before.buffer),
            gradient.data_ptr(),
            kept.inner.data_ptr(),
            kept.mask.data_ptr(),
        )
        found.before, found.slope, found.kept = before, gradient, kept
        return found


class NativeReLURegression(ReLURegression):
    """See the module. All tensors are on the CPU."""

    kernels = frozenset(KERNELS)
    fuses_batches = False
    fuses_steps = True
    fuses_tangents = True

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

        def products_of_rule(
            operands: Operands,
            memory: object,
            vector: Tensor,
            terms: Sequence[int],
            longest: Tensor | None,
        ) -> Tensor:
            vector, sums = vector.contiguous(), weights.new_empty(len(weights), ADAMW_SUMS)
            assert operands.kernel == "adamw"
            before: object = tree.change(memory, Tensor.contiguous)
            self._call(
                "adamw_products",
                weights,
                batch,
                *kept,
                _Rule.of(operands, before),
                gradient,
                vector,
                (ctypes.c_int * len(terms))(*terms),
                longest,
                sums,
            )
            return sums

        return Linearisation(
            loss,
            gradient,
            hessian_product,
            carried,
            hessian_products,
            series,
            products_of_rule=products_of_rule,
        )

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
        *,
        rule: Fusable = _SGD,
        carried: Carried | None = None,
    ) -> Stretch:
        """See `FusedUpdates.updates`; one repetition after the other makes all of its updates."""
        batch = batches[0]
        assert all(other is batch for other in batches)
        assert all(other is validation[0] for other in validation)
        operands = rule.operands(hyperparameters)
        assert operands is not None
        weights, buffer = _own(state.weights), tree.change(state.buffer, _own)
        others = [test, *validation[:1]]
        finite = weights.new_empty(len(recorded), len(weights))
        losses = weights.new_empty(1 + len(others), sum(recorded), len(weights))
        seconds = ctypes.c_double(0.0)
        last = None if following is None else _Last.of(weights, buffer, self._room(weights, batch))
        tangents = travelling = None
        if carried is not None:
            tangents = tree.change(carried.tangents, _own)
            travelling = _Tangents.of(carried, tangents, hyperparameters)
        self._call(
            "updates",
            weights,
            _Rule.of(operands, buffer),
            batch,
            len(recorded),
            bytes(map(int, recorded)),
            len(others),
            (_Batch * len(others))(*map(_Batch.of, others)),
            finite,
            losses,
            ctypes.byref(seconds),
            last,
            travelling,
        )
        columns = dict(zip(("train_loss", "test_loss", "validation_loss"), losses, strict=False))
        columns["test_metric"] = columns["test_loss"] * self.target_scale**2
        after = State(weights, buffer, state.carried)
        step = None
        if last is not None:
            linearisation = self._linearisation(
                last.before.weights, batch, last.kept, losses[0], last.slope, state.carried
            )
            step = rule.made(last.before, linearisation, hyperparameters, after)
        return Stretch(after, finite, columns, seconds.value, step, tangents=tangents)

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


def _own(values: Tensor) -> Tensor:
    """A copy that a kernel may change, rows after rows."""
    return values.clone(memory_format=_ROWS)


def _addresses(memory: object) -> ctypes.Array[ctypes.c_void_p]:
    """Where the tensors of what a rule carries lie."""
    tensors: list[Tensor] = tree.leaves(memory)
    return (ctypes.c_void_p * MEMORIES)(*(values.data_ptr() for values in tensors))


def _passed(argument: object) -> object:
    """What C gets for an argument."""
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, Batch):
        return ctypes.byref(_Batch.of(argument))
    if isinstance(argument, _Hyper | _Rule | _Tangents | _Last):
        return ctypes.byref(argument)
    return ctypes.c_long(argument) if isinstance(argument, int) else argument
