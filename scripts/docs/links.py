"""Links of built pages: each has to lead to a file, or to an anchor, of the site itself."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src"}


class _Found(HTMLParser):
    """What a page links to, loads, and can be linked to at."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag."""
        values = {key: value for key, value in attrs if value}
        self.anchors.update(values[key] for key in ("id", "name") if key in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values:
            self.loaded.append(values[LOADED[tag]])


@cache
def _read(page: Path) -> _Found:
    found = _Found()
    found.feed(page.read_text(encoding="utf-8"))
    return found


def dead(site: Path) -> list[str]:
    """Links of a site that lead nowhere on it, and what its pages load from elsewhere.

    Args:
        site: folder of the built pages.
    """
    wrong = []
    for page in sorted(site.rglob("*.html")):
        found = _read(page)
        name = page.relative_to(site).as_posix()
        for target in found.loaded:
            if urlsplit(target).scheme not in ("", "data") or target.startswith("//"):
                wrong.append(f"{name}: loads {target}")
        for target in dict.fromkeys([*found.links, *found.loaded]):
            if not _leads_somewhere(page, target):
                wrong.append(f"{name}: {target}")
    return wrong


def _leads_somewhere(page: Path, target: str) -> bool:
    parts = urlsplit(target)
    if parts.scheme or target.startswith("//"):
        return True
    place = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not place.is_file():
        return False
    anchor = unquote(parts.fragment)
    is_page = place.suffix == ".html" and "/files/" not in place.as_posix()
    return not anchor or not is_page or anchor in _read(place).anchors
