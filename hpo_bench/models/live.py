"""Modules in a user's hands as the rows of (R, P): looked at whenever they are used, since the user
may change them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from hpo_bench.core.layout import Layout
from hpo_bench.core.update import Linearisation
from hpo_bench.errors import UserError
from hpo_bench.models import stateless
from hpo_bench.models.derivatives import gradient_of
from hpo_bench.models.stateless import Stateless

Loss = Callable[[Any, Any], Tensor]
Kind = tuple[tuple[int, ...], torch.dtype, torch.device]

WRAPPERS = (torch.jit.ScriptModule, nn.DataParallel, nn.parallel.DistributedDataParallel)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class LiveModules:
    """R modules whose trained parameters are the rows of (R, P), in float32 where their own
    precision is lower.

    Args:
        model: one module, or several of one architecture.
        loss: (model, batch) -> ().
        separate_batches: see `hpo_bench.OnePass`.

    Attributes:
        alone: whether there is one module, not in a list.
        layout: of the parameters that are trained now.
        shapes: of all parameters, trained or not, by name.
        dtype, device: of (R, P).

    Raises:
        UserError: what cannot be trained, or not together.
    """

    def __init__(
        self, model: nn.Module | Sequence[nn.Module], loss: Loss, separate_batches: bool
    ) -> None:
        self.alone = isinstance(model, nn.Module)
        given = list(model) if isinstance(model, list | tuple) else [model]
        _check_given(given, loss)
        if self.alone and separate_batches:
            raise UserError("separate_batches: is for several modules")
        self._modules = cast("list[nn.Module]", given)
        self._batch_axis = 0 if separate_batches else None
        self._loss_of = _checked(loss)
        self._seen = [_Seen(module) for module in self._modules]
        _check(self._seen)
        self._original = [seen.original() for seen in self._seen]
        self._arrange()
        self.shapes = {name: tuple(value.shape) for name, value in self._seen[0].parameters.items()}
        (_, own, self.device), *_ = self._kinds.values()
        self.dtype = torch.promote_types(own, torch.float32)

    # --- following the modules ---

    def follow(self) -> bool:
        """Look at the modules as they are now.

        Returns:
            Whether other parameters are trained than before.

        Raises:
            UserError: a change that cannot be followed.
        """
        self.check()
        if tuple(self._seen[0].trained) == self.layout.names:
            return False
        self._arrange()
        return True

    def check(self) -> None:
        """Raise where the modules have changed in a way that cannot be followed; what is trained
        stays as it is.
        """
        if torch.is_inference_mode_enabled():
            raise UserError(
                "torch.inference_mode() is on, in which nothing can be trained; call OnePass "
                "outside of it"
            )
        if not all(seen.holds() for seen in self._seen):
            self._look()

    def _look(self) -> None:
        seen = [_Seen(module) for module in self._modules]
        for now, original in zip(seen, self._original, strict=True):
            now.check_against(original)
        _check(seen)
        self._seen = seen  # after the checks: a wrong change is told again at the next call

    def _arrange(self) -> None:
        """Take as trained what requires gradients now."""
        self._kinds = self._seen[0].trained
        self.layout = Layout(
            tuple(self._kinds), tuple(shape for shape, _, _ in self._kinds.values())
        )

    def named(self) -> dict[str, nn.Parameter]:
        """All parameters of the first module by name, trained or not; one that is tied has several
        names.
        """
        return dict(self._modules[0].named_parameters(remove_duplicate=False))

    def own_names(self, names: Iterable[str]) -> frozenset[str]:
        """The names in `shapes` of parameters whose names are among those of `named`."""
        own = {id(value): name for name, value in self._seen[0].parameters.items()}
        named = self.named()
        return frozenset(own[id(named[name])] for name in names)

    # --- values ---

    def weights(self) -> Tensor:
        """The modules' trained parameters, (R, P), copied."""
        names = self.layout.names
        rows = [
            torch.cat([seen.parameters[name].detach().reshape(-1) for name in names])
            for seen in self._seen
        ]
        return torch.stack(rows).to(self.dtype)

    def write(self, weights: Tensor, state: Mapping[str, Tensor]) -> None:
        """Give the modules their parameters (R, P), and the state (R, …) that a forward pass has
        left.
        """
        for seen, flat in zip(self._seen, weights, strict=True):
            for name, new in self.layout.views(flat).items():
                seen.parameters[name].copy_(new)
        changed = self._spread_attributes()
        for place, values in state.items():
            for module, value in zip(self._modules, values, strict=True):
                changed |= stateless.put(module, place, value)
        if changed:
            self._seen = [_Seen(module) for module in self._modules]

    def _spread_attributes(self) -> bool:
        """What the forward pass has changed in the first module's attributes (a count of calls) is
        the others' too.
        """
        changes = self._seen[0].stateless.changes()
        for path, name, value in changes:  # tensors are the state's, which is written after this
            for module in self._modules[1:]:
                module.get_submodule(path).__dict__[name] = value
        return bool(changes)

    # --- derivatives ---

    def linearise(self, weights: Tensor, batch: Any, second_order: bool) -> Linearisation:
        """Loss, gradient and, if ``second_order``, Hessian-vector products by autograd; carried:
        the state after it.
        """
        with torch.enable_grad():
            leaf = weights.detach().requires_grad_(True)
            try:
                with stateless.plain_attention():
                    losses, after = self._losses(leaf, batch)
            except BaseException as error:
                self._seen[0].stateless.restore()
                _say_if_too_few(error)
                raise
            gradient = gradient_of(losses.sum(), leaf, second_order)

        def hessian_product(vector: Tensor) -> Tensor:
            with torch.enable_grad():
                return gradient_of(gradient, leaf, False, vector)

        return Linearisation(losses.detach(), gradient.detach(), hessian_product, after)

    def look_only(self, weights: Tensor, batch: Any) -> Tensor:
        """The gradient (R, P), NaN where the loss is not finite, with the modules left as they
        were.
        """
        seen = self._seen[0]
        before = seen.untrained() if self.alone else {}  # several are computed from copies
        try:
            found = self.linearise(weights, batch, False)
        finally:
            seen.stateless.restore()
            for name, (version, value) in before.items():
                if (
                    seen.parameters[name]._version != version
                ):  # writing would break the window's graph in vain
                    seen.parameters[name].copy_(value)
        return torch.where(torch.isfinite(found.loss).unsqueeze(-1), found.gradient, torch.nan)

    def _losses(self, weights: Tensor, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (R,) and the state after it, (R, …) each."""
        fixed = [self._fixed(seen) for seen in self._seen]
        if self.alone:
            loss, after = self._loss(self.layout.views(weights[0]), fixed[0], batch)
            return loss.unsqueeze(0), {place: value.unsqueeze(0) for place, value in after.items()}
        self._check_batch(batch)
        stacked = {name: torch.stack([each[name] for each in fixed]) for name in fixed[0]}
        versions = {name: value._version for name, value in stacked.items()}
        mapped = vmap(self._loss, in_dims=(0, 0, self._batch_axis), randomness="different")
        try:
            losses, after = mapped(self.layout.views(weights), stacked, batch)
        except RuntimeError as error:
            text = " ".join(str(error).split())
            if "Batching rule" not in text and "vmap" not in text:
                raise
            raise UserError(
                "model: cannot be computed for several modules at once; give them one by one "
                f"({text[:160]})"
            ) from error
        changed = {
            name: value for name, value in stacked.items() if value._version != versions[name]
        }
        return losses, {**changed, **after}

    def _fixed(self, seen: _Seen) -> dict[str, Tensor]:
        """State, and parameters that are not trained."""
        trained = set(self.layout.names)
        names = dict.fromkeys(name for name in seen.stateless.names.values() if name not in trained)
        return {name: seen.tensor(name).detach() for name in names}

    def _loss(
        self, parameters: Mapping[str, Tensor], fixed: Mapping[str, Tensor], batch: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own = self._seen[0].stateless.state  # which the forward pass may change in place
        values = {name: value.clone() if name in own else value for name, value in fixed.items()}
        values |= {name: value.to(self._kinds[name][1]) for name, value in parameters.items()}
        return self._seen[0].stateless(values, self._loss_of, batch)

    def _check_batch(self, batch: Any) -> None:
        if self._batch_axis is None:
            return
        for leaf in tree_leaves(batch):
            if not isinstance(leaf, Tensor) or leaf.shape[:1] != (len(self._modules),):
                found = (
                    f"shape {tuple(leaf.shape)}"
                    if isinstance(leaf, Tensor)
                    else type(leaf).__name__
                )
                raise UserError(
                    "batch: separate_batches needs tensors whose first axis is the "
                    f"{len(self._modules)} modules, "
                    f"not {found}"
                )

    def single_or_all(self, values: Tensor) -> Tensor:
        """The one row's value where there is one module, else all (R, …)."""
        return values[0] if self.alone else values


class _Seen:
    """One module as it was when it was last looked at: cheap to compare with what it is now."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parameters = dict(module.named_parameters())
        self.stateless = Stateless(module)
        self._flags = self._current()
        self.trained: dict[str, Kind] = {
            name: (tuple(shape), dtype, device)
            for name, (required, shape, dtype, device) in zip(
                self.parameters, self._flags, strict=True
            )
            if required
        }

    def _current(self) -> list[tuple[Any, ...]]:
        """What can change in a parameter that stays the same object."""
        return [
            (value.requires_grad, value.shape, value.dtype, value.device)
            for value in self.parameters.values()
        ]

    def untrained(self) -> dict[str, tuple[int, Tensor]]:
        """Versions and copies of the other parameters, which a forward pass may still change (a
        moving average).
        """
        others = (
            (name, value) for name, value in self.parameters.items() if name not in self.trained
        )
        return {name: (value._version, value.detach().clone()) for name, value in others}

    def hooked(self) -> list[str]:
        """Trained parameters with hooks, which are called for ``backward()`` alone."""
        return [name for name in self.trained if stateless.is_hooked(self.parameters[name])]

    def tensor(self, place: str) -> Tensor:
        """A parameter, or a tensor of the state."""
        return self.parameters[place] if place in self.parameters else self.stateless.state[place]

    def holds(self) -> bool:
        """Whether the module is still as it was, but for the values of its tensors."""
        return self._flags == self._current() and self.stateless.holds() and not self.hooked()

    def original(self) -> _Original:
        """What has to stay."""
        flags = [tuple(flag[1:]) for flag in self._flags]
        layers = {
            path: layer
            for path, layer in self.module.named_modules()
            if next(layer.parameters(recurse=False), None) is not None
        }
        return _Original(dict(zip(self.parameters, flags, strict=True)), layers)

    def check_against(self, original: _Original) -> None:
        """Raise a UserError where the module has become another since OnePass was made."""
        again = "since OnePass was made; make a new one for it"
        now = self.original()
        if list(now.parameters) != list(original.parameters):
            name = next(iter(set(now.parameters) ^ set(original.parameters)), "another order")
            raise UserError(f"model: its parameters have changed ({name}) {again}")
        for name, (shape, dtype, device) in now.parameters.items():
            before = original.parameters[name]
            if shape != before[0]:
                raise UserError(
                    f"model: {name} has another shape, {tuple(shape)} for {tuple(before[0])}, "
                    f"{again}"
                )
            if (dtype, device) != before[1:]:
                raise UserError(
                    f"model: was moved to another device or dtype ({name} from {before[2]}, "
                    f"{before[1]} to {device}, "
                    f"{dtype}); do so before OnePass is made"
                )
        for path, layer in original.layers.items():
            if now.layers.get(path) is not layer:
                raise UserError(f"model: layer {path or 'itself'} was replaced {again}")


@dataclass(frozen=True)
class _Original:
    """Kinds of all parameters by name, and the layers that hold them by path."""

    parameters: dict[str, tuple[Any, ...]]
    layers: dict[str, nn.Module]


def _say_if_too_few(error: BaseException) -> None:
    """Raise in one line what normalisation layers say of a batch of one row."""
    text = " ".join(str(error).split())
    if type(error) is ValueError and text.startswith("Expected more than 1"):
        raise UserError(
            f"batch: is too small for a normalisation layer in training mode ({text}); leave such "
            "a batch out "
            "(drop_last=True of a DataLoader), or add its rows to another"
        ) from error


def _checked(loss: Loss) -> Loss:
    """The loss, refusing what is not a mean."""

    def checked(model: nn.Module, batch: Any) -> Tensor:
        value = loss(model, batch)
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            found = type(value).__name__
            if isinstance(value, Tensor):
                found = f"shape {tuple(value.shape)}" if value.ndim else str(value.dtype)
            raise UserError(
                f"loss: must return the mean loss as a tensor of no dimension, not {found}"
            )
        return value

    return checked


# --- what cannot be trained ---


def _check_given(modules: Sequence[Any], loss: Any) -> None:
    if isinstance(loss, nn.Module) or not callable(loss):
        raise UserError(
            "loss: must be a function of (model, batch), such as "
            "lambda model, batch: criterion(model(batch[0]), batch[1])"
        )
    if not modules or not all(isinstance(module, nn.Module) for module in modules):
        raise UserError("model: must be a torch.nn.Module or a list of them")
    for module in modules:
        if isinstance(module, WRAPPERS):
            raise UserError(
                f"model: a {type(module).__name__} cannot be called with other parameters; give "
                "what it wraps"
            )
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if is_lazy(value):
                raise UserError(
                    f"model: {name} has no shape yet; call the module once with a batch before "
                    "OnePass is made"
                )
    first_at: dict[int, int] = {}
    for number, module in enumerate(modules):
        if first_at.setdefault(id(module), number) != number:
            raise UserError(
                f"model: modules {first_at[id(module)]} and {number} of the list are the same "
                "object; "
                "make each of them anew, or by copy.deepcopy"
            )


def _check(seen: Sequence[_Seen]) -> None:
    """Raise unless the modules can be trained, together."""
    for each in seen:
        _check_parameters(each)
    first, *others = seen
    for number, other in enumerate(others, start=1):
        if other.trained != first.trained:
            raise UserError(
                "model: all modules of a list must have the same parameters, and train the same "
                "ones"
            )
        words = stateless.difference(first.module, other.module)
        if words is not None:
            raise UserError(
                f"model: modules 0 and {number} of the list are not the same program; {words}. "
                "Modules that are "
                "trained together may differ in their parameters and buffers alone"
            )
    _check_sharing(seen)


def _check_parameters(seen: _Seen) -> None:
    trained = seen.trained
    if not trained:
        raise UserError("model: has no parameters that require gradients")
    for name, (_, dtype, _) in trained.items():
        if dtype not in FLOATS:
            words = (
                "its real and imaginary parts can be trained as parameters"
                if dtype.is_complex
                else "not a float"
            )
            raise UserError(f"model: parameter {name} is {dtype}; {words}")
        _check_writable(name, seen.parameters[name])
    if names := seen.hooked():
        raise UserError(
            f"model: parameter {names[0]} has a hook, which is for backward() and would not be "
            "called here; remove it, "
            "or change the gradient by the module or the loss"
        )
    if len({kind[1:] for kind in trained.values()}) > 1:
        raise UserError("model: all trained parameters must have one dtype and be on one device")


def _check_writable(name: str, value: Tensor) -> None:
    """Raise where a parameter has no memory of its own that could be written to."""
    if value.is_meta:
        raise UserError(
            f"model: parameter {name} is on the meta device, so it has no values; give it some "
            "first"
        )
    if value.is_inference():
        raise UserError(
            f"model: parameter {name} was made in torch.inference_mode(), so it cannot be trained"
        )
    if any(step == 0 and size > 1 for step, size in zip(value.stride(), value.shape, strict=True)):
        raise UserError(
            f"model: entries of parameter {name} share memory (expand); give it a copy of its own"
        )


def _check_sharing(seen: Sequence[_Seen]) -> None:
    """Raise where two modules, or two parameters, would write the same memory.

    What is written are trained parameters, and buffers in training mode.
    """
    owners: dict[int, tuple[int, str]] = {}
    for number, each in enumerate(seen):
        written = {name: each.parameters[name] for name in each.trained}
        for path, layer in each.module.named_modules():
            if layer.training:
                written |= {
                    stateless.at(path, name): value
                    for name, value in layer.named_buffers(recurse=False)
                }
        for name, value in written.items():
            owner, first = owners.setdefault(value.data_ptr() or id(value), (number, name))
            if owner != number:
                raise UserError(
                    f"model: modules {owner} and {number} of the list share {name}; make each of "
                    "them anew, or by "
                    "copy.deepcopy"
                )
            if first != name and {first, name} <= set(each.trained):
                raise UserError(
                    f"model: parameters {first} and {name} share their memory; make them one "
                    "torch.nn.Parameter"
                )
