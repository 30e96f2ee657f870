"""What the paper printed, and what came out here."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from hpo_bench.analysis import submission
from hpo_bench.analysis.rounding import NOTHING
from hpo_bench.analysis.selection import Runs, Selection
from hpo_bench.analysis.statistics.interval import Statistics
from hpo_bench.analysis.tables.cells import Cells, Parts, frames


def everything(runs: Runs, methods: Collection[str] = ()) -> Selection:
    """All runs, whatever the methods: each printed number has its own."""
    return Selection(list(runs), ())


def make(runs: Runs, mode: Statistics, seed: int) -> Parts:
    """A row for each printed number, with the verdict on ours."""
    judged = submission.judge(runs, seed)
    cells: Cells = {}
    rows = []
    for cell in judged:
        protocol = submission.PROTOCOLS[cell.dataset]
        row = (protocol.label, submission.method_label(cell.method), cell.statistic)
        rows.append(row)
        theirs, ours = submission.shown(cell)
        texts = {
            "Printed": theirs.text,
            "Here": ours.text,
            "n": str(cell.n) if cell.n else NOTHING,
            "Verdict": cell.verdict,
            "Why": cell.reason,
        }
        for column, text in texts.items():
            differs = column == "Verdict" and cell.verdict == "differs"
            cells.setdefault(column, {})[row] = (text, differs)
    body, bold = frames(cells, rows, ["Dataset", "Method", "Statistic"])
    data = pd.DataFrame(judged).assign(statistics="paper", seed=seed)
    return body, bold, data, submission.note(seed)
