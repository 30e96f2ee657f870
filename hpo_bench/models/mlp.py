"""Multi-layer perceptrons with ReLU, for regression and classification tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from hpo_bench.core.model import Model
from hpo_bench.core.table import Table
from hpo_bench.errors import UserError
from hpo_bench.models import relu_classification_native, relu_native
from hpo_bench.models.autograd import AutogradModel, Head, built


class Perceptron(nn.Module):
    """Linear layers with ReLU between them, under the parameter names ``layers.0.weight``,
    ``layers.0.bias``, …

    Args:
        widths: from the inputs to the outputs.
        batch_norm: normalise what enters each ReLU; the layers before have no biases then.
    """

    def __init__(self, widths: Sequence[int], batch_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths[:-1]):
            layers.append(nn.Linear(fan_in, fan_out, bias=not batch_norm))
            layers += [nn.BatchNorm1d(fan_out), nn.ReLU()] if batch_norm else [nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, d) -> (B, C)."""
        result: torch.Tensor = self.layers(inputs)
        return result


@dataclass(frozen=True)
class MLP:
    """Perceptron with the given hidden widths (paper: one hidden layer of 50).

    Args:
        hidden: widths of the hidden layers.
        batch_norm: normalise what enters each ReLU, by running statistics in evaluation; never in
            closed form.
        closed_form: use written-out derivatives where there are any (one hidden layer); else
            autograd.
    """

    hidden: Sequence[int] = (50,)
    batch_norm: bool = False
    closed_form: bool = True

    def build(self, table: Table, dtype: torch.dtype, device: torch.device) -> Model:
        """The model for a table.

        Raises:
            UserError: the table's rows are not plain lists of numbers, or the widths are not those
                of layers.
        """
        if table.inputs.ndim != 2 or table.task not in ("regression", "classification"):
            raise UserError(
                f"model=mlp: does not fit dataset {table.name}, whose rows are not lists of "
                "features"
            )
        if not all(
            isinstance(width, int) and not isinstance(width, bool) and width > 0
            for width in self.hidden
        ):
            raise UserError(
                f"model.hidden={list(self.hidden)}: widths must be whole numbers, at least 1"
            )
        features = table.inputs.shape[1]
        if self.closed_form and len(self.hidden) == 1 and not self.batch_norm:
            if table.task == "classification":
                return relu_classification_native.make(
                    features, self.hidden[0], table.outputs, dtype, device
                )
            if table.outputs == 1:
                return relu_native.make(features, self.hidden[0], table.target_scale, dtype, device)
        module = built(lambda: Perceptron([features, *self.hidden, table.outputs], self.batch_norm))
        activations = (4 if self.batch_norm else 2) * sum([*self.hidden, table.outputs])
        return AutogradModel(
            module, Head.of(table.task, table.target_scale), dtype, device, activations
        )
