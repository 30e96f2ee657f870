"""The sources of the site, laid out in a folder: pages of the repository, with what is generated.

A page says ``<!-- site: NAME -->`` where something generated belongs. Links from one page of the
repository to another lead to the same page of the site; files that are no pages come along; links
to anything else (folders, modules) become plain text.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import cards
import docstrings
import interface
import references
import settings_page

import hpo_bench

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Pages outside of the folder, and what they are called on the site.
ELSEWHERE = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "results/README.md": "results.md",
}
FOLDERS = ("gallery", "theme")
MARK = re.compile(r"^<!-- site: ([^>]+) -->$", re.MULTILINE)
FENCE = re.compile(r"^( *)(```+)[^\n]*\n.*?^\1\2$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]\n]*)\]\((?P<target>[^)\s]+)\)")
IMAGE = re.compile(r'(<img src=")([^"]+)(")')
CARRIED = (".png", ".csv", ".html", ".md", ".cff", ".yaml", ".sh", ".json", "")


def lay_out(folder: Path) -> None:
    """Write the sources of the site into a folder.

    Raises:
        SystemExit: something public is not documented, or a card lacks something; all is named.
    """
    stop_unless_complete()
    folder.mkdir(parents=True, exist_ok=True)
    made = generated()
    for page, name in pages().items():
        text = _with_generated(page, made)
        _write(folder / name, _with_links(text, page, folder))
    _write(folder / "conf.py", (DOCS / "conf.py").read_text(encoding="utf-8"))
    for name in FOLDERS:
        shutil.copytree(DOCS / name, folder / name, dirs_exist_ok=True)


def stop_unless_complete() -> None:
    """End where something that the site has to tell is told nowhere."""
    lacking = [*cards.incomplete(cards.cards()), *interface.undocumented()]
    lacking += [f"configs/config.yaml: a comment on {key}" for key in settings_page.undocumented()]
    if lacking:
        raise SystemExit("\n".join(["not documented:", *(f"  {line}" for line in lacking)]))


def pages() -> dict[Path, str]:
    """The repository's pages, and what each is called on the site."""
    found = {page: page.name for page in sorted(DOCS.glob("*.md"))}
    return found | {ROOT / path: name for path, name in ELSEWHERE.items()}


def generated() -> Mapping[str, Callable[[], str]]:
    """What a page may ask for."""
    return {
        "method cards": lambda: cards.markdown(cards.cards()),
        "settings": settings_page.markdown,
        "interface": interface.markdown,
        "components": interface.components_markdown,
        "first example": _first_example,
    }


def _first_example() -> str:
    """The program in the package's own docstring."""
    return next(part for part in docstrings.parts(hpo_bench.__doc__) if part.is_block).markdown


def _with_generated(page: Path, made: Mapping[str, Callable[[], str]]) -> str:
    text = page.read_text(encoding="utf-8")
    if page == references.PAGE:
        text = references.with_anchors(text)

    def wanted(mark: re.Match[str]) -> str:
        name = mark[1].strip()
        return _block(name) if name.startswith("block ") else made[name]()

    return MARK.sub(wanted, text)


def _block(name: str) -> str:
    """A block of numbers of `docs/reproduction.md`, which `scripts/reproduction.py` makes."""
    text = (DOCS / "reproduction.md").read_text(encoding="utf-8")
    label = name.removeprefix("block ")
    found = re.search(rf"<!-- {label} -->\n(.*?)<!-- end -->", text, re.DOTALL)
    if found is None:
        raise SystemExit(f"docs/reproduction.md has no block {label}")
    return found[1].strip()


# --- links ---


def _with_links(text: str, page: Path, folder: Path) -> str:
    """The text with links that hold on the site; fenced blocks stay as they are."""

    def mended(prose: str) -> str:
        prose = LINK.sub(lambda link: _link(link, page, folder), prose)
        return IMAGE.sub(lambda tag: f"{tag[1]}{_carried(tag[2], page, folder)}{tag[3]}", prose)

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [mended(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, mended(text[end:])])


def _link(link: re.Match[str], page: Path, folder: Path) -> str:
    target, _, anchor = link["target"].partition("#")
    if not target or re.match(r"\w+:", target):
        return link[0]
    place = Path(os.path.normpath(page.parent / target))
    if place.parent == DOCS / "gallery" and place.suffix == ".py":
        return f"[{link['text']}](examples/{place.stem}.rst)"
    known = pages()
    if place in known:
        name = known[place] + (f"#{anchor}" if anchor else "")
        return f"{link['image']}[{link['text']}]({name})"
    if place.is_file() and place.suffix in CARRIED:
        return f"{link['image']}[{link['text']}]({_carried(target, page, folder)})"
    if place.exists():
        return link["text"]
    return link[0]


def _carried(target: str, page: Path, folder: Path) -> str:
    """Where a file of the repository lies on the site: it is copied there."""
    place = Path(os.path.normpath(page.parent / target))
    if not place.is_file():
        return target
    name = f"files/{place.relative_to(ROOT).as_posix()}"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(place, folder / name)
    return name


def _write(file: Path, text: str) -> None:
    """Write a file whose text has changed, so that Sphinx reads no page twice."""
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")
