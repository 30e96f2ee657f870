"""What the rules share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.update import Clip, Linearisation


def clip_of(linearisation: Linearisation, clip_norm: float | None) -> Clip | None:
    """How the training gradient is clipped to ``clip_norm``; None where it is not."""
    return None if clip_norm is None else Clip.of(linearisation.gradient, clip_norm)


def clipped_gradient(linearisation: Linearisation, clip_norm: float | None) -> Tensor:
    """The training gradient (R, P), each row clipped to ``clip_norm`` where there is one."""
    clip = clip_of(linearisation, clip_norm)
    return linearisation.gradient if clip is None else clip.clipped


def column(weights: Tensor, value: float) -> Tensor:
    """A number for each row of (R, P): (R, 1)."""
    return weights.new_full((len(weights), 1), value)


def row_dot(first: Tensor, second: Tensor) -> Tensor:
    """The inner product of two vectors (R, P), row by row: (R, 1)."""
    return (first * second).sum(-1, keepdim=True)


def row_norm(vector: Tensor) -> Tensor:
    """The Euclidean norm of a vector (R, P), row by row: (R, 1)."""
    result: Tensor = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return result


def showing(hyperparameters: Hyperparameters, lr: Tensor, momentum: float) -> Hyperparameters:
    """What the curves show of a rule with a learning rate (R, 1) and a momentum of its own."""
    own = {"lr": lr, "momentum": torch.full_like(lr, momentum)}
    return replace(hyperparameters, natural={**hyperparameters.natural, **own})
