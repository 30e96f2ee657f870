"""Where points stand on an image: the places of ``figures.common.places`` against the axes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from hpo_bench.figures.common import places, style
from hpo_bench.figures.common.base import Plotted
from hpo_bench.figures.common.places import UNITS, PointNumber
from hpo_bench.report import drawings
from hpo_bench.report.facets import Facets

METHOD = {"name": "random_validation", "label": r"Mine for \$5", "colour": "#123456"}
FRAME = pd.DataFrame(
    {"panel": "p", "dataset": "d", "x": [1.0, 10.0, 100.0, 0.0], "y": [0.0, 0.5, 1.0, 0.5]},
    index=[3, 4, 7, 8],
)


def test_points_are_where_the_axes_put_them() -> None:
    figure = style.sheet(4, 2)
    ax = figure.subplots()
    ax.set(xscale="log", xlim=(1, 100), ylim=(0, 1), xlabel=r"$\log_{10}$(lr)", ylabel="Share")
    shown = (PointNumber("x", "x"), PointNumber("y", "y", "low", "high"))
    places.tell(ax, FRAME, METHOD, shown, FRAME["x"], FRAME["y"], line="line")
    style.lay_out(figure)
    counts = [{"panel": "p", "method": "random_validation", "n_ok": 3, "n": 4}]
    found = places.of(figure, Plotted(FRAME, {"counts": counts}))

    (panel,), (series,) = found["panels"], found["series"]
    left, top, right, bottom = panel["box"]
    at = np.cumsum(np.reshape(series["at"], (-1, 2)), axis=0)
    middle = ((left + right) / 2, (top + bottom) / 2)
    np.testing.assert_allclose(at[:3], [(left, bottom), middle, (right, top)], atol=1)
    assert at[3, 0] < -UNITS  # zero is nowhere on a logarithmic axis
    assert series["rows"] == [3, 2, 7, 2]
    assert (series["name"], series["label"]) == ("random_3_batched", "Mine for $5")
    assert series["of"] == "3/4"
    assert series["shown"] == [["log10 (lr)", "x", "", ""], ["Share", "y", "low", "high"]]


def test_a_figure_that_is_none_of_ours_is_told_nothing() -> None:
    figure, ax = plt.subplots()
    places.tell(ax, FRAME, METHOD, (), FRAME["x"], FRAME["y"])
    assert places.of(figure, Plotted(FRAME, {})) == {"panels": [], "series": []}
    plt.close(figure)


def test_panels_without_a_column_of_datasets_are_named_by_them() -> None:
    figure = style.sheet(4, 2)
    ax = figure.subplots()
    places.tell(ax, FRAME.drop(columns="dataset"), METHOD, (), FRAME["x"], FRAME["y"])
    style.lay_out(figure)
    found = places.of(figure, Plotted(FRAME, {}))
    assert [panel["dataset"] for panel in found["panels"]] == ["p"]
    assert drawings._told(found) == Facets(("p",), ("random_3_batched",))


def test_labels_of_a_row_are_those_of_its_first_panel() -> None:
    figure = style.sheet(4, 2)
    first, second = figure.subplots(1, 2)
    first.set_ylabel("Test MSE")
    for ax in (first, second):
        places.tell(ax, FRAME, METHOD, (PointNumber("y", "y"),), 0, 0)
    style.lay_out(figure)
    found = places.of(figure, Plotted(FRAME, {}))
    assert [series["shown"][0][0] for series in found["series"]] == ["Test MSE", "Test MSE"]
