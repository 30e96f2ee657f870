"""One hidden ReLU layer and softmax cross-entropy: every derivative in closed form, two large
matrix products each.

With hidden activations h = max(W₁x + b₁, 0), their mask m = [h > 0], scores s = W₂h + b₂ and p =
softmax(s), the slope of the mean loss over B rows is D = (p - onehot(y))/B (B, C), and with E =
(D·W₂) ∘ m (B, H) the gradient is

    dL/dW₁ = Eᵀ·X,    dL/db₁ = colsum(E),    dL/dW₂ = Dᵀ·h,    dL/db₂ = colsum(D).

A Hessian-vector product along (V₁, c₁, V₂, c₂), m being constant almost everywhere, is

    h' = (X·V₁ᵀ + c₁) ∘ m,       s' = h·V₂ᵀ + c₂ + h'·W₂ᵀ,
    D' = p ∘ (s' - (p·s'))/B,    E' = (D'·W₂ + D·V₂) ∘ m,

    (E'ᵀ·X,  colsum(E'),  D'ᵀ·h + Dᵀ·h',  colsum(D')).

Both cost 2·(2·H·d·B) operations in two products with the inputs. Tests compare everything with
autograd."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpo_bench.core.layout import Layout
from hpo_bench.core.model import Batch, Split, mean_of_parts
from hpo_bench.core.update import Linearisation
from hpo_bench.models.autograd import default_initial_weights

VECTOR = 16  # numbers in the widest vector register (512 bits of float32)
WEIGHT_VECTORS = 32  # vectors of P numbers that training or evaluating holds, a batch among them
# Of inputs, so that a part of a large set stays in cache while all repetitions read it.
EVALUATION_BYTES = 2 << 20
# A GPU wants large products; their activations are less than its memory notices.
GPU_EVALUATION_BYTES = 64 << 20


def aligned(like: Tensor, rows: int, first: int, second: int) -> Tensor:
    """An empty (rows, first, second) each of whose matrices begins at a multiple of `VECTOR`
    numbers.

    Kernels for matrices depend on the address that they begin at, so that a repetition's last
    digits would depend on its place in the batch."""
    size = first * second
    result: Tensor = like.new_empty(rows, -(-size // VECTOR) * VECTOR)[:, :size].unflatten(
        1, (first, second)
    )
    return result


def as_aligned(matrices: Tensor) -> Tensor:
    """The matrices (R, m, n) themselves if they begin so already, else a copy that does."""
    return matrices if is_aligned(matrices) else aligned(matrices, *matrices.shape).copy_(matrices)


def is_aligned(matrices: Tensor) -> bool:
    """Whether each of the matrices (R, m, n) begins at a multiple of `VECTOR` numbers."""
    dense = matrices.stride(-1) == 1 and matrices.stride(-2) == matrices.shape[-1]
    return dense and matrices.stride(0) % VECTOR == 0 and matrices.storage_offset() % VECTOR == 0


@dataclass(frozen=True)
class _Weights:
    """W₁ (R, H, d), b₁ (R, 1, H), W₂ (R, C, H), b₂ (R, 1, C)."""

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor


class ReLUClassification:
    """R copies of ``Linear(d, H) - ReLU - Linear(H, C)`` with softmax cross-entropy.

    Batches hold X, (B, d) or (R, B, d), and class numbers (B,) or (R, B). On a CPU a repetition
    trains to the last bit alike wherever it stands in a batch, because all its matrices begin at
    whole vectors (`aligned`); of the losses of shared test sets, which no update depends on, the
    last bit may differ.

    Args:
        features: d.
        hidden: H.
        classes: C.
    """

    carries_state = False

    def __init__(self, features: int, hidden: int, classes: int, dtype: torch.dtype) -> None:
        self.features, self.hidden, self.classes, self.dtype = features, hidden, classes, dtype
        self.layout = Layout(
            ("layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"),
            ((hidden, features), (hidden,), (classes, hidden), (classes,)),
        )

    def initial_weights(self, random: np.random.Generator) -> np.ndarray:
        """PyTorch's default: each layer uniform within ±1/√fan_in."""
        return default_initial_weights(self._module, random)

    @cached_property
    def _module(self) -> nn.Module:
        with torch.device("meta"):
            return nn.Sequential(
                nn.Linear(self.features, self.hidden), nn.Linear(self.hidden, self.classes)
            )

    def initial_carried(self, rows: int) -> Mapping[str, Any]:
        """This model carries nothing from batch to batch."""
        return {}

    def batch(
        self, inputs: Tensor, targets: Tensor, *, shared: bool, split: Split, first: bool = True
    ) -> Batch:
        """Rows as they are, each repetition's beginning at whole vectors."""
        rows = inputs if shared else as_aligned(inputs)
        return Batch(rows, targets, inputs.shape[-2], shared, split, first)

    def _split(self, flat: Tensor) -> _Weights:
        views = self.layout.views(flat)
        return _Weights(
            as_aligned(views["layers.0.weight"]),
            views["layers.0.bias"].unsqueeze(-2),
            as_aligned(views["layers.2.weight"]),
            views["layers.2.bias"].unsqueeze(-2),
        )

    def _forward(self, weights: _Weights, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inputs (R, B, d), targets (R, B, 1), hidden activations (R, B, H) and scores (R, B,
        C).
        """
        count = weights.first.shape[0]
        rows = batch.inputs.expand(count, *batch.inputs.shape[-2:])
        targets = batch.targets.expand(count, batch.count).unsqueeze(-1)
        hidden = _affine(rows, weights.first, weights.first_bias).clamp_(min=0)
        return rows, targets, hidden, _affine(hidden, weights.second, weights.second_bias)

    def linearise(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any], second_order: bool
    ) -> Linearisation:
        """Loss, gradient and Hessian-vector products from one forward pass."""
        own = self._split(weights)
        rows, targets, hidden, scores = self._forward(own, batch)
        mask = torch.sign(hidden)
        chances = torch.softmax(scores, -1)
        slope = aligned(chances, *chances.shape).copy_(chances)
        slope.scatter_add_(-1, targets, slope.new_full((), -1).expand(targets.shape)).mul_(
            1 / batch.count
        )

        def pulled_back(slope: Tensor, change: Tensor, out: Tensor) -> dict[str, Tensor]:
            """Write what a slope of the scores and one of the hidden layer mean for the first layer
            and b₂.
            """
            views = self.layout.views(out)
            inner = change.mul_(mask)
            _product_into(views["layers.0.weight"], inner.mT, rows)
            torch.sum(inner, 1, out=views["layers.0.bias"])
            torch.sum(slope, 1, out=views["layers.2.bias"])
            return views

        gradient = torch.empty_like(weights)
        views = pulled_back(
            slope, torch.bmm(slope, own.second, out=aligned(hidden, *hidden.shape)), gradient
        )
        _product_into(views["layers.2.weight"], slope.mT, hidden)

        def write_product(vector: Tensor, out: Tensor) -> None:
            along = self._split(vector)
            hidden_v = _affine(rows, along.first, along.first_bias).mul_(mask)
            scores_v = _affine(hidden, along.second, along.second_bias).baddbmm_(
                hidden_v, own.second.mT
            )
            scores_v.sub_((chances * scores_v).sum(-1, keepdim=True))
            slope_v = scores_v.mul_(chances).mul_(1 / batch.count)
            change = torch.bmm(slope_v, own.second, out=aligned(hidden, *hidden.shape)).baddbmm_(
                slope, along.second
            )
            views = pulled_back(slope_v, change, out)
            second = torch.bmm(slope_v.mT, hidden, out=aligned(hidden, *own.second.shape))
            views["layers.2.weight"].copy_(second.baddbmm_(slope.mT, hidden_v))

        def hessian_product(vector: Tensor) -> Tensor:
            out = torch.empty_like(weights)
            write_product(vector, out)
            return out

        def hessian_products(vectors: Tensor) -> Tensor:
            out = weights.new_empty(vectors.shape)
            for vector, product in zip(vectors, out, strict=True):
                write_product(vector, product)
            return out

        return Linearisation(
            _mean_loss(scores, targets), gradient, hessian_product, carried, hessian_products
        )

    def loss(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """The mean cross-entropy of each row, (R,)."""
        _, targets, _, scores = self._forward(self._split(weights), batch)
        return _mean_loss(scores, targets), carried

    def _evaluation_rows(self, device: torch.device) -> int:
        at_once = GPU_EVALUATION_BYTES if device.type == "cuda" else EVALUATION_BYTES
        return max(VECTOR, at_once // (self.dtype.itemsize * self.features))

    def carry(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]) -> Mapping[str, Any]:
        """This model carries nothing from batch to batch."""
        return carried

    def evaluate(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and error rate, (R,) each, a part of the rows at a time."""
        own = self._split(weights)
        stacked = own.first.flatten(0, 1).T if batch.shared else None

        def part(rows: Batch) -> tuple[Tensor, Tensor]:
            targets, scores = (
                self._forward(own, rows)[1::2]
                if stacked is None
                else _shared_scores(own, stacked, rows)
            )
            loss = _mean_loss(scores, targets)
            wrong = (scores.argmax(-1, keepdim=True) != targets).to(loss.dtype).mean((-2, -1))
            return loss, torch.where(
                torch.isfinite(loss), wrong, torch.nan
            )  # argmax of NaN looks like an answer

        return mean_of_parts(part, batch, self._evaluation_rows(weights.device))

    def row_bytes(self, batch_rows: int, window: int) -> int:
        """Hidden activations, masks and scores that are kept and in the making, and vectors of
        weights (measured).
        """
        activations = (window + 1) * (2 * self.hidden + 4 * self.classes) * batch_rows
        return self.dtype.itemsize * (
            activations + max(WEIGHT_VECTORS, 12 + 4 * window) * self.layout.count
        )

    def evaluation_bytes(self, rows: int) -> int:
        """Activations of the rows that are evaluated at once."""
        return (
            2
            * self.dtype.itemsize
            * min(rows, self._evaluation_rows(torch.device("cpu")))
            * (self.hidden + 2 * self.classes)
        )

    def working_set(self, batch_rows: int) -> int:
        """Weights, hidden activations and their mask: about ten rows of the paper's size, where
        speed levels off.
        """
        return self.dtype.itemsize * (self.layout.count + 2 * batch_rows * self.hidden)


def _shared_scores(weights: _Weights, stacked: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Targets (R, B, 1) and scores (R, B, C) of rows that all repetitions share, by one product (B,
    d)·(d, R·H).

    A fifth faster than one product a repetition, whose 50 columns do not fill the kernels.
    """
    count, hidden, _ = weights.first.shape
    activations = torch.mm(batch.inputs, stacked).unflatten(1, (count, hidden)).transpose(0, 1)
    activations.add_(weights.first_bias).clamp_(min=0)
    targets = batch.targets.expand(count, batch.count).unsqueeze(-1)
    return targets, torch.bmm(activations, weights.second.mT).add_(weights.second_bias)


def _affine(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Rows (R, B, n), weight (R, m, n), bias (R, 1, m) -> (R, B, m)."""
    out = aligned(weight, rows.shape[0], rows.shape[1], weight.shape[1])
    return torch.bmm(rows, weight.mT, out=out).add_(bias)


def _product_into(out: Tensor, left: Tensor, right: Tensor) -> None:
    """out (R, m, n), a part of a row of weights, becomes left·right."""
    if is_aligned(out):
        torch.bmm(left, right, out=out)
    else:
        out.copy_(torch.bmm(left, right, out=aligned(out, *out.shape)))


def _mean_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of scores (R, B, C) and class numbers (R, B, 1): (R,)."""
    return torch.log_softmax(scores, -1).gather(-1, targets).sum((-2, -1)) * (-1 / scores.shape[1])
