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

from hpo_bench.figures.common import style
from hpo_bench.figures.common.base import Plotted

Method = Mapping[str, Any]


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
        taller = height if columns_of(count) == 4 else 1.25 * height
        figure = style.sheet(
            width, taller * -(-count // columns_of(count)), legend=legend, footer=footer
        )
    return figure, grid(figure, count)


def legend(plotted: Plotted) -> list[Artist]:
    """Shared legend: every method with n_ok/n, summed over the panels."""
    counts = pd.DataFrame(
        plotted.context["counts"], columns=["panel", "method", "n_ok", "n", "text"]
    )
    entries: list[Artist] = []
    for method in plotted.methods:
        own = counts[counts["method"] == method["name"]]
        if len(own):
            texts = {text for text in own["text"] if text}
            told = (
                f"{own['n_ok'].sum()}/{own['n'].sum()}" if not texts else " / ".join(sorted(texts))
            )
            entries.append(style.entry(method, f"  {told}"))
    return entries


def cdf(ax: Axes, frame: pd.DataFrame, methods: Sequence[Method]) -> Axes:
    """Empirical CDFs on a logarithmic axis; each goes on to the right at the share of runs that did
    not fail.
    """
    limits = _cdf_limits(frame)
    for method in methods:
        own = frame[frame["method"] == method["name"]]
        if own.empty:
            continue
        x = np.concatenate([[limits[0]], own["x"].to_numpy(), [max(limits[1], own["x"].max())]])
        y, low, high = (
            np.concatenate([[0.0], own[column], own[column].iloc[-1:]])
            for column in ("y", "low", "high")
        )
        ax.plot(x, y, drawstyle="steps-post", **style.line(method))
        ax.fill_between(
            x[1:],
            low[1:],
            high[1:],
            step="post",
            color=method["colour"],
            alpha=opacity(methods),
            lw=0,
        )
    ax.set(xscale="log", xlim=limits, ylim=(0, 1.02))
    ax.grid(visible=True)
    log_ticks(ax, "x")
    return ax


def opacity(methods: Sequence[Method]) -> float:
    """Of one band, the lower the more of them may lie on top of each other."""
    return 0.18 if len(methods) <= 4 else 0.13


def _cdf_limits(frame: pd.DataFrame) -> tuple[float, float]:
    """From the least value to where every curve has all but reached its end; far outliers are cut
    off.
    """
    x = frame.loc[frame["x"] > 0, "x"]
    if x.empty:
        return 0.1, 10.0
    ends = [
        own.loc[own["y"] >= 0.97 * own["y"].iloc[-1], "x"].iloc[0]
        for _, own in frame.groupby("method")
        if len(own)
    ]
    low, high = x.min() / 1.15, max(ends) * 1.15
    return (low, high) if high > 1.5 * low else (low / 2, high * 2)


def evolution(ax: Axes, frame: pd.DataFrame, methods: Sequence[Method], x: str = "step") -> Axes:
    """Medians with their bands on a logarithmic axis."""
    for method in methods:
        own = frame[
            (frame["method"] == method["name"]) & np.isfinite(frame["y"]) & np.isfinite(frame[x])
        ]
        if own.empty:
            continue
        ax.plot(own[x], own["y"], **style.line(method, marker="o" if len(own) == 1 else ""))
        band = own[np.isfinite(own["low"])]
        floor = np.maximum(band["low"], 1e-3 * band["y"])
        ax.fill_between(
            band[x], floor, band["high"], color=method["colour"], alpha=opacity(methods), lw=0
        )
    ax.set_yscale("log")
    ax.margins(x=0.01)
    ax.grid(visible=True)
    limit_above(ax, frame["y"])
    log_ticks(ax, "y")
    return ax


def limit_above(ax: Axes, values: pd.Series) -> None:
    """Keep huge transients from squeezing the rest: at most three decades above the median of the
    points.
    """
    finite = values[np.isfinite(values) & (values > 0)]
    if len(finite):
        ax.set_ylim(finite.min() / 1.3, min(finite.max() * 1.3, 1e3 * finite.median()))


def log_ticks(ax: Axes, which: str) -> None:
    """Label at least two ticks of a logarithmic axis, in-between ones where it spans less than two
    decades.
    """
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    decades = np.log10(high / low)
    if decades >= 1.9:
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_formatter(NullFormatter())
        return
    axis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if decades > 0.5 else tuple(range(1, 10)), numticks=12)
    )
    axis.set_minor_formatter(NullFormatter())
    if high >= 1e-3 and low <= 1e4:
        axis.set_major_formatter(_plain)


def _plain(value: float, position: float) -> str:
    return f"{value:g}"


def cdfs(plotted: Plotted) -> Figure:
    """A figure of empirical CDFs, a panel each."""
    panels = plotted.context["panels"]
    figure, axes = sheet_of_panels(len(panels), legend(plotted), plotted.footer)
    for ax, panel in zip(axes, panels, strict=True):
        cdf(ax, plotted.of(panel=panel["key"]), plotted.methods)
        ax.set_xlabel(panel["xlabel"])
    for ax in axes[:: columns_of(len(axes))]:
        ax.set_ylabel("Empirical CDF")
    style.title(axes, [panel["title"] for panel in panels])
    return figure


def evolutions(plotted: Plotted) -> Figure:
    """A figure of evolutions, a panel each."""
    panels = plotted.context["panels"]
    figure, axes = sheet_of_panels(len(panels), legend(plotted), plotted.footer)
    for ax, panel in zip(axes, panels, strict=True):
        evolution(ax, plotted.of(panel=panel["key"]), plotted.methods)
        ax.set(xlabel="Weight updates", ylabel=panel["ylabel"])
    style.title(axes, [panel["title"] for panel in panels])
    return figure
