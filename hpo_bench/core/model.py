"""What the training loop asks of a model: losses, and the linearisation of the training loss, for R
rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.layout import Layout
from hpo_bench.core.rule import Fusable, Step
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.core.table import Table
from hpo_bench.core.update import Linearisation, Phase, State

# Of activations worked on at once by one CPU core: measured best between half and twice this.
CACHE_BYTES = 2 << 20

Split = Literal["training", "validation", "test"]
_PLAIN = MomentumSGD()


@dataclass(frozen=True)
class Batch:
    """Rows of a dataset in the form that one model wants them in, made by `Model.batch`.

    Args:
        inputs, targets: without a leading axis R where all repetitions share the rows, else with
            one.
        count: B, rows of the dataset in this batch.
        shared: whether all repetitions share the rows.
        split: which part of the dataset they come from (models may carry a state for each).
        first: True at the start of a pass over the part.
        places: (R, B) int64, which of the inputs and targets make up each repetition's batch; None
            where all do.
    """

    inputs: Tensor
    targets: Tensor
    count: int
    shared: bool
    split: Split
    first: bool
    places: Tensor | None = None


class Model(Protocol):
    """R copies of a model with a mean loss over a batch; weights come as (R, P) and no row ever
    sees another.

    Attributes:
        layout: names and shapes of the parameters.
        carries_state: whether a forward pass in training mode changes `State.carried` (then the
            validation batch is forwarded at every weight update, as in the paper's code).
    """

    layout: Layout
    carries_state: bool

    def initial_weights(self, random: np.random.Generator) -> np.ndarray:
        """PyTorch's default initialisation of one repetition, (P,) float64."""
        ...

    def initial_carried(self, rows: int) -> Mapping[str, Any]:
        """Carried state of ``rows`` repetitions before training."""
        ...

    def batch(
        self, inputs: Tensor, targets: Tensor, *, shared: bool, split: Split, first: bool = True
    ) -> Batch:
        """Bring rows (B, …) ``shared`` by all repetitions, or (R, B, …), into this model's form."""
        ...

    def linearise(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any], second_order: bool
    ) -> Linearisation:
        """Loss, gradient and, if ``second_order``, Hessian-vector products, in training mode."""
        ...

    def loss(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Mean loss (R,) in training mode, and the carried state after it."""
        ...

    def carry(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]) -> Mapping[str, Any]:
        """The carried state after a forward pass in training mode whose loss nobody wants."""
        ...

    def evaluate(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Mean loss (R,) and metric (R,) in evaluation mode: un-normalised MSE, error rate or
        perplexity.
        """
        ...

    def row_bytes(self, batch_rows: int, window: int) -> int:
        """Estimate of the memory that one repetition needs at once, bytes, with ``window``
        linearisations kept.
        """
        ...

    def evaluation_bytes(self, rows: int) -> int:
        """Estimate of what `evaluate` needs besides, for one repetition and a set of ``rows`` rows,
        bytes.
        """
        ...

    def working_set(self, batch_rows: int) -> int:
        """Bytes of activations that one repetition's linearisation reads again and again: what
        should stay in cache.
        """
        ...


@runtime_checkable
class TakesPlaces(Protocol):
    """A model that reads the rows of a batch where they lie in the dataset, so that nobody need
    gather them.
    """

    def batch_at(
        self, inputs: Tensor, targets: Tensor, places: Tensor, *, split: Split, first: bool
    ) -> Batch:
        """The batch of the rows ``places`` (R, B) of inputs (N, …) and targets (N, …)."""
        ...


@dataclass(frozen=True)
class Following:
    """What follows the last of several updates: the products of a Neumann series, see
    `Step.products_of_series`.

    Args:
        second: the batch whose gradient, at the weights after that update, is the covector.
        terms: of each repetition's series, (R,).
        names: of the hyperparameters.
    """

    second: Batch
    terms: Sequence[int]
    names: Sequence[str]


@dataclass(frozen=True)
class Carried:
    """Tangents that travel with several updates, see `hpo_bench.hypergradients.forward.Forward`.

    Args:
        tangents: of weights and buffer before the first of them, (n, R, P) each.
        names: n hyperparameters, each with one value for all weights.
        discount: what the tangents are multiplied by before each update.
    """

    tangents: Phase
    names: Sequence[str]
    discount: float


@dataclass(frozen=True)
class Stretch:
    """Several weight updates that were made in one call.

    Args:
        state: after the last of them.
        finite: for each update, 0 where weights and training loss were finite before it, else NaN:
            (n, R).
        columns: ``train_loss``, ``test_loss``, ``test_metric`` and, where there was a batch for it,
            ``validation_loss`` before each update that is recorded: (m, R) each.
        evaluate_seconds: time spent on test and validation losses.
        step: the last update, to be differentiated, of which the gradient is not there; None unless
            it was wanted.
        products: what `Following` asks for, (R, 1) each, instead of ``step``; None unless it was
            wanted and the model could find it in the same call. The second batch leaves no trace in
            the state.
        tangents: after the last of them, zero for repetitions where they were not finite; None
            unless some were `Carried`.
    """

    state: State
    finite: Tensor
    columns: Mapping[str, Tensor]
    evaluate_seconds: float
    step: Step | None = None
    products: Mapping[str, Tensor] | None = None
    tangents: Phase | None = None


@runtime_checkable
class FusedUpdates(Protocol):
    """A model that can make several weight updates in one call, faster.

    The numbers are those of as many calls of `Model.linearise`, `Model.loss`, `Model.evaluate` and
    `Rule.advance`, bit by bit.

    Attributes:
        kernels: the `Operands.kernel` of the rules whose updates it can make.
        fuses_batches: whether the updates of a call may be on several batches, and not on one
            alone.
        fuses_steps: whether the last update of a call may be one that is differentiated.
        fuses_tangents: whether tangents can travel with the updates, if these are of SGD.
    """

    @property
    def kernels(self) -> frozenset[str]: ...

    @property
    def fuses_batches(self) -> bool: ...
    @property
    def fuses_steps(self) -> bool: ...
    @property
    def fuses_tangents(self) -> bool: ...

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
        rule: Fusable = _PLAIN,
        carried: Carried | None = None,
    ) -> Stretch:
        """Make one update on each of the batches, without clipping.

        Args:
            recorded: for each update, whether the losses before it are wanted.
            validation: for each recorded update, whose loss is the validation loss; nothing if
                there is none.
            test: the test set.
            following: what comes next; then `Stretch.products` or `Stretch.step` are wanted.
            rule: one that `kernels` has.
            carried: what travels with the updates; then `Stretch.tangents` are wanted.
        """
        ...


@runtime_checkable
class Settles(Protocol):
    """What a `Model` offers besides whose evaluation uses statistics of the training (batch
    normalisation).
    """

    carries_state: bool

    def settled(
        self, weights: Tensor, batches: Sequence[Batch], carried: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The carried state with the statistics of ``weights``, estimated anew on batches of the
        training rows.

        For weights that no forward pass in training mode has seen, such as averages of the trained
        ones."""
        ...


class Builder(Protocol):
    """What a configuration's ``model._target_`` is."""

    def build(self, table: Table, dtype: torch.dtype, device: torch.device) -> Model:
        """The model for a dataset."""
        ...


def mean_of_parts(
    evaluate: Callable[[Batch], tuple[Tensor, Tensor]], batch: Batch, rows: int
) -> tuple[Tensor, Tensor]:
    """Mean loss and metric (R,) of a batch of which ``evaluate`` sees up to ``rows`` rows at a
    time.

    For metrics that are means over the rows. The parts do not depend on R, so no repetition depends
    on the others."""
    if batch.count <= rows:
        return evaluate(batch)
    axis, total = (0 if batch.shared else 1), None
    for begin in range(0, batch.count, rows):
        count = min(rows, batch.count - begin)
        inputs, targets = (
            tensor.narrow(axis, begin, count) for tensor in (batch.inputs, batch.targets)
        )
        part = replace(batch, inputs=inputs, targets=targets, count=count)
        share = count / batch.count * torch.stack(evaluate(part))
        total = share if total is None else total + share
    assert total is not None
    return total[0], total[1]
