"""`ReLUClassification` by a compiled kernel: the same numbers to rounding, without a copy of a
batch or of a gradient.

The kernel (``native/relu_classification.c``) reads the rows of the dataset where they are, so a
shuffled batch holds row numbers, and a weight update takes up the gradient while it is in
registers. A row's numbers depend neither on the other rows nor on the instruction set that a kernel
was compiled for, bit by bit."""

from __future__ import annotations

import ctypes
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hpo_bench.core import native
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.model import Batch, Carried, Following, Split, Stretch
from hpo_bench.core.rule import Fusable
from hpo_bench.core.sgd import MomentumSGD, SGDStep, raw_products
from hpo_bench.core.update import Linearisation, State
from hpo_bench.models.relu_classification import ReLUClassification
from hpo_bench.models.relu_native import _Hyper

COLUMNS = 16  # SUM_LANES of the kernel: activations are padded to whole vectors of rows
WEIGHT_VECTORS = 6  # vectors of P numbers that a weight update holds
_SGD = MomentumSGD()


def make(
    features: int, hidden: int, classes: int, dtype: torch.dtype, device: torch.device
) -> ReLUClassification:
    """By the kernel on a CPU where there is one, else by torch."""
    library = native.kernels().library if device.type == "cpu" else None
    if library is None:
        return ReLUClassification(features, hidden, classes, dtype)
    return NativeReLUClassification(features, hidden, classes, dtype, library)


class _Rows(ctypes.Structure):
    """The struct ``rows`` of ``relu_classification.c``."""

    _fields_ = (
        ("inputs", ctypes.c_void_p),
        ("targets", ctypes.c_void_p),
        ("chosen", ctypes.c_void_p),
        ("inputs_apart", ctypes.c_long),
        ("targets_apart", ctypes.c_long),
        ("chosen_apart", ctypes.c_long),
        ("count", ctypes.c_long),
    )

    @staticmethod
    def of(batch: Batch) -> _Rows:
        """Addresses of a batch, which must outlive this value."""
        inputs, targets, places = batch.inputs, batch.targets, batch.places
        assert targets.dtype == torch.int64
        apart = 0 if batch.shared or places is not None else inputs.stride(0)
        targets_apart = 0 if batch.shared or places is not None else targets.stride(0)
        if places is None:
            return _Rows(
                inputs.data_ptr(), targets.data_ptr(), None, apart, targets_apart, 0, batch.count
            )
        assert places.stride(1) == 1
        return _Rows(
            inputs.data_ptr(),
            targets.data_ptr(),
            places.data_ptr(),
            0,
            0,
            places.stride(0),
            batch.count,
        )


# The last update of a call, or the products that were asked of it.
_Last = SGDStep | Mapping[str, Tensor] | None
FACTORS = {
    "lr": 0,
    "weight_decay": 1,
    "momentum": 2,
}  # of `SGDStep`, in the order of the kernel's ``enum factor``


class _Following(ctypes.Structure):
    """The struct ``following`` of ``relu_classification.c``."""

    _fields_ = (
        ("second", _Rows),
        ("terms", ctypes.c_void_p),
        ("factors", ctypes.c_void_p),
        ("count", ctypes.c_long),
        ("dots", ctypes.c_void_p),
    )
    arrays: tuple[object, ...]

    @staticmethod
    def of(following: Following, dots: Tensor) -> _Following:
        """Addresses of what is asked for and of its answer (R, n), which must outlive this
        value.
        """
        terms = (ctypes.c_int * len(following.terms))(*following.terms)
        factors = (ctypes.c_int * len(following.names))(
            *(FACTORS[name] for name in following.names)
        )
        addresses = map(ctypes.addressof, (terms, factors))
        found = _Following(_Rows.of(following.second), *addresses, len(factors), dots.data_ptr())
        found.arrays = terms, factors
        return found


class NativeReLUClassification(ReLUClassification):
    """See the module. All tensors are on the CPU."""

    kernels = frozenset({"sgd"})
    fuses_batches = True
    fuses_steps = True
    fuses_tangents = False

    def __init__(
        self, features: int, hidden: int, classes: int, dtype: torch.dtype, library: ctypes.CDLL
    ) -> None:
        super().__init__(features, hidden, classes, dtype)
        self._library = library
        self._kind = "float64" if dtype == torch.float64 else "float32"

    def _call(self, name: str, rows: int, *arguments: object) -> None:
        """A kernel for ``rows`` repetitions; addresses for tensors and batches.

        Raises:
            MemoryError: there is none for its working space.
        """
        function = self._library[f"{name}_classify_{self._kind}"]
        sizes = (ctypes.c_long(rows), self.hidden, self.features, self.classes)
        if function(*sizes, *map(_passed, arguments)):
            raise MemoryError("no memory for a kernel's working space")

    def batch(
        self, inputs: Tensor, targets: Tensor, *, shared: bool, split: Split, first: bool = True
    ) -> Batch:
        """Rows as they are, without gaps."""
        return Batch(
            inputs.contiguous(), targets.contiguous(), inputs.shape[-2], shared, split, first
        )

    def batch_at(
        self, inputs: Tensor, targets: Tensor, places: Tensor, *, split: Split, first: bool
    ) -> Batch:
        """See `hpo_bench.core.model.TakesPlaces`: the rows stay where they are, if they lie one
        after the other.
        """
        inputs, targets = inputs.contiguous(), targets.contiguous()
        return Batch(inputs, targets, places.shape[-1], False, split, first, places)

    def _kept(self, weights: Tensor, count: int) -> Tensor:
        """Room for what Hessian-vector products need of a forward pass."""
        columns = -(-count // COLUMNS) * COLUMNS
        return weights.new_empty(len(weights), (self.hidden + self.classes) * columns)

    def linearise(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any], second_order: bool
    ) -> Linearisation:
        """Loss, gradient and Hessian-vector products."""
        weights = weights.contiguous()
        loss, gradient = weights.new_empty(len(weights)), torch.empty_like(weights)
        kept = self._kept(weights, batch.count) if second_order else None
        self._call("linearise", len(weights), batch, weights, loss, gradient, kept)
        if kept is None:
            return Linearisation(loss, gradient, _not_kept, carried)
        return self._linearisation(weights, batch, kept, loss, gradient, carried)

    def _linearisation(
        self,
        weights: Tensor,
        batch: Batch,
        kept: Tensor,
        loss: Tensor,
        gradient: Tensor,
        carried: Mapping[str, Any],
    ) -> Linearisation:
        """What was kept of a forward pass, with the products that it allows."""

        def hessian_products(vectors: Tensor) -> Tensor:
            vectors = vectors.contiguous()
            results = torch.empty_like(vectors)
            self._call(
                "products",
                len(weights),
                batch,
                weights,
                kept,
                ctypes.c_long(len(vectors)),
                vectors,
                results,
            )
            return results

        def hessian_product(vector: Tensor) -> Tensor:
            return hessian_products(vector.unsqueeze(0)).squeeze(0)

        def products_of_series(
            vector: Tensor,
            lr: Tensor,
            weight_decay: Tensor,
            terms: Sequence[int],
            others: Sequence[Tensor],
        ) -> Tensor | None:
            if not self._sums_up(batch, lr, weight_decay):
                return None
            return self._series(weights, batch, kept, vector, lr, weight_decay, terms, others)

        return Linearisation(
            loss,
            gradient,
            hessian_product,
            carried,
            hessian_products,
            products_of_series=products_of_series,
        )

    def _sums_up(self, batch: Batch, lr: Tensor, weight_decay: Tensor) -> bool:
        """Whether inner products of the batch's rows do for a series, and cost less than they
        save.
        """
        return lr.shape[-1] == 1 and weight_decay.shape[-1] == 1 and batch.count <= 2 * self.hidden

    def _series(
        self,
        weights: Tensor,
        batch: Batch,
        kept: Tensor,
        vector: Tensor,
        lr: Tensor,
        weight_decay: Tensor,
        terms: Sequence[int],
        others: Sequence[Tensor],
    ) -> Tensor:
        vector, lr, weight_decay = (value.contiguous() for value in (vector, lr, weight_decay))
        own = [other.contiguous() for other in others]
        pointers = (ctypes.c_void_p * len(own))(*(other.data_ptr() for other in own))
        each = (ctypes.c_int * len(terms))(*terms)
        dots = weights.new_empty(len(weights), len(own))
        self._call(
            "series",
            len(weights),
            batch,
            weights,
            kept,
            vector,
            lr,
            weight_decay,
            each,
            len(own),
            pointers,
            dots,
            None,
        )
        return dots.T.unsqueeze(-1)

    def loss(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """The mean cross-entropy of each row, (R,)."""
        return self.evaluate(weights, batch, carried)[0], carried

    def evaluate(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and error rate, (R,) each."""
        weights = weights.contiguous()
        loss, error = weights.new_empty(2, len(weights))
        self._call("evaluate", len(weights), batch, weights, loss, error)
        return loss, error

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
        """See `FusedUpdates.updates`; one repetition after the other makes its updates up to the
        next recorded one.
        """
        assert rule == _SGD
        assert carried is None
        begins = sorted({0, *(number for number, due in enumerate(recorded) if due)})
        columns: dict[str, list[Tensor]] = defaultdict(list)
        finite, seconds, of_recorded = [], 0.0, iter(validation)
        last: _Last = None
        for begin, end in zip(begins, [*begins[1:], len(batches)], strict=True):
            if recorded[begin]:
                since = time.perf_counter()
                loss, error = self.evaluate(state.weights, test, state.carried)
                columns["test_loss"].append(loss)
                columns["test_metric"].append(error)
                if validation:
                    columns["validation_loss"].append(
                        self.evaluate(state.weights, next(of_recorded), {})[0]
                    )
                seconds += time.perf_counter() - since
            ahead = following if end == len(batches) else None
            state, losses, own_finite, last = self._updates(
                state, batches[begin:end], hyperparameters, ahead
            )
            finite.append(own_finite)
            if recorded[begin]:
                columns["train_loss"].append(losses[0])
        rows = {name: torch.stack(values) for name, values in columns.items()}
        stretch = Stretch(state, torch.cat(finite), rows, seconds)
        return (
            replace(stretch, step=last)
            if isinstance(last, SGDStep)
            else replace(stretch, products=last)
        )

    def _updates(
        self,
        state: State,
        batches: Sequence[Batch],
        hyperparameters: Hyperparameters,
        following: Following | None,
    ) -> tuple[State, Tensor, Tensor, _Last]:
        """The state after one update on each batch, losses and finiteness before each (T, R), and
        what follows.
        """
        weights, buffer = state.weights.contiguous(), state.buffer.contiguous()
        new_weights, new_buffer = torch.empty_like(weights), torch.empty_like(buffer)
        losses, finite = weights.new_empty(2, len(batches), len(weights))
        kept, before, request, products = None, State(weights, buffer), None, None
        if following is not None and self._sums_up(
            batches[-1], hyperparameters["lr"], hyperparameters["weight_decay"]
        ):
            products = weights.new_empty(len(weights), len(following.names))
            request = _Following.of(following, products)
        elif following is not None:
            kept = self._kept(weights, batches[-1].count)
            if len(batches) > 1:
                before = State(torch.empty_like(weights), torch.empty_like(buffer))
        rows = (_Rows * len(batches))(*map(_Rows.of, batches))
        natural = (
            hyperparameters["lr"],
            hyperparameters["weight_decay"],
            hyperparameters["momentum"],
        )
        self._call(
            "updates",
            len(weights),
            ctypes.c_long(len(batches)),
            rows,
            weights,
            buffer,
            new_weights,
            new_buffer,
            before.weights,
            before.buffer,
            kept,
            *map(_Hyper.of, natural),
            losses,
            finite,
            request,
        )
        found: _Last = None
        if products is not None and following is not None:
            found = raw_products(products.T.unsqueeze(-1), following.names, hyperparameters)
        elif kept is not None:
            last = self._linearisation(
                before.weights, batches[-1], kept, losses[-1], _NO_GRADIENT, state.carried
            )
            found = SGDStep(
                before.weights, before.buffer, last, None, hyperparameters, new_buffer, new_buffer
            )
        return State(new_weights, new_buffer, state.carried), losses, finite, found

    def row_bytes(self, batch_rows: int, window: int) -> int:
        """Activations that are kept, and vectors of weights."""
        columns = -(-batch_rows // COLUMNS) * COLUMNS
        kept = max(window, 1) * (self.hidden + self.classes) * columns
        return self.dtype.itemsize * (kept + (WEIGHT_VECTORS + 4 * window) * self.layout.count)

    def evaluation_bytes(self, rows: int) -> int:
        """Nothing that depends on the rows."""
        return 0

    def working_set(self, batch_rows: int) -> int:
        """Little: one repetition is trained after the other, and many at once share Python's work
        between the calls.
        """
        return self.dtype.itemsize * self.layout.count // 2


_NO_GRADIENT = torch.empty(0)


def _not_kept(vector: Tensor) -> Tensor:
    raise ValueError("this linearisation was asked for without second order")


def _passed(argument: object) -> object:
    """What C gets for an argument."""
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, Batch):
        return ctypes.byref(_Rows.of(argument))
    return ctypes.byref(argument) if isinstance(argument, (_Hyper, _Following)) else argument
