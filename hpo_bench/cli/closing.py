"""The table that closes ``hpo-bench run``: what came out, read back from what was stored."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.table import Table

from hpo_bench.analysis.closing import Closing
from hpo_bench.progress import console
from hpo_bench.store.runs import Run, read_table


def print_closing(run: Run) -> None:
    """Print what came out of a run in a table, and where the results are."""
    dataset = run.config["dataset"]
    final = read_table(run, "final", ("status", "test_metric"))
    table = Table(
        "method",
        "dataset",
        f"{dataset.get('metric_label', 'Test metric')}: median",
        "mean",
        "best",
        "ok",
        box=None,
        pad_edge=False,
    )
    numbers = closing_numbers(final, float(dataset.get("metric_scale") or 1.0))
    table.add_row(run.method_label, run.dataset_label, *numbers)
    screen = console()
    screen.print(table, soft_wrap=True)
    screen.print(str(run.place), soft_wrap=True)


def closing_numbers(final: pd.DataFrame, scale: float) -> tuple[str, str, str, str]:
    """Median, mean, best and the share of repetitions that did not diverge, as texts.

    In the median a diverged repetition counts as +inf; mean and best are of the others.

    Args:
        final: columns ``status`` and ``test_metric``.
        scale: factor for display.
    """
    numbers = Closing.of(final, scale)
    mean, best = (f"{numbers.mean:.4g}", f"{numbers.best:.4g}") if numbers.ok else ("-", "-")
    median = f"{numbers.median:.4g}" if np.isfinite(numbers.median) else "diverged"
    return median, mean, best, f"{numbers.ok}/{numbers.n}"
