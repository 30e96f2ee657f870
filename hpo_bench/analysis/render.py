"""Tables as LaTeX, Markdown or CSV text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class RenderedTable:
    """A table as shown, and the numbers behind it.

    Args:
        body: cells as text; named index levels, columns of one or two levels.
        bold: same shape, which cells stand out.
        data: one row per number, unrounded, with what its statistics are: the CSV.
        label: statistics, n_ok/n, seed and kind of interval, in the words of
            `statistics.interval.label`.
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


def _levels(key: Hashable) -> list[str]:
    """What an index or a column is called on each of its levels."""
    parts = key if isinstance(key, tuple) else (key,)
    return [str(part) for part in parts]


def markdown(table: RenderedTable) -> str:
    """A pipe table under its title, bold cells in ``**``, the label and what is left out below."""
    names = [str(name) for name in table.body.index.names]
    columns = [": ".join(filter(None, _levels(column))) for column in table.body.columns]
    lines = [
        f"### {table.title}",
        "",
        _markdown_row([*names, *columns]),
        _markdown_row([":--"] * len(names) + ["--:"] * len(columns)),
    ]
    for place, key in enumerate(table.body.index):
        cells = _levels(key)
        for text, bold in zip(table.body.iloc[place], table.bold.iloc[place], strict=True):
            cells.append(f"**{text}**" if bold else str(text))
        lines.append(_markdown_row(cells))
    lines.append("")
    lines += [f"- {line}" for line in (table.label, *table.notes)]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


LATEX = {  # characters that mean something else, or nothing, to LaTeX
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
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"(?<=[\d)])e(-?\d+)\b", r"$\\cdot 10^{\1}$", escaped)


WIDE = 8  # a table of more columns has smaller type
SMALLER = "\\footnotesize\n\\setlength{\\tabcolsep}{3pt}\n"


def latex(table: RenderedTable) -> str:
    """A ``table`` environment with booktabs rules, the one package that it needs.

    Notes are comments above it.
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
        text = text.replace("\\begin{tabular}", f"{SMALLER}\\begin{{tabular}}", 1)
    comments = ["needs \\usepackage{booktabs}", *table.notes]
    return "".join(f"% {line}\n" for line in comments) + text


def _with_group_rules(text: str, columns: pd.Index) -> str:
    """The table with rules below the first line of its header, one for each group of columns.

    One column of row names comes before the groups.
    """
    rules = ""
    column = 2
    for _, group in itertools.groupby(columns, key=lambda key: str(key[0])):
        last = column + len(list(group)) - 1
        rules += f"\\cmidrule(lr){{{column}-{last}}}"
        column = last + 1
    head, line, rest = text.partition(" \\\\\n")
    return head + line + rules + "\n" + rest


def _escaped(index: pd.Index) -> pd.Index:
    keys = [tuple(map(escape, _levels(key))) for key in index]
    if isinstance(index, pd.MultiIndex):
        return pd.MultiIndex.from_tuples(keys, names=list(index.names))
    return pd.Index([key for (key,) in keys], name=index.name)


FORMATS: dict[str, Callable[[RenderedTable], str]] = {
    "latex": latex,
    "markdown": markdown,
    "csv": csv,
}
