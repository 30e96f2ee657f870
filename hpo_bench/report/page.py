"""From a results store to one HTML file that needs nothing else."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2

from hpo_bench import __version__
from hpo_bench.analysis import frames, selection, submission
from hpo_bench.analysis.claims import DATASET, WEIGHT_UPDATES, claims
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics.interval import Statistics
from hpo_bench.errors import UserError
from hpo_bench.figures.common.base import RULES, Options
from hpo_bench.report import beside, facets, sections
from hpo_bench.report.drawings import Drawing, drawings, packed
from hpo_bench.report.facets import Choice, Membership
from hpo_bench.report.grid import Grid
from hpo_bench.store import index
from hpo_bench.store.files import atomic
from hpo_bench.store.runs import Run, runs_folder

CLAIMS_COMMAND = "hpo-bench reproduce uci_main"


@dataclass(frozen=True)
class Page:
    """All that is on the page; the same for the same store.

    Args:
        results: the store's folder as the user wrote it.
        facts: number and what it counts, for a first look.
        rule: how diverged runs count.
        notes: configurations that were left out of the results or differ from the others.
        submission: what the paper printed; None where there is no run on any of its datasets.
        submission_verdicts: how many of its numbers have each verdict.
        submission_by_chance: how many of them would differ by chance.
        choices: what the page can be filtered by.
        beside: what is told of configurations side by side (`beside.configurations`), packed.
    """

    results: str
    statistics: Statistics
    rule: str
    seed: int
    facts: tuple[tuple[str, str], ...]
    verdicts: tuple[tuple[str, int], ...]
    claims: Grid
    claims_about: str
    claims_command: str
    submission: Grid | None
    submission_verdicts: tuple[tuple[str, int], ...]
    submission_by_chance: float
    runs: tuple[Grid, ...]
    notes: tuple[str, ...]
    finals: tuple[Grid, ...]
    pairs: tuple[Grid, ...]
    time: Grid
    divergence: tuple[Grid, ...]
    drawings: tuple[Drawing, ...]
    provenance: tuple[Grid, ...]
    choices: tuple[Choice, ...]
    beside: str
    version: str = __version__


def build(
    results_dir: str | Path,
    statistics: Statistics = "default",
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Page:
    """Compute the page from the runs of a store.

    Args:
        seed: of bootstraps.
        say: told about each figure as soon as it is done.

    Raises:
        UserError: the store is empty, or a run is damaged (named).
    """
    runs = selection.find(results_dir)
    compared = selection.comparable(runs)
    frame = frames.finals(runs)
    verdicts = claims(runs, seed)
    cells = submission.judge(runs, seed)
    on_their_data = any(run.dataset_name in submission.PROTOCOLS for run in runs)
    listing = index.read(runs_folder(results_dir))
    failed = [entry for entry in listing.entries.values() if entry.status != "complete"]
    drawn = drawings(runs, str(results_dir), Options(statistics, seed=seed), say)
    shown = {drawing.name: drawing.run_ids for drawing in drawn}
    belongs = facets.membership(Path(results_dir), runs, shown)
    drawn = [_about(drawing, runs, belongs) for drawing in drawn]
    return Page(
        results=str(results_dir),
        statistics=statistics,
        rule=RULES[statistics],
        seed=seed,
        facts=_facts(runs, int((frame["status"] != "ok").sum())),
        verdicts=tuple(sections.verdicts(verdicts)),
        claims=sections.claims_grid(verdicts, seed),
        claims_about=f"{_name(runs, DATASET)} with {WEIGHT_UPDATES} weight updates",
        claims_command=_claims_command(str(results_dir)),
        submission=sections.submission_grid(cells, runs, seed, belongs) if on_their_data else None,
        submission_verdicts=tuple(submission.verdicts(cells).items()),
        submission_by_chance=submission.expected_to_differ(cells),
        runs=_present(
            sections.experiments_grid(Path(results_dir), runs),
            sections.runs_grid(runs, frame, compared.runs, belongs),
            sections.incomplete_grid(failed, listing.unfinished),
        ),
        notes=compared.notes,
        finals=tuple(sections.final_grids(compared.runs, statistics, seed, belongs)),
        pairs=tuple(sections.pair_grids(compared.runs, statistics, seed, belongs)),
        time=sections.time_grid(compared.runs, seed, belongs),
        divergence=_present(
            sections.rates_grid(runs, frame, belongs),
            sections.divergences_grid(runs, frame, belongs),
        ),
        drawings=tuple(drawn),
        provenance=tuple(sections.provenance_grids(runs, belongs)),
        choices=belongs.choices(runs),
        beside=packed(beside.configurations(runs, statistics, seed)),
    )


def _about(drawing: Drawing, runs: Runs, membership: Membership) -> Drawing:
    """A figure with what it is about: its runs, and the experiments whose figure it is.

    Of a figure of other stores it is what stands on its panels.
    """
    shown = set(drawing.run_ids)
    about = membership.facets(run for run in runs if run.run_id in shown)
    if not about.datasets:  # its runs are in a store of their own, such as audits
        about = drawing.about
    whose = tuple(plan.name for plan in membership.plans if drawing.name in plan.figures)
    having_it = tuple(name for name in about.experiments if name in whose)
    return replace(drawing, about=replace(about, experiments=having_it))


def _claims_command(results: str) -> str:
    """What makes the runs that the claims are about."""
    if results == "results":
        return CLAIMS_COMMAND
    return f"{CLAIMS_COMMAND} results_dir={results}"


def _present(*grids: Grid | None) -> tuple[Grid, ...]:
    return tuple(grid for grid in grids if grid is not None)


def _name(runs: Runs, dataset: str) -> str:
    return next((run.dataset_label for run in runs if run.dataset == dataset), dataset)


def _facts(runs: Sequence[Run], diverged: int) -> tuple[tuple[str, str], ...]:
    """Numbers and what they count, for a first look."""
    repetitions = {(selection.configuration(run), seed) for run in runs for seed in run.seeds}
    seconds = math.fsum(run.seconds.get("total", 0.0) for run in runs)
    return (
        (str(len(selection.by_dataset(runs))), "datasets"),
        (str(len(selection.by_method(runs))), "methods"),
        (str(len(runs)), "complete runs"),
        (str(len(repetitions)), "repetitions"),
        (str(diverged), "diverged"),
        (_duration(seconds), "of computing"),
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def render(page: Page) -> str:
    """The page as HTML; style, scripts and images are inside it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hpo_bench.report", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html").render(page=page)


def check_writable(out: Path) -> None:
    """Refuse a file that cannot be written before anything is computed.

    Raises:
        UserError: says why.
    """
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file in it, as {out / 'report.html'}")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(
            f"--out {out}: cannot write there ({folder} is not a folder that may be written to)"
        )


def write(page: Page, out: Path) -> None:
    """Write the page; the file appears whole or not at all.

    Raises:
        UserError: it cannot be written there.
    """
    text = render(page)
    try:
        with atomic(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot write there ({error.strerror or error})") from None
