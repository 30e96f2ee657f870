"""Tables as LaTeX, Markdown or CSV text."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class RenderedTable:
    """A table as shown, and the numbers behind it.

    Args:
        body: cells as text; named index levels, columns of one or two levels.
        bold: same shape, which cells stand out.
        data: one row per number, unrounded, with what its statistics are: the CSV.
        label: statistics, n_ok/n, seed and kind of interval, as `statistics.label` words them.
        notes: what was left out.
        missing: what has no runs, with the commands that make them.
    """

    name: str
    title: str
    body: pd.DataFrame
    bold: pd.DataFrame
    data: pd.DataFrame
    label: str
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def csv(table: RenderedTable) -> str:
    """The unrounded numbers, one a line."""
    return table.data.to_csv(index=False, lineterminator="\n")


def _words(key: Hashable) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return ": ".join(str(part) for part in parts if str(part))


def _keys(key: Hashable) -> tuple[str, ...]:
    return tuple(str(part) for part in key) if isinstance(key, tuple) else (str(key),)


def markdown(table: RenderedTable) -> str:
    """A pipe table under its title, bold cells in ``**``, the label and what is left out below."""
    names = [str(name) for name in table.body.index.names]
    header = [*names, *(_words(column) for column in table.body.columns)]
    rows = [header, [":--"] * len(names) + ["--:"] * len(table.body.columns)]
    for place, key in enumerate(table.body.index):
        cells = [
            f"**{text}**" if bold else str(text)
            for text, bold in zip(table.body.iloc[place], table.bold.iloc[place], strict=True)
        ]
        rows.append([*_keys(key), *cells])
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    below = [table.label, *table.notes]
    return (
        "\n".join([f"### {table.title}", "", *lines, "", *(f"- {line}" for line in below)]) + "\n"
    )


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "∞": r"$\infty$",
    "−": "$-$",
    "–": "--",
    "≤": r"$\leq$",
    "·": r"$\cdot$",
    "÷": r"$\div$",
    "≈": r"$\approx$",
}


def escape(text: str) -> str:
    """Plain text as LaTeX, powers of ten (``1.2e-5``) as such."""
    escaped = "".join(_SPECIAL.get(character, character) for character in text)
    return re.sub(r"(?<=[\d)])e(-?\d+)\b", r"$\\cdot 10^{\1}$", escaped)


WIDE = 8  # columns from which the type is smaller


def latex(table: RenderedTable) -> str:
    """A ``table`` environment with booktabs rules, the one package that it needs; notes as comments
    above it.
    """
    body, bold = table.body.map(escape), table.bold
    body.index, body.columns = _escaped(table.body.index), _escaped(table.body.columns)
    styles = bold.map(lambda yes: "textbf:--rwrap;" if yes else "")
    styles.index, styles.columns = body.index, body.columns
    grouped = body.columns.nlevels > 1
    if grouped:  # the index's name into the last line of the header
        body.columns.names = ["", str(body.index.name)]
        body.index.name = None
    text = body.style.apply(lambda _: styles, axis=None).to_latex(
        hrules=True,
        column_format="l" * body.index.nlevels + "r" * body.shape[1],
        multicol_align="c",
        multirow_align="naive",
        position="t",
        position_float="centering",
        label=f"tab:{table.name}",
        caption=escape(f"{table.title} ({table.label})."),
    )
    if grouped:
        text = _with_group_rules(text, body.columns)
    if body.shape[1] > WIDE:
        text = text.replace(
            "\\begin{tabular}", "\\footnotesize\n\\setlength{\\tabcolsep}{3pt}\n\\begin{tabular}", 1
        )
    return (
        "% needs \\usepackage{booktabs}\n" + "".join(f"% {line}\n" for line in table.notes) + text
    )


def _with_group_rules(text: str, columns: pd.Index) -> str:
    """Rules below the first line of the header, one for each group of columns (after one column of
    row names).
    """
    groups = [str(key[0]) for key in columns]
    starts = [
        place for place, group in enumerate(groups) if place == 0 or group != groups[place - 1]
    ]
    ends = [*starts[1:], len(groups)]
    rules = "".join(
        f"\\cmidrule(lr){{{start + 2}-{end + 1}}}" for start, end in zip(starts, ends, strict=True)
    )
    head, line, rest = text.partition(" \\\\\n")
    return head + line + rules + "\n" + rest


def _escaped(index: pd.Index) -> pd.Index:
    if isinstance(index, pd.MultiIndex):
        tuples = [tuple(escape(str(part)) for part in key) for key in index]
        return pd.MultiIndex.from_tuples(tuples, names=list(index.names))
    return pd.Index([escape(str(key)) for key in index], name=index.name)


FORMATS: dict[str, Callable[[RenderedTable], str]] = {
    "latex": latex,
    "markdown": markdown,
    "csv": csv,
}
