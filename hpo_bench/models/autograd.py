"""Any ``torch.nn.Module`` as R models: a `Stateless` call of it under ``vmap``, derivatives by
autograd.

The rows meet only in the sum that seeds autograd, so each row gets its own gradient. Buffers that a
forward pass in training mode changes (running statistics), in place or by assigning them anew, are
carried, a row of each for every repetition."""

from __future__ import annotations

import copy
import random as python_random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves, tree_map

from hpo_bench.core.layout import Layout
from hpo_bench.core.model import Batch, Split, mean_of_parts
from hpo_bench.core.table import Task
from hpo_bench.core.update import Linearisation
from hpo_bench.errors import UserError, described
from hpo_bench.models.derivatives import gradient_of
from hpo_bench.models.stateless import Stateless, at, plain_attention

# Forward passes after which a moving average with momentum 0.1 has forgotten all but half a
# percent.
SETTLING = 50
EVALUATION_BYTES = 2 << 20  # of a repetition's activations at once when a whole set is evaluated
GPU_EVALUATION_BYTES = 256 << 20  # where many small launches cost more than memory


@dataclass(frozen=True)
class Head:
    """What the outputs mean: the loss that is trained and the metric that is reported.

    Args:
        loss: (outputs (B, C), targets (B, …)) -> mean loss ().
        metric: (outputs, targets, loss) -> (); a mean over the rows, NaN where the loss is not
            finite.
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
    return torch.where(
        torch.isfinite(loss), wrong, torch.nan
    )  # argmax of NaN would look like an answer


@singledispatch
def layer_weights(layer: nn.Module, random: np.random.Generator) -> list[np.ndarray]:
    """PyTorch's default values of a layer's own parameters, in their order; one registration a kind
    of layer.

    Raises:
        NotImplementedError: for a layer whose default is not written here.
    """
    raise NotImplementedError(f"no initialisation for {type(layer).__name__}")


@layer_weights.register(nn.Linear)
@layer_weights.register(nn.Conv2d)
def _(layer: nn.Linear | nn.Conv2d, random: np.random.Generator) -> list[np.ndarray]:
    """Weights and biases uniform within ±1/√fan_in."""
    bound = 1 / np.sqrt(layer.weight[0].numel())
    return [
        random.uniform(-bound, bound, tuple(value.shape))
        for _, value in layer.named_parameters(recurse=False)
    ]


@layer_weights.register(nn.BatchNorm1d)
@layer_weights.register(nn.BatchNorm2d)
def _(layer: nn.BatchNorm1d | nn.BatchNorm2d, random: np.random.Generator) -> list[np.ndarray]:
    """Scale 1, shift 0."""
    return [np.ones(layer.num_features), np.zeros(layer.num_features)]


def default_initial_weights(module: nn.Module, random: np.random.Generator) -> np.ndarray:
    """PyTorch's default initialisation, drawn from ``random`` layer by layer (`layer_weights`):
    (P,) float64.
    """
    layers = [
        layer
        for layer in module.modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
    return np.concatenate(
        [value.ravel() for layer in layers for value in layer_weights(layer, random)]
    )


_GLOBAL_GENERATORS = threading.Lock()  # which layers draw their first values from
NUMPY_SEEDS = 2**32


def built(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """``make()`` on the CPU with the global generators of torch, NumPy and Python seeded, and put
    back afterwards.

    Raises:
        UserError: it does not fit into memory.
    """
    with _GLOBAL_GENERATORS, torch.random.fork_rng(devices=[]), torch.device("cpu"):
        numpys, pythons = np.random.get_state(), python_random.getstate()  # noqa: NPY002
        try:
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed % NUMPY_SEEDS)  # noqa: NPY002
            python_random.seed(seed)
            return make()
        except RuntimeError as error:
            if "allocate memory" not in str(error):
                raise
            raise UserError(
                f"model: does not fit into memory ({described(error)}); make it smaller"
            ) from error
        finally:
            np.random.set_state(numpys)  # noqa: NPY002
            python_random.setstate(pythons)


def count_activations(module: nn.Module, inputs: Tensor) -> int:
    """Numbers that a module puts out for one row of ``inputs`` (B, …), B at least 2, by a forward
    pass; at least 1.

    Those of its layers; where parameters belong to something else (a ``ParameterList``, a module of
    the user's own), those that autograd keeps, if they are more."""
    total, called = 0, set()

    def add(layer: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal total
        if _is_layer(layer):
            called.add(layer)
        total += sum(part.numel() for part in tree_leaves(output) if isinstance(part, Tensor))

    probe = copy.deepcopy(module).train()
    owners = {
        layer
        for layer in probe.modules()
        if next(layer.parameters(recurse=False), None) is not None
    }
    for layer in probe.modules():
        if next(layer.children(), None) is None:
            layer.register_forward_hook(add)
    with torch.no_grad():
        probe(inputs)
    if not owners <= called:
        total = max(total, _kept_by_autograd(copy.deepcopy(module).train(), inputs))
    return max(1, -(-total // len(inputs)))


def _is_layer(module: nn.Module) -> bool:
    """Whether it is one of PyTorch's layers, or derived from one, whose output tells how much it
    computes.
    """
    return any(
        base.__module__.startswith("torch.nn.modules.")
        for base in type(module).__mro__
        if base is not nn.Module
    )


def _kept_by_autograd(module: nn.Module, inputs: Tensor) -> int:
    """Numbers that a forward pass leaves for the backward pass, its parameters left out."""
    total, own = 0, {value.data_ptr() for value in module.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        nonlocal total
        total += 0 if tensor.data_ptr() in own else tensor.numel()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(inputs)
    return total


class _Copies(threading.local):
    """Copies of a module for each thread, because a `Stateless` call swaps the tensors in the
    module itself.
    """

    def __init__(self, module: nn.Module) -> None:
        self.by_training = {
            training: Stateless(copy.deepcopy(module).train(training)) for training in (True, False)
        }


class AutogradModel:
    """R copies of a module; what it carries is its buffers by name, (R, …) each.

    Args:
        module: the values of its buffers are where each repetition starts; of its parameters only
            names and shapes are used.
        head: loss and metric.
        activations: numbers that one row of the data takes in a forward pass (`count_activations`).
        initial_weights: draws one repetition's, (P,) float64; `default_initial_weights` unless
            given.
        remarks: what a user should know of the model when it is trained, a line each.

    Attributes:
        alone_unmapped: whether a single repetition is computed without ``vmap``, whose rules for
            convolutions and batch norm cost a GPU more launches than the layers' own kernels. The
            numbers are the same to rounding; on a CPU they have to be the same to the last bit, so
            that a repetition alone is a row of a batch.
        check_minibatches: raises a UserError if the module cannot be trained with rows of each
            repetition's own; None where it is known that it can.
    """

    def __init__(
        self,
        module: nn.Module,
        head: Head,
        dtype: torch.dtype,
        device: torch.device,
        activations: int,
        initial_weights: Callable[[np.random.Generator], np.ndarray] | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        self.module = module.to(device=device, dtype=dtype)
        self.head, self.dtype, self.device, self.activations = head, dtype, device, activations
        self.alone_unmapped = device.type == "cuda"
        self.remarks = tuple(remarks)
        self.check_minibatches: Callable[[], None] | None = None
        self._initial_weights = initial_weights or partial(default_initial_weights, self.module)
        self._copies = _Copies(self.module)
        self._buffers = {
            name: value.detach().clone() for name, value in self.module.named_buffers()
        }
        self.carries_state = bool(self._buffers)
        named = list(self.module.named_parameters())
        self.layout = Layout(tuple(n for n, _ in named), tuple(tuple(p.shape) for _, p in named))

    def initial_weights(self, random: np.random.Generator) -> np.ndarray:
        """See the argument of that name."""
        return self._initial_weights(random)

    def initial_carried(self, rows: int) -> Mapping[str, Any]:
        """The module's buffers, for each repetition."""
        return {name: torch.stack([value] * rows) for name, value in self._buffers.items()}

    def batch(
        self, inputs: Tensor, targets: Tensor, *, shared: bool, split: Split, first: bool = True
    ) -> Batch:
        """Rows as they are."""
        return Batch(inputs, targets, targets.shape[0 if shared else 1], shared, split, first)

    def _mapped(
        self,
        function: Callable[..., Any],
        weights: Tensor,
        carried: Mapping[str, Any],
        batch: Batch,
    ) -> Any:
        rows = None if batch.shared else 0
        views = self.layout.views(weights)
        with plain_attention():
            if self.alone_unmapped and len(weights) == 1:
                own = (
                    (views, dict(carried))
                    if batch.shared
                    else (views, dict(carried), batch.inputs, batch.targets)
                )
                shared = (batch.inputs, batch.targets) if batch.shared else ()
                alone = function(*tree_map(lambda value: value[0], own), *shared)
                return tree_map(lambda value: value.unsqueeze(0), alone)
            return vmap(function, in_dims=(0, 0, rows, rows))(
                views, dict(carried), batch.inputs, batch.targets
            )

    def _call(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        inputs: Tensor,
        training: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The module with other parameters: outputs, and the buffers after it."""
        call = self._copies.by_training[training]
        own = {name: value.clone() for name, value in buffers.items()}
        try:
            outputs, after = call({**call.state, **parameters, **own}, nn.Module.__call__, inputs)
        finally:
            call.restore()
        return outputs, {name: after[name] for name in own}

    def _loss(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        inputs: Tensor,
        targets: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        outputs, after = self._call(parameters, buffers, inputs, True)
        return self.head.loss(outputs, targets), after

    def _evaluate(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        inputs: Tensor,
        targets: Tensor,
    ) -> tuple[Tensor, Tensor]:
        outputs, _ = self._call(parameters, buffers, inputs, False)
        loss = self.head.loss(outputs, targets)
        return loss, self.head.metric(outputs, targets, loss)

    def linearise(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any], second_order: bool
    ) -> Linearisation:
        """By autograd;

        Hessian-vector products differentiate the gradient once more, along the same graph.
        """
        with torch.enable_grad():
            leaf = weights.detach().requires_grad_(True)
            loss, after = self._mapped(self._loss, leaf, carried, batch)
            gradient = gradient_of(loss.sum(), leaf, second_order)

        def hessian_product(vector: Tensor) -> Tensor:
            with torch.enable_grad():
                return gradient_of(gradient, leaf, False, vector)

        return Linearisation(loss.detach(), gradient.detach(), hessian_product, after)

    def loss(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """The mean loss of each row, (R,)."""
        result: tuple[Tensor, Mapping[str, Any]] = self._mapped(self._loss, weights, carried, batch)
        return result

    @property
    def evaluation_rows(self) -> int:
        """Rows of a set that are evaluated at once."""
        part = GPU_EVALUATION_BYTES if self.device.type == "cuda" else EVALUATION_BYTES
        at_once = max(part, self.dtype.itemsize * self.layout.count)  # each part reads all weights
        return max(1, at_once // (self.dtype.itemsize * self.activations))

    def carry(self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]) -> Mapping[str, Any]:
        """By way of the loss: the layers cannot be told apart."""
        return self.loss(weights, batch, carried)[1]

    def settled(
        self, weights: Tensor, batches: Sequence[Batch], carried: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Statistics of these weights: the means over the batches of what normalisation layers see.

        Buffers of other layers begin as ``carried``, and see batches until nothing is left of that
        (`SETTLING` forward passes).
        """
        layers = self._copies.by_training[True].module.named_modules()
        norms = {
            path: layer
            for path, layer in layers
            if isinstance(layer, _NormBase) and layer.momentum is not None
        }
        own = {at(path, name) for path in norms for name in ("running_mean", "running_var")}
        fresh = self.initial_carried(len(weights))
        carried = {name: fresh[name] if name in own else value for name, value in carried.items()}
        others = [
            name for name in carried if name not in own and not name.endswith("num_batches_tracked")
        ]
        for number in range(max(len(batches), SETTLING if others else 0)):
            for layer in norms.values():
                layer.momentum = 1 / (
                    number + 1
                )  # the mean of all batches so far; `Stateless.restore` puts it back
            carried = dict(self.carry(weights, batches[number % len(batches)], carried))
        return carried

    def evaluate(
        self, weights: Tensor, batch: Batch, carried: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Mean loss (R,) and metric (R,), a part of the rows at a time."""

        def part(rows: Batch) -> tuple[Tensor, Tensor]:
            result: tuple[Tensor, Tensor] = self._mapped(self._evaluate, weights, carried, rows)
            return result

        return mean_of_parts(part, batch, self.evaluation_rows)

    def row_bytes(self, batch_rows: int, window: int) -> int:
        """Activations of the forward pass, the graph of its gradient (about three times that), and
        the weights.
        """
        return self.dtype.itemsize * (
            4 * (window + 1) * batch_rows * self.activations + 20 * self.layout.count
        )

    def evaluation_bytes(self, rows: int) -> int:
        """Activations of the rows that are evaluated at once, and what the layer at work makes."""
        return 2 * self.dtype.itemsize * min(rows, self.evaluation_rows) * self.activations

    def working_set(self, batch_rows: int) -> int:
        """Activations of one forward pass, and the weights."""
        return self.dtype.itemsize * (batch_rows * self.activations + self.layout.count)
