"""Figure 1: how the approximation arises, on a ridge regression with one weight.

The training loss is ``½ h (w - a)² + ½ exp(λ) w²``, h and a from least squares on the training
points, and λ the one hyperparameter. The validation loss is ``½ h' (w - b)²``, likewise from the
validation points. The best response is ``w*(λ) = h a / (h + exp λ)``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from hpo_bench.figures.common import places, style
from hpo_bench.figures.common.base import Options, Plotted, Points
from hpo_bench.figures.common.needs import Need, NeededRuns
from hpo_bench.figures.common.places import PointNumber

Array = NDArray[np.float64]

TITLE = "Derivation: exact and approximate hyperparameter updates around the best response"
NEEDS: tuple[Need, ...] = ()

STEP_SIZE, HYPER_STEP_SIZE, UPDATE_INTERVAL, LOOK_BACK = 0.07, 11.0, 3, 3
START = (1.6, 0.01)
CLASSICAL_STARTS = (START, (0.35, 0.58), (-1.1, 0.22))
UPDATES = {"exact": 8, "approximate": 24}
SHOWN = (PointNumber("x", "log_decay"), PointNumber("y", "weight"))
LINES: dict[str, dict[str, Any]] = {
    "classical": {"color": "#0072B2", "marker": "o", "markersize": 4.4, "markerfacecolor": "white"},
    "exact": {"color": "#D55E00", "marker": "D", "markersize": 3.6},
    "approximate": {"color": "#009E73", "marker": "s", "markersize": 2.2},
}


@dataclass(frozen=True)
class Ridge:
    """A ridge regression with one weight.

    Args:
        h, a: curvature and minimiser of the training loss.
        h_validation, b: those of the validation loss.
    """

    h: float
    a: float
    h_validation: float
    b: float

    def update(self, log_decay: float, w: float) -> float:
        """u(λ, w) of gradient descent: ``w ← w - u``."""
        return float(STEP_SIZE * (self.h * (w - self.a) + np.exp(log_decay) * w))

    def best_response(self, log_decay: Array | float) -> Array:
        """w*(λ), at which the update u(λ, w*) is 0."""
        return np.asarray(self.h * self.a / (self.h + np.exp(log_decay)))

    def validation_loss(self, w: Array) -> Array:
        """L_V(w), the validation loss of some weights."""
        return 0.5 * self.h_validation * (w - self.b) ** 2

    def hypergradient(self, log_decay: float, w: float, look_back: int | None) -> float:
        """-∂L_V/∂w Σ_{j<i} (1 - ∂u/∂w)^j ∂u/∂λ.

        Args:
            look_back: i; None for the whole series, which is (∂u/∂w)⁻¹.
        """
        du_dw = STEP_SIZE * (self.h + np.exp(log_decay))
        du_dlambda = STEP_SIZE * np.exp(log_decay) * w
        series = 1 / du_dw
        if look_back is not None:
            series = sum((1 - du_dw) ** j for j in range(look_back))
        return float(-self.h_validation * (w - self.b) * series * du_dlambda)


def problem() -> Ridge:
    """Twelve noisy points on a line, every other one for validation.

    The least-squares slope of the validation points is the smaller one.
    """
    rng = np.random.default_rng(15)
    x = rng.normal(size=12)
    y = 0.7 * x + 0.5 * rng.normal(size=12)
    training, validation = slice(0, None, 2), slice(1, None, 2)
    h, h_validation = (x[training] ** 2).mean(), (x[validation] ** 2).mean()
    cross = (x[training] * y[training]).mean()
    cross_validation = (x[validation] * y[validation]).mean()
    return Ridge(h, cross / h, h_validation, cross_validation / h_validation)


def points(selection: NeededRuns, options: Options) -> Points:
    """Run the three kinds of updates on the toy problem."""
    ridge = problem()
    log_decay = np.linspace(-2.2, 2.0, 120)
    best_response = {"log_decay": log_decay, "weight": ridge.best_response(log_decay)}
    validation = {"log_decay": np.nan, "weight": np.linspace(-0.05, 0.75, 81)}
    parts = [
        pd.DataFrame({"part": "best_response", **best_response}),
        _classical(ridge),
        _exact(ridge),
        _approximate(ridge),
        pd.DataFrame({"part": "validation", **validation}),
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame["validation_loss"] = ridge.validation_loss(frame["weight"].to_numpy())
    optimum = float(np.log(ridge.h * (ridge.a / ridge.b - 1)))
    return Points(frame, {"optimum": [optimum, ridge.b]})


def _frame(part: str, path: list[tuple[float, float]], kinds: list[str]) -> pd.DataFrame:
    """Points of a path; the kind of each is the update that led there."""
    log_decay, weight = np.array(path).T
    return pd.DataFrame(
        {"part": part, "path": 0, "log_decay": log_decay, "weight": weight, "kind": kinds}
    )


def _classical(ridge: Ridge) -> pd.DataFrame:
    """Weight updates at fixed hyperparameters, until they have all but converged."""
    paths = []
    for number, (log_decay, weight) in enumerate(CLASSICAL_STARTS):
        path = [(log_decay, weight)]
        while abs(weight - ridge.best_response(log_decay)) > 0.006:
            weight -= ridge.update(log_decay, weight)
            path.append((log_decay, weight))
        paths.append(_frame("classical", path, ["weight"] * len(path)).assign(path=number))
    return pd.concat(paths, ignore_index=True)


def _exact(ridge: Ridge) -> pd.DataFrame:
    """Hyperparameter updates by the implicit function theorem.

    Each is made with the weight at its best response.
    """
    log_decay = START[0]
    path = [(log_decay, float(ridge.best_response(log_decay)))]
    for _ in range(UPDATES["exact"]):
        log_decay -= HYPER_STEP_SIZE * ridge.hypergradient(log_decay, path[-1][1], None)
        path.append((log_decay, float(ridge.best_response(log_decay))))
    return _frame("exact", path, ["hyperparameter"] * len(path))


def _approximate(ridge: Ridge) -> pd.DataFrame:
    """One pass: T weight updates, then a hyperparameter update, again and again.

    The latter takes i terms of the Neumann series at the current weight.
    """
    log_decay, weight = START
    path, kinds = [START], ["weight"]
    for _ in range(UPDATES["approximate"]):
        for _ in range(UPDATE_INTERVAL):
            weight -= ridge.update(log_decay, weight)
            path.append((log_decay, weight))
        log_decay -= HYPER_STEP_SIZE * ridge.hypergradient(log_decay, weight, LOOK_BACK)
        path.append((log_decay, weight))
        kinds += ["weight"] * UPDATE_INTERVAL + ["hyperparameter"]
    return _frame("approximate", path, kinds)


def draw(plotted: Plotted) -> Figure:
    """Weight against hyperparameter, over the validation loss."""
    kinds = {
        "classical": r"Classical weight updates at a fixed $\lambda$",
        "exact": "Exact hyperparameter updates (implicit function theorem)",
        "approximate": f"One-pass approximation ($T={UPDATE_INTERVAL}$, $i={LOOK_BACK}$)",
    }
    updates = [Line2D([], [], label=label, **LINES[kind]) for kind, label in kinds.items()]
    legend = [
        Line2D([], [], color="black", label=r"Best response $w^*(\lambda)$"),
        *updates,
        Patch(facecolor="#d0d0d0", label=r"Validation loss $L_V$ (the darker, the higher)"),
    ]
    figure = style.sheet(style.COLUMN_WIDTH, 2.5, legend=legend, footer=plotted.footer, columns=1)
    paths(figure.subplots(), plotted)
    return figure


def paths(ax: Axes, plotted: Plotted) -> Axes:
    """The best-response line and the three kinds of updates."""
    loss = plotted.of(part="validation")
    ax.set(
        xlim=(-1.6, 1.8),
        ylim=(-0.03, 0.62),
        xlabel=r"Hyperparameter $\lambda$ (log weight decay)",
        ylabel="Weight $w$",
    )
    shade = ax.contourf(
        ax.get_xlim(),
        loss["weight"],
        np.repeat(loss["validation_loss"].to_numpy()[:, None], 2, axis=1),
        levels=14,
        cmap="Greys",
        vmin=0,
        vmax=2.5 * loss["validation_loss"].max(),
        zorder=-1,
    )
    shade.set_edgecolor("face")
    response = plotted.of(part="best_response")
    ax.plot(response["log_decay"], response["weight"], color="black", lw=1.4)
    for part, look in LINES.items():
        for _, path in plotted.of(part=part).groupby("path"):
            arrows(ax, path["log_decay"].to_numpy(), path["weight"].to_numpy(), look["color"])
            ax.plot(path["log_decay"], path["weight"], lw=0.9, mew=0.8, **look)
            curve = {"name": part, "label": part, "colour": look["color"]}
            places.tell(ax, path, curve, SHOWN, path["log_decay"], path["weight"], line="line")
    log_decay, weight = plotted.context["optimum"]
    ax.plot(log_decay, weight, marker="*", color="black", ms=9, mec="white", mew=0.6, zorder=5)
    small: dict[str, Any] = {"textcoords": "offset points", "size": 7.5}
    ax.annotate(r"$\lambda^*$, least $L_V$", (log_decay, weight), (5, 5), **small)
    ax.annotate("start", START, (-6, 0), va="center", ha="right", **small)
    return ax


def arrows(ax: Axes, x: Array, y: Array, colour: str) -> None:
    """Draw a head in the middle of every long enough segment of a path."""
    for start, end in pairwise(np.column_stack([x, y])):
        if np.hypot(*((end - start) / (3.4, 0.65))) > 0.045:
            style.arrow_head(ax, start, start + 0.62 * (end - start), colour)
