"""One hidden ReLU layer, one output, mean squared error: every derivative in closed form, two
matrix products each.

With x̃ = (x, 1), Ŵ = (W₁, b₁) (H, d+1) and the mask M = [Ŵx̃ > 0] (H, B), the output is linear in
what the mask lets
through: o = w₂·(M ∘ ŴX̃) + b₂. With D = dL/do = 2(o - y)/B and G = M·(D ∘ X̃)ᵀ (H, d+1) the
gradient is

    dL/dŴ = w₂ ∘ G,    dL/dw₂ = rowsum(Ŵ ∘ G),    dL/db₂ = ΣD,

and a Hessian-vector product along (V̂, v₂, c₂), M being constant almost everywhere, is

    o' = colsum(X̃ ∘ (v₂∘Ŵ + w₂∘V̂)ᵀM) + c₂,    D' = 2o'/B,    G' = M·(D' ∘ X̃)ᵀ,
    (v₂∘G + w₂∘G',  rowsum(V̂∘G + Ŵ∘G'),  ΣD').

The mask is all that a linearisation keeps, so the terms of a Neumann series cost 2·(2·H·(d+1)·B)
operations each and no pass over the activations but the two products. Tests compare everything with
autograd."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpo_bench.core.layout import Layout
from hpo_bench.core.model import Batch, Split
from hpo_bench.core.update import Linearisation
from hpo_bench.models.autograd import default_initial_weights

VECTOR = 16  # numbers in the widest vector register (512 bits of float32)


class ReLURegression:
    """R copies of ``Linear(d, H) - ReLU - Linear(H, 1)`` with mean squared error.

    Batches hold X̃ transposed, (d+1, B) or (R, d+1, B), and targets (B,) or (R, B), both padded
    with zeros to a multiple of `VECTOR` columns: the kernels of odd widths depend on the address
    that a row begins at, so a repetition's last float32 digit would depend on its place in the
    batch.

    Args:
        features: d.
        hidden: H.
        target_scale: standard deviation that a standardised target is multiplied by in its own
            unit.
    """

    carries_state = False

    def __init__(self, features: int, hidden: int, target_scale: float, dtype: torch.dtype) -> None:
        self.features, self.hidden, self.target_scale, self.dtype = (
            features,
            hidden,
            target_scale,
            dtype,
        )
        self.layout = Layout(
            ("layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"),
            ((hidden, features), (hidden,), (1, hidden), (1,)),
        )

    def initial_weights(self, random: np.random.Generator) -> np.ndarray:
        """PyTorch's default: each layer uniform within ±1/√fan_in."""
        return default_initial_weights(self._module, random)

    @cached_property
    def _module(self) -> nn.Module:
        with torch.device("meta"):
            return nn.Sequential(
                nn.Linear(self.features, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1)
            )

    def initial_carried(self, rows: int) -> Mapping[str, Any]:
        """This model carries nothing from batch to batch."""
        return {}

    def batch(
        self, inputs: Tensor, targets: Tensor, *, shared: bool, split: Split, first: bool = True
    ) -> Batch:
        """Append the column of ones, transpose, and pad with zeros to whole vectors of columns."""
        count = inputs.shape[-2]
        padded = inputs.new_zeros(
            *inputs.shape[:-2], self.features + 1, -(-count // VECTOR) * VECTOR
        )
        padded[..., :-1, :count] = inputs.transpose(-1, -2)
        padded[..., -1, :count] = 1
        wanted = targets.new_zeros(*padded.shape[:-2], padded.shape[-1])
        wanted[..., :count] = targets.squeeze(-1)
        return Batch(padded, wanted, count, shared, split, first)

    def _split(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(…, R, P) -> Ŵ (…, R, H, d+1), w₂ (…, R, H, 1), b₂ (…, R, 1)."""
        views = self.layout.views(flat)
        first = torch.cat([views["layers.0.weight"], views["layers.0.bias"].unsqueeze(-1)], -1)
        return first, views["layers.2.weight"].transpose(-1, -2), views["layers.2.bias"]

    def _join(self, first: Tensor, second: Tensor, bias: Tensor) -> Tensor:
        """The inverse of `_split`."""
        flat = first.new_empty(*first.shape[:-2], self.layout.count)
        views = self.layout.views(flat)
        views["layers.0.weight"].copy_(first[..., :-1])
        views["layers.0.bias"].copy_(first[..., -1])
        views["layers.2.weight"].copy_(second.transpose(-1, -2))
        views["layers.2.bias"].copy_(bias)
        return flat

    def _forward(
        self, weights: Tensor, batch: Batch
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
        """Split weights, hidden activations (R, H, B) and errors (R, B), 0 in the padding."""
        first, second, bias = self._split(weights)
        rows = batch.inputs.expand(weights.shape[0], *batch.inputs.shape[-2:])
        hidden = torch.bmm(first, rows).clamp_(min=0)
        outputs = torch.bmm(second.transpose(-1, -2), hidden).squeeze(-2) + bias
        return (first, second, bias), hidden, (outputs - batch.targets) * batch.inputs[..., -1, :]

    def linearise(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any], second_order: bool
    ) -> Linearisation:
        """Loss, gradient and Hessian-vector products from one mask."""
        (first, second, _), hidden, error = self._forward(weights, batch)
        mask = hidden.gt_(0)
        slope = error * (2 / batch.count)
        inner = self._inner(slope.unsqueeze(1), batch, mask).squeeze(0)
        gradient = self._join(
            second * inner, (first * inner).sum(-1, keepdim=True), slope.sum(-1, keepdim=True)
        )

        def hessian_products(vectors: Tensor) -> Tensor:
            """One pair of matrix products for all vectors, so that they share one reading of the
            mask.
            """
            first_v, second_v, bias_v = self._split(vectors)
            through = torch.addcmul(second_v * first, second, first_v).permute(1, 0, 3, 2)
            stacked = torch.bmm(through.flatten(1, 2), mask).unflatten(1, (len(vectors), -1))
            inputs = batch.inputs.unsqueeze(-3)  # (1, d+1, B) or (R, 1, d+1, B)
            change = (stacked * inputs).sum(-2) + bias_v.transpose(0, 1) * inputs[..., -1, :]
            slope_v = change * (2 / batch.count)
            inner_v = self._inner(slope_v, batch, mask)
            return self._join(
                torch.addcmul(second_v * inner, second, inner_v),
                torch.addcmul(first_v * inner, first, inner_v).sum(-1, keepdim=True),
                slope_v.sum(-1, keepdim=True).transpose(0, 1),
            )

        def hessian_product(vector: Tensor) -> Tensor:
            return hessian_products(vector.unsqueeze(0)).squeeze(0)

        loss = error.square().sum(-1) / batch.count
        return Linearisation(loss, gradient, hessian_product, carried, hessian_products)

    @staticmethod
    def _inner(slopes: Tensor, batch: Batch, mask: Tensor) -> Tensor:
        """M·(D ∘ X̃)ᵀ for n rows of slopes D (R, n, B): (n, R, H, d+1)."""
        weighed = slopes.unsqueeze(-2) * batch.inputs.unsqueeze(-3)
        products = torch.bmm(weighed.flatten(1, 2), mask.transpose(-1, -2))
        result: Tensor = products.unflatten(1, (slopes.shape[1], -1)).permute(1, 0, 3, 2)
        return result

    def loss(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Mean squared error (R,)."""
        return self._forward(weights, batch)[-1].square().sum(-1) / batch.count, carried

    def carry(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]) -> Mapping[str, Any]:
        """This model carries nothing from batch to batch."""
        return carried

    def evaluate(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Mean squared error of standardised and of un-normalised targets, (R,) each."""
        loss, _ = self.loss(weights, batch, carried)
        return loss, loss * self.target_scale**2

    def row_bytes(self, batch_rows: int, window: int) -> int:
        """The masks that are kept, one more in the making, what the products make, and the
        weights.
        """
        size = torch.finfo(self.dtype).bits // 8
        activations = (window + 2) * self.hidden + 4 * (self.features + 1)
        return size * (activations * batch_rows + (12 + 4 * window) * self.layout.count)

    def evaluation_bytes(self, rows: int) -> int:
        """Hidden activations of all rows."""
        return self.dtype.itemsize * rows * (2 * self.hidden + 4)

    def working_set(self, batch_rows: int) -> int:
        """The mask of active units is what is touched again and again."""
        return torch.finfo(self.dtype).bits // 8 * self.hidden * batch_rows
