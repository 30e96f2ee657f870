"""What is cited in a text, looked up in `docs/references.md`."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "references.md"
ENTRY = re.compile(r"^\*\*(.+? \d{4})\*\*", re.MULTILINE)
NAME = r"[A-Z][a-zé]+"
CITATION = re.compile(rf"(?:{NAME}, )*{NAME}(?: et al\.| and {NAME})? \(?(?:19|20)\d\d\b")
THE_PAPER = "Clarke et al. 2022"


def entries() -> list[str]:
    """The works that the page lists, by author and year."""
    return ENTRY.findall(PAGE.read_text(encoding="utf-8"))


def cited(text: str, with_paper: bool = True) -> list[str]:
    """The works that a text cites, each once, in its order.

    Args:
        text: prose, with citations such as ``Baydin et al. 2018``.
        with_paper: whether a text that speaks of "the paper" cites it.
    """
    found = [work.replace("(", "") for work in CITATION.findall(" ".join(text.split()))]
    if with_paper and re.search(r"[Tt]he paper\b", text):
        found.insert(0, THE_PAPER)
    return list(dict.fromkeys(found))


def anchor(work: str) -> str:
    """The anchor of a work on the page."""
    return re.sub(r"[^a-z0-9]+", "-", work.lower()).strip("-")


def with_anchors(text: str) -> str:
    """The page with an anchor before each work."""
    return ENTRY.sub(lambda entry: f"({anchor(entry[1])})=\n\n{entry[0]}", text)
