"""What an estimate is worth: its interval, how failures count in it, and how it is labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistics = Literal["default", "paper"]
Summary = Literal["mean", "median"]
MODES: tuple[Statistics, ...] = ("default", "paper")
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its uncertainty.

    Args:
        estimate: see the function that made it.
        standard_deviation: standard error of the estimate; inf where a resample is infinite, NaN
            where n < 2.
        low, high: bounds of the confidence interval; NaN where there is none.
        n: how many values it rests on.
        method: kind of interval.
        seed: of the resamples, None where nothing is random.
    """

    estimate: float
    standard_deviation: float
    low: float
    high: float
    n: int
    method: str
    seed: int | None


def label(
    mode: Statistics,
    n_ok: int,
    n: int,
    seed: int | None = 0,
    interval: str = "",
    resamples: int = RESAMPLES,
) -> str:
    """What an artefact must say about its statistics.

    That is the mode, n_ok/n, the kind of interval, the resamples and their seed.
    """
    rule = {"default": "diverged = +inf", "paper": "diverged runs dropped"}[mode]
    parts = [f"statistics: {mode} ({rule})", f"n_ok/n = {n_ok}/{n}"]
    if interval:
        parts.append(f"interval: {interval}")
    if seed is not None:
        parts.append(f"{resamples} bootstrap resamples, seed {seed}")
    return "; ".join(parts)


def as_failures(values: ArrayLike) -> Array:
    """The values with everything that is not finite turned into +inf."""
    array = np.asarray(values, dtype=float)
    return np.where(np.isfinite(array), array, np.inf)


def survival_median(values: ArrayLike, axis: int = 0) -> Any:
    """Median with failures (NaN or inf) as +inf.

    It is inf as soon as half of the runs failed, and NaN where there are no runs.
    """
    array = as_failures(values)
    if array.shape[axis] == 0:
        return np.full(np.delete(array.shape, axis), np.nan)[()]
    return np.median(array, axis=axis)


def percentile_interval(
    statistic: float,
    distribution: Array,
    n: int,
    seed: int,
    confidence: float,
    method: str = "bootstrap percentile",
) -> Interval:
    """Sum up a bootstrap distribution.

    The estimate is the mean of the distribution and the standard deviation its own. Where a
    resample is infinite there is no such mean: the estimate is then the statistic of the runs
    themselves, and the standard deviation is inf.

    Args:
        statistic: of the runs themselves.
        distribution: the statistic of each resample, (resamples,).
        n: how many runs were resampled.
    """
    finite = bool(np.isfinite(distribution).all())
    tail = (1 - confidence) / 2

    # Order statistics, which never lie between a finite value and inf.
    low, high = np.quantile(distribution, (tail, 1 - tail), method="inverted_cdf")
    return Interval(
        estimate=float(distribution.mean()) if finite else statistic,
        standard_deviation=float(distribution.std(ddof=1)) if finite else np.inf,
        low=float(low),
        high=float(high),
        n=n,
        method=f"{method} {100 * confidence:g} %",
        seed=seed,
    )
