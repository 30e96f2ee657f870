"""``hpo-bench reproduce``: planning an experiment, computing what is missing, drawing the rest."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo_bench.cli.completion import experiments, scales
from hpo_bench.cli.completion import overrides as complete_overrides
from hpo_bench.core import checks
from hpo_bench.errors import RunError, UserError

if TYPE_CHECKING:
    from hpo_bench.experiments.carry_out import Tally
    from hpo_bench.experiments.definition import Experiment
    from hpo_bench.experiments.estimate import Estimate
    from hpo_bench.experiments.expand import Expansion, Job
    from hpo_bench.store.held import Wanted


def reproduce(
    experiment: Annotated[
        str,
        typer.Argument(
            help="Which one; hpo-bench list experiments shows all.", autocompletion=experiments
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OVERRIDE]...",
            help="dataset=a,b method=a,b repetitions=n or any setting=value.",
            autocompletion=complete_overrides,
        ),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            "--scale",
            help="smoke (a minute), small (ten minutes), cpu (three hours on two cores, of "
            "penn_treebank and cifar10) or paper (the published budget).",
            autocompletion=scales,
        ),
    ] = "paper",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and compute nothing.")
    ] = False,
    results: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="Folder of the results.")
    ] = Path("results"),
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Compute failed runs only.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Compute again what is stored.")] = False,
    on: Annotated[
        str | None, typer.Option("--on", help="Where to compute: threads, ray or ray://HOST:PORT.")
    ] = None,
    config_dir: Annotated[
        Path | None, typer.Option("--config-dir", metavar="DIR", help="Also look for yamls in DIR.")
    ] = None,
) -> None:
    """Carry out an experiment of the paper.

    What is stored is kept, the rest is computed, then figures and tables are made. May be started
    several times on one folder, to share the work, and again after any interruption.
    """
    from hpo_bench.experiments import definition as definitions
    from hpo_bench.store import index

    words = list(overrides or [])
    if force and retry_failed:
        raise UserError("--force and --retry-failed do not go together")
    if config_dir is not None:
        checks.folder("--config-dir", config_dir)
    for word in [word for word in words if word.startswith("results_dir=")]:
        results = checks.path("results_dir", _one_value(word))
        words.remove(word)
    index.runs_folder(results)  # a mistake in it is told before anything is fetched
    definition = definitions.narrow(definitions.read(experiment, scale), words)
    _run(definition, words, results, dry_run, retry_failed, force, on, config_dir)


def _one_value(override: str) -> Any:
    from hpo_bench.settings.compose import values_of

    values = values_of(override)
    if len(values) > 1:
        raise UserError(f"{override}: names several values where one is meant")
    return values[0]


def _run(
    definition: Experiment,
    words: Sequence[str],
    results: Path,
    dry_run: bool,
    retry_failed: bool,
    force: bool,
    on: str | None,
    config_dir: Path | None,
) -> None:
    from hpo_bench.experiments import records
    from hpo_bench.store.writer import tidy

    out = results / "reproduced" / f"{definition.name}-{definition.scale}"
    if not (force or dry_run or config_dir):
        finished = records.finished_record(results, definition.name, definition.scale, words)
        if finished is not None:
            print(
                f"{definition.name}, {definition.scale}: "
                f"all {len(finished)} runs are stored, nothing to compute"
            )
            tidy(results, [each.run_id for each in finished])
            if not out.is_dir() or not records.was_drawn(
                results, definition.name, definition.scale, words
            ):
                if _draw(definition, finished, results, out):
                    records.note_drawn(results, definition.name, definition.scale, words)
            else:
                print(f"figures and tables: {out}")
            return
    expansion = _expand(definition, results, force, config_dir, dry_run)
    pending = _plan(expansion, results, retry_failed, force)
    if not expansion.jobs:
        raise UserError("; ".join(expansion.missing) or f"{definition.name}: no runs left of it")
    _tell(expansion.missing)
    for line in expansion.made_up:
        print(
            f"not here, so the plan is of made-up data of that size, and nothing counts as stored: "
            f"{line}",
            file=sys.stderr,
        )
    tally = None
    if not dry_run:
        is_drawn = not config_dir and records.was_drawn(
            results, definition.name, definition.scale, words
        )
        if not config_dir:
            records.remember(results, expansion, words)
        tally = _compute(pending, definition, on)
        requests = [job.wanted for job in expansion.jobs]
        tidy(results, [job.run_id for job in expansion.jobs])
        if tally.computed or not is_drawn or not out.is_dir():
            is_drawn = _draw(definition, requests, results, out)
        if is_drawn and not config_dir:
            records.note_drawn(results, definition.name, definition.scale, words)
    _close(tally, expansion.missing)


def _expand(
    definition: Experiment, results: Path, force: bool, config_dir: Path | None, dry_run: bool
) -> Expansion:
    from hpo_bench.experiments import expand
    from hpo_bench.progress import console

    screen = console(stderr=True)
    if not screen.is_terminal:
        return expand.expand(
            definition, results, force=force, config_dir=config_dir, may_make_up=dry_run
        )
    from rich.text import Text

    with screen.status(Text("planning …")) as status:
        return expand.expand(
            definition,
            results,
            force=force,
            config_dir=config_dir,
            on_group=lambda group: status.update(
                Text(f"planning {group.method} on {group.dataset} …")
            ),
            may_make_up=dry_run,
        )


def _plan(expansion: Expansion, results: Path, retry_failed: bool, force: bool) -> list[Job]:
    """Print the plan; returns the runs to compute, whose repetitions no complete run holds."""
    from hpo_bench.experiments.estimate import Calibration
    from hpo_bench.experiments.expand import units
    from hpo_bench.store import held, index
    from hpo_bench.store.runs import intact_packs, runs_folder
    from hpo_bench.system.inherited import tell

    intact_packs(results)  # what a damaged one holds would be computed again without a word
    listing = index.read(runs_folder(results))
    requests = [job.wanted for job in expansion.jobs]
    lacking = held.missing(listing, requests)
    if force:
        lacking = {job.run_id: set(job.settings.seeds) for job in expansion.jobs}
    failed = {run_id for run_id, entry in listing.entries.items() if entry.status == "failed"}
    pending = [job for job in expansion.jobs if lacking[job.run_id]]
    if retry_failed and not force:
        pending = [job for job in pending if job.run_id in failed]
    calibration = Calibration(
        lambda name: tell(f"measuring how fast this machine is on {name} (some seconds)")
    )
    estimates = [(unit, calibration.estimate(unit)) for unit in units(pending)]
    if expansion.jobs:
        _print_plan(expansion, {job.run_id: len(lacking[job.run_id]) for job in pending}, estimates)
    earlier = [] if force else held.of_earlier_versions(listing, requests)
    if earlier:
        verb = "is" if len(earlier) == 1 else "are"
        print(
            f"{len(earlier)} of the stored runs {verb} of an earlier version, "
            "whose results differ from today's in rounding alone (CHANGELOG, Numbers); "
            "--force computes them again"
        )
    return pending


def _print_plan(
    expansion: Expansion,
    pending: Mapping[str, int],
    estimates: Sequence[tuple[tuple[Job, ...], Estimate]],
) -> None:
    from rich.table import Table

    from hpo_bench.experiments.estimate import gibibytes
    from hpo_bench.progress import console, duration

    definition = expansion.experiment
    table = Table("part", "dataset", "method", box=None, pad_edge=False)
    for heading in ("runs", "stored", "repetitions", "weight updates", "shards", "time", "memory"):
        table.add_column(heading, justify="right")
    rows: dict[tuple[str, str, str], list[Job]] = {}
    for job in expansion.jobs:
        rows.setdefault(_row_of(job), []).append(job)
    costs: dict[tuple[str, str, str], list[Estimate]] = {}
    seconds = 0.0
    for unit, estimate in estimates:
        costs.setdefault(_row_of(unit[0]), []).append(estimate)
        # The estimate is of whole runs: of some, other runs hold a part.
        repetitions_to_compute = sum(pending[job.run_id] for job in unit)
        repetitions = sum(job.settings.repetitions for job in unit)
        seconds += estimate.seconds * repetitions_to_compute / repetitions
    for key, jobs in rows.items():
        lengths = sorted({job.settings.weight_updates for job in jobs})
        shards, time, memory = "-", "-", "-"
        if key in costs:
            shards = str(sum(estimate.shards for estimate in costs[key]))
            time = duration(sum(estimate.seconds for estimate in costs[key]))
            memory = gibibytes(max(estimate.bytes for estimate in costs[key]))
        table.add_row(
            *key,
            str(len(jobs)),
            str(sum(job.run_id not in pending for job in jobs)),
            str(sum(job.settings.repetitions for job in jobs)),
            str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]}-{lengths[-1]}",
            shards,
            time,
            memory,
        )
    screen = console()
    screen.print(f"{definition.name}, {definition.scale}: {definition.title}")
    screen.print(table)
    about = f", about {duration(seconds)} on this machine" if estimates else ""
    screen.print(
        f"{len(expansion.jobs)} runs, {len(expansion.jobs) - len(pending)} stored; "
        f"to compute: {len(pending)} runs, {sum(pending.values())} repetitions{about}",
        soft_wrap=True,
    )


def _row_of(job: Job) -> tuple[str, str, str]:
    """The first cells of the plan's row that a run is counted in."""
    return job.part, job.settings.dataset, job.settings.method.name


def _compute(pending: Sequence[Job], definition: Experiment, on: str | None) -> Tally:
    from hpo_bench.experiments.carry_out import Tally, carry_out
    from hpo_bench.progress import default_reporter

    if not pending:
        return Tally()
    pool = None
    if on not in (None, "threads"):
        from hpo_bench.running.places import open_pool

        pool = open_pool(on)
    tally = carry_out(pending, f"{definition.name}, {definition.scale}", default_reporter(), pool)
    others = f", {tally.elsewhere} by other processes" if tally.elsewhere else ""
    print(
        f"computed {tally.computed} runs ({tally.repetitions} repetitions){others}, "
        f"{len(tally.failed)} failed"
    )
    return tally


def _draw(definition: Experiment, requests: Sequence[Wanted], results: Path, out: Path) -> bool:
    """Draw, and say what; returns whether nothing is left that could be drawn later."""
    from hpo_bench.experiments import artefacts

    runs = artefacts.stored_runs(results, requests)
    is_finished = True
    for artefact, line in artefacts.draw(definition, runs, results, out) if runs else ():
        print(line, file=sys.stdout if artefact else sys.stderr)
        is_finished = is_finished and artefact is not None
    return is_finished


def _tell(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"missing: {line}", file=sys.stderr)


def _close(tally: Tally | None, lines: Sequence[str]) -> None:
    """End with an error where something failed or could not be run."""
    failed = list(tally.failed.values()) if tally else []
    if failed:
        text = f"{len(failed)} runs failed (--retry-failed computes them again); first: {failed[0]}"
        if all(isinstance(error, UserError) for error in failed):
            raise UserError(text)
        raise RunError(text)
    if lines:
        names = "; ".join(line.partition(": ")[0] for line in lines)
        raise RunError(f"incomplete: {names} missing, see above")
