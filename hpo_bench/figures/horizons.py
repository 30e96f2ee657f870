"""The final metric over the discount γ of a horizon that does not end.

γ = 0 looks back over the last weight update alone, γ = 1 over the whole training so far."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo_bench.analysis import paper, rivals
from hpo_bench.analysis.frames import failure_aware
from hpo_bench.analysis.selection import Runs, by_method, over_setting
from hpo_bench.analysis.statistics.bootstrap import quantile_band
from hpo_bench.analysis.statistics.interval import survival_median
from hpo_bench.analysis.tables.horizons import DISCOUNT
from hpo_bench.figures.common import panels, places, standard, style, templates
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.figures.common.places import PointNumber
from hpo_bench.store.runs import Run

TITLE = "Final test metric over the discount of the horizon"
METHOD, WINDOWS = "ours_discounted", ("random", "ours_wd_lr_m")
DISCOUNTS = (0, 0.9, 0.95, 0.98, 0.99, 0.999, 1)
REPETITIONS = 100
CELLS = {**standard.STANDARD, DISCOUNT: DISCOUNTS}
NEEDS = (
    Need(paper.UCI, (METHOD,), REPETITIONS, CELLS, role="discounted"),
    Need(paper.UCI, WINDOWS, REPETITIONS, role="windows"),
    Need(rivals.OFFLINE, (METHOD,), REPETITIONS, CELLS, role="discounted", optional=True),
    Need(rivals.OFFLINE, WINDOWS, REPETITIONS, role="windows", optional=True),
)
SHOWN = (PointNumber("discount γ", "discount"), PointNumber("y", "y", "low", "high"))
QUARTILES = (0.25, 0.75)
ROOM_BELOW = 0.1  # of the height of a panel, for how many diverged


def points(selection: NeededRuns, options: Options) -> Points:
    """Median and quartiles of the final metric by γ, and of what it is compared with.

    They are of the seeds that all values of γ on a dataset share.
    """
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, str]] = []
    kept: list[Run] = []
    notes: list[str] = []
    for key, title, runs in templates.by_dataset(selection, "discounted"):
        cells, passed_over = over_setting(runs, DISCOUNT)
        discounted = [run for cell in cells.values() for run in cell]
        beside, more = _as_long(selection.runs("windows", key), discounted)
        notes += [*passed_over, *more]
        seeds = common.shared_seeds(list(cells.values()))
        for discount, cell in cells.items():
            row = _final(cell, options, seeds)
            rows.append({**row, "panel": key, "part": "discounted", "discount": discount})
        for group in by_method(beside).values():
            row = _final(group, options, seeds)
            rows.append({**row, "panel": key, "part": "window", "discount": np.nan})
        kept += [*discounted, *beside]
        shown.append({"key": key, "title": title, "ylabel": templates.metric(discounted).label})
    if not kept:
        return Points(pd.DataFrame(), {}, notes=tuple(notes))
    frame = pd.DataFrame(rows)
    statistics = (
        common.training(kept),
        "median and quartiles of the final test metric, × where the median has diverged",
        f"n = {common.extent(frame['n'])} a value, the same seeds for all",
        "small numbers: how many diverged",
    )
    context = {"panels": shown, "methods": common.styles(kept)}
    return Points(frame, context, kept, statistics, tuple(notes), by_mode=False)


def _as_long(runs: Runs, others: Runs) -> tuple[list[Run], tuple[str, ...]]:
    """Comparable ones of some runs, those that were trained as long as others."""
    updates = {run.config["hyperparameter_updates"] for run in others}
    return common.alike([run for run in runs if run.config["hyperparameter_updates"] in updates])


def _final(runs: Runs, options: Options, seeds: Collection[int]) -> dict[str, Any]:
    measure = templates.metric(runs)
    finals = options.finals(runs)
    finals = finals[finals["seed"].isin(seeds)]
    values = failure_aware(finals, measure.column) * measure.scale
    low, high = quantile_band(values[:, None], *QUARTILES) if len(values) else ([np.nan],) * 2
    return {
        "dataset": runs[0].dataset,
        "method": runs[0].method,
        "y": float(survival_median(values)),
        "low": float(low[0]),
        "high": float(high[0]),
        "n_ok": int(np.isfinite(values).sum()),
        "n": len(values),
    }


def draw(plotted: Plotted) -> Figure:
    """A panel a dataset, γ from the shortest horizon to the longest."""
    shown = plotted.context["panels"]
    entries = [style.entry(method) for method in plotted.methods]
    figure, axes = panels.sheet_of_panels(len(shown), entries, plotted.footer)
    discounts = sorted(plotted.of(part="discounted")["discount"].unique())
    for ax, panel in zip(axes, shown, strict=True):
        by_discount(ax, plotted.of(panel=panel["key"]), plotted, discounts)
        ax.set(xlabel="Discount γ", ylabel=panel["ylabel"])
    style.title(axes, [panel["title"] for panel in shown])
    return figure


def by_discount(ax: Axes, frame: pd.DataFrame, plotted: Plotted, discounts: list[float]) -> Axes:
    """Medians with quartiles at equal distances, others as lines across."""
    for method in plotted.methods:
        of_method = frame[frame["method"] == method["name"]]
        across = of_method[(of_method["part"] == "window") & np.isfinite(of_method["y"])]
        for y in across["y"]:
            ax.axhline(y, **style.line(method, lw=0.9))
        cells = of_method[of_method["part"] == "discounted"]
        if len(cells):
            _cells(ax, cells, method["colour"], discounts)
            x = [discounts.index(value) for value in cells["discount"]]
            places.tell(ax, cells, method, SHOWN, x, cells["y"], line="line")
    ax.set_yscale("log")
    ticks = [f"{value:g}" for value in discounts]
    ax.set_xticks(range(len(discounts)), ticks, rotation=60, size=6.5)
    ax.set_xlim(-0.5, len(discounts) - 0.5)
    ax.grid(visible=True, axis="y")
    panels.limit_above(ax, pd.concat([frame["y"], frame["low"], frame["high"]]))
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom * (bottom / top) ** ROOM_BELOW, top)
    panels.log_ticks(ax, "y")
    return ax


def _cells(ax: Axes, cells: pd.DataFrame, colour: str, discounts: list[float]) -> None:
    x = np.array([discounts.index(value) for value in cells["discount"]])
    y = cells["y"].to_numpy(dtype=float)
    finite = np.isfinite(y)
    ax.plot(x, np.where(finite, y, np.nan), "o-", color=colour, ms=3)  # no line across ×
    for place, low, high in zip(x, cells["low"], cells["high"], strict=True):
        if np.isfinite(low):
            top = high if np.isfinite(high) else 1e3 * low
            ax.plot([place] * 2, [low, top], color=colour, lw=0.8, alpha=0.6)
    across = ax.get_xaxis_transform()
    ax.plot(x[~finite], np.full((~finite).sum(), 0.96), "x", color=colour, transform=across)
    for place, lost in zip(x, cells["n"] - cells["n_ok"], strict=True):
        if lost:
            look: dict[str, Any] = {
                "ha": "center",
                "va": "bottom",
                "size": 5.5,
                "color": style.GREY,
            }
            ax.text(place, 0.01, f"{lost}", transform=across, **look)
