"""The reference for speed: one repetition at a time in plain PyTorch, tight but without tricks.

No DataLoader, tensors sliced once, autograd for every derivative, and everything recorded that the engine records: the
loop that a careful researcher would write. Tests hold it equal to the engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo_bench.datasets.base import Table
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.models.mlp import Perceptron

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Parts:
    """Full-batch tensors of one dataset."""

    training: Pair
    validation: Pair
    test: Pair

    @staticmethod
    def of(table: Table, dtype: torch.dtype, validation_trains: bool) -> Parts:
        """Slice once."""
        inputs, targets = torch.from_numpy(table.inputs).to(dtype), torch.from_numpy(table.targets).to(dtype)
        both, train = table.training + table.validation, table.training

        def part(begin: int, end: int) -> Pair:
            return inputs[begin:end].contiguous(), targets[begin:end].contiguous()

        return Parts(part(0, both if validation_trains else train), part(train, both), part(both, both + table.test))


def perceptron(features: int, hidden: int, weights: list[Tensor]) -> nn.Module:
    """The model with given initial parameters."""
    module = Perceptron([features, hidden, 1]).to(weights[0].dtype)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(value)
    return module


def train(
    parts: Parts, weights: list[Tensor], raw: dict[str, Tensor], *, updates: int, interval: int,
    estimator: Neumann | Unroll | None, hidden: int, record: bool = True,
) -> Tensor:  # fmt: skip
    """Train one repetition with full batches; returns (updates + 1, 6): losses, then lr, weight decay and momentum.

    Args:
        weights: initial parameters.
        raw: 0-dimensional raw hyperparameters by name; all are tuned with Adam (0.05) if there is an estimator.
    """
    module = perceptron(parts.training[0].shape[1], hidden, weights)
    names = [name for name, _ in module.named_parameters()]
    values = [parameter.detach().clone().requires_grad_(True) for parameter in module.parameters()]
    buffers = [torch.zeros_like(value) for value in values]
    leaves = {name: value.clone().requires_grad_(estimator is not None) for name, value in raw.items()}
    adam = torch.optim.Adam(list(leaves.values()), lr=0.05) if estimator is not None else None
    window = 0 if estimator is None else estimator.window(interval)
    rows = torch.full((updates + 1, 6), math.nan, dtype=weights[0].dtype)

    def loss(parameters: list[Tensor], part: Pair) -> Tensor:
        outputs = functional.linear(part[0], parameters[0], parameters[1]).relu()
        return functional.mse_loss(functional.linear(outputs, parameters[2], parameters[3]), part[1])

    assert names == ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]
    unrolled: list[Tensor] = values
    for number in range(updates + 1):
        tail = interval - number % interval <= window
        training_loss = loss(unrolled, parts.training)
        gradients = torch.autograd.grad(training_loss, unrolled, create_graph=tail)
        lr, weight_decay = torch.pow(10.0, leaves["lr"]), torch.pow(10.0, leaves["weight_decay"])
        momentum = torch.sigmoid(leaves["momentum"])
        if record:
            with torch.no_grad():
                losses = [training_loss, loss(values, parts.validation), loss(values, parts.test)]
                rows[number] = torch.stack([*losses, lr, weight_decay, momentum])
        if number == updates:
            break
        with torch.set_grad_enabled(tail):
            new_buffers = [
                momentum * m + (g + weight_decay * w) for w, m, g in zip(unrolled, buffers, gradients, strict=True)
            ]
            steps = [lr * m for m in new_buffers]
            moved = [w - u for w, u in zip(unrolled, steps, strict=True)]
        before, unrolled, buffers = unrolled, moved, new_buffers
        values = [w.detach().requires_grad_(True) for w in moved]
        if (number + 1) % interval == 0 and estimator is not None and adam is not None:
            if isinstance(estimator, Neumann):
                v = torch.autograd.grad(loss(values, parts.validation), values)
                term, total = list(v), list(v)
                for _ in range(estimator.look_back - 1):
                    product = torch.autograd.grad(steps, before, term, retain_graph=True)
                    term = [a - b for a, b in zip(term, product, strict=True)]
                    total = [a + b for a, b in zip(total, term, strict=True)]
                hypergradients = torch.autograd.grad(steps, list(leaves.values()), [-p for p in total])
            else:
                hypergradients = torch.autograd.grad(loss(moved, parts.validation), list(leaves.values()))
            for leaf, hypergradient in zip(leaves.values(), hypergradients, strict=True):
                leaf.grad = hypergradient
            adam.step()
            with torch.no_grad():
                leaves["lr"].clamp_(-10.0, 0.0)
        next_tail = interval - (number + 1) % interval <= window
        if not (next_tail and tail) or (number + 1) % interval == 0:
            unrolled = values
            buffers = [m.detach() for m in new_buffers]
    return rows
