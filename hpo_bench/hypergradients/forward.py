"""Hypergradients by forward differentiation: tangents that travel with the training.

Through the last updates alone they are exact (Franceschi et al. 2017). Carried on across
hyperparameter updates, they see a horizon that does not end: with discount 1 this is real-time
hyperparameter optimisation (ibid.), below 1 that of Donini et al. (2020, "MARTHE").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo_bench.core import checks, tree
from hpo_bench.core.estimator import Costs, Estimator
from hpo_bench.core.rule import Step
from hpo_bench.core.update import Phase, State
from hpo_bench.errors import UserError

KEPT = 2  # memory of the tangents and of their Hessian-vector products, in kept weight updates


@dataclass(frozen=True)
class Forward(Estimator):
    """dL_V(w_t)/dλ = ⟨∂L_V/∂w, dw/dλ⟩ with tangents dw/dλ that are updated with the weights.

    With a ``look_back`` they begin anew at each window, whose earlier memory is a constant: the
    same numbers as `Unroll` to rounding. Without one they are carried on for the whole training,
    multiplied by the ``discount`` before each weight update:

        (dw, dm)/dλ  ←  ∂(w', m')/∂(w, m) · discount · (dw, dm)/dλ  +  ∂(w', m')/∂λ

    so that an effect that lies n updates back counts discountⁿ of itself. Discount 0 is
    ``look_back`` 1. A repetition whose tangents are not finite goes on with zeros.

    Costs one Hessian-vector product a weight update for each tuned hyperparameter, which share one
    pass, and memory that does not depend on the horizon.

    Args:
        look_back: i, at least 1; None to carry the tangents on.
        discount: γ from 0 to 1; only without a ``look_back``.
        cap: bound on ‖dw/dλ‖, as a share of ‖w‖, for each repetition and hyperparameter; None for
            none; only without a ``look_back``.

    Raises:
        UserError: values outside of these, or both a look-back and a discount.
    """

    look_back: int | None = None
    discount: float = 1.0
    cap: float | None = None

    def __post_init__(self) -> None:
        checks.number_within("discount", self.discount, 0, 1, closed=(True, True))
        if self.cap is not None:
            checks.positive("cap", self.cap)
        if self.look_back is None:
            return
        checks.whole("look_back", self.look_back, 1)
        if self.discount != 1 or self.cap is not None:
            raise UserError(
                f"look_back={self.look_back}: discount and cap are for tangents that are carried "
                "on; give look_back=null"
            )

    @property
    def is_carried(self) -> bool:
        """Whether the horizon does not end."""
        return self.look_back is None

    def window(self, update_interval: int) -> int:
        """min(i, T), or T."""
        return min(self.look_back or update_interval, update_interval)

    def kept(self, window: int) -> int:
        """The same for every window."""
        return KEPT

    def begin(self, tuned: Sequence[str], state: State) -> Phase | None:
        """Zeros; None, which stands for them, where they are not carried on."""
        if not self.is_carried:
            return None

        def zeros(leaf: Tensor) -> Tensor:
            return leaf.new_zeros(len(tuned), *leaf.shape)

        return Phase(zeros(state.weights), tree.change(state.buffer, zeros))

    def accumulate(self, memory: Phase | None, step: Step, tuned: Sequence[str]) -> Phase:
        """Tangents after one more weight update.

        Raises:
            UserError: a tuned hyperparameter has one value per weight.
        """
        for name in tuned:
            if step.hyperparameters.raw[name].shape[-1] != 1:
                refuse_per_weight(name)
        if memory is None or not self.is_carried:
            return step.push(memory, tuned)
        pushed = step.push(self._discounted(memory), tuned)
        return self._bounded(pushed, step.weights)

    def finish(self, memory: Phase, gradient: Tensor, tuned: Sequence[str]) -> dict[str, Tensor]:
        """⟨∂L_V/∂w, dw/dλ⟩ for each."""
        products = (memory.weights * gradient).sum(-1, keepdim=True)
        return dict(zip(tuned, products, strict=True))

    def estimate(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """From updates that were kept, as if the training began with them."""
        memory: Phase | None = None
        for step in steps:
            memory = self.accumulate(memory, step, tuned)
        assert memory is not None
        return self.finish(memory, gradient, tuned)

    def chosen(self, costs: Costs) -> tuple[Estimator, str | None]:
        """Itself.

        Raises:
            UserError: a tuned hyperparameter has one value per weight.
        """
        if costs.per_weight:
            refuse_per_weight(costs.per_weight[0])
        return self, None

    def _discounted(self, tangents: Phase) -> Phase:
        """γ times the tangents."""
        if self.discount == 1:
            return tangents
        return tree.change(tangents, lambda leaf: leaf * self.discount)

    def _bounded(self, tangents: Phase, weights: Tensor) -> Phase:
        """The tangents at most as long as the ``cap`` says, and zero where they are not finite."""
        is_finite = torch.isfinite((tangents.weights * 0).sum(-1, keepdim=True))
        factor = torch.ones_like(tangents.weights[..., :1])
        if self.cap is not None:
            norms = torch.linalg.vector_norm(tangents.weights, dim=-1, keepdim=True)
            longest = self.cap * torch.linalg.vector_norm(weights, dim=-1, keepdim=True)
            factor = torch.where(norms > longest, longest / norms, factor)

        def bounded(leaf: Tensor) -> Tensor:
            values = leaf if self.cap is None else leaf * factor
            return torch.where(is_finite, values, torch.zeros_like(values))

        return tree.change(tangents, bounded)


def refuse_per_weight(name: str) -> None:
    """Raise the `UserError` for a hyperparameter that would need a tangent for every weight."""
    raise UserError(
        f"method.per_weight=[{name}]: forward differentiation would need a tangent for every "
        f"weight's {name}; use method.estimator.mode=reverse"
    )
