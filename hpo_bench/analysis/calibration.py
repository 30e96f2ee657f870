"""The one configuration that does best on *other* data sets: a baseline that has not peeked.

From stored runs whose hyperparameters were drawn at random and then stayed, a method is calibrated
for a data set by leaving that set out:

1. Within each of the other sets every draw gets the rank of its final validation loss, as a share
   between 0 (best) and 1; those that diverged share the last place. Ranks make sets of different
   scales count alike.
2. The draws of two sets differ, so ranks are smoothed: the expected rank at a point is the mean of
   all ranks, each set weighing as much as another, weighted by a Gaussian kernel in the unit cube
   that the ranges of the draws span (log10 lr, log10 weight decay, momentum or β₁).
3. The kernel's width in each direction is the one of `WIDTHS` whose smoothed ranks foretell, with
   the least squared error, the ranks of a set that was not smoothed over: each of the other sets
   is foretold from the rest of them.
4. Of a regular grid's points the hundredth with the least expected ranks is taken; its centre is
   chosen. A hyperparameter whose best width is the widest has hardly any influence: it is put at
   the middle of its range, and not at whichever end chance favours.

Neither test rows nor any row of the set that is left out have a part in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.selection import Runs, by_dataset
from hpo_bench.errors import UserError

Array = NDArray[np.float64]

WIDTHS = (0.05, 0.1, 0.2, 0.4, 1.0)  # of the kernel, in shares of a range; 1: hardly any influence
GRID_POINTS = 21  # of the grid in each direction
MIDDLE = 0.5
BEST_SHARE = 0.01  # of the grid's points, whose centre is chosen
LOGARITHMIC = ("lr", "weight_decay")
DIGITS = 3  # significant ones of the natural values that are chosen


@dataclass(frozen=True)
class Draws:
    """The random configurations that were tried on one data set.

    Args:
        points: in the unit cube, (n, hyperparameters).
        ranks: of their validation losses, from 0 (best) to 1, (n,).
    """

    points: Array
    ranks: Array


@dataclass(frozen=True)
class Calibrated:
    """What a method is calibrated to.

    Args:
        values: natural ones, by the name of the hyperparameter.
        expected_rank: there, over the sets that were looked at.
        widths: of the kernel, by the name of the hyperparameter.
        datasets: that were looked at.
    """

    values: Mapping[str, float]
    expected_rank: float
    widths: Mapping[str, float]
    datasets: tuple[str, ...]


def ranks(losses: Array) -> Array:
    """Ranks of losses as shares from 0 (least) to 1; equal ones, and failures (inf), share theirs.

    Args:
        losses: (n,), n at least 2.
    """
    shares: Array = (scipy.stats.rankdata(losses) - 1) / (len(losses) - 1)
    return shares


def calibrate(runs: Runs, names: Sequence[str]) -> dict[str | None, Calibrated]:
    """Calibrate a method for each data set of some runs, and for any other one.

    Args:
        runs: of one method with random hyperparameters, trained on the training rows alone.
        names: of its hyperparameters.

    Returns:
        by data set the choice that was made without it, and under None that of all of them.

    Raises:
        UserError: there are fewer than three data sets, or one without validation losses.
    """
    draws: dict[str, Draws] = {}
    ranges = _ranges(runs, names)
    for dataset, group in by_dataset(runs).items():
        draws[dataset] = _draws(group, dataset, names, ranges)
    if len(draws) < 3:
        raise UserError(f"calibration needs runs on three data sets, there are {len(draws)}")

    choices: dict[str | None, Calibrated] = {}
    for left_out in (*draws, None):
        others = {name: drawn for name, drawn in draws.items() if name != left_out}
        choices[left_out] = _choose(others, names, ranges)
    return choices


def _ranges(runs: Runs, names: Sequence[str]) -> Array:
    """The least and the largest value of each hyperparameter's draws, (hyperparameters, 2)."""
    frame = finals(runs)
    bounds = []
    for name in names:
        values = _coordinate(frame[f"initial_{name}"].to_numpy(dtype=float), name)
        bounds.append((values.min(), values.max()))
    return np.array(bounds)


def _coordinate(values: Array, name: str) -> Array:
    """A hyperparameter where its draws are uniform."""
    return np.log10(values) if name in LOGARITHMIC else values


def _draws(runs: Runs, dataset: str, names: Sequence[str], ranges: Array) -> Draws:
    frame = finals(runs)
    losses = failure_aware(frame, "validation_loss")
    if not np.isfinite(losses).any():
        raise UserError(
            f"{dataset}, {runs[0].method}: no validation losses to calibrate by; train with "
            "data_for_weights=train method.full_validation=true"
        )
    columns = []
    for name, (low, high) in zip(names, ranges, strict=True):
        values = _coordinate(frame[f"initial_{name}"].to_numpy(dtype=float), name)
        columns.append((values - low) / (high - low))
    return Draws(np.stack(columns, axis=1), ranks(losses))


def _choose(draws: Mapping[str, Draws], names: Sequence[str], ranges: Array) -> Calibrated:
    """The centre of the points with the least expected ranks over some sets."""
    widths = _best_widths(list(draws.values()))
    axis = np.linspace(0, 1, GRID_POINTS)
    grid = np.stack(np.meshgrid(*[axis] * len(names), indexing="ij"), axis=-1)
    points = grid.reshape(-1, len(names))
    smoothed = expected_ranks(points, list(draws.values()), widths)
    best = np.argsort(smoothed, kind="stable")[: max(1, round(BEST_SHARE * len(points)))]
    centre = points[best].mean(axis=0)
    centre[np.array(widths) == max(WIDTHS)] = MIDDLE
    expected_rank = expected_ranks(centre[None], list(draws.values()), widths)[0]

    values: dict[str, float] = {}
    for name, share, (low, high) in zip(names, centre, ranges, strict=True):
        coordinate = low + share * (high - low)
        natural = 10**coordinate if name in LOGARITHMIC else coordinate
        values[name] = float(f"{natural:.{DIGITS}g}")
    of_kernel = dict(zip(names, widths, strict=True))
    return Calibrated(values, float(expected_rank), of_kernel, tuple(draws))


def expected_ranks(points: Array, draws: Sequence[Draws], widths: Sequence[float]) -> Array:
    """Smoothed ranks at some points.

    Args:
        points: in the unit cube, (m, hyperparameters).
        widths: of the kernel, (hyperparameters,).

    Returns:
        (m,), the mean over sets of each set's kernel-weighted mean of ranks.
    """
    of_sets = [_smoothed(points, drawn, widths) for drawn in draws]
    mean: Array = np.mean(of_sets, axis=0)
    return mean


def _smoothed(points: Array, drawn: Draws, widths: Sequence[float]) -> Array:
    """Kernel-weighted means of the ranks of one set, (m,)."""
    # The logarithm of the weights, less its largest: far from all draws the nearest one decides.
    logarithm = np.zeros((len(points), len(drawn.points)))
    for axis, width in enumerate(widths):
        distance = points[:, None, axis] - drawn.points[None, :, axis]
        logarithm -= 0.5 * (distance / width) ** 2
    logarithm -= logarithm.max(axis=1, keepdims=True)
    weights = np.exp(logarithm)
    smoothed: Array = weights @ drawn.ranks / weights.sum(axis=1)
    return smoothed


def _best_widths(draws: Sequence[Draws]) -> tuple[float, ...]:
    """The widths whose smoothed ranks of the other sets foretell best those of each set."""
    directions = draws[0].points.shape[1]
    errors: dict[tuple[float, ...], float] = {}
    for widths in itertools.product(WIDTHS, repeat=directions):
        errors[widths] = 0.0
        for index, judged in enumerate(draws):
            others = [*draws[:index], *draws[index + 1 :]]
            foretold = expected_ranks(judged.points, others, widths)
            errors[widths] += float(np.mean((foretold - judged.ranks) ** 2))
    return min(errors, key=lambda widths: errors[widths])
