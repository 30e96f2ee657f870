"""Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, zeros_like

from hpo_bench.core import checks
from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.update import Linearisation, State
from hpo_bench.rules.base import clipped_gradient, column


@dataclass(frozen=True)
class Moments:
    """What Adam carries.

    Args:
        first, second: moving averages of the gradient and its square, (R, P).
        power1, power2: β₁ᵗ and β₂ᵗ after t updates, (R, 1): products, because a power rounds by its
            place in a vector.
    """

    first: Tensor
    second: Tensor
    power1: Tensor
    power2: Tensor


@dataclass(frozen=True)
class AdamW:
    """m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  w ← w - lr·wd·w - lr·m̂ / (√v̂ + ε), β₁ being the
    momentum.

    Costs one gradient an update and two buffers of the weights' size.

    Args:
        beta2, eps: PyTorch's defaults.
    """

    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        checks.decay("beta2", self.beta2)
        checks.positive("eps", self.eps)

    def init(self, weights: Tensor) -> Moments:
        """Moments at zero."""
        one = column(weights, 1.0)
        return Moments(zeros_like(weights), zeros_like(weights), one, one)

    def advance(
        self,
        state: State,
        linearisation: Linearisation,
        hyperparameters: Hyperparameters,
        clip_norm: float | None,
    ) -> tuple[State, None]:
        """One update of all rows."""
        before: Moments = state.buffer
        gradient, beta1, lr = (
            clipped_gradient(linearisation, clip_norm),
            hyperparameters.momentum,
            hyperparameters.lr,
        )
        after = Moments(
            beta1 * before.first + (1 - beta1) * gradient,
            self.beta2 * before.second + (1 - self.beta2) * gradient * gradient,
            before.power1 * beta1,
            before.power2 * self.beta2,
        )
        root = after.second.sqrt() / (1 - after.power2).sqrt() + self.eps
        kept = state.weights * (1 - lr * hyperparameters.weight_decay)
        weights = kept - lr / (1 - after.power1) * (after.first / root)
        return State(weights, after, state.carried), None

    def evaluated(self, state: State) -> Tensor:
        """The trained weights."""
        return state.weights

    def in_force(self, state: State, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Those given."""
        return hyperparameters
