"""The numbers that close a run: what ``hpo-bench run`` prints, and ``Results.summary`` returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Closing:
    """What came out of the repetitions of one configuration, by its dataset's test metric.

    Args:
        median: of all repetitions; a diverged one counts as +inf.
        mean, best: of the repetitions that did not diverge; NaN where all did.
        ok, n: repetitions that did not diverge, and all.
    """

    median: float
    mean: float
    best: float
    ok: int
    n: int

    @staticmethod
    def of(final: pd.DataFrame, scale: float) -> Closing:
        """Sum up final values.

        Args:
            final: columns ``status`` and ``test_metric``, a row per repetition.
            scale: factor for display.
        """
        ok = (final["status"] == "ok").to_numpy()
        values = np.where(ok, final["test_metric"].to_numpy(dtype=float), np.inf) * scale
        finite = values[ok]
        mean = float(finite.mean()) if ok.any() else np.nan
        best = float(finite.min()) if ok.any() else np.nan
        return Closing(_median(values), mean, best, int(ok.sum()), int(ok.size))


def _median(values: NDArray[np.float64]) -> float:
    """The middle value, or +inf where one of the two middle values is."""
    middle = np.sort(values)[[(values.size - 1) // 2, values.size // 2]]
    return float(middle.mean())
