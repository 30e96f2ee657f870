"""Docstrings taken apart: paragraphs of prose, and blocks that are set in from them.

The docstrings of the package are plain text. What is set in from the prose around it is a program
or a formula; the sections that follow (``Args:`` and others) are Google's.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")


@dataclass(frozen=True)
class Part:
    """A paragraph of a docstring.

    Args:
        text: without its indentation.
        is_block: whether it is set in: a program or a formula.
    """

    text: str
    is_block: bool

    @property
    def language(self) -> str:
        """What a block is written in: ``python``, or ``text`` for a formula."""
        if "=" not in self.text and "(" not in self.text:
            return "text"
        try:
            ast.parse(self.text)
        except SyntaxError:
            return "text"
        return "python"

    @property
    def markdown(self) -> str:
        """The same in Markdown."""
        if not self.is_block:
            return self.text
        return f"```{self.language}\n{self.text}\n```"


def parts(docstring: str | None) -> list[Part]:
    """The paragraphs of a docstring, up to the first of Google's sections."""
    found: list[Part] = []
    for lines in _paragraphs(inspect.cleandoc(docstring or "").splitlines()):
        if SECTION.match(lines[0]):
            break
        is_block = all(line.startswith("    ") for line in lines)
        text = textwrap.dedent("\n".join(lines)) if is_block else "\n".join(lines)
        if is_block and found and found[-1].is_block:
            text = f"{found.pop().text}\n\n{text}"
        found.append(Part(text, is_block))
    return found


def in_restructured_text(lines: Sequence[str]) -> list[str]:
    """A docstring's lines with its blocks as Sphinx reads them; the sections stay."""
    made: list[str] = []
    paragraphs = list(_paragraphs(lines))
    begun = False
    for place, paragraph in enumerate(paragraphs):
        if SECTION.match(paragraph[0]):
            rest = [[*following, ""] for following in paragraphs[place:]]
            return [*made, *(line for following in rest for line in following)]
        is_block = all(line.startswith("    ") for line in paragraph)
        if is_block and not begun:
            block = Part(textwrap.dedent("\n".join(paragraph)), True)
            made += [f".. code-block:: {block.language}", ""]
        made += [*paragraph, ""]
        begun = is_block
    return made


def _paragraphs(lines: Sequence[str]) -> Iterator[list[str]]:
    """Lines between empty lines."""
    paragraph: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield paragraph
            paragraph = []
