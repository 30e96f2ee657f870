"""One-pass hyperparameter optimisation in your own training loop: any ``torch.nn.Module``, any
loss.

The estimators, the weight update and the hyperparameter optimiser are those of ``hpo-bench run``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpo_bench.core import checks, tree
from hpo_bench.core.estimator import Estimator
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.layout import Layout
from hpo_bench.core.loop import move
from hpo_bench.core.optimisers import Adam, Optimiser, chosen_rows, finite_rows, with_own_numbers
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.core.update import State
from hpo_bench.errors import UserError
from hpo_bench.hypergradients.exact import Exact
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.models.live import LiveModules, Loss

SHOWN = 80  # characters of a value in a message
Value = float | Sequence[float] | Tensor


class OnePass:
    """Trains a module by SGD with momentum and weight decay, and tunes lr, weight decay and
    momentum meanwhile.

        tuner = OnePass(model, loss)
        for batch in batches:
            value = tuner.step(batch)          # one weight update, for backward() and step()
            if tuner.due:                      # after every ``every`` of them
                tuner.tune(validation_batch)   # one hyperparameter update

    The module's own parameters and buffers are updated in place, so it can be evaluated, saved and
    loaded as ever; its ``.grad`` is not touched. It is used in the mode (``train()``, ``eval()``)
    that it is in; `tune` leaves its buffers (running statistics) as they are. The loss must be
    twice differentiable by autograd; attention is computed by elementary operations, since its
    fused kernels are not. A call of `step` costs a gradient, and in the estimator's window (the
    last update before `due`, or the last ``look_back``) what it keeps; `tune` costs a gradient and
    the estimator's Hessian-vector products.

    The module may change meanwhile. Values that are loaded or assigned are the ones that go on, a
    layer that is frozen (``requires_grad_(False)``) stays where it is until it is trained again,
    and buffers that ``forward`` assigns anew are kept. What cannot be followed is an error at the
    next call: a replaced layer, other shapes, another dtype or device.

    Hyperparameters, what their optimiser remembers, hypergradients and momentum are float32 for
    modules of a lower precision. A hypergradient that is not finite changes nothing: it is counted
    (`skipped`), and said once.

    Several copies at once: give a list of R modules that differ in their parameters and buffers
    alone. They are trained as rows of one program by ``vmap``, none sees another, and losses and
    hyperparameters come as (R,).

    Args:
        model: with trained parameters of one dtype on one device; those with
            ``requires_grad=False`` stay as they are.
        loss: (model, batch) -> mean loss (); calls the model that it is given.
        lr, weight_decay, momentum: where they start: numbers, or R of them.
        tune: which of them are tuned.
        look_back: of the default estimator.
        hyper_lr: of the default hyperparameter optimiser, in raw space (log10 lr, log10 weight
            decay, logit momentum).
        every: T, weight updates between hyperparameter updates; 1 for estimators that want each of
            them.
        estimator: of hypergradients (`hpo_bench.hypergradients`): ``Neumann(look_back)`` unless
            given.
        optimiser: of hyperparameters (`hpo_bench.core.optimisers`): ``Adam(hyper_lr)`` unless
            given.
        per_weight: hyperparameters that have one value for each weight.
        clip_log10_lr: bounds of log10 lr after each hyperparameter update, or None.
        gradient_clip_norm: bound on the norm of the training gradient of each module, or None.
        separate_batches: each tensor of a batch has a first axis R, one entry for each module; else
            they share it.

    Raises:
        UserError: a value that cannot be; it is named.
    """

    def __init__(
        self,
        model: nn.Module | Sequence[nn.Module],
        loss: Loss,
        *,
        lr: Value = 1e-2,
        weight_decay: Value = 1e-4,
        momentum: Value = 0.9,
        tune: Sequence[str] = ("lr", "weight_decay", "momentum"),
        look_back: int = 5,
        hyper_lr: float = 0.05,
        every: int = 10,
        estimator: Estimator | None = None,
        optimiser: Optimiser | None = None,
        per_weight: Sequence[str] = (),
        clip_log10_lr: tuple[float, float] | None = (-10.0, 0.0),
        gradient_clip_norm: float | None = None,
        separate_batches: bool = False,
    ) -> None:
        self._modules = LiveModules(model, loss, checks.flag("separate_batches", separate_batches))
        self._rule = MomentumSGD()
        names = tuple(self._rule.coordinates)
        self._tuned = checks.words("tune", tune, names)
        self._per_weight = checks.words("per_weight", per_weight, names)
        self._estimator = estimator or Neumann(checks.whole("look_back", look_back, 1))
        self._check_estimator()
        self._optimiser = optimiser or Adam(checks.positive("hyper_lr", hyper_lr))
        _check_made(
            "optimiser",
            self._optimiser,
            ("init", "update"),
            "Adam(0.05) of hpo_bench.core.optimisers",
        )
        self._interval = 1 if self._estimator.every_update else checks.whole("every", every, 1)
        self._window_size = self._estimator.window(self._interval)
        self._bounds = (
            None if clip_log10_lr is None else checks.interval("clip_log10_lr", clip_log10_lr)
        )
        self._clip_norm = (
            None
            if gradient_clip_norm is None
            else checks.positive("gradient_clip_norm", gradient_clip_norm)
        )
        weights = self._modules.weights()
        given = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        self._initial = {
            name: self._raw_value(name, value, weights) for name, value in given.items()
        }
        self._raw = self._widened(self._initial)
        self._hyper = self._in_force(self._raw)
        self._buffer = torch.zeros_like(weights)
        self._memory = self._optimiser.init({name: self._raw[name] for name in self._tuned})
        self._resting: dict[str, list[Tensor]] = {}
        self._skipped = torch.zeros(len(weights), dtype=torch.int64)
        self._updates = 0
        self._window: Any = None
        self._begin_interval()

    def _check_estimator(self) -> None:
        _check_made(
            "estimator",
            self._estimator,
            ("every_update", "window", "tunes", "estimate"),
            "Unroll(5) of hpo_bench.hypergradients",
        )
        allowed = self._estimator.tunes or tuple(self._rule.coordinates)
        if not self._tuned:
            raise UserError(f"tune=[]: name at least one of {', '.join(allowed)}")
        if isinstance(self._estimator, Exact):
            raise UserError(
                "estimator: one that chooses by its costs needs a known model; give Unroll(i) or "
                "Forward(i)"
            )
        for name in self._tuned:
            if name not in allowed:
                kind = type(self._estimator).__name__
                raise UserError(f"tune: {kind} cannot tune {name}; allowed: {', '.join(allowed)}")

    def _in_force(self, raw: Mapping[str, Tensor]) -> Hyperparameters:
        return Hyperparameters.of(raw, self._rule.coordinates)

    def _raw_value(self, name: str, value: Value, weights: Tensor) -> Tensor:
        """The raw value of each row, (R, 1)."""
        rows = len(weights)
        try:
            values = torch.as_tensor(_without_truth(value), dtype=torch.float64).detach().cpu()
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise UserError(
                f"{name}={str(value)[:SHOWN]}: must be a number, or {rows} of them"
            ) from None
        if values.shape not in ((), (rows,)):
            raise UserError(
                f"{name}: has shape {tuple(values.shape)}; give one number, or one for each of "
                f"{rows} modules"
            )
        _check_range(name, values, name in self._tuned)
        raw = torch.logit(values) if name == "momentum" else torch.log10(values)
        made = raw.expand(rows).unsqueeze(-1).to(weights)
        _check_kept(name, values, self._rule.coordinates[name].space.natural(made))
        return made

    def _widened(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(R, 1) each as (R, P) where each weight has its own value."""
        width = self._modules.layout.count
        return {
            name: value.repeat(1, width if name in self._per_weight else 1)
            for name, value in raw.items()
        }

    # --- the training ---

    @torch.no_grad()
    def step(self, batch: Any) -> Tensor:
        """Make one weight update on a batch, and return its loss before it: (), or (R,) for several
        modules.
        """
        if self.due:  # was not used: hyperparameters stay as they are
            self._begin_interval()
        self._follow()
        weights = self._modules.weights()
        differentiable = self._interval - self._count <= self._window_size
        linearisation = self._modules.linearise(weights, batch, differentiable)
        state, made = self._rule.advance(
            State(weights, self._buffer), linearisation, self._hyper, self._clip_norm
        )
        if differentiable:
            self._window = self._estimator.accumulate(self._window, made, self._tuned)
        self._modules.write(state.weights, linearisation.carried)
        self._buffer = state.buffer
        self._count += 1
        self._updates += 1
        return self._modules.single_or_all(linearisation.loss)

    @property
    def due(self) -> bool:
        """Whether it is time for `tune`:

        ``every`` weight updates have been made since the last time.
        """
        return self._count == self._interval

    def hypergradients(self, batch: Any) -> dict[str, Tensor]:
        """Estimate d(loss on ``batch``)/d(raw hyperparameter) at the module's weights, without any
        update.

        Args:
            batch: of validation data (of training data for an estimator whose ``second_batch`` says
                so).

        Returns:
            For each tuned hyperparameter (), (R,), or by parameter where it has a value for each
            weight.

        Raises:
            UserError: `due` is false.
        """
        return {
            name: self._shown(value, name) for name, value in self._hypergradients(batch).items()
        }

    @torch.no_grad()
    def _hypergradients(self, batch: Any) -> dict[str, Tensor]:
        if not self.due:
            raise UserError(
                f"tune: called after {self._count} of {self._interval} weight updates; call it "
                "where due is true, "
                "once before the next step"
            )
        self._modules.check()
        gradient = self._modules.look_only(self._modules.weights(), batch)
        return self._estimator.finish(self._window, gradient, self._tuned)

    @torch.no_grad()
    def tune(self, batch: Any) -> dict[str, Any]:
        """Make one hyperparameter update by `hypergradients` on a batch, and return those."""
        hypergradients = self._hypergradients(batch)
        self._update(hypergradients)
        self._begin_interval()
        return {name: self._shown(value, name) for name, value in hypergradients.items()}

    def _update(self, hypergradients: Mapping[str, Tensor]) -> None:
        """Move the hyperparameters of the rows for which that leads to finite numbers; the others
        stay as they are.
        """
        changes, memory = self._optimiser.update(hypergradients, self._memory)
        usable = finite_rows(hypergradients, changes, memory, self._memory)
        if not bool(usable.all()):
            self._skip(~usable)
            if not bool(usable.any()):
                return
            before = with_own_numbers(self._memory, len(self._buffer), self._buffer.device)
            changes, memory = self._optimiser.update(hypergradients, before)
            memory = chosen_rows(usable, memory, before)
            changes = {
                name: torch.where(usable.unsqueeze(-1), value, 0.0)
                for name, value in changes.items()
            }
        self._memory = memory
        changes = {name: value.to(self._raw[name].dtype) for name, value in changes.items()}
        self._raw = move(self._raw, changes, self._bounds)
        self._hyper = self._in_force(self._raw)

    def _skip(self, rows: Tensor) -> None:
        if not bool(self._skipped.any()):
            warnings.warn(
                "a hypergradient was not finite: the hyperparameters were left as they are "
                "(OnePass.skipped counts)",
                RuntimeWarning,
                stacklevel=5,
            )
        self._skipped = self._skipped + rows.cpu()

    def _begin_interval(self) -> None:
        state = State(self._modules.weights(), self._buffer)
        self._count, self._window = 0, self._estimator.begin(self._tuned, state)

    # --- parameters that are trained no longer, or again ---

    def _follow(self) -> None:
        """Take up what was frozen or released since the last update."""
        before = self._modules.layout
        if self._modules.follow():
            self._rearrange(before)

    def _rearrange(self, before: Layout) -> None:
        """Bring what has one value for each weight from another layout to that of the modules.

        What belongs to weights that are not trained now is put by, under the parameter's name. The
        window cannot span
        the change: where it was open, the interval begins again.
        """
        after, put_by = self._modules.layout, {**self._resting, **self._by_parameter(before)}
        self._resting = {name: values for name, values in put_by.items() if name not in after.names}
        self._buffer = self._buffer.new_zeros(len(self._buffer), after.count)
        raw = self._widened(self._initial)
        self._raw = {
            name: raw[name] if name in self._per_weight else value
            for name, value in self._raw.items()
        }
        fresh = self._optimiser.init({name: self._raw[name] for name in self._tuned})
        wide = self._wide_leaves()
        leaves = zip(wide, tree.leaves(fresh), tree.leaves(self._memory), strict=True)
        self._memory = tree.rebuilt(
            fresh, [new if is_wide else old for is_wide, new, old in leaves]
        )
        for name, values in self._by_parameter(after).items():
            for value, known in zip(values, put_by.get(name, values), strict=True):
                value.copy_(known)
        self._hyper = self._in_force(self._raw)
        if self._count > self._interval - self._window_size:
            self._begin_interval()

    def _by_parameter(self, layout: Layout) -> dict[str, list[Tensor]]:
        """Views of all that has one value for each weight, by parameter."""
        own = [value for name, value in self._raw.items() if name in self._per_weight]
        leaves = zip(self._wide_leaves(), tree.leaves(self._memory), strict=True)
        tensors = [self._buffer, *own, *(leaf for is_wide, leaf in leaves if is_wide)]
        views = [layout.views(tensor) for tensor in tensors]
        return {name: [view[name] for view in views] for name in layout.names}

    def _wide_leaves(self) -> list[bool]:
        """Which leaves of the optimiser's memory have one value for each weight: those whose shape
        depends on P.
        """

        def shapes(width: int) -> list[Any]:
            raw = {
                name: torch.zeros(1, width if name in self._per_weight else 1)
                for name in self._tuned
            }
            return [getattr(leaf, "shape", None) for leaf in tree.leaves(self._optimiser.init(raw))]

        return [two != three for two, three in zip(shapes(2), shapes(3), strict=True)]

    # --- what it has come to ---

    @property
    def updates(self) -> int:
        """Weight updates made."""
        return self._updates

    @property
    def skipped(self) -> int | Tensor:
        """Hyperparameter updates left out because they would not have been finite: a number, or
        (R,) int64.
        """
        skipped = self._modules.single_or_all(self._skipped.clone())
        return skipped if skipped.ndim else int(skipped)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """In force: numbers, (R,) for several modules, tensors by parameter where each weight has
        its own.
        """
        shown = {name: self._shown(value, name) for name, value in self._hyper.natural.items()}
        return {
            name: value.item() if isinstance(value, Tensor) and value.ndim == 0 else value
            for name, value in shown.items()
        }

    def _shown(self, value: Tensor, name: str) -> Any:
        if name not in self._per_weight:
            return self._modules.single_or_all(value.squeeze(-1).clone())
        views = self._modules.layout.views(value)
        return {
            parameter: self._modules.single_or_all(view.clone())
            for parameter, view in views.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on, for ``torch.save``; the module's weights are left
        to the module.

        A window cannot be saved. Saved right after `tune` the training goes on to the same numbers;
        saved within the estimator's window, the interval of ``every`` weight updates begins again.
        """
        return {
            "tuned": list(self._tuned),
            "raw": {name: value.clone() for name, value in self._raw.items()},
            "momentum_buffer": self._buffer.clone(),
            "memory": tree.leaves(self._memory),
            "updates": self._updates,
            "count": self._count,
            "trained": list(self._modules.layout.names),
            "skipped": self._skipped.clone(),
            "resting": {
                name: [value.clone() for value in values] for name, values in self._resting.items()
            },
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of a tuner made with the same arguments.

        Raises:
            UserError: it is of another.
        """
        self._follow()
        try:
            names = tuple(state.get("trained", self._modules.layout.names))
            layout = Layout(names, tuple(self._modules.shapes[name] for name in names))
            rows, kind = len(self._buffer), (self._buffer.dtype, self._buffer.device)
            widths = {name: layout.count if name in self._per_weight else 1 for name in self._raw}
            raw = {
                name: _like(state["raw"][name], (rows, widths[name]), kind, name)
                for name in self._raw
            }
            buffer = _like(state["momentum_buffer"], (rows, layout.count), kind, "momentum_buffer")
            template = self._optimiser.init({name: raw[name] for name in self._tuned})
            saved = zip(tree.leaves(template), state["memory"], strict=True)
            memory = tree.rebuilt(template, [_taken(own, given) for own, given in saved])
            tuned, updates, count = (
                tuple(state["tuned"]),
                int(state["updates"]),
                int(state["count"]),
            )
            skipped = (
                torch.as_tensor(state.get("skipped", torch.zeros(rows, dtype=torch.int64)))
                .expand(rows)
                .cpu()
            )
            resting = {
                name: [value.detach().clone().to(self._buffer.device) for value in values]
                for name, values in dict(state.get("resting", {})).items()
            }
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(
                f"state_dict: is of another tuner ({type(error).__name__}: {error})"
            ) from None
        if any(bool(value.isnan().any()) for value in raw.values()):
            raise UserError("state_dict: holds hyperparameters that are NaN")
        if not 0 <= count <= self._interval or updates < 0:
            raise UserError(
                f"state_dict: count {count} of {self._interval} and updates {updates} cannot be"
            )
        if tuned != self._tuned:
            raise UserError(
                f"state_dict: tunes {', '.join(tuned)}, this tuner {', '.join(self._tuned)}"
            )
        self._raw, self._buffer, self._updates, self._memory = raw, buffer, updates, memory
        self._skipped, self._resting = skipped, resting
        self._hyper = self._in_force(raw)
        self._begin_interval()
        if count <= self._interval - self._window_size:
            self._count = count
        if layout != self._modules.layout:
            self._rearrange(layout)


def _check_range(name: str, values: Tensor, tuned: bool) -> None:
    """Raise where a starting value has no (finite) raw value; what is not tuned may be zero, but
    for lr.
    """
    upper = 1.0 if name == "momentum" else math.inf
    may_be_zero = not tuned and name != "lr"
    if not bool(((values >= 0) & (values < upper) & ((values > 0) | may_be_zero)).all()):
        low = "0 or more" if may_be_zero else "above 0" + " to be tuned" * (name != "lr")
        below = " and below 1" * (name == "momentum")
        raise UserError(f"{name}={values.tolist()}: must be {low}{below}")


def _without_truth(value: Any) -> Any:
    """The value; raises a TypeError for truth values, which torch takes for numbers."""
    parts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(part, bool) for part in parts) or getattr(value, "dtype", None) in (
        torch.bool,
        bool,
    ):
        raise TypeError("a truth value")
    return value


def _check_kept(name: str, values: Tensor, natural: Tensor) -> None:
    """Raise where a starting value is lost in the precision of the hyperparameters: at 0, at
    infinity, at 1.
    """
    upper = 1.0 if name == "momentum" else math.inf
    given = values.expand(len(natural)).unsqueeze(-1).to(natural.device)
    lost = (given != 0) & ~((natural > 0) & (natural < upper))
    if bool(lost.any()):
        precision = str(natural.dtype).removeprefix("torch.")
        raise UserError(
            f"{name}={given[lost][0].item()}: would be {natural[lost][0].item():g} in "
            f"{precision}; give another value"
        )


def _check_made(key: str, value: Any, needed: Sequence[str], example: str) -> None:
    if isinstance(value, type) or not all(hasattr(value, name) for name in needed):
        found = value.__name__ if isinstance(value, type) else type(value).__name__
        raise UserError(f"{key}: cannot be a {found}; give one such as {example}")


def _like(
    value: Tensor, shape: tuple[int, ...], kind: tuple[torch.dtype, torch.device], name: str
) -> Tensor:
    if value.shape != shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, needed {shape}")
    return value.detach().clone().to(dtype=kind[0], device=kind[1])


def _taken(template: Any, value: Any) -> Any:
    """A saved leaf of the optimiser's memory in the place of one of this tuner's."""
    if not isinstance(value, Tensor):
        return value
    if isinstance(template, Tensor):
        return _like(value, tuple(template.shape), (template.dtype, template.device), "memory")
    return value.detach().clone()
