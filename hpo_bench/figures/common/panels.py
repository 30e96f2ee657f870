"""Axes that several figures share: each function draws on an ``ax`` and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from hpo_bench.figures.common import places, style
from hpo_bench.figures.common.base import Plotted
from hpo_bench.figures.common.places import PointNumber

Method = Mapping[str, Any]
SHARE = (PointNumber("x", "x"), PointNumber("share of runs at or below it", "y", "low", "high"))


def grid(figure: Figure, count: int, **options: Any) -> list[Axes]:
    """Axes of ``count`` panels, row by row."""
    columns = columns_of(count)
    axes = figure.subplots(-(-count // columns), columns, squeeze=False, **options).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return list(axes[:count])


def columns_of(count: int) -> int:
    """How many panels stand side by side."""
    return 4 if count in (4, 7, 8) else min(count, 3)


def sheet_of_panels(
    count: int, legend: Sequence[Artist], footer: str, height: float = 1.5
) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels: one column wide for one panel, the page's width for more."""
    if count == 1:
        figure = style.sheet(style.COLUMN_WIDTH, 2.2, legend=legend, footer=footer)
    else:
        width = style.PAGE_WIDTH if count > 2 else style.PAGE_WIDTH * 0.8
        rows = -(-count // columns_of(count))
        of_row = height if columns_of(count) == 4 else 1.25 * height
        figure = style.sheet(width, of_row * rows, legend=legend, footer=footer)
    return figure, grid(figure, count)


def legend(plotted: Plotted) -> list[Artist]:
    """Shared legend: every method with n_ok/n, summed over the panels."""
    columns = ["panel", "method", "n_ok", "n", "text"]
    counts = pd.DataFrame(plotted.context["counts"], columns=columns)
    entries: list[Artist] = []
    for method in plotted.methods:
        rows = counts[counts["method"] == method["name"]]
        if rows.empty:
            continue
        texts = sorted(set(rows["text"]) - {""})
        suffix = " / ".join(texts) or f"{rows['n_ok'].sum()}/{rows['n'].sum()}"
        entries.append(style.entry(method, f"  {suffix}"))
    return entries


def cdf(ax: Axes, frame: pd.DataFrame, methods: Sequence[Method]) -> Axes:
    """Empirical CDFs on a logarithmic axis.

    Each goes on to the right at the share of runs that did not fail.
    """
    limits = _cdf_limits(frame)
    for method in methods:
        curve = frame[frame["method"] == method["name"]]
        if curve.empty:
            continue
        right = max(limits[1], curve["x"].max())
        x = np.concatenate([[limits[0]], curve["x"].to_numpy(), [right]])
        y = np.concatenate([[0.0], curve["y"], curve["y"].iloc[-1:]])
        ax.plot(x, y, drawstyle="steps-post", **style.line(method))
        low = np.concatenate([curve["low"], curve["low"].iloc[-1:]])
        high = np.concatenate([curve["high"], curve["high"].iloc[-1:]])
        band = {"color": method["colour"], "alpha": opacity(methods), "lw": 0}
        ax.fill_between(x[1:], low, high, step="post", **band)
        places.tell(ax, curve, method, SHARE, curve["x"], curve["y"], line="steps")
    ax.set(xscale="log", xlim=limits, ylim=(0, 1.02))
    ax.grid(visible=True)
    log_ticks(ax, "x")
    return ax


def opacity(methods: Sequence[Method]) -> float:
    """The opacity of one band: the lower, the more of them may lie on top of each other."""
    return 0.18 if len(methods) <= 4 else 0.13


def _cdf_limits(frame: pd.DataFrame) -> tuple[float, float]:
    """From the least value to where every curve has all but reached its end.

    Far outliers are cut off.
    """
    x = frame.loc[frame["x"] > 0, "x"]
    if x.empty:
        return 0.1, 10.0
    ends = []
    for _, curve in frame.groupby("method"):
        near_its_end = curve["y"] >= 0.97 * curve["y"].iloc[-1]
        ends.append(curve.loc[near_its_end, "x"].iloc[0])
    low, high = x.min() / 1.15, max(ends) * 1.15
    return (low, high) if high > 1.5 * low else (low / 2, high * 2)


def evolution(ax: Axes, frame: pd.DataFrame, methods: Sequence[Method], x: str = "step") -> Axes:
    """Medians with their bands on a logarithmic axis."""
    finite = frame[np.isfinite(frame["y"]) & np.isfinite(frame[x])]
    for method in methods:
        curve = finite[finite["method"] == method["name"]]
        if curve.empty:
            continue
        marker = "o" if len(curve) == 1 else ""
        ax.plot(curve[x], curve["y"], **style.line(method, marker=marker))
        band = curve[np.isfinite(curve["low"])]
        low = np.maximum(band["low"], 1e-3 * band["y"])  # a logarithmic axis has no zero
        look = {"color": method["colour"], "alpha": opacity(methods), "lw": 0}
        ax.fill_between(band[x], low, band["high"], **look)
        shown = (PointNumber("x", x), PointNumber("y", "y", "low", "high"))
        places.tell(ax, curve, method, shown, curve[x], curve["y"], line="line")
    ax.set_yscale("log")
    ax.margins(x=0.01)
    ax.grid(visible=True)
    limit_above(ax, frame["y"])
    log_ticks(ax, "y")
    return ax


def limit_above(ax: Axes, values: pd.Series) -> None:
    """Keep huge transients from squeezing the rest of a logarithmic axis.

    It ends at most three decades above the median of the points.
    """
    finite = values[np.isfinite(values) & (values > 0)]
    if len(finite):
        ax.set_ylim(finite.min() / 1.3, min(finite.max() * 1.3, 1e3 * finite.median()))


def log_ticks(ax: Axes, which: str) -> None:
    """Label at least two ticks of a logarithmic axis.

    Those in between powers of ten are labelled, too, where it spans less than two decades.
    """
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    decades = np.log10(high / low)
    if decades >= 1.9:
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_formatter(NullFormatter())
        return
    digits = (1, 2, 5) if decades > 0.5 else tuple(range(1, 10))
    axis.set_major_locator(LogLocator(subs=digits, numticks=12))
    axis.set_minor_formatter(NullFormatter())
    if high >= 1e-3 and low <= 1e4:
        axis.set_major_formatter(_plain)


def _plain(value: float, position: float) -> str:
    return f"{value:g}"


def titles(axes: Sequence[Axes], panels: Sequence[Mapping[str, Any]]) -> None:
    """Name panels; below its name, a panel says its budget where that is less than the paper's."""
    named = [panel["title"] for panel in panels]
    style.title(axes, named, [panel.get("budget", "") for panel in panels])


def cdfs(plotted: Plotted) -> Figure:
    """A figure of empirical CDFs, a panel each."""
    panels = plotted.context["panels"]
    figure, axes = sheet_of_panels(len(panels), legend(plotted), plotted.footer)
    for ax, panel in zip(axes, panels, strict=True):
        cdf(ax, plotted.of(panel=panel["key"]), plotted.methods)
        ax.set_xlabel(panel["xlabel"])
    for ax in axes[:: columns_of(len(axes))]:
        ax.set_ylabel("Empirical CDF")
    titles(axes, panels)
    return figure


def evolutions(plotted: Plotted) -> Figure:
    """A figure of evolutions, a panel each."""
    panels = plotted.context["panels"]
    figure, axes = sheet_of_panels(len(panels), legend(plotted), plotted.footer)
    for ax, panel in zip(axes, panels, strict=True):
        evolution(ax, plotted.of(panel=panel["key"]), plotted.methods)
        ax.set(xlabel="Weight updates", ylabel=panel["ylabel"])
    titles(axes, panels)
    return figure
