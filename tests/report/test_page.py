"""``hpo_bench.report``: the page is complete, true to its numbers, stands alone, and works in a
browser.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hpo_bench import figures
from hpo_bench.analysis import selection
from hpo_bench.analysis.statistics import bootstrap
from hpo_bench.analysis.statistics.interval import Interval
from hpo_bench.report import drawings, page
from hpo_bench.report.grid import Grid, bounded, number, ranges, strips
from hpo_bench.store.writer import Writer
from tests.make_store import make_run

RANDOM = np.array([3.0, 2.0, 9.0, 11.0, np.nan, 4.0, 8.0, 5.0, 7.0, 6.0, 10.0, 12.0])
OURS = np.array([0.3, 0.2, 0.9, 0.8, 0.7, 0.4, 0.5, np.nan, 0.6, 1.0, 1.1, 1.2])
DRAWN = (
    "fig01",
    "fig08",
    "fig09",
    "fig12",
)  # an illustration, two that the store below can feed, one that it cannot


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate, 0.1, low, high, 10, "bootstrap percentile 95 %", 0)


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some of the figures, to be quick."""
    monkeypatch.setattr(figures, "names", lambda: list(DRAWN))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods as long as the paper's runs, one in shards; a short run, a failed and an
    unfinished one.
    """
    folder = tmp_path_factory.mktemp("report") / "results"
    make_run(folder, "random", "uci_energy", RANDOM, rows=401)
    for part in range(3):
        make_run(
            folder,
            "ours_wd_lr_m",
            "uci_energy",
            OURS[4 * part :][:4],
            first_seed=4 * part,
            rows=401,
        )
    short = make_run(folder, "baydin", "uci_kin8nm", [0.1, 0.2, 0.3])
    with Writer(folder, "uci_power-random-s0-n1-0000") as writer:
        document = {"config": short.config, "config_hash": "0000", "code": {}, "environment": {}}
        writer.fail([0], document, "out of memory in <block> & more")
    (folder / "runs" / "uci_power-random-s1-n1-0000" / "blocks").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def built(results: Path) -> page.Page:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "names", lambda: list(DRAWN))
        return page.build(results)


class Reader(HTMLParser):
    """Start tags of a page; fails on tags that are not closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "path", "circle", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, attribute: str) -> list[str]:
        return [
            attributes[attribute] or "" for _, attributes in self.tags if attribute in attributes
        ]


def texts(grid: Grid) -> list[list[str]]:
    return [[cell.text for cell in row] for row in grid.rows]


def column(grid: Grid, heading: str) -> int:
    return [item.heading for item in grid.columns].index(heading)


# --- the page as a file ---


def test_the_page_stands_alone_and_is_well_formed(built: page.Page) -> None:
    reader = Reader(page.render(built))
    for attribute in ("src", "href"):
        assert all(value.startswith(("#", "data:")) for value in reader.values(attribute))
    text = page.render(built)
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|<iframe|<script src", text)


def test_every_link_has_a_target_and_no_id_is_used_twice(built: page.Page) -> None:
    reader = Reader(page.render(built))
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in reader.values("href") if value.startswith("#")} <= set(ids)
    assert set(reader.values("aria-labelledby")) <= set(ids)


def test_every_image_says_what_it_shows_and_every_table_has_a_caption(built: page.Page) -> None:
    reader = Reader(page.render(built))
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(images) == 3
    assert all(attributes["alt"] and attributes["width"] != "0" for attributes in images)
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("caption") == tags.count("table") > 5
    assert all(
        attributes.get("scope") in ("row", "col") for tag, attributes in reader.tags if tag == "th"
    )


def test_one_store_gives_one_page_to_the_byte(
    results: Path, built: page.Page, few_figures: None
) -> None:
    assert page.render(page.build(results)) == page.render(built)


def test_text_from_the_store_is_never_markup(built: page.Page) -> None:
    text = page.render(built)
    assert "out of memory in &lt;block&gt; &amp; more" in text
    assert "<block>" not in text


def test_writing_replaces_the_whole_file(built: page.Page, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "report.html"
    page.write(built, file)
    page.write(built, file)
    assert file.read_text(encoding="utf-8") == page.render(built)
    assert list(file.parent.iterdir()) == [file]


# --- what is on it ---


def test_facts_count_repetitions_once(built: page.Page) -> None:
    facts = {what: number for number, what in built.facts}
    assert facts["complete runs"] == "5"
    assert facts["repetitions"] == str(len(RANDOM) + len(OURS) + 3)
    assert facts["diverged"] == "2"


def test_claims_have_a_verdict_each(built: page.Page) -> None:
    verdicts = dict(built.verdicts)
    assert sum(verdicts.values()) == len(built.claims.rows)
    supported = [row[0] for row in texts(built.claims) if row[1] == "supported"]
    assert (
        "Tuning weight decay, learning rate and momentum improves on random hyperparameters"
        in supported
    )


def test_final_values_are_those_of_the_statistics(built: page.Page) -> None:
    grid = next(grid for grid in built.finals if grid.name == "finals-uci_energy-test_metric")
    random, ours = texts(grid)
    assert (random[0], random[1], random[-1]) == ("Random", "11/12", "2.00")
    assert (ours[0], ours[1], ours[-1]) == ("Ours (WD+LR+M)", "11/12", "0.200")
    median = bootstrap.bootstrap(np.where(np.isnan(OURS), np.inf, OURS), "median")
    assert grid.rows[1][2].key == pytest.approx(median.estimate)
    assert [row[2].strong for row in grid.rows] == [False, True]
    assert "n_ok/n = 22/24" in grid.note
    assert "seed 0" in grid.note
    assert "bootstrap percentile 95 %" in grid.note


def test_the_papers_statistics_reach_tables_and_figures(results: Path, few_figures: None) -> None:
    paper = page.build(results, "paper", seed=3)
    assert "statistics: paper (diverged runs dropped)" in paper.finals[0].note
    assert "diverged runs are dropped" in paper.rule
    commands = {drawing.name: drawing.command for drawing in paper.drawings}
    assert commands["fig09"].endswith("--stats paper --seed 3")
    assert "the paper's statistics" in next(
        item.small_print for item in paper.drawings if item.name == "fig09"
    )


def test_divergences_name_the_repetition_and_the_step(built: page.Page) -> None:
    rates, which = built.divergence
    shown = [(row[column(which, "Method")], row[column(which, "Seed")]) for row in texts(which)]
    assert shown == [("Random", "4"), ("Ours (WD+LR+M)", "7")]
    assert [row[column(which, "Step")] for row in texts(which)] == ["10", "10"]
    assert [row[column(rates, "Diverged")] for row in texts(rates)] == ["1/12", "1/12"]
    assert "other 1 configuration" in rates.note


def test_provenance_names_every_run_and_puts_shards_together(
    built: page.Page, results: Path
) -> None:
    code, machines, runs = built.provenance
    ids = [run_id for row in texts(runs) for run_id in row[0].split("\n")]
    assert sorted(ids) == sorted(run.run_id for run in selection.find(results))
    assert [row[column(runs, "Seeds")] for row in texts(runs)] == ["0–11", "0–11", "0–2"]
    assert texts(code) == [["1", "0.1.0", "1", "0" * 40, "no", "5"]]
    assert texts(machines)[0][-1] == "5"


def test_what_is_not_complete_is_named(built: page.Page) -> None:
    grid = next(grid for grid in built.runs if grid.name == "incomplete-table")
    assert [row[:2] for row in texts(grid)] == [
        ["uci_power-random-s0-n1-0000", "failed"],
        ["uci_power-random-s1-n1-0000", "unfinished"],
    ]


def test_experiments_are_listed_with_their_scale(few_figures: None, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    run = make_run(folder, "random", "uci_energy", [1.0])
    (folder / "experiments").mkdir()
    record = {
        "experiment": "uci_main",
        "scale": "smoke",
        "overrides": ["a=1"],
        "run_ids": [run.run_id, "x"],
    }
    (folder / "experiments" / "uci_main-smoke.json").write_text(json.dumps(record))
    (folder / "experiments" / "damaged.json").write_text("{")
    grid = page.build(folder).runs[0]
    assert texts(grid) == [["uci_main", "smoke", "a=1", "1/2"]]


def test_figures_that_cannot_be_drawn_name_the_command(built: page.Page) -> None:
    undrawn = next(item for item in built.drawings if item.name == "fig12")
    assert not undrawn.uri
    assert not undrawn.error
    assert all(item.command in page.render(built).replace("&#39;", "'") for item in undrawn.missing)


def test_a_figure_that_fails_is_told_and_the_others_are_drawn(
    results: Path, few_figures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("no\nway")

    monkeypatch.setattr(figures.find("fig08"), "points", fail)
    made = page.build(results)
    assert [bool(item.uri) for item in made.drawings] == [True, False, True, False]
    assert made.drawings[1].error == "ZeroDivisionError: no way"
    assert "Figure 8: " in page.render(made)
    assert "ZeroDivisionError: no way" in page.render(made)


# --- cells ---


def test_cells_sort_by_number_wherever_they_show_one() -> None:
    assert bounded(interval(0.5, 0.4, 0.6)).text == "0.500 [0.400, 0.600]"
    assert (number(np.inf).sort, number(-np.inf).sort, number(None).sort) == (
        "Infinity",
        "-Infinity",
        "",
    )
    assert (number(0.25).sort, number(0.25).text) == ("0.25", "0.250")
    assert bounded(None).sort == ""


def test_strips_share_a_logarithmic_scale() -> None:
    cells, scale = strips(
        [interval(1.0, 0.1, 10.0), interval(10.0, 1.0, np.inf), interval(np.inf, 1.0, np.inf)]
    )
    first, second, third = (cell.strip for cell in cells)
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.low, first.mark, first.high, first.open) == pytest.approx((0.0, 0.5, 1.0, False))
    assert (second.low, second.mark, second.high, second.open) == pytest.approx(
        (0.5, 1.0, 1.0, True)
    )
    assert third.mark is None
    assert scale == "0.100 to 10.0, log"


@pytest.mark.parametrize("bad", [interval(np.nan, np.nan, np.nan), interval(0.0, -1.0, 1.0)])
def test_what_has_no_place_on_a_logarithmic_scale_has_no_strip(bad: Interval) -> None:
    cells, _ = strips([interval(1.0, 0.1, 10.0), bad])
    assert cells[1].strip is None


@pytest.mark.parametrize(
    ("seeds", "text"), [([], ""), ([3], "3"), ([2, 0, 1], "0–2"), ([0, 1, 5, 7, 8], "0–1, 5, 7–8")]
)
def test_ranges(seeds: list[int], text: str) -> None:
    assert ranges(seeds) == text


@pytest.mark.parametrize(
    ("name", "title", "heading"),
    [("fig09", "CDFs", "Figure 9: CDFs"), ("incumbent", "Best", "Best"), ("fig08", "", "Figure 8")],
)
def test_headings_of_figures(name: str, title: str, heading: str) -> None:
    assert drawings.Drawing(name, title).heading == heading


# --- in a browser ---


def browser() -> str:
    found = next(
        filter(
            None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))
        ),
        None,
    )
    if found is None:
        pytest.skip("no chromium found")
    return found


def opened(file: Path, tmp_path: Path) -> tuple[str, str]:
    """The document after its scripts have run, and what the browser logged."""
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=2000",
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


SORTING = """
<script>
const grid = document.getElementById("finals-uci_energy-test_metric");
const buttons = [...grid.querySelectorAll("thead button")];
const press = (name) => buttons.find((item) => item.textContent === name).click();
const named = (row) => row.cells[0].textContent.trim();
const rows = () => [...grid.tBodies[0].rows].map(named).join(",");
const state = (cell) => cell.getAttribute("aria-sort") || "-";
const states = () => [...grid.tHead.rows[0].cells].map(state).join(",");
const say = (text) => console.log("CHECK " + text);
press("Best"); say(rows() + " " + states());
press("Best"); say(rows() + " " + states());
press("Method"); say(rows() + " " + states());
say(document.getElementById("announcement").textContent);
const images = [...document.images];
Promise.all(images.map((image) => image.decode())).then(() => say("decoded " + images.length));
</script>
"""


@pytest.mark.slow
def test_a_browser_shows_the_page_without_errors_and_sorts_its_tables(
    built: page.Page, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    page.write(built, file)
    document, log = opened(file, tmp_path)
    assert "CONSOLE" not in log
    assert document.count("<button") == sum(len(grid.columns) for grid in _grids(built))
    file.write_text(page.render(built).replace("</body>", f"{SORTING}</body>"), encoding="utf-8")
    _, log = opened(file, tmp_path)
    ours, random = "Ours (WD+LR+M)", "Random"
    assert re.findall(r'"CHECK (.*?)", source', log) == [
        f"{ours},{random} -,-,-,-,-,ascending",
        f"{random},{ours} -,-,-,-,-,descending",
        f"{random},{ours} ascending,-,-,-,-,-",
        "UCI Energy: test MSE at the end of training: sorted by Method, ascending",
        "decoded 3",
    ]
    assert log.count("CONSOLE") == 5


@pytest.mark.slow
def test_the_browser_check_would_notice_an_error_and_a_request(
    built: page.Page, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    broken = (
        '<img src="http://127.0.0.1:9/x.png" alt=""><script>undefinedFunction()</script></body>'
    )
    file.write_text(page.render(built).replace("</body>", broken), encoding="utf-8")
    _, log = opened(file, tmp_path)
    assert "undefinedFunction is not defined" in log
    assert "Content Security Policy" in log


def _grids(made: page.Page) -> list[Grid]:
    parts = (made.runs, made.finals, made.pairs, made.divergence, made.provenance)
    return [made.claims, made.time, *(grid for part in parts for grid in part)]
