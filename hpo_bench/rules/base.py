"""What the rules share."""

from __future__ import annotations

from torch import Tensor

from hpo_bench.core.update import Clip, Linearisation


def clipped_gradient(linearisation: Linearisation, clip_norm: float | None) -> Tensor:
    """The training gradient (R, P), each row clipped to ``clip_norm`` where there is one."""
    if clip_norm is None:
        return linearisation.gradient
    return Clip.of(linearisation.gradient, clip_norm).clipped


def column(weights: Tensor, value: float) -> Tensor:
    """A number for each row of (R, P): (R, 1)."""
    return weights.new_full((len(weights), 1), value)
