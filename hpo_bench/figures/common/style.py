"""One look for every figure.

Sizes are in inches as printed, fonts ship with Matplotlib, and no global state is left changed."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

COLUMN_WIDTH = 3.35
PAGE_WIDTH = 6.9
FORMATS = ("pdf", "png", "svg")
GREY = "#4d4d4d"
SHOWN_DPI = 150  # in a notebook

LEGEND_LINE, FOOTER_LINE = 0.155, 0.085  # inches
FOOTER_SIZE = 5.5  # points
FOOTER_LETTERS = 28  # of small print in an inch
LINE_OF_SMALL_PRINT = 6.2  # points
TIED = "\u00a0"  # a space that no line is broken at
HANDLE, LETTER = 0.56, 0.053  # inches of a legend entry beside its text, and for each letter

RC: Mapping[str, Any] = {
    "font.family": ["STIXGeneral", "DejaVu Serif"],  # the second for what the first lacks: β₁
    "mathtext.fontset": "stix",
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlepad": 4,
    "axes.labelpad": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 1.7,
    "ytick.minor.size": 1.7,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "savefig.dpi": 300,
    "figure.dpi": 100,
    "pdf.fonttype": 42,
    "svg.hashsalt": "hpo-bench",
    "svg.fonttype": "path",
}
METADATA: Mapping[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": "hpo-bench"},
    "png": {"Software": "hpo-bench"},
    "svg": {"Date": None, "Creator": "hpo-bench"},
}


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults and `RC` for what is drawn and saved inside the block.

    The user's own settings have no part in it.
    """
    of_process = ("backend", "backend_fallback", "interactive")
    plain = {name: value for name, value in mpl.rcParamsDefault.items() if name not in of_process}
    with mpl.rc_context({**plain, **RC}):  # type: ignore[dict-item]
        yield


class Sheet(Figure):
    """A figure that is saved as it was drawn: by `RC`, not by the user's own settings.

    Its ``told`` are the points on it, of which `places` says where they are.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.told: list[Any] = []

    def savefig(self, *arguments: Any, **options: Any) -> None:
        with style():
            super().savefig(*arguments, **options)

    def _repr_png_(self) -> bytes:
        """The image that a notebook shows."""
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=SHOWN_DPI)
        return content.getvalue()


def sheet(
    width: float,
    height: float,
    *,
    legend: Sequence[Artist] = (),
    footer: str = "",
    columns: int | None = None,
) -> Figure:
    """An empty figure for axes in an area of ``width`` × ``height`` inches.

    Legend and small print go below that.

    Args:
        legend: entries of the shared legend, in order.
        footer: small print: how the numbers were made.
        columns: of the legend; as many as fit by default.
    """
    small_print = textwrap.wrap(footer, int(width * FOOTER_LETTERS))
    count = columns or _legend_columns(legend, width)
    below = LEGEND_LINE * -(-len(legend) // count) + 0.14 if legend else 0.06
    bottom = FOOTER_LINE * len(small_print) + 0.03
    total = height + below + bottom
    figure = Sheet(figsize=(width, total))
    FigureCanvasAgg(figure)
    area = (0, (below + bottom) / total, 1, height / total)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=area))
    if legend:
        figure.legend(
            handles=list(legend),
            loc="center",
            bbox_to_anchor=(0, bottom / total, 1, below / total),
            ncols=count,
            borderaxespad=0,
            borderpad=0,
            labelspacing=0.25,
            columnspacing=1.4,
        )
    figure.text(
        0.04 / width,
        0.03 / total,
        "\n".join(small_print),
        size=FOOTER_SIZE,
        color=GREY,
        va="bottom",
        linespacing=1.1,
    )
    return figure


def lay_out(figure: Figure) -> None:
    """Place the axes, once for all formats.

    Positions are rounded, because the solver's last digits depend on the state of memory.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        bounds = ax.get_position(original=True).bounds
        left, bottom, width, height = (round(float(value), 6) for value in bounds)
        ax.set_position((left, bottom, width, height))


def _legend_columns(entries: Sequence[Artist], width: float) -> int:
    """The most columns that fit beside each other; Matplotlib fills them one after the other."""
    lengths = np.array([HANDLE + LETTER * len(str(entry.get_label())) for entry in entries])
    for count in range(len(entries), 1, -1):
        rows = -(-len(entries) // count)
        if -(-len(entries) // rows) < count:  # some columns would stay empty
            continue
        longer = len(entries) % count or count
        ends = np.cumsum([rows] * longer + [rows - 1] * (count - longer))
        columns = np.split(lengths, ends[:-1])
        if sum(column.max() for column in columns) <= width:
            return count
    return 1


def line(method: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Keyword arguments of ``Axes.plot`` for a method, whose look its runs carry."""
    return {"color": method["colour"], "linestyle": method["line_style"], **changes}


def entry(method: Mapping[str, Any], suffix: str = "") -> Line2D:
    """Legend entry of a method."""
    return Line2D([], [], label=f"{method['label']}{suffix}", **line(method))


def title(axes: Sequence[Axes], titles: Sequence[str], below: Sequence[str] = ()) -> None:
    """Name panels, with ``(a)``, ``(b)``, … where there are several.

    Args:
        below: small print between the name of each panel and its axes.
    """
    texts = below or [""] * len(axes)
    prints = [_small_print(ax, text) for ax, text in zip(axes, texts, strict=True)]
    most = max(map(len, prints), default=0)  # so that all names stand at one height
    pad = RC["axes.titlepad"] + most * LINE_OF_SMALL_PRINT
    for index, (ax, text, lines) in enumerate(zip(axes, titles, prints, strict=True)):
        ax.set_title(f"({chr(97 + index)}) {text}" if len(titles) > 1 else text, pad=pad)
        if lines:
            ax.annotate(
                "\n".join(lines),
                (0.5, 1),
                (0, 3 + (most - len(lines)) * LINE_OF_SMALL_PRINT),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="center",
                size=FOOTER_SIZE,
                color=GREY,
                linespacing=1.1,
            )


def _small_print(ax: Axes, text: str) -> list[str]:
    """Lines of small print that are no wider than an axes and its labels, broken at commas."""
    figure, spec = ax.get_figure(root=True), ax.get_subplotspec()
    columns = spec.get_gridspec().ncols if spec is not None else 1
    width = 0.85 * (figure.get_figwidth() if figure is not None else COLUMN_WIDTH) / columns
    phrases = ", ".join(phrase.replace(" ", TIED) for phrase in text.split(", "))
    lines = textwrap.wrap(phrases, int(width * FOOTER_LETTERS))
    return [line.replace(TIED, " ") for line in lines]


def decapitalised(label: str) -> str:
    """A label for the middle of a sentence: the first letter small, but for an abbreviation."""
    return label if label[1:2].isupper() else f"{label[:1].lower()}{label[1:]}"


def arrow_head(ax: Axes, start: Sequence[float], end: Sequence[float], colour: str) -> None:
    """The head alone of an arrow from ``start`` to ``end``, in data coordinates."""
    look = {"arrowstyle": "-|>", "color": colour, "lw": 0, "mutation_scale": 6}
    look |= {"shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (end[0], end[1]), (start[0], start[1]), arrowprops=look)
