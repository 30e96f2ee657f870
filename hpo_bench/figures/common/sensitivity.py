"""Final performance over update interval T and look-back distance i: points and heat-maps of
Figures 4 and 6.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage

from hpo_bench.analysis import frames, summary
from hpo_bench.analysis.selection import Runs, comparable
from hpo_bench.analysis.statistics import interval
from hpo_bench.analysis.summary import Measure
from hpo_bench.figures.common import paper, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Points
from hpo_bench.figures.common.needs import Need, NeededRuns, Values
from hpo_bench.store.runs import Run

CELLS = {**paper.START, "update_interval": paper.GRID, "look_back": paper.GRID}
REPETITIONS = 100
PRINTED = 1000  # what a printed value is multiplied by
COLOURS = "viridis"


def triangular(values: Values) -> bool:
    """Cells in which the look-back stays within one hyperparameter update: i ≤ T."""
    return bool(values["look_back"] <= values["update_interval"])


def everywhere(values: Values) -> bool:
    """All cells."""
    return True


def needs(*grids: str, plain: str = "random", exact: Sequence[str] = ()) -> tuple[Need, ...]:
    """Runs of heat-maps: a method in every cell, and one without cells.

    Args:
        exact: those of ``grids`` with i ≤ T only.
    """
    datasets = ("uci_energy",)
    cells = [
        Need(
            datasets,
            (method,),
            REPETITIONS,
            CELLS,
            role=method,
            valid=triangular if method in exact else everywhere,
        )
        for method in grids
    ]
    return (Need(datasets, (plain,), REPETITIONS, role="plain"), *cells)


def points(selection: NeededRuns, options: Options, grids: Sequence[str]) -> Points:
    """Median final value in every cell (T = i = 0 for the method without cells), a panel a method.

    Of the seeds that all cells share, so that every cell has the same initialisations.
    """
    dataset = selection.datasets[0]
    plain, notes = common.alike(selection.runs("plain", dataset))
    cells = {name: _one_budget(selection.runs(name, dataset)) for name in grids}
    groups = [plain, *(runs for group in cells.values() for runs in group.values())]
    seeds = common.shared_seeds([runs for runs in groups if runs])
    rows = [_cell(plain, options, seeds, 0, 0)] if plain else []
    rows += [
        _cell(runs, options, seeds, *cell)
        for group in cells.values()
        for cell, runs in sorted(group.items())
    ]
    kept = [run for runs in groups for run in runs]
    measure = summary.measures(kept)[-1]
    frame = pd.DataFrame(rows)
    context = {
        "methods": common.styles(kept),
        "measure": measure.label,
        "dataset": common.label(kept),
    }
    return Points(frame, context, kept, _statistics(frame, kept), notes)


def _one_budget(runs: Runs) -> dict[tuple[int, int], list[Run]]:
    """Runs by cell (T, i), all with the number of hyperparameter updates that most cells have."""
    cells: dict[int, dict[tuple[int, int], list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        config = run.config
        updates = int(config["hyperparameter_updates"])
        cells[updates][int(config["update_interval"]), int(config["look_back"])].append(run)
    best = max(cells, key=lambda updates: (len(cells[updates]), updates), default=0)
    return {cell: comparable(group).runs for cell, group in cells[best].items()} if cells else {}


def _cell(
    runs: Runs, options: Options, seeds: Collection[int], update_interval: int, look_back: int
) -> dict[str, Any]:
    measure: Measure = summary.measures(runs)[-1]
    finals = options.finals(runs)
    finals = finals[finals["seed"].isin(seeds)]
    values = frames.failure_aware(finals, measure.column) * measure.scale
    ok = np.isfinite(values)
    kept = values if options.failure_aware else values[summary.paper_keeps(finals, measure.column)]
    return {
        "dataset": runs[0].dataset,
        "method": runs[0].method,
        "update_interval": update_interval,
        "look_back": look_back,
        "median": float(interval.survival_median(kept)),
        "n_ok": int(ok.sum()),
        "n": len(values),
    }


def _statistics(frame: pd.DataFrame, runs: Runs) -> tuple[str, ...]:
    updates = sorted({int(run.config["hyperparameter_updates"]) for run in runs})
    return (
        f"median final test MSE after {' or '.join(map(str, updates))} hyperparameter updates",
        f"n = {common.extent(frame['n'])} in a cell, {frame['n_ok'].sum()}/{frame['n'].sum()} runs ok",
        "no intervals",
    )


def norm(frame: pd.DataFrame) -> Normalize:
    """One colour scale for all panels, from 0."""
    finite = frame.loc[np.isfinite(frame["median"]), "median"]
    return Normalize(0, finite.max() if len(finite) else 1.0)


def grid(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A column as a matrix T × i, NaN where there is no cell."""
    values = np.full((len(paper.GRID), len(paper.GRID)), np.nan)
    values[frame["update_interval"].to_numpy(int) - 1, frame["look_back"].to_numpy(int) - 1] = (
        frame[column]
    )
    return values


def heat_map(ax: Axes, frame: pd.DataFrame, scale: Normalize) -> AxesImage:
    """Cells T × i with printed values; empty cells stay white, failures (more than half diverged)
    are marked ∞.
    """
    image = _cells(ax, grid(frame, "median"), scale, size=5.6)
    ticks = np.arange(len(paper.GRID))
    ax.set(xlabel="Look-back distance $i$", ylabel="Update interval $T$")
    ax.set_xticks(ticks, [str(tick + 1) for tick in ticks])
    ax.set_yticks(ticks, [str(tick + 1) for tick in ticks])
    return image


def single_cell(ax: Axes, frame: pd.DataFrame, scale: Normalize) -> AxesImage:
    """The one value of a method without cells."""
    image = _cells(
        ax, np.array([[frame["median"].iloc[0] if len(frame) else np.nan]]), scale, size=7
    )
    ax.set(
        xticks=[], yticks=[], xlim=(-1.2, 1.2)
    )  # as wide as the title, with a cell of the heat-maps' size
    return image


def _cells(ax: Axes, values: np.ndarray, scale: Normalize, size: float) -> AxesImage:
    image = ax.imshow(
        np.where(np.isfinite(values), values, np.nan), cmap=COLOURS, norm=scale, origin="lower"
    )
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        infinite = np.isinf(value)
        shade = "black" if infinite or scale(value) > 0.6 else "white"
        text = (
            "∞"
            if infinite
            else f"{value * PRINTED:.0f}"
            if value * PRINTED >= 10
            else f"{value * PRINTED:.2g}"
        )
        ax.text(column, row, text, ha="center", va="center", size=size, color=shade)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return image


def titles(names: Sequence[str], context: Mapping[str, Any]) -> list[str]:
    """Labels of the methods of the panels."""
    labels = {method["name"]: method["label"] for method in context["methods"]}
    return [labels.get(name, name) for name in names]


def colour_bar_label(context: Mapping[str, Any]) -> str:
    """What the colours show."""
    return f"Median final {style.decapitalised(context['measure'])}"


def note(footer: str) -> str:
    """The small print with what is printed in the cells."""
    return f"{footer} · printed values × {PRINTED}"
