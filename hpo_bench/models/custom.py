"""A user's own ``torch.nn.Module`` from a yaml outside the package: nothing to inherit from,
nothing to register.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo_bench.core.model import Batch, Model
from hpo_bench.core.table import Table
from hpo_bench.errors import UserError, described
from hpo_bench.models import stateless
from hpo_bench.models.autograd import AutogradModel, Head, built, count_activations
from hpo_bench.models.stateless import Stateless, plain_attention

TRIED = 4  # rows of the dataset that a module is tried with before anything is trained
LIBRARIES = {"torch", "hydra", "hpo_bench"}  # folders of code that is not the user's
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Custom:
    """Any module that maps inputs (B, …) to outputs (B, C): C = 1 for regression, else the number
    of classes.

    Each repetition starts from the values that the module gives itself: the global generators of
    torch, NumPy and Python are seeded with the repetition's seed before it is made. Buffers
    (running statistics) start as in one module built with seed 0, and each repetition carries its
    own. Derivatives are autograd's.

    Args:
        module: makes the module without arguments; in a yaml ``module: {_target_: my_package.Net,
            width: 32}``.
        loss: (outputs (B, C), targets (B, 1) or (B,)) -> mean over the rows (), as
            torch.nn.functional has them; in a yaml with its arguments, likewise. Mean squared error
            or cross-entropy unless given. The metric stays the un-normalised mean squared error or
            the error rate.
        version: to be changed with the module's code, which results are not tied to.
    """

    module: Callable[[], nn.Module]
    loss: Loss | None = None
    version: int | str = 1

    def build(self, table: Table, dtype: torch.dtype, device: torch.device) -> Model:
        """The model for a table, after a trial with a few of its rows.

        Raises:
            UserError: the module cannot be made, is not the same when it is made twice from one
                seed, draws random numbers or keeps other things than buffers from one forward pass
                to the next, or does not map rows to outputs.
        """
        if table.task not in ("regression", "classification"):
            raise UserError(
                "model: a module of one's own is for regression and classification, not "
                f"{table.task}"
            )
        module = self._make()
        _check(module)
        remarks = self._check_starts(module)
        rows = torch.from_numpy(np.array(table.inputs[:TRIED])).to(device)
        inputs = rows if rows.dtype == torch.int64 else rows.to(dtype)
        targets = torch.from_numpy(np.array(table.targets[:TRIED])).to(device)
        targets = targets.to(dtype) if targets.is_floating_point() else targets
        try:
            module = module.to(device=device, dtype=dtype)
            activations = _tried(module, inputs, table.outputs)
            model = AutogradModel(
                module,
                self._head(table),
                dtype,
                device,
                activations,
                self._initial_weights,
                remarks,
            )
            _try_training(model, inputs, targets)
            _try_twice(module, inputs)
            model.check_minibatches = partial(_try_minibatches, model, inputs, targets)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise _unfit(error) from error
        return model

    def _make(self, seed: int = 0) -> nn.Module:
        try:
            module = built(self.module, seed)
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise _unfit(error) from error
        if not isinstance(module, nn.Module):
            raise UserError(
                f"model.module: makes a {type(module).__name__}, needed is a torch.nn.Module"
            )
        return module

    def _initial_weights(self, random: np.random.Generator) -> np.ndarray:
        """What a new module gives itself, (P,) float64; the seed comes from the repetition's
        generator.
        """
        return _values(self._make(int(random.bit_generator.random_raw()) >> 1).parameters())

    def _check_starts(self, module: nn.Module) -> tuple[str, ...]:
        """What is to be said of the values that the module gives itself from a seed.

        Raises:
            UserError: others each time.
        """
        again, other = self._make(), self._make(seed=1)
        if not np.array_equal(_start(module), _start(again), equal_nan=True):
            raise UserError(
                "model.module: gives itself other values each time that it is made from one seed; "
                "draw them from "
                "torch's, numpy's or Python's global generator, which are seeded for each "
                "repetition"
            )
        if np.array_equal(
            _values(module.parameters()), _values(other.parameters()), equal_nan=True
        ):
            return (
                "model.module: all repetitions start from equal weights: whatever the seed, it "
                "gives itself the same "
                "values (does its __init__ call torch.manual_seed?)",
            )
        return ()

    def _head(self, table: Table) -> Head:
        usual = Head.of(table.task, table.target_scale)
        if self.loss is None:
            return usual
        if table.task == "classification":
            return Head(self.loss, usual.metric)

        def squared(outputs: Tensor, targets: Tensor, loss: Tensor) -> Tensor:
            return functional.mse_loss(outputs, targets) * table.target_scale**2

        return Head(self.loss, squared)


def _values(tensors: Iterable[Tensor]) -> np.ndarray:
    parts = [value.detach().double().numpy().ravel() for value in tensors]
    return np.concatenate(parts) if parts else np.zeros(0)


def _start(module: nn.Module) -> np.ndarray:
    """Parameters and buffers, as a module begins with them."""
    return _values([*module.parameters(), *module.buffers()])


def _check(module: nn.Module) -> None:
    """Refuse what cannot be trained, as far as the module shows it without being called.

    Raises:
        UserError: it cannot.
    """
    for name, layer in module.named_modules():
        if (isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0) or isinstance(
            layer, nn.RReLU
        ):
            raise UserError(
                f"model.module: layer {name or 'itself'} ({type(layer).__name__}) draws random "
                "numbers in each forward "
                "pass, which hypergradients would not survive; leave it out"
            )
    parameters = dict(module.named_parameters())
    if not parameters:
        raise UserError("model.module: it has no parameters to train")
    for name, value in parameters.items():
        if not value.requires_grad:
            raise UserError(
                f"model.module: parameter {name} is frozen; register what is not trained as a "
                "buffer"
            )
        if stateless.is_hooked(value):
            raise UserError(
                f"model.module: parameter {name} has a hook, which is for backward() and would "
                "not be called here; "
                "change the gradient by the module or the loss"
            )
    tensors: list[tuple[str, Tensor]] = [*parameters.items(), *module.named_buffers()]
    for name, tensor in tensors:
        if nn.parameter.is_lazy(tensor):
            raise UserError(
                f"model.module: {name} has no shape yet; give lazy layers their input widths"
            )
        if tensor.is_complex():
            raise UserError(
                f"model.module: {name} holds complex numbers; train real and imaginary parts apart"
            )
        if tensor.is_meta:
            raise UserError(
                f"model.module: {name} is on the meta device, so it has no values to start from"
            )
        if (
            name in parameters and not torch.isfinite(tensor).all()
        ):  # buffers may hold -inf, as masks do
            raise UserError(f"model.module: parameter {name} does not start from finite numbers")


def _tried(module: nn.Module, inputs: Tensor, outputs: int) -> int:
    """Activations of a row; raises a UserError unless (B, …) becomes (B, outputs)."""
    with torch.no_grad(), plain_attention():
        found = copy.deepcopy(module).eval()(inputs)
    wanted = (len(inputs), outputs)
    if not isinstance(found, Tensor) or tuple(found.shape) != wanted:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(
            f"model.module: maps inputs {tuple(inputs.shape)} to {shape}, needed {wanted}"
        )
    return count_activations(module, inputs)


def _try_twice(module: nn.Module, inputs: Tensor) -> None:
    """Two forward passes with the same parameters and buffers, which must put out the same.

    Raises:
        UserError: they do not, or a buffer becomes another kind of tensor.
    """
    call = Stateless(copy.deepcopy(module).train())
    values = {
        name: value.detach()
        for name, value in (*call.module.named_parameters(), *call.state.items())
    }
    kept = {
        stateless.at(path, name)
        for path, layer in module.named_modules()
        for name in layer._buffers
    }
    with torch.no_grad(), plain_attention():
        first, after = call(
            {name: value.clone() for name, value in values.items()}, nn.Module.__call__, inputs
        )
        others = {place: value for place, value in after.items() if place not in kept}
        second, _ = call({**values, **others}, nn.Module.__call__, inputs)
    for place, value in after.items():
        if place in kept and place not in values:
            raise UserError(
                f"model.module: buffer {place} is None before the first batch; give it its first "
                "value"
            )
        if place in kept and stateless.kind(value) != stateless.kind(values[place]):
            raise UserError(
                f"model.module: buffer {place} does not keep its shape and dtype in a forward pass"
            )
    if torch.equal(first.nan_to_num(), second.nan_to_num()):
        return
    changed = [stateless.at(path, name) for path, name, _ in call.changes()]
    changed += [
        place
        for place, value in others.items()
        if place in values and not torch.equal(value, values[place])
    ]
    if changed:
        raise UserError(
            f"model.module: keeps {changed[0]} from one forward pass to the next, which "
            "repetitions would share; "
            "register it as a buffer"
        )
    raise UserError(
        "model.module: does not put out the same twice, which hypergradients would not survive: "
        "it draws random "
        "numbers in its forward pass, or keeps something besides its buffers from one to the next"
    )


def _try_training(model: AutogradModel, inputs: Tensor, targets: Tensor) -> None:
    """Two repetitions' losses, gradients and second derivatives on a few rows."""
    batch = model.batch(inputs, targets, shared=True, split="training")
    _try_batch(model, batch)
    model.evaluate(_zeros(model, inputs), batch, model.initial_carried(2))


def _try_minibatches(model: AutogradModel, inputs: Tensor, targets: Tensor) -> None:
    """The same with rows of each repetition's own, which a module may not ask for a number
    (``item()``).

    Raises:
        UserError: it cannot be trained with them.
    """
    inputs, targets = torch.stack([inputs] * 2), torch.stack([targets] * 2)
    try:
        _try_batch(model, model.batch(inputs, targets, shared=False, split="training"))
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise _unfit(error) from error


def _try_batch(model: AutogradModel, batch: Batch) -> None:
    linearisation = model.linearise(
        _zeros(model, batch.inputs), batch, model.initial_carried(2), True
    )
    if linearisation.loss.shape != (2,):
        raise UserError("model.loss: must give one number, the mean over the rows")
    linearisation.hessian_product(torch.ones_like(linearisation.gradient))


def _zeros(model: AutogradModel, inputs: Tensor) -> Tensor:
    return torch.zeros(2, model.layout.count, dtype=model.dtype, device=inputs.device)


def _unfit(error: BaseException) -> UserError:
    """One line: what was raised, and where in the user's code."""
    name = type(error).__name__
    text = described(error).removeprefix(f"{name}: ")
    if "randomness" in text:
        text = "draws random numbers in its forward pass, which hypergradients would not survive"
    elif "vmap" in text or "Batching rule" in text:
        reason = text.removeprefix("vmap: ").partition(". ")[0]
        text = f"cannot be computed for several repetitions at once ({reason})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not LIBRARIES & set(Path(frame.filename).parts)]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return UserError(f"model.module: {name}: {text}{where}")
