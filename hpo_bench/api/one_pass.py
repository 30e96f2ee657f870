"""One-pass hyperparameter optimisation in your own training loop: any ``torch.nn.Module``, any
loss.

The estimators, the weight updates and the hyperparameter optimisers are those of ``hpo-bench run``.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpo_bench.api.saved import Saved, copied, counts, like, restored
from hpo_bench.api.starting import Choice, Value, chosen, natural_values, numbers, raw_value
from hpo_bench.core import checks, tree
from hpo_bench.core.estimator import Estimator
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.layout import Layout, one_each
from hpo_bench.core.loop import move
from hpo_bench.core.optimisers import Adam, Optimiser, chosen_rows, finite_rows, with_own_numbers
from hpo_bench.core.rule import Rule
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.core.update import State
from hpo_bench.errors import UserError
from hpo_bench.hypergradients.exact import Exact
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.models.live import LiveModules, Loss


class OnePass:
    """Trains a module by a weight update with derivatives, SGD with momentum unless another is
    given, and tunes that update's hyperparameters meanwhile.

        tuner = OnePass(model, loss)
        for batch in batches:
            value = tuner.step(batch)    # one weight update, for backward() and step()
            if tuner.due:                # after every ``every`` of them
                tuner.tune(validation)   # one hyperparameter update

    A loop with AdamW (`hpo_bench.rules.adam`) changes two lines:

        -optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        +tuner = OnePass(model, loss, rule=AdamW(), lr=1e-3)
         for batch in batches:
        -    optimiser.zero_grad(); loss(model, batch).backward(); optimiser.step()
        +    tuner.step(batch, validation)

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

    Hyperparameters, what their optimiser remembers, hypergradients and what the weight update
    carries are float32 for modules of a lower precision. A hypergradient that is not finite changes
    nothing: it is counted (`skipped`), and said once.

    Several copies at once: give a list of R modules that differ in their parameters and buffers
    alone. They are trained as rows of one program by ``vmap``, none sees another, and losses and
    hyperparameters come as (R,).

    Args:
        model: with trained parameters of one dtype on one device; those with
            ``requires_grad=False`` stay as they are.
        loss: (model, batch) -> mean loss (); calls the model that it is given.
        rule: the weight update (``AdamW()`` of `hpo_bench.rules.adam`, `hpo_bench.rules`, or a
            `hpo_bench.core.pure.PureRule` of your own): ``MomentumSGD()`` unless given.
        tune: which of the rule's hyperparameters are tuned; unless given, all but those that keep
            to one value by the rule (AdamW's beta2).
        look_back: of the default estimator.
        hyper_lr: of the default hyperparameter optimiser, in raw space (log10 lr, log10 weight
            decay, logit momentum).
        every: T, weight updates between hyperparameter updates; 1 for estimators that want each of
            them.
        estimator: of hypergradients (`hpo_bench.hypergradients`): ``Neumann(look_back)`` unless
            given. ``Forward(discount=0.95)`` sees a horizon that does not end.
        optimiser: of hyperparameters (`hpo_bench.core.optimisers`): ``Adam(hyper_lr)`` unless
            given.
        per_weight: hyperparameters that have one value for each weight.
        no_decay: parameters on which weight decay does not act, in the updates and in all
            derivatives: patterns of names (``("bias", "norm*")``), or a function of name and
            parameter.
        clip_log10_lr: bounds of log10 lr after each hyperparameter update, or None.
        gradient_clip_norm: bound on the norm of the training gradient of each module, or None.
        separate_batches: each tensor of a batch has a first axis R, one entry for each module; else
            they share it.
        start: where the rule's hyperparameters start, by name: numbers, or R of them. Unless given,
            ``lr=1e-2, weight_decay=1e-4, momentum=0.9`` for SGD, PyTorch's values for AdamW.

    Raises:
        UserError: a value that cannot be; it is named.
    """

    def __init__(
        self,
        model: nn.Module | Sequence[nn.Module],
        loss: Loss,
        *,
        rule: Rule | None = None,
        tune: Sequence[str] | None = None,
        look_back: int = 5,
        hyper_lr: float = 0.05,
        every: int = 10,
        estimator: Estimator | None = None,
        optimiser: Optimiser | None = None,
        per_weight: Sequence[str] = (),
        no_decay: Choice = (),
        clip_log10_lr: tuple[float, float] | None = (-10.0, 0.0),
        gradient_clip_norm: float | None = None,
        separate_batches: bool = False,
        **start: Value,
    ) -> None:
        self._modules = LiveModules(model, loss, checks.flag("separate_batches", separate_batches))
        self._rule = MomentumSGD() if rule is None else rule
        _check_rule(self._rule)
        coordinates = self._rule.coordinates
        natural = natural_values(start, self._rule, ARGUMENTS)
        self._tuned = checks.words("tune", self._usual() if tune is None else tune, coordinates)
        self._per_weight = checks.words("per_weight", per_weight, coordinates)
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
        self._without_decay = self._chosen(no_decay)
        weights = self._modules.weights()
        self._initial = {
            name: raw_value(name, value, coordinates[name], weights, is_tuned=name in self._tuned)
            for name, value in natural.items()
        }
        self._raw = self._widened(self._initial)
        self._put_in_force()
        self._buffer = self._rule.init(weights)
        self._memory = self._optimiser.init({name: self._raw[name] for name in self._tuned})
        self._resting: dict[str, list[Tensor]] = {}
        self._skipped = torch.zeros(len(weights), dtype=torch.int64)
        self._updates = 0
        self._count, self._window = 0, self._beginning()

    def _usual(self) -> list[str]:
        """The hyperparameters that are tuned unless something else is asked for."""
        starts = {name: coordinate.start for name, coordinate in self._rule.coordinates.items()}
        return [name for name, (low, high) in starts.items() if low < high]

    def _check_estimator(self) -> None:
        _check_made(
            "estimator",
            self._estimator,
            ("every_update", "window", "tunes", "is_carried", "begin", "accumulate", "finish"),
            "Unroll(5) of hpo_bench.hypergradients",
        )
        kind = type(self._estimator).__name__
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
                raise UserError(f"tune: {kind} cannot tune {name}; allowed: {', '.join(allowed)}")
            if name in self._per_weight and isinstance(self._estimator, Forward):
                raise UserError(
                    f"per_weight: {kind} would need a tangent for every weight's {name}; give "
                    "Neumann(i) or Unroll(i) as estimator"
                )

    def _chosen(self, no_decay: Choice) -> frozenset[str]:
        """Names of the parameters without weight decay."""
        names = self._modules.own_names(chosen("no_decay", no_decay, self._modules.named()))
        if names and "weight_decay" not in self._rule.coordinates:
            raise UserError(f"no_decay: {type(self._rule).__name__} has no weight_decay")
        return names

    def _put_in_force(self) -> None:
        """Compute the natural values, and those that act where some weights have no decay."""
        self._hyper = self._acting = Hyperparameters.of(self._raw, self._rule.coordinates)
        if self._without_decay:
            layout = self._modules.layout
            where = next(iter(self._raw.values())).new_ones(layout.count)
            for name, values in layout.views(where).items():
                if name in self._without_decay:
                    values.zero_()
            self._acting = self._hyper.on(where, "weight_decay")

    def _scheduled(self, lr_factor: Value) -> Hyperparameters:
        """What acts when the learning rate is multiplied by ``lr_factor``.

        Raises:
            UserError: it is none.
        """
        if type(lr_factor) in (int, float) and lr_factor == 1:
            return self._acting
        if "lr" not in self._rule.coordinates:
            raise UserError(f"lr_factor: {type(self._rule).__name__} has no lr")
        like = self._raw["lr"]
        factors = numbers("lr_factor", lr_factor, len(like))
        if not bool(((factors >= 0) & factors.isfinite()).all()):
            raise UserError(f"lr_factor={factors.tolist()}: must be 0 or more")
        return self._acting.scheduled(factors.unsqueeze(-1).to(like))

    def _widened(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(R, 1) each as (R, P) where each weight has its own value."""
        width = self._modules.layout.count
        return {
            name: value.repeat(1, width if name in self._per_weight else 1)
            for name, value in raw.items()
        }

    # --- the training ---

    @torch.no_grad()
    def step(self, batch: Any, validation: Any = None, *, lr_factor: Value = 1.0) -> Tensor:
        """Make one weight update on a batch, and return its loss before it: (), or (R,) for several
        modules.

        Args:
            validation: a batch for `tune`, which is called where it is `due`; None leaves that to
                you.
            lr_factor: what a schedule of your own multiplies the learning rate by at this update,
                0 or more: a number, or R of them. It enters the hypergradients; `hyperparameters`
                has the learning rate without it.

        Raises:
            UserError: the module has changed in a way that cannot be followed, or the loss, the
                batch or the factor is none.
        """
        self._follow()
        hyper = self._scheduled(lr_factor)
        if self.due:  # was not used: hyperparameters stay as they are
            self._begin_interval()
        weights = self._modules.weights()
        differentiable = self._interval - self._count <= self._window_size
        linearisation = self._modules.linearise(weights, batch, differentiable)
        state, made = self._rule.advance(
            State(weights, self._buffer), linearisation, hyper, self._clip_norm
        )
        if differentiable:
            assert made is not None
            self._window = self._estimator.accumulate(self._window, made, self._tuned)
        self._modules.write(state.weights, linearisation.carried)
        self._buffer = state.buffer
        self._count += 1
        self._updates += 1
        if validation is not None and self.due:
            self._tune(validation)
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
                "where due is true, once before the next step"
            )
        self._modules.check()
        gradient = self._modules.look_only(self._modules.weights(), batch)
        return self._estimator.finish(self._window, gradient, self._tuned)

    @torch.no_grad()
    def tune(self, batch: Any) -> dict[str, Any]:
        """Make one hyperparameter update by `hypergradients` on a batch, and return those."""
        hypergradients = self._tune(batch)
        return {name: self._shown(value, name) for name, value in hypergradients.items()}

    def _tune(self, batch: Any) -> dict[str, Tensor]:
        hypergradients = self._hypergradients(batch)
        self._update(hypergradients)
        self._begin_interval()
        return hypergradients

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
            before = with_own_numbers(self._memory, len(usable), self._modules.device)
            changes, memory = self._optimiser.update(hypergradients, before)
            memory = chosen_rows(usable, memory, before)
            changes = {
                name: torch.where(usable.unsqueeze(-1), value, 0.0)
                for name, value in changes.items()
            }
        self._memory = memory
        changes = {name: value.to(self._raw[name].dtype) for name, value in changes.items()}
        self._raw = move(self._raw, changes, self._bounds)
        self._put_in_force()

    def _skip(self, rows: Tensor) -> None:
        if not bool(self._skipped.any()):
            warnings.warn(
                "a hypergradient was not finite: the hyperparameters were left as they are "
                "(OnePass.skipped counts)",
                RuntimeWarning,
                stacklevel=6,
            )
        self._skipped = self._skipped + rows.cpu()

    def _beginning(self) -> Any:
        """The estimator's memory where nothing has been taken up yet."""
        return self._estimator.begin(self._tuned, State(self._modules.weights(), self._buffer))

    def _begin_interval(self) -> None:
        """Count from 0; what the estimator carries on outlives this."""
        self._count = 0
        if not self._estimator.is_carried:
            self._window = self._beginning()

    # --- parameters that are trained no longer, or again ---

    def _follow(self) -> None:
        """Take up what was frozen or released since the last update."""
        before = self._modules.layout
        if self._modules.follow():
            self._rearrange(before)

    def _rearrange(self, before: Layout) -> None:
        """Bring what has one value for each weight from another layout to that of the modules.

        What belongs to weights that are not trained now is put by, under the parameter's name. A
        window cannot span the change: where it was open, the interval begins again. What the
        estimator carries on, it carries on for the weights that stay; for the others it begins.
        """
        after = self._modules.layout
        # Parameters have had different numbers of updates from now on: all memory is by weight.
        self._buffer = tree.change(self._buffer, lambda leaf: one_each(leaf, before.count))
        put_by = {**self._resting, **self._by_parameter(before)}
        self._resting = {name: values for name, values in put_by.items() if name not in after.names}
        fresh_buffer = self._rule.init(self._modules.weights())
        self._buffer = tree.change(fresh_buffer, lambda leaf: one_each(leaf, after.count))
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
        self._put_in_force()
        if self._estimator.is_carried:
            self._carry_over(before)
        elif self._count > self._interval - self._window_size:
            self._begin_interval()

    def _carry_over(self, before: Layout) -> None:
        """What the estimator carries on, in the layout of the modules."""
        after, fresh = self._modules.layout, self._beginning()

        def follow(new: Any, old: Any) -> Any:
            is_by_weight = isinstance(new, Tensor) and new.shape[-1:] == (after.count,)
            return before.carried_over(old, after, new) if is_by_weight else old

        pairs = zip(tree.leaves(fresh), tree.leaves(self._window), strict=True)
        self._window = tree.rebuilt(fresh, [follow(new, old) for new, old in pairs])

    def _by_parameter(self, layout: Layout) -> dict[str, list[Tensor]]:
        """Views of all that has one value for each weight, by parameter."""
        own = [value for name, value in self._raw.items() if name in self._per_weight]
        leaves = zip(self._wide_leaves(), tree.leaves(self._memory), strict=True)
        remembered = [leaf for is_wide, leaf in leaves if is_wide]
        tensors = [*tree.leaves(self._buffer), *own, *remembered]
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
        """How many hyperparameter updates were left out because they would not have been finite,
        as a number, or (R,) int64.
        """
        skipped = self._modules.single_or_all(self._skipped.clone())
        return skipped if skipped.ndim else int(skipped)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Those in force, by the rule's names, as numbers, (R,) for several modules, or tensors by
        parameter where each weight has its own.
        """
        natural = {
            name: (self._acting if name in self._per_weight else self._hyper)[name]
            for name in self._raw
        }
        shown = {name: self._shown(value, name) for name, value in natural.items()}
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
        What an estimator carries on is saved at any time, and the interval with it.
        """
        state = {
            "tuned": list(self._tuned),
            "raw": {name: value.clone() for name, value in self._raw.items()},
            "rule": copied(self._buffer),
            "memory": copied(self._memory),
            "updates": self._updates,
            "count": self._count,
            "trained": list(self._modules.layout.names),
            "skipped": self._skipped.clone(),
            "resting": {
                name: [value.clone() for value in values] for name, values in self._resting.items()
            },
        }
        if self._estimator.is_carried:
            state["carried"] = copied(self._window)
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of a tuner made with the same arguments.

        Raises:
            UserError: it is of another.
        """
        self._follow()
        try:
            saved = self._read(state)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"state_dict: is of another tuner ({type(error).__name__}: {error})"
            ) from None
        self._raw, self._buffer, self._memory = dict(saved.raw), saved.buffer, saved.memory
        self._updates, self._skipped, self._resting = saved.updates, saved.skipped, saved.resting
        self._begin_interval()
        if self._estimator.is_carried:
            self._count, self._window = saved.count, saved.carried
        elif saved.count <= self._interval - self._window_size:
            self._count = saved.count
        if saved.layout == self._modules.layout:
            self._put_in_force()
        else:
            self._rearrange(saved.layout)

    def _read(self, state: Mapping[str, Any]) -> Saved:
        """The saved state, checked.

        Raises:
            UserError, KeyError, ValueError, TypeError, AttributeError, RuntimeError: it is of
                another tuner.
        """
        if set(state["raw"]) != set(self._raw):
            kind = type(self._rule).__name__
            raise UserError(
                f"state_dict: has {', '.join(state['raw'])}; {kind} has {', '.join(self._raw)}"
            )
        if tuple(state["tuned"]) != self._tuned:
            raise UserError(
                f"state_dict: tunes {', '.join(state['tuned'])}, this tuner "
                f"{', '.join(self._tuned)}"
            )
        if ("carried" in state) != self._estimator.is_carried:
            now, then = ("something", "nothing")[:: 1 if self._estimator.is_carried else -1]
            kind = type(self._estimator).__name__
            raise UserError(
                f"state_dict: its estimator carried {then} on, {kind} as given here {now}"
            )
        names = tuple(state.get("trained", self._modules.layout.names))
        layout = Layout(names, tuple(self._modules.shapes[name] for name in names))
        rows = len(self._skipped)
        weights = torch.zeros(
            rows, layout.count, dtype=self._modules.dtype, device=self._modules.device
        )
        widths = {name: layout.count if name in self._per_weight else 1 for name in self._raw}
        raw = {
            name: like(state["raw"][name], weights, (rows, widths[name]), name)
            for name in self._raw
        }
        if any(bool(value.isnan().any()) for value in raw.values()):
            raise UserError("state_dict: holds hyperparameters that are NaN")
        count, updates = int(state["count"]), int(state["updates"])
        if not 0 <= count <= self._interval or updates < 0:
            raise UserError(
                f"state_dict: count {count} of {self._interval} and updates {updates} cannot be"
            )
        # SGD was the only rule once.
        carried_by_rule = state["rule"] if "rule" in state else [state["momentum_buffer"]]
        buffer = restored(self._rule.init(weights), carried_by_rule, "rule", layout.count)
        memory = self._optimiser.init({name: raw[name] for name in self._tuned})
        carried = None
        if self._estimator.is_carried:
            beginning = self._estimator.begin(self._tuned, State(weights, buffer))
            carried = restored(beginning, state["carried"], "carried", layout.count)
        resting = {
            name: [value.detach().clone().to(weights.device) for value in values]
            for name, values in dict(state.get("resting", {})).items()
        }
        return Saved(
            layout,
            raw,
            buffer,
            restored(memory, state["memory"], "memory"),
            updates,
            count,
            counts(state.get("skipped", 0), rows),
            resting,
            carried,
        )


ARGUMENTS = tuple(
    name
    for name, parameter in inspect.signature(OnePass).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
)


def _check_rule(rule: Any) -> None:
    """Raise where a rule is none, or has no derivatives."""
    example = "AdamW() of hpo_bench.rules.adam"
    _check_made("rule", rule, ("coordinates", "differentiable", "init", "advance"), example)
    if not rule.differentiable:
        kind = type(rule).__name__
        raise UserError(f"rule: {kind} has no derivatives, which tuning needs; give {example}")


def _check_made(key: str, value: Any, needed: Sequence[str], example: str) -> None:
    if isinstance(value, type) or not all(hasattr(value, name) for name in needed):
        found = value.__name__ if isinstance(value, type) else type(value).__name__
        raise UserError(f"{key}: cannot be a {found}; give one such as {example}")
