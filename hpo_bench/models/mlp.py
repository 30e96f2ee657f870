"""Multi-layer perceptrons with ReLU, for regression and classification tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from hpo_bench.datasets.base import Table
from hpo_bench.models.autograd import AutogradModel, Head
from hpo_bench.models.base import Model
from hpo_bench.models.relu_regression import ReLURegression


class Perceptron(nn.Module):
    """Linear layers with ReLU between them, under the parameter names ``layers.0.weight``, ``layers.0.bias``, …"""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, d) -> (B, C)."""
        return self.layers(inputs)


@dataclass(frozen=True)
class MLP:
    """Perceptron with the given hidden widths (paper: one hidden layer of 50).

    Args:
        hidden: widths of the hidden layers.
        closed_form: use written-out derivatives where there are any (one hidden layer, one output); else autograd.
    """

    hidden: Sequence[int] = (50,)
    closed_form: bool = True

    def build(self, table: Table, dtype: torch.dtype, device: torch.device) -> Model:
        """The model for a table."""
        features = table.inputs.shape[1]
        if self.closed_form and table.task == "regression" and table.outputs == 1 and len(self.hidden) == 1:
            return ReLURegression(features, self.hidden[0], table.target_scale, dtype)
        with torch.device("meta"):
            module = Perceptron([features, *self.hidden, table.outputs])
        return AutogradModel(module.to_empty(device=device), Head.of(table.task, table.target_scale), dtype, device)
