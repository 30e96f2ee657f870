"""Batches of one row, which some models cannot be trained with: found before training, not in the
middle of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from hpo_bench.core.batches import Rows, smallest_batch
from hpo_bench.core.model import Model
from hpo_bench.errors import UserError


def check(model: Model, streams: Mapping[str, Rows], batch_size: int | None) -> None:
    """Refuse a batch size that leaves a batch of one row, if the model cannot take that (batch
    normalisation).

    Args:
        streams: rows that are gone through in training mode, by what messages call them.
        batch_size: None for all rows at once.

    Raises:
        UserError: names a batch size that works.
    """
    for name, rows in streams.items():
        if smallest_batch(len(rows), batch_size) > 1:
            continue
        reason = _refusal(model, rows)
        if reason is None:
            continue
        if len(rows) == 1:
            raise UserError(
                f"validation_share: there is one {name} row, which the model cannot be trained "
                f"with ({reason}); "
                "choose another validation_share, so that there are two or more"
            )
        assert batch_size is not None
        which = "every batch" if batch_size == 1 else "the last batch of each pass"
        raise UserError(
            f"batch_size={batch_size}: {which} over the {len(rows)} {name} rows has one row, "
            "which the model "
            f"cannot be trained with ({reason}); allowed: what leaves no batch of one row, such as "
            f"batch_size={_nearest(streams, batch_size) or 'null'}"
        )


def check_evaluated(model: Model, rows: Rows, name: str) -> None:
    """Refuse to evaluate rows one by one, or in parts, if the model then puts out something else,
    or nothing.

    Args:
        name: what messages call the rows.

    Raises:
        UserError: it does, as with batch statistics in evaluation mode.
    """
    at_once = getattr(model, "evaluation_rows", len(rows))
    if 1 < len(rows) <= at_once:
        return
    try:
        alone = [_evaluated(model, rows, at, at + 1) for at in range(min(len(rows), 2))]
        together = _evaluated(model, rows, 0, 2)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"model: it cannot evaluate one of the {len(rows)} {name} rows alone ({_line(error)})"
        ) from error
    if not np.isclose(together, np.mean(alone), rtol=1e-2, atol=1e-5, equal_nan=True):
        raise UserError(
            f"model: in evaluation mode the loss of two rows is {together:.4g} together and "
            f"{np.mean(alone):.4g} on "
            f"average alone; {len(rows)} {name} rows are evaluated {at_once} at a time, so it "
            "must not depend on the "
            "others (batch normalisation needs running statistics)"
        )


def _nearest(streams: Mapping[str, Rows], batch_size: int) -> int | None:
    """The batch size next to the one given that leaves two rows or more in every batch;

    None for all rows at once.
    """
    longest = max(len(rows) for rows in streams.values())
    works = (
        size
        for size in sorted(range(2, longest + 1), key=lambda size: abs(size - batch_size))
        if all(smallest_batch(len(rows), size) > 1 for rows in streams.values())
    )
    return next(works, None)


def _refusal(model: Model, rows: Rows) -> str | None:
    """Why the model cannot be trained with one row; None if it can."""
    try:
        alone = _loss(model, rows, 1)
    except (ValueError, RuntimeError) as error:
        return _line(error)
    if np.isfinite(alone) or len(rows) == 1 or not np.isfinite(_loss(model, rows, 2)):
        return None
    return f"its loss is {alone}"


@torch.no_grad()
def _loss(model: Model, rows: Rows, count: int) -> float:
    """Loss of the first rows in training mode, with weights as they begin."""
    batch = model.batch(rows.inputs[:count], rows.targets[:count], shared=True, split=rows.split)
    return float(model.loss(_weights(model, rows), batch, model.initial_carried(1))[0])


@torch.no_grad()
def _evaluated(model: Model, rows: Rows, begin: int, end: int) -> float:
    """Loss of some rows in evaluation mode, with weights as they begin."""
    batch = model.batch(
        rows.inputs[begin:end], rows.targets[begin:end], shared=True, split=rows.split
    )
    return float(model.evaluate(_weights(model, rows), batch, model.initial_carried(1))[0])


def _weights(model: Model, rows: Rows) -> torch.Tensor:
    """Initial weights of one repetition (1, P)."""
    drawn = model.initial_weights(np.random.default_rng(0))
    dtype = rows.inputs.dtype if rows.inputs.is_floating_point() else torch.get_default_dtype()
    return torch.from_numpy(drawn[None]).to(dtype=dtype, device=rows.inputs.device)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
