"""Final performance over update interval T and look-back distance i, for Figures 4 and 6."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from hpo_bench.analysis.frames import failure_aware
from hpo_bench.analysis.selection import Runs, comparable
from hpo_bench.analysis.statistics.interval import survival_median
from hpo_bench.analysis.summary import paper_keeps
from hpo_bench.figures.common import places, standard, style
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns, Values
from hpo_bench.figures.common.places import PointNumber
from hpo_bench.figures.common.templates import metric
from hpo_bench.store.runs import Run

CellKey = tuple[int, int]  # T and i
CELLS = {**standard.STARTS, "update_interval": standard.GRID, "look_back": standard.GRID}
REPETITIONS = 100
CELL = (PointNumber("T", "update_interval"), PointNumber("i", "look_back"))
PRINTED = 1000  # what a printed value is multiplied by
COLOURS = "viridis"


def triangular(values: Values) -> bool:
    """Cells in which the look-back stays within one hyperparameter update: i ≤ T."""
    return bool(values["look_back"] <= values["update_interval"])


def everywhere(values: Values) -> bool:
    """Every cell, whatever its look-back."""
    return True


def needs(*grids: str, plain: str = "random", exact: Sequence[str] = ()) -> tuple[Need, ...]:
    """Runs of heat-maps: a method in every cell, and one without cells.

    Args:
        exact: those of ``grids`` with i ≤ T only.
    """
    datasets = ("uci_energy",)
    all_needs = [Need(datasets, (plain,), REPETITIONS, role="plain")]
    for method in grids:
        valid = triangular if method in exact else everywhere
        all_needs.append(Need(datasets, (method,), REPETITIONS, CELLS, role=method, valid=valid))
    return tuple(all_needs)


def points(selection: NeededRuns, options: Options, grids: Sequence[str]) -> Points:
    """Median final value in every cell, a panel a method.

    They are of the seeds that all cells share, so that every cell has the same initialisations. The
    method without cells has T = i = 0.
    """
    dataset = selection.datasets[0]
    plain, notes = common.alike(selection.runs("plain", dataset))
    groups = [((0, 0), plain)] if plain else []
    order = list(groups)
    for name in grids:
        cells = _one_budget(selection.runs(name, dataset))
        groups += cells.items()
        order += sorted(cells.items())
    seeds = common.shared_seeds([runs for _, runs in groups])
    frame = pd.DataFrame([_cell(runs, options, seeds, cell) for cell, runs in order])

    kept = [run for _, runs in groups for run in runs]
    context = {
        "methods": common.styles(kept),
        "measure": metric(kept).label,
        "dataset": common.label(kept),
    }
    return Points(frame, context, kept, _statistics(frame, kept), notes)


def _one_budget(runs: Runs) -> dict[CellKey, list[Run]]:
    """Runs by cell (T, i), all with the number of hyperparameter updates that most cells have."""
    cells: dict[int, dict[CellKey, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        config = run.config
        updates = int(config["hyperparameter_updates"])
        cells[updates][int(config["update_interval"]), int(config["look_back"])].append(run)
    if not cells:
        return {}
    usual = max(cells, key=lambda updates: (len(cells[updates]), updates))
    return {cell: comparable(group).runs for cell, group in cells[usual].items()}


def _cell(runs: Runs, options: Options, seeds: Collection[int], cell: CellKey) -> dict[str, Any]:
    measure = metric(runs)
    finals = options.finals(runs)
    finals = finals[finals["seed"].isin(seeds)]
    values = failure_aware(finals, measure.column) * measure.scale
    counting = values
    if not options.failure_aware:
        counting = values[paper_keeps(finals, measure.column)]
    return {
        "dataset": runs[0].dataset,
        "method": runs[0].method,
        "update_interval": cell[0],
        "look_back": cell[1],
        "median": float(survival_median(counting)),
        "n_ok": int(np.isfinite(values).sum()),
        "n": len(values),
    }


def _statistics(frame: pd.DataFrame, runs: Runs) -> tuple[str, ...]:
    updates = sorted({int(run.config["hyperparameter_updates"]) for run in runs})
    n_ok, n = frame["n_ok"].sum(), frame["n"].sum()
    return (
        f"median final test MSE after {' or '.join(map(str, updates))} hyperparameter updates",
        f"n = {common.extent(frame['n'])} in a cell, {n_ok}/{n} runs ok",
        "no intervals",
    )


def norm(frame: pd.DataFrame) -> Normalize:
    """One colour scale for all panels, from 0."""
    finite = frame.loc[np.isfinite(frame["median"]), "median"]
    return Normalize(0, finite.max() if len(finite) else 1.0)


def grid(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as a matrix T × i, NaN where there is no cell."""
    values = np.full((len(standard.GRID), len(standard.GRID)), np.nan)
    row = frame["update_interval"].to_numpy(int) - 1
    place = frame["look_back"].to_numpy(int) - 1
    values[row, place] = frame[column]
    return values


def heat_map(ax: Axes, frame: pd.DataFrame, scale: Normalize) -> AxesImage:
    """Cells T × i with printed values.

    Empty cells stay white; where more than half of the runs diverged stands ∞.
    """
    image = _cells(ax, grid(frame, "median"), scale, size=5.6)
    ticks = np.arange(len(standard.GRID))
    ax.set(xlabel="Look-back distance $i$", ylabel="Update interval $T$")
    ax.set_xticks(ticks, [str(tick + 1) for tick in ticks])
    ax.set_yticks(ticks, [str(tick + 1) for tick in ticks])
    return image


def single_cell(ax: Axes, frame: pd.DataFrame, scale: Normalize) -> AxesImage:
    """The one value of a method without cells."""
    value = frame["median"].iloc[0] if len(frame) else np.nan
    image = _cells(ax, np.array([[value]]), scale, size=7)

    # As wide as the title, so that the cell has the size of those of the heat-maps.
    ax.set(xticks=[], yticks=[], xlim=(-1.2, 1.2))
    return image


def _cells(ax: Axes, values: NDArray[np.float64], scale: Normalize, size: float) -> AxesImage:
    finite = np.where(np.isfinite(values), values, np.nan)
    image = ax.imshow(finite, cmap=COLOURS, norm=scale, origin="lower")
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        shade = "black" if np.isinf(value) or scale(value) > 0.6 else "white"
        ax.text(column, row, _printed(value), ha="center", va="center", size=size, color=shade)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return image


def _printed(value: float) -> str:
    """A value as it stands in its cell."""
    if np.isinf(value):
        return "∞"
    printed = value * PRINTED
    return f"{printed:.0f}" if printed >= 10 else f"{printed:.2g}"


def tell(ax: Axes, plotted: Plotted, name: str) -> None:
    """Say what stands in the cells of a method; one without cells has its value at 0, 0."""
    for method in plotted.methods:
        if method["name"] == name:
            frame = plotted.of(method=name)
            shown = (*CELL, PointNumber(colour_bar_label(plotted.context), "median"))
            tell_cells(ax, frame, method, shown)


def tell_cells(
    ax: Axes, frame: pd.DataFrame, method: Mapping[str, Any], shown: Sequence[PointNumber]
) -> None:
    """Say what stands in cells, which are drawn from 0 on."""
    x, y = (np.maximum(frame[name] - 1, 0) for name in ("look_back", "update_interval"))
    places.tell(ax, frame, method, shown, x, y)


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
