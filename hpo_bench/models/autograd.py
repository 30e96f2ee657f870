"""Any ``torch.nn.Module`` as R models: `torch.func.functional_call` under ``vmap``, derivatives by autograd.

The rows meet only in the sum that seeds autograd, so each row gets its own gradient.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from hpo_bench.core.layout import Layout
from hpo_bench.core.update import Linearisation
from hpo_bench.datasets.base import Task
from hpo_bench.models.base import Batch, Split


@dataclass(frozen=True)
class Head:
    """What the outputs mean: the loss that is trained and the metric that is reported.

    Args:
        loss: (outputs (B, C), targets (B, …)) -> mean loss ().
        metric: (outputs, targets, loss) -> ().
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor, Tensor], Tensor]

    @staticmethod
    def of(task: Task, target_scale: float) -> Head:
        """Mean squared error and its un-normalised value, or cross-entropy and the error rate."""
        if task == "regression":
            return Head(functional.mse_loss, lambda outputs, targets, loss: loss * target_scale**2)
        return Head(functional.cross_entropy, _error_rate)


def _error_rate(outputs: Tensor, targets: Tensor, loss: Tensor) -> Tensor:
    wrong = (outputs.argmax(-1) != targets).to(loss.dtype).mean()
    return torch.where(torch.isfinite(loss), wrong, torch.nan)  # argmax of NaN would look like an answer


def default_initial_weights(module: nn.Module, random: np.random.Generator) -> np.ndarray:
    """PyTorch's default initialisation, drawn from ``random``: (P,) float64.

    Linear and convolution layers: weights and biases uniform within ±1/√fan_in.

    Raises:
        NotImplementedError: for a layer with parameters whose default is not written here.
    """
    parts: list[np.ndarray] = []
    for path, layer in module.named_modules():
        own = list(layer.named_parameters(recurse=False))
        if not own:
            continue
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            raise NotImplementedError(f"no initialisation for {type(layer).__name__} ({path or 'the module'})")
        bound = 1 / np.sqrt(layer.weight[0].numel())
        parts += [random.uniform(-bound, bound, tuple(value.shape)).ravel() for _, value in own]
    return np.concatenate(parts)


class AutogradModel:
    """R copies of a module without carried state.

    Args:
        module: its parameters' values are not used, only their names and shapes.
        head: loss and metric.
    """

    carries_state = False

    def __init__(self, module: nn.Module, head: Head, dtype: torch.dtype, device: torch.device) -> None:
        self.module = module.to(device=device, dtype=dtype)
        self._own = threading.local()
        self.head = head
        self.dtype = dtype
        named = list(self.module.named_parameters())
        self.layout = Layout(tuple(n for n, _ in named), tuple(tuple(p.shape) for _, p in named))

    def initial_weights(self, random: np.random.Generator) -> np.ndarray:
        """See `default_initial_weights`."""
        return default_initial_weights(self.module, random)

    def initial_carried(self, rows: int) -> Mapping[str, Any]:
        """Nothing is carried."""
        return {}

    def batch(self, inputs: Tensor, targets: Tensor, *, shared: bool, split: Split, first: bool = True) -> Batch:
        """Rows as they are."""
        return Batch(inputs, targets, targets.shape[0 if shared else 1], shared, split, first)

    def _mapped(self, function: Callable[..., Any], weights: Tensor, batch: Batch) -> Any:
        rows = None if batch.shared else 0
        return vmap(function, in_dims=(0, rows, rows))(self.layout.views(weights), batch.inputs, batch.targets)

    def _call(self, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        """The module with other parameters; a copy a thread, because `functional_call` swaps them in the module."""
        if not hasattr(self._own, "module"):
            self._own.module = copy.deepcopy(self.module)
        return functional_call(self._own.module, parameters, (inputs,))

    def _loss(self, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return self.head.loss(self._call(parameters, inputs), targets)

    def _evaluate(self, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self._call(parameters, inputs)
        loss = self.head.loss(outputs, targets)
        return loss, self.head.metric(outputs, targets, loss)

    def linearise(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any], second_order: bool) -> Linearisation:
        """By autograd; Hessian-vector products differentiate the gradient once more, along the same graph."""
        with torch.enable_grad():
            leaf = weights.detach().requires_grad_(True)
            loss = self._mapped(self._loss, leaf, batch)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf, create_graph=second_order)

        def hessian_product(vector: Tensor) -> Tensor:
            with torch.enable_grad():
                return torch.autograd.grad(gradient, leaf, vector, retain_graph=True)[0].detach()

        return Linearisation(loss.detach(), gradient.detach(), hessian_product, carried)

    def loss(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
        """Mean loss (R,)."""
        return self._mapped(self._loss, weights, batch), carried

    def evaluate(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Mean loss (R,) and metric (R,)."""
        return self._mapped(self._evaluate, weights, batch)

    @cached_property
    def _activations(self) -> int:
        widths = [layer.out_features for layer in self.module.modules() if isinstance(layer, nn.Linear)]
        return 2 * sum(widths)

    def row_bytes(self, batch_rows: int, window: int) -> int:
        """Activations of the forward pass, the graph of its gradient (about three times that), and the weights."""
        size = torch.finfo(self.dtype).bits // 8
        return size * (4 * (window + 1) * batch_rows * self._activations + 20 * self.layout.count)

    def working_set(self, batch_rows: int) -> int:
        """Activations of one forward pass."""
        return torch.finfo(self.dtype).bits // 8 * batch_rows * self._activations
