"""Statistics with intervals in which a repetition that failed counts as worse than every other."""

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
    """What an artefact must say about its statistics: mode, n_ok/n, kind of interval, resamples and
    seed.
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
    """Median with failures (NaN or inf) as +inf: inf as soon as half of the runs failed;

    NaN where there are none.
    """
    array = as_failures(values)
    if array.shape[axis] == 0:
        return np.full(np.delete(array.shape, axis), np.nan)[()]
    return np.median(array, axis=axis)


def _quantile(values: Array, q: float) -> float:
    """Smallest value at or below which a share of ``q`` lies: never between a finite value and
    inf.
    """
    return float(np.quantile(values, q, method="inverted_cdf"))


def _interval(
    own: float,
    distribution: Array,
    n: int,
    seed: int,
    confidence: float,
    method: str = "bootstrap percentile",
) -> Interval:
    """Sum up a bootstrap distribution, see `bootstrap`."""
    finite = bool(np.isfinite(distribution).all())
    tail = (1 - confidence) / 2
    return Interval(
        estimate=float(distribution.mean()) if finite else own,
        standard_deviation=float(distribution.std(ddof=1)) if finite else np.inf,
        low=_quantile(distribution, tail),
        high=_quantile(distribution, 1 - tail),
        n=n,
        method=f"{method} {100 * confidence:g} %",
        seed=seed,
    )
