"""The site, without building it: what is generated is complete, and links hold."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import hpo_bench
from tests.pages import ROOT

NAMES = ("cards", "docstrings", "interface", "links", "references", "settings_page", "sources")


@pytest.fixture(scope="module")
def site() -> Iterator[SimpleNamespace]:
    """The modules of ``scripts/docs``."""
    sys.path.insert(0, str(ROOT / "scripts" / "docs"))
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in NAMES})
    finally:
        sys.path.remove(str(ROOT / "scripts" / "docs"))
        for name in NAMES:
            del sys.modules[name]


@pytest.mark.slow
def test_every_method_has_a_card_that_lacks_nothing(site):
    made = site.cards.cards()
    assert {card.name for card in made} == {
        file.stem for file in (ROOT / "configs" / "method").glob("*.yaml")
    }
    assert site.cards.incomplete(made) == []
    page = site.cards.markdown(made)
    for card in made:
        assert page.count(f"(card-{card.name})=") == 1
        assert card.example in page
        assert card.comment.fails.partition("It fails")[2] in page
    groups = {card.name: card.group for card in made}
    assert groups["random_adam"] == "plain"
    assert groups["prodigy"] == "self-tuning"
    assert groups["ultimate"] == "one-pass"
    assert groups["pbt_ours_wd_lr_m"] == "search"
    (headline,) = (card for card in made if card.name == "ours_wd_lr_m")
    assert headline.cost == "11 gradients and 4 Hessian-vector products for every 10 weight updates"


def test_a_comment_is_taken_apart(site):
    lines = ["@package _global_", "Ours (Li et al. 2020): good. And more.", "It fails, or", "not."]
    text = "".join([*(f"# {line}\n" for line in lines), "method:\n# no\n"])
    found = site.cards.comment(text)
    assert found.line == "Ours (Li et al. 2020): good."
    assert found.rest == "And more."
    assert found.fails == "It fails, or not."
    assert found.needs == ""


@pytest.mark.slow
def test_what_a_card_lacks_is_named(site):
    bare = site.cards.Card(
        "x", "X", "plain", site.cards.Comment("Y."), (), "nothing", "", ("Nobody 1900",)
    )
    lacking = "\n".join(site.cards.incomplete([bare]))
    assert "It fails" in lacking
    assert "Nobody 1900" in lacking


def test_works_are_cited_once_and_are_on_the_page(site):
    text = "Lorraine et al. 2020; Ivgi, Hinder and Carmon 2023, Donini et\nal. (2020), the paper."
    assert site.references.cited(text) == [
        site.references.THE_PAPER,
        "Lorraine et al. 2020",
        "Ivgi, Hinder and Carmon 2023",
        "Donini et al. 2020",
    ]
    assert set(site.references.cited(text)) <= set(site.references.entries())


def test_every_setting_has_a_comment_and_stands_on_the_page(site):
    assert site.settings_page.undocumented() == []
    page = site.settings_page.markdown()
    for keys in site.settings_page.settings().values():
        for key in keys:
            assert page.count(f"| `{key}` |") == 1


def test_every_public_name_and_argument_is_documented(site, monkeypatch):
    assert site.interface.undocumented() == []
    page = site.interface.markdown()
    for name in site.interface.public():
        assert f"hpo_bench.{name}\n" in page

    def bare(there: int) -> None:
        """Args:
        here: and nothing else.
        """

    monkeypatch.setattr(hpo_bench, "run", bare)
    monkeypatch.setattr(hpo_bench, "sweep", lambda: None)
    assert site.interface.undocumented() == [
        "hpo_bench.run: its argument there under 'Args:'",
        "hpo_bench.sweep: a docstring",
    ]


def test_programs_and_formulas_of_docstrings_are_told_from_prose(site):
    text = """It does.

        x = run(1)

        y = 2

    More.

        w ← w - u

    Args:
        x: no.
    """
    parts = site.docstrings.parts(text)
    blocks = ["x = run(1)\n\ny = 2", "w ← w - u"]
    assert [part.text for part in parts] == ["It does.", blocks[0], "More.", blocks[1]]
    assert [part.language for part in parts if part.is_block] == ["python", "text"]


@pytest.mark.slow
def test_the_sources_are_whole(site, tmp_path):
    site.sources.lay_out(tmp_path)
    pages = {page.stem: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.md")}
    known = {*pages, "examples/index", *(f"examples/{name}" for name in examples())}
    shown = re.findall(r"^(?::link: |.+ <)?([\w/]+)>?$", pages["index"], re.MULTILINE)
    assert {*pages, "examples/index"} - {"index"} <= set(shown) <= known
    for name, text in pages.items():
        assert not site.sources.MARK.search(text), name
        for target in site.sources.LINK.findall(site.sources.FENCE.sub("", text)):
            path = target[2].partition("#")[0]
            if path and not re.match(r"\w+:|examples/", path):
                assert (tmp_path / path).is_file(), f"{name}: {target[2]}"


def examples() -> list[str]:
    return [file.stem for file in sorted((ROOT / "docs" / "gallery").glob("*.py"))]


def test_examples_have_a_title_and_draw():
    assert len(examples()) >= 8
    for name in examples():
        text = (ROOT / "docs" / "gallery" / f"{name}.py").read_text(encoding="utf-8")
        title, line = text.splitlines()[1:3]
        assert line == "=" * len(title)
        assert re.search(r"^figure\b.* = ", text, re.MULTILINE)


def test_a_dead_link_is_found_and_so_is_what_is_loaded_from_elsewhere(site, tmp_path: Path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="#top"></a><a href="b.html#there"></a><a href="b.html#gone"></a>'
        '<a href="none.html"></a><a href="https://elsewhere"></a><script src="https://cdn"></script>'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>')
    assert site.links.dead(tmp_path) == [
        "a.html: loads https://cdn",
        "a.html: b.html#gone",
        "a.html: none.html",
    ]
