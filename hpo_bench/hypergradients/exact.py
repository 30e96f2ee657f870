"""Exact hypergradients, in reverse or forward mode, whichever costs less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from hpo_bench.core import checks
from hpo_bench.core.estimator import Costs, Estimator
from hpo_bench.core.rule import Step
from hpo_bench.errors import UserError, nearest
from hpo_bench.hypergradients.forward import Forward, refuse_per_weight
from hpo_bench.hypergradients.unroll import Unroll

MODES = ("auto", "reverse", "forward")
MIB = 1 << 20
# A repetition: measured, reverse mode is a third faster at 6 MiB and a tenth at 25 MiB.
REVERSE_BYTES = 16 * MIB


@dataclass(frozen=True)
class Exact(Estimator):
    """dL_V(w_t)/dλ through the last min(i, T) updates: `Unroll` or `Forward`, the same numbers to
    rounding.

        dL_V/dλ = ∂L_V/∂w · Σ_s [Π_{r>s} ∂(w, m)_r/∂(w, m)_{r-1}] · ∂(w, m)_s/∂λ

    Args:
        look_back: i, at least 1.
        mode: ``reverse``, ``forward``, or ``auto`` for reverse while a repetition's kept updates
            stay small.

    Raises:
        UserError: a mode that there is not, or a look-back below 1.
    """

    look_back: int
    mode: Literal["auto", "reverse", "forward"] = "auto"

    def __post_init__(self) -> None:
        checks.whole("look_back", self.look_back, 1)
        if self.mode not in MODES:
            raise UserError(f"mode={self.mode}: {nearest(str(self.mode), MODES)}")

    def window(self, update_interval: int) -> int:
        """The last min(i, T) weight updates."""
        return min(self.look_back, update_interval)

    def chosen(self, costs: Costs) -> tuple[Estimator, str | None]:
        """Reverse mode where its memory is small or a hyperparameter has a value per weight, else
        forward mode.
        """
        window = self.window(costs.update_interval)
        needed = costs.row_bytes(window) - costs.row_bytes(0)
        why = f"{window} weight updates kept would take {needed / MIB:.1f} MiB a repetition"
        if self.mode == "forward" and costs.per_weight:
            refuse_per_weight(costs.per_weight[0])
        reverse = needed <= REVERSE_BYTES or bool(costs.per_weight)
        if self.mode == "reverse" or (self.mode == "auto" and reverse):
            return Unroll(self.look_back), f"reverse mode, {why}"
        return Forward(self.look_back), f"forward mode, {why}"

    def estimate(
        self, steps: Sequence[Step], gradient: Tensor, tuned: Sequence[str]
    ) -> dict[str, Tensor]:
        """In reverse mode, from updates that were kept."""
        return Unroll(self.look_back).estimate(steps, gradient, tuned)
