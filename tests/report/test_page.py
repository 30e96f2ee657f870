"""``hpo_bench.report``: the page is complete, true to its numbers, stands alone, and works in a
browser.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hpo_bench import figures
from hpo_bench.analysis import frames, selection
from hpo_bench.analysis.statistics import bootstrap
from hpo_bench.analysis.statistics.interval import Interval
from hpo_bench.report import drawings, page, sections
from hpo_bench.report.facets import Facets, Membership
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


def test_printed_numbers_have_a_verdict_each_where_there_are_runs_on_their_data(
    built: page.Page, few_figures: None, tmp_path: Path
) -> None:
    assert built.submission is not None
    assert len(built.submission.rows) == 144
    assert sum(count for _, count in built.submission_verdicts) == 144
    assert dict(built.submission_verdicts)["cannot be said"] == 144  # other validation parts
    shown = page.render(built)
    assert shown.count('class="badge cannot"') == 145
    make_run(tmp_path, "random", "uci_wine", RANDOM)
    elsewhere = page.build(tmp_path)
    assert elsewhere.submission is None
    assert 'id="submission"' not in page.render(elsewhere)


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
    assert "median: mean of its bootstrap distribution" in grid.note


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


def test_a_divergence_tells_each_start_that_its_rule_has(results: Path) -> None:
    runs = selection.find(results)
    frame = frames.finals(runs).assign(initial_momentum=np.nan, initial_beta1=0.7)
    which = sections.divergences_grid(runs, frame, Membership((), {}))
    assert which is not None
    started = [item.heading for item in which.columns if item.note == "initial"]
    assert started == ["lr", "Weight decay", "β₁"]
    assert {row[column(which, "β₁")] for row in texts(which)} == {"0.700"}


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


# --- what it can be filtered by, what stands under the pointer, and files ---


def unpacked(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


def test_choices_are_what_is_stored(built: page.Page) -> None:
    choices = {choice.kind: dict(choice.items) for choice in built.choices}
    assert choices == {
        "dataset": {"uci_energy": "UCI Energy", "uci_kin8nm": "Kin8nm"},
        "method": {"random": "Random", "baydin": "Baydin", "ours_wd_lr_m": "Ours (WD+LR+M)"},
        "experiment": {"uci_main": "One-pass methods on the UCI datasets"},
    }


def test_rows_and_figures_say_what_they_are_about(built: page.Page) -> None:
    reader = Reader(page.render(built))
    rows = [attributes for tag, attributes in reader.tags if tag == "tr"]
    kin8nm = [row for row in rows if row.get("data-dataset") == "uci_kin8nm"]
    assert kin8nm
    of_runs = [row for row in kin8nm if "data-experiment" in row]
    assert {row["data-method"] for row in of_runs} == {"baydin"}
    assert {row["data-experiment"] for row in of_runs} == {"uci_main"}
    assert len(kin8nm) == len(of_runs) + 24  # printed numbers of which there is no run
    pair = Facets(("uci_energy",), ("random", "ours_wd_lr_m"), ("uci_main",))
    assert [grid.about for grid in built.pairs] == [(pair,)]
    figures = {attributes["id"]: attributes for tag, attributes in reader.tags if tag == "figure"}
    assert figures["fig09"]["data-method"] == "random|ours_wd_lr_m|baydin"
    assert figures["fig09"]["data-experiment"] == "uci_main"
    assert "data-dataset" not in figures["fig01"]


def test_grids_about_runs_have_facets_for_each_row(built: page.Page) -> None:
    grids = [grid for grid in _grids(built) if grid.about]
    assert len(grids) >= 7
    assert all(len(grid.about) == len(grid.rows) for grid in grids)


def test_an_experiment_has_the_runs_that_its_record_names(
    few_figures: None, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    run = make_run(folder, "random", "uci_energy", [1.0])
    record = {"experiment": "mine", "scale": "small", "overrides": [], "run_ids": [run.run_id, "x"]}
    (folder / "experiments").mkdir()
    (folder / "experiments" / "mine-small.json").write_text(json.dumps(record))
    (choice,) = [each for each in page.build(folder).choices if each.kind == "experiment"]
    assert dict(choice.items)["mine"] == "mine"


def test_a_figure_carries_its_plotted_points_and_where_they_stand(built: page.Page) -> None:
    drawing = next(item for item in built.drawings if item.name == "fig09")
    csv = unpacked(drawing.points.partition(",")[2]).splitlines()
    assert csv[0] == "panel,dataset,method,x,y,low,high"
    found = json.loads(unpacked(drawing.places))
    assert [panel["title"] for panel in found["panels"]] == ["(a) UCI Energy", "(b) Kin8nm"]
    random, ours, baydin = found["series"]
    assert (baydin["panel"], baydin["name"]) == (1, "baydin")
    assert (random["name"], random["of"]) == ("random", "11/12")
    assert (ours["label"], ours["colour"], ours["line"]) == ("Ours (WD+LR+M)", "#4daf4a", "steps")
    assert ours["shown"][0] == ["Test MSE", "x", "", ""]
    first, count = ours["rows"]
    assert {line.split(",")[2] for line in csv[1 + first :][:count]} == {"ours_wd_lr_m"}
    assert len(ours["at"]) == 2 * count


def test_configurations_are_told_in_the_order_of_their_rows(built: page.Page) -> None:
    grid = next(grid for grid in built.runs if grid.name == "runs-table")
    told = json.loads(unpacked(built.beside))
    rows = texts(grid)
    assert [each["label"] for each in told] == [f"{row[1]} on {row[0]}" for row in rows]
    facts = [dict(each["facts"]) for each in told]
    assert [each["n_ok/n"] for each in facts] == [row[column(grid, "n_ok/n")] for row in rows]
    assert [len(each["runs"]) for each in told] == [1, 3, 1]
    assert told[1]["settings"]["method.name"] == "ours_wd_lr_m"
    final = next(grid for grid in built.finals if grid.name == "finals-uci_energy-test_metric")
    assert facts[1]["Test MSE: median"] == texts(final)[1][2]


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
        "--virtual-time-budget=20000",
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
    headings = sum(len(grid.columns) for grid in _grids(built))
    files = 2 * sum(bool(drawing.uri) for drawing in built.drawings)
    assert document.count("<button") == headings + files + len(["Show all"])
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


HELPERS = """
const say = (text) => console.log("CHECK " + text);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const all = (selector) => [...document.querySelectorAll(selector)];
const seen = (selector) => all(selector).filter((node) => !node.closest("[hidden]"));
addEventListener("unhandledrejection", (event) => console.log("rejected " + event.reason));
"""
FILTERING = """
const tick = (value) => document.querySelector(`#filter input[value="${value}"]`).click();
const unique = (items) => [...new Set(items)].sort().join(",");
const stored = () => seen("tr[data-dataset]").filter((row) => !row.closest("#submission-table"));
const about = (kind) => unique(stored().map((row) => row.dataset[kind]));
const figures = () => seen("figure").map((node) => node.id).join(",");
const state = () => say([figures(), about("dataset"), about("method")].join(" ; "));
const rows = seen("tr").length;
state();
tick("uci_kin8nm");
state();
say(seen("nav a").map((link) => link.hash).filter((hash) => /finals|fig0/.test(hash)).join(","));
say(seen("#submission-table tbody tr").length);
tick("uci_kin8nm"); tick("baydin");
state();
tick("baydin"); tick("uci_main");
state();
say(document.querySelector("#filter output").textContent);
document.querySelector("#filter [type=reset]").click();
await wait(50);
say(figures() + " " + (seen("tr").length === rows));
tick("ours_wd_lr_m");
await wait(800);
const drawn = all("#fig09 .overlay path").map((path) => path.getAttribute("stroke"));
say(all("#fig09 .veil").length + " " + drawn);
"""
POINTING = """
const figure = document.getElementById("fig09");
const cursor = figure.querySelector(".cursor");
const tip = figure.querySelector(".tip");
const lines = () => [...tip.children].map((line) => line.textContent).join(" | ");
const words = () => (tip.hidden ? "nothing" : lines());
const press = async (key) => {
  cursor.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
  await wait(700);
  say(key + ": " + words());
};
const point = async (x, y) => {
  const box = cursor.getBoundingClientRect();
  const clientX = box.left + (x / 10000) * box.width;
  const clientY = box.top + (y / 10000) * box.height;
  cursor.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY }));
  await wait(300);
  say("pointer: " + words());
};
say([cursor.tabIndex, cursor.getAttribute("role"), cursor.getAttribute("aria-label")].join(" "));
for (const key of ["ArrowRight", "ArrowRight", "ArrowDown", "Home"]) await press(key);
say(document.getElementById("announcement").textContent);
await press("Escape");
await point(AT);
await point(10, 10);
"""
SAVING = """
const saved = [];
HTMLAnchorElement.prototype.click = function () { saved.push(this); };
for (const button of all("#fig09 .files button")) button.click();
await wait(1500);
const names = saved.map((link) => link.download).sort().join(",");
say(names + " " + saved.every((link) => link.href.startsWith("blob:")));
const boxes = all("#runs-table tbody input");
boxes[0].click(); boxes[1].click();
await wait(800);
const table = document.querySelector("#beside table");
const texts = (row) => [...row.cells].map((cell) => cell.textContent.trim()).join(" | ");
say(texts(table.tHead.rows[0]));
const told = /^(n_ok|Test MSE: median|method.name)/;
for (const row of table.tBodies[0].rows) if (told.test(row.textContent)) say(texts(row));
say(document.querySelector("#beside .command").textContent.split(" ").length);
table.tHead.querySelector("button").click();
await wait(300);
say(boxes.map((box) => box.checked).join(","));
say(document.querySelector("#beside thead").rows[0].cells.length);
"""


def checked(made: page.Page, script: str, tmp_path: Path) -> list[str]:
    """What a script says on the page; fails on anything else that is logged."""
    file = tmp_path / "report.html"
    program = f"<script>{HELPERS}(async () => {{{script}}})();</script></body>"
    file.write_text(page.render(made).replace("</body>", program), encoding="utf-8")
    _, log = opened(file, tmp_path)
    said = re.findall(r'"CHECK (.*?)", source', log)
    assert log.count("CONSOLE") == len(said), log
    return said


@pytest.mark.slow
def test_filters_leave_what_was_chosen(built: page.Page, tmp_path: Path) -> None:
    everything, kin8nm, links, printed, baydin, experiment, counted, reset, drawn = checked(
        built, FILTERING, tmp_path
    )
    assert printed == "27"
    assert everything.startswith("fig08,fig09,fig01 ; uci_energy,uci_kin8nm ; baydin,")
    assert kin8nm == baydin == "fig08,fig09 ; uci_kin8nm ; baydin"
    assert links == "#finals-uci_kin8nm-test_metric,#fig08,#fig09"
    assert experiment == everything.replace(",fig01", "")
    assert re.fullmatch(r"2 of 3 figures, \d+ of \d+ rows", counted)
    assert reset == "fig08,fig09,fig01 true"
    assert drawn == "2 #4daf4a"  # the other panel has none of it


@pytest.mark.slow
def test_a_point_is_told_under_the_pointer_and_by_the_keyboard(
    built: page.Page, tmp_path: Path
) -> None:
    drawing = next(item for item in built.drawings if item.name == "fig09")
    at = json.loads(unpacked(drawing.places))["series"][1]["at"]
    x, y = sum(at[0:6:2]), sum(at[1:6:2])  # of the third point of Ours
    said = checked(built, POINTING.replace("AT", f"{x + 10}, {y - 20}"), tmp_path)
    name, first, second, other, home, announced, left, pointer, away = said
    share = "share of runs at or below it: "
    ours = "Ours (WD+LR+M) | n_ok/n = 11/12 | (a) UCI Energy | Test MSE: "
    random = "Random | n_ok/n = 11/12 | (a) UCI Energy | Test MSE: "
    assert name.startswith(f"0 application Points of {drawing.heading}: left and right")
    assert first.startswith(f"ArrowRight: {random}2 | {share}0.0833 [")
    assert second.startswith(f"ArrowRight: {random}3 | {share}0.167 [")
    assert other.startswith(f"ArrowDown: {ours}1.2 | {share}0.917 [")
    assert home.startswith(f"Home: {ours}0.2 | {share}0.0833 [")
    assert f"Home: {announced}" == home.replace(" | ", ", ")
    assert (left, away) == ("Escape: nothing", "pointer: nothing")
    assert pointer.startswith(f"pointer: {ours}0.4 | {share}0.25 [")


@pytest.mark.slow
def test_files_are_saved_and_configurations_stand_side_by_side(
    built: page.Page, tmp_path: Path
) -> None:
    saved, heads, ok, median, method, words, ticked, columns = checked(built, SAVING, tmp_path)
    assert saved == "fig09.csv,fig09.png true"
    assert heads == " | Random on UCI Energy × | Ours (WD+LR+M) on UCI Energy ×"
    assert ok == "n_ok/n | 11/12 | 11/12"
    assert median.startswith("Test MSE: median | ")
    assert method == "method.name | random | ours_wd_lr_m"
    assert words == "4"  # hpo-bench compare RUN RUN
    assert (ticked, columns) == ("false,true,false", "2")


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
    single = [made.claims, made.time, *([made.submission] if made.submission else [])]
    return [*single, *(grid for part in parts for grid in part)]
