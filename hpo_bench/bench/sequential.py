"""The reference for speed: one repetition at a time in plain PyTorch, tight but without tricks.

No DataLoader, tensors sliced once, autograd for every derivative, and everything recorded that the
engine records: the loop that a careful researcher would write. Tests hold it equal to the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo_bench.core.seeds import permutation
from hpo_bench.core.table import Table
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.models.mlp import Perceptron
from hpo_bench.running.inputs import inputs_on

Pair = tuple[Tensor, Tensor]
Batches = Callable[[int], Pair]
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "regression": functional.mse_loss,
    "classification": functional.cross_entropy,
}


@dataclass(frozen=True)
class Parts:
    """Tensors of one dataset, and the loss of its task."""

    training: Pair
    validation: Pair
    test: Pair
    loss: Callable[[Tensor, Tensor], Tensor]
    outputs: int

    @staticmethod
    def of(table: Table, dtype: torch.dtype, validation_trains: bool) -> Parts:
        """The parts of a table as tensors, sliced once."""
        inputs, targets = (
            inputs_on(table, dtype, torch.device("cpu")),
            torch.from_numpy(table.targets),
        )
        targets = targets.to(dtype) if targets.is_floating_point() else targets
        both, train = table.training + table.validation, table.training

        def part(begin: int, end: int) -> Pair:
            return inputs[begin:end].contiguous(), targets[begin:end].contiguous()

        return Parts(
            part(0, both if validation_trains else train),
            part(train, both),
            part(both, both + table.test),
            LOSSES[table.task],
            table.outputs,
        )


def batches(part: Pair, size: int | None, dataset: str, name: str, seed: int) -> Batches:
    """Batch by number of the weight update: the whole part, or slices of a new order at each
    pass.
    """
    if size is None or size >= len(part[1]):
        return lambda number: part
    per_pass, orders = -(-len(part[1]) // size), dict[int, Tensor]()

    def batch(number: int) -> Pair:
        passes, index = divmod(number, per_pass)
        if passes not in orders:
            orders.clear()
            orders[passes] = torch.from_numpy(
                permutation(seed, dataset, name, len(part[1]), passes)
            )
        chosen = orders[passes][index * size : (index + 1) * size]
        return part[0].index_select(0, chosen), part[1].index_select(0, chosen)

    return batch


def perceptron(weights: list[Tensor]) -> nn.Module:
    """The model with given initial parameters."""
    (hidden, features), outputs = weights[0].shape, weights[2].shape[0]
    module = Perceptron([features, hidden, outputs]).to(weights[0].dtype)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(value)
    return module


def train(
    parts: Parts,
    weights: list[Tensor],
    raw: dict[str, Tensor],
    *,
    updates: int,
    interval: int,
    estimator: Neumann | Unroll | None,
    record_every: int = 1,
    training: Batches | None = None,
    validation: Batches | None = None,
) -> Tensor:
    """Train one repetition; returns (updates + 1, 6): losses, then lr, weight decay and momentum,
    NaN where not due.

    Args:
        weights: initial parameters.
        raw: 0-dimensional raw hyperparameters by name; all are tuned with Adam (0.05) if there is
            an estimator.
        record_every: weight updates between recorded rows; 0 records nothing.
        training, validation: batches by number of the weight update; full batches unless given.
    """
    training = training or (lambda number: parts.training)
    validation = validation or (lambda number: parts.validation)
    module = perceptron(weights)
    names = [name for name, _ in module.named_parameters()]
    values = [parameter.detach().clone().requires_grad_(True) for parameter in module.parameters()]
    buffers = [torch.zeros_like(value) for value in values]
    leaves = {
        name: value.clone().requires_grad_(estimator is not None) for name, value in raw.items()
    }
    adam = torch.optim.Adam(list(leaves.values()), lr=0.05) if estimator is not None else None
    window = 0 if estimator is None else estimator.window(interval)
    rows = torch.full((updates + 1, 6), math.nan, dtype=weights[0].dtype)

    def loss(parameters: list[Tensor], part: Pair) -> Tensor:
        outputs = functional.linear(part[0], parameters[0], parameters[1]).relu()
        return parts.loss(functional.linear(outputs, parameters[2], parameters[3]), part[1])

    assert names == ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]
    unrolled: list[Tensor] = values
    for number in range(updates + 1):
        tail = interval - number % interval <= window
        training_loss = loss(unrolled, training(number))
        gradients = torch.autograd.grad(training_loss, unrolled, create_graph=tail)
        lr, weight_decay = torch.pow(10.0, leaves["lr"]), torch.pow(10.0, leaves["weight_decay"])
        momentum = torch.sigmoid(leaves["momentum"])
        if record_every and (number % record_every == 0 or number == updates):
            with torch.no_grad():
                losses = [training_loss, loss(values, validation(number)), loss(values, parts.test)]
                rows[number] = torch.stack([*losses, lr, weight_decay, momentum])
        if number == updates:
            break
        with torch.set_grad_enabled(tail):
            new_buffers = [
                momentum * m + (g + weight_decay * w)
                for w, m, g in zip(unrolled, buffers, gradients, strict=True)
            ]
            steps = [lr * m for m in new_buffers]
            moved = [w - u for w, u in zip(unrolled, steps, strict=True)]
        before, unrolled, buffers = unrolled, moved, new_buffers
        values = [w.detach().requires_grad_(True) for w in moved]
        if (number + 1) % interval == 0 and estimator is not None and adam is not None:
            if isinstance(estimator, Neumann):
                v = torch.autograd.grad(loss(values, validation(number)), values)
                term, total = list(v), list(v)
                for _ in range(estimator.look_back - 1):
                    product = torch.autograd.grad(steps, before, term, retain_graph=True)
                    term = [a - b for a, b in zip(term, product, strict=True)]
                    total = [a + b for a, b in zip(total, term, strict=True)]
                hypergradients = torch.autograd.grad(
                    steps, list(leaves.values()), [-p for p in total]
                )
            else:
                hypergradients = torch.autograd.grad(
                    loss(moved, validation(number)), list(leaves.values())
                )
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
