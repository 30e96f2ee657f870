"""One-pass hyperparameter optimisation in your own training loop: any ``torch.nn.Module``, any loss.

The estimators, the weight update and the hyperparameter optimiser are those of ``hpo-bench run``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_leaves

from hpo_bench import checks
from hpo_bench.core import tree
from hpo_bench.core.hyperparameters import SPACES, Hyperparameters
from hpo_bench.core.layout import Layout
from hpo_bench.core.loop import move
from hpo_bench.core.optimisers import Adam, Optimiser
from hpo_bench.core.update import Linearisation, State, advance
from hpo_bench.errors import UserError
from hpo_bench.hypergradients.base import Chooser, Estimator, accumulator
from hpo_bench.hypergradients.neumann import Neumann

Loss = Callable[[Any, Any], Tensor]
Value = float | Sequence[float] | Tensor


class OnePass:
    """Trains a module by SGD with momentum and weight decay, and tunes lr, weight decay and momentum meanwhile.

        tuner = OnePass(model, loss)
        for batch in batches:
            value = tuner.step(batch)          # one weight update, in place of backward() and optimiser.step()
            if tuner.due:                      # after every ``every`` of them
                tuner.tune(validation_batch)   # one hyperparameter update

    The module's own parameters and buffers are updated in place, so it can be evaluated, saved and loaded as ever; its
    ``.grad`` is not touched. It is used in the mode (``train()``, ``eval()``) that it is in; `tune` leaves its buffers
    (running statistics) as they are. The loss must be twice differentiable by autograd. A call of `step` costs a
    gradient, and in the estimator's window (the last update before `due`, or the last ``look_back``) what it keeps;
    `tune` costs a gradient and the estimator's Hessian-vector products.

    Several copies at once: give a list of R modules of one architecture. They are trained as rows of one program by
    ``vmap``, none sees another, and losses and hyperparameters come as (R,).

    Args:
        model: with parameters of one dtype on one device; those with ``requires_grad=False`` stay as they are.
        loss: (model, batch) -> mean loss (); calls the model that it is given.
        lr, weight_decay, momentum: where they start: numbers, or R of them.
        tune: which of them are tuned.
        look_back: of the default estimator.
        hyper_lr: of the default hyperparameter optimiser, in raw space (log10 lr, log10 weight decay, logit momentum).
        every: T, weight updates between hyperparameter updates; 1 for estimators that want each of them.
        estimator: of hypergradients (`hpo_bench.hypergradients`): ``Neumann(look_back)`` unless given.
        optimiser: of hyperparameters (`hpo_bench.core.optimisers`): ``Adam(hyper_lr)`` unless given.
        per_weight: hyperparameters that have one value for each weight.
        clip_log10_lr: bounds of log10 lr after each hyperparameter update, or None.
        gradient_clip_norm: bound on the norm of the training gradient of each module, or None.
        separate_batches: each tensor of a batch has a first axis R, one entry for each module; else they share it.

    Raises:
        UserError: a value that cannot be; it is named.
    """

    def __init__(
        self, model: nn.Module | Sequence[nn.Module], loss: Loss, *, lr: Value = 1e-2, weight_decay: Value = 1e-4,
        momentum: Value = 0.9, tune: Sequence[str] = ("lr", "weight_decay", "momentum"), look_back: int = 5,
        hyper_lr: float = 0.05, every: int = 10, estimator: Estimator | None = None,
        optimiser: Optimiser | None = None, per_weight: Sequence[str] = (),
        clip_log10_lr: tuple[float, float] | None = (-10.0, 0.0), gradient_clip_norm: float | None = None,
        separate_batches: bool = False,
    ) -> None:  # fmt: skip
        self._modules = _Modules(model, loss, separate_batches)
        self._tuned = checks.words("tune", list(tune), tuple(SPACES))
        self._per_weight = checks.words("per_weight", list(per_weight), tuple(SPACES))
        self._estimator = estimator or Neumann(checks.whole("look_back", look_back, 1))
        self._check_estimator()
        self._accumulator = accumulator(self._estimator)
        self._optimiser = optimiser or Adam(checks.positive("hyper_lr", hyper_lr))
        self._interval = 1 if self._estimator.every_update else checks.whole("every", every, 1)
        self._window_size = self._estimator.window(self._interval)
        self._bounds, self._clip_norm = clip_log10_lr, gradient_clip_norm
        weights = self._modules.weights()
        given = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        self._raw = {name: self._raw_value(name, value, weights) for name, value in given.items()}
        self._hyper = Hyperparameters.of(self._raw)
        self._buffer = torch.zeros_like(weights)
        self._memory = self._optimiser.init({name: self._raw[name] for name in self._tuned})
        self._updates = 0
        self._window: Any = None
        self._begin_interval()

    def _check_estimator(self) -> None:
        if not self._tuned:
            raise UserError(f"tune=[]: name at least one of {', '.join(self._estimator.tunes)}")
        if isinstance(self._estimator, Chooser):
            raise UserError(
                "estimator: one that chooses by its costs needs a known model; give Unroll(i) or Forward(i)"
            )
        for name in self._tuned:
            if name not in self._estimator.tunes:
                kind = type(self._estimator).__name__
                raise UserError(f"tune: {kind} cannot tune {name}; allowed: {', '.join(self._estimator.tunes)}")

    def _raw_value(self, name: str, value: Value, weights: Tensor) -> Tensor:
        """The raw value of each row, (R, 1) or (R, P)."""
        rows, width = weights.shape
        try:
            values = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"{name}={value}: must be a number, or {rows} of them") from None
        if values.shape not in ((), (rows,)):
            raise UserError(
                f"{name}: has shape {tuple(values.shape)}; give one number, or one for each of {rows} modules"
            )
        _check_range(name, values, name in self._tuned)
        raw = torch.logit(values) if name == "momentum" else torch.log10(values)
        return raw.expand(rows).unsqueeze(-1).repeat(1, width if name in self._per_weight else 1).to(weights)

    # --- the training ---

    @torch.no_grad()
    def step(self, batch: Any) -> Tensor:
        """Make one weight update on a batch, and return its loss before it: (), or (R,) for several modules."""
        if self.due:  # was not used: hyperparameters stay as they are
            self._begin_interval()
        weights = self._modules.weights()
        if weights.device != self._buffer.device or weights.dtype != self._buffer.dtype:
            raise UserError("model: was moved to another device or dtype; do so before OnePass is made")
        differentiable = self._interval - self._count <= self._window_size
        linearisation = self._modules.linearise(weights, batch, differentiable)
        state, made = advance(State(weights, self._buffer), linearisation, self._hyper, self._clip_norm)
        if differentiable:
            self._window = self._accumulator.accumulate(self._window, made)
        self._modules.write(state.weights, linearisation.carried)
        self._buffer = state.buffer
        self._count += 1
        self._updates += 1
        return self._modules.single_or_all(linearisation.loss)

    @property
    def due(self) -> bool:
        """Whether it is time for `tune`: ``every`` weight updates have been made since the last time."""
        return self._count == self._interval

    def hypergradients(self, batch: Any) -> dict[str, Tensor]:
        """Estimate d(loss on ``batch``)/d(raw hyperparameter) at the module's weights, without any update.

        Args:
            batch: of validation data (of training data for an estimator whose ``second_batch`` says so).

        Returns:
            For each tuned hyperparameter (), (R,), or by parameter where it has a value for each weight.

        Raises:
            UserError: `due` is false.
        """
        return {name: self._shown(value, name) for name, value in self._hypergradients(batch).items()}

    @torch.no_grad()
    def _hypergradients(self, batch: Any) -> dict[str, Tensor]:
        if not self.due:
            raise UserError(
                f"tune: called after {self._count} of {self._interval} weight updates; call it where due is true, "
                "once before the next step"
            )
        gradient = self._modules.linearise(self._modules.weights(), batch, False).gradient
        return self._accumulator.finish(self._window, gradient)

    @torch.no_grad()
    def tune(self, batch: Any) -> dict[str, Any]:
        """Make one hyperparameter update by `hypergradients` on a batch, and return those."""
        hypergradients = self._hypergradients(batch)
        changes, self._memory = self._optimiser.update(hypergradients, self._memory)
        self._raw = move(self._raw, changes, self._bounds)
        self._hyper = Hyperparameters.of(self._raw)
        self._begin_interval()
        return {name: self._shown(value, name) for name, value in hypergradients.items()}

    def _begin_interval(self) -> None:
        self._count, self._window = 0, self._accumulator.begin(self._tuned)

    # --- what it has come to ---

    @property
    def updates(self) -> int:
        """Weight updates made."""
        return self._updates

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """In force: numbers, (R,) for several modules, tensors by parameter where each weight has its own."""
        shown = {name: self._shown(value, name) for name, value in self._hyper.natural.items()}
        return {
            name: value.item() if isinstance(value, Tensor) and value.ndim == 0 else value
            for name, value in shown.items()
        }

    def _shown(self, value: Tensor, name: str) -> Any:
        if name not in self._per_weight:
            return self._modules.single_or_all(value.squeeze(-1).clone())
        views = self._modules.layout.views(value)
        return {parameter: self._modules.single_or_all(view.clone()) for parameter, view in views.items()}

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on, for ``torch.save``; the module's weights are left to the module.

        A window cannot be saved. Saved right after `tune` the training goes on to the same numbers; saved within the
        estimator's window, the interval of ``every`` weight updates begins again.
        """
        return {
            "tuned": list(self._tuned), "raw": {name: value.clone() for name, value in self._raw.items()},
            "momentum_buffer": self._buffer.clone(), "memory": tree.leaves(self._memory), "updates": self._updates,
            "count": self._count,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of a tuner made with the same arguments.

        Raises:
            UserError: it is of another.
        """
        try:
            raw = {name: _like(state["raw"][name], value, name) for name, value in self._raw.items()}
            buffer = _like(state["momentum_buffer"], self._buffer, "momentum_buffer")
            template = self._optimiser.init({name: raw[name] for name in self._tuned})
            memory = tree.rebuilt(template, state["memory"])
            tuned, updates, count = tuple(state["tuned"]), int(state["updates"]), int(state["count"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"state_dict: is of another tuner ({type(error).__name__}: {error})") from None
        if tuned != self._tuned:
            raise UserError(f"state_dict: tunes {', '.join(tuned)}, this tuner {', '.join(self._tuned)}")
        self._raw, self._buffer, self._updates = raw, buffer, updates
        self._memory = tree.change(memory, lambda leaf: leaf.to(buffer) if isinstance(leaf, Tensor) else leaf)
        self._hyper = Hyperparameters.of(raw)
        self._begin_interval()
        if count <= self._interval - self._window_size:
            self._count = count


def _check_range(name: str, values: Tensor, tuned: bool) -> None:
    """Raise where a starting value has no (finite) raw value; what is not tuned may be zero, but for lr."""
    upper = 1.0 if name == "momentum" else math.inf
    may_be_zero = not tuned and name != "lr"
    if not bool(((values >= 0) & (values < upper) & ((values > 0) | may_be_zero)).all()):
        low = "0 or more" if may_be_zero else "above 0" + " to be tuned" * (name != "lr")
        below = " and below 1" * (name == "momentum")
        raise UserError(f"{name}={values.tolist()}: must be {low}{below}")


def _like(value: Tensor, template: Tensor, name: str) -> Tensor:
    if value.shape != template.shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, needed {tuple(template.shape)}")
    return value.detach().clone().to(template)


# --- modules as rows ---


class _Objective(nn.Module):
    """The loss as a module, so that `functional_call` replaces the parameters of the model inside it."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        value = self.loss(self.model, batch)
        if not isinstance(value, Tensor) or value.ndim:
            found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"loss: must return the mean loss as a tensor of no dimension, not {found}")
        return value


class _Modules:
    """R modules whose parameters are the rows of (R, P).

    Args:
        model: one module, or several of one architecture.
        loss: (model, batch) -> ().
        separate_batches: see `OnePass`.
    """

    def __init__(self, model: nn.Module | Sequence[nn.Module], loss: Loss, separate_batches: bool) -> None:
        self._alone = isinstance(model, nn.Module)
        modules = cast("list[nn.Module]", list(model) if isinstance(model, list | tuple) else [model])
        _check_modules(modules, loss)
        if self._alone and separate_batches:
            raise UserError("separate_batches: is for several modules")
        self._objectives = [_Objective(module, loss) for module in modules]
        self._batch_axis = 0 if separate_batches else None
        named = _trained(modules[0])
        self.layout = Layout(tuple(named), tuple(tuple(value.shape) for value in named.values()))
        self._parameters = [list(_trained(module).values()) for module in modules]
        self._places = _places(modules[0])

    def weights(self) -> Tensor:
        """The modules' parameters, (R, P), copied."""
        rows = [torch.cat([value.detach().reshape(-1) for value in row]) for row in self._parameters]
        return torch.stack(rows)

    def write(self, weights: Tensor, buffers: Mapping[str, Tensor]) -> None:
        """Give the modules their parameters (R, P) and buffers (R, …)."""
        for row, flat in zip(self._parameters, weights, strict=True):
            for value, new in zip(row, self.layout.views(flat).values(), strict=True):
                value.copy_(new)
        for index, objective in enumerate(self._objectives):
            for name, value in objective.model.named_buffers():
                value.copy_(buffers[name][index])

    def linearise(self, weights: Tensor, batch: Any, second_order: bool) -> Linearisation:
        """Loss, gradient and, if ``second_order``, Hessian-vector products by autograd."""
        with torch.enable_grad():
            leaf = weights.detach().requires_grad_(True)
            losses, buffers = self._losses(leaf, batch)
            if not losses.requires_grad:
                raise UserError("loss: does not depend on the model's parameters; call the model that it is given")
            (gradient,) = torch.autograd.grad(losses.sum(), leaf, create_graph=second_order)

        def hessian_product(vector: Tensor) -> Tensor:
            with torch.enable_grad():
                return torch.autograd.grad(gradient, leaf, vector, retain_graph=True)[0].detach()

        return Linearisation(losses.detach(), gradient.detach(), hessian_product, buffers)

    def _losses(self, weights: Tensor, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (R,) and the buffers after it, (R, …) each."""
        fixed = [_fixed(objective.model) for objective in self._objectives]
        if self._alone:
            loss, buffers = self._loss(self.layout.views(weights[0]), fixed[0], batch)
            return loss.unsqueeze(0), {name: value.unsqueeze(0) for name, value in buffers.items()}
        self._check_batch(batch)
        stacked = {name: torch.stack([each[name] for each in fixed]) for name in fixed[0]}
        mapped = vmap(self._loss, in_dims=(0, 0, self._batch_axis), randomness="different")
        return mapped(self.layout.views(weights), stacked, batch)

    def _loss(
        self, parameters: Mapping[str, Tensor], fixed: Mapping[str, Tensor], batch: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        objective = self._objectives[0]
        own = {name: value.clone() for name, value in fixed.items()}
        values = {**own, **parameters}
        given = {f"model.{place}": values[name] for place, name in self._places.items()}
        loss = functional_call(objective, given, (batch,), tie_weights=False)  # `_places` ties them
        return loss, {name: own[name].detach() for name, _ in objective.model.named_buffers()}

    def _check_batch(self, batch: Any) -> None:
        if self._batch_axis is None:
            return
        for leaf in tree_leaves(batch):
            if not isinstance(leaf, Tensor) or leaf.shape[:1] != (len(self._objectives),):
                found = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else type(leaf).__name__
                raise UserError(
                    f"batch: separate_batches needs tensors whose first axis is the {len(self._objectives)} modules, "
                    f"not {found}"
                )

    def single_or_all(self, values: Tensor) -> Tensor:
        """The one row's value where there is one module, else all (R, …)."""
        return values[0] if self._alone else values


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def _fixed(module: nn.Module) -> dict[str, Tensor]:
    """Buffers, and parameters that are not trained."""
    frozen = {name: value.detach() for name, value in module.named_parameters() if not value.requires_grad}
    return {**frozen, **{name: value.detach() for name, value in module.named_buffers()}}


def _places(module: nn.Module) -> dict[str, str]:
    """Every place of a parameter or buffer, and its name: tied ones have one name and several places.

    A submodule that is used twice counts once: `functional_call` with ``tie_weights`` replaces its parameters twice and
    puts back the replacement.
    """
    names = {id(value): name for name, value in (*module.named_parameters(), *module.named_buffers())}
    places = {}
    for path, layer in module.named_modules():
        own = (*layer.named_parameters(recurse=False, remove_duplicate=False),
               *layer.named_buffers(recurse=False, remove_duplicate=False))  # fmt: skip
        places.update({f"{path}.{local}".lstrip("."): names[id(value)] for local, value in own})
    return places


def _check_modules(modules: Sequence[nn.Module], loss: Loss) -> None:
    if isinstance(loss, nn.Module) or not callable(loss):
        raise UserError(
            "loss: must be a function of (model, batch), such as "
            "lambda model, batch: criterion(model(batch[0]), batch[1])"
        )
    if not modules or not all(isinstance(module, nn.Module) for module in modules):
        raise UserError("model: must be a torch.nn.Module or a list of them")
    kinds = [{name: (tuple(value.shape), value.dtype, value.device) for name, value in _trained(module).items()}
             for module in modules]  # fmt: skip
    if not kinds[0]:
        raise UserError("model: has no parameters that require gradients")
    if len({(dtype, device) for kind in kinds for _, dtype, device in kind.values()}) > 1:
        raise UserError("model: all trained parameters must have one dtype and be on one device")
    if any(kind != kinds[0] for kind in kinds):
        raise UserError("model: all modules of a list must have the same parameters")
