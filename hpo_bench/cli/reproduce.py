"""``hpo-bench reproduce``: plan an experiment, compute what is missing, draw its figures and
tables.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
        str, typer.Argument(help="Which one; hpo-bench list experiments shows all.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OVERRIDE]...",
            help="dataset=a,b method=a,b repetitions=n or any setting=value.",
        ),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            "--scale", help="smoke (a minute), small (ten minutes) or paper (the published budget)."
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
    """Carry out an experiment of the paper: what is stored is kept, the rest is computed, then
    figures and tables.

    May be started several times on one folder, to share the work, and again after any interruption.
    """
    from hpo_bench.experiments import definition as plan
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
    chosen = plan.narrow(plan.read(experiment, scale), words)
    _run(chosen, words, results, dry_run, retry_failed, force, on, config_dir)


def _one_value(override: str) -> Any:
    from hpo_bench.settings.compose import values_of

    values = values_of(override)
    if len(values) > 1:
        raise UserError(f"{override}: names several values where one is meant")
    return values[0]


def _run(
    chosen: Experiment,
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

    out = results / "reproduced" / f"{chosen.name}-{chosen.scale}"
    if not (force or dry_run or config_dir):
        finished = records.finished_record(results, chosen.name, chosen.scale, words)
        if finished is not None:
            print(
                f"{chosen.name}, {chosen.scale}: all {len(finished)} runs are stored, nothing to compute"
            )
            tidy(results, [each.run_id for each in finished])
            if not out.is_dir() or not records.was_drawn(results, chosen.name, chosen.scale, words):
                if _draw(chosen, finished, results, out):
                    records.note_drawn(results, chosen.name, chosen.scale, words)
            else:
                print(f"figures and tables: {out}")
            return
    expansion = _expand(chosen, results, force, config_dir)
    pending = _plan(expansion, results, retry_failed, force)
    if not expansion.jobs:
        raise UserError("; ".join(expansion.missing) or f"{chosen.name}: no runs left of it")
    _tell(expansion.missing)
    tally = None
    if not dry_run:
        drawn = not config_dir and records.was_drawn(results, chosen.name, chosen.scale, words)
        if not config_dir:
            records.remember(results, expansion, words)
        tally = _compute(pending, chosen, on)
        wanted = [job.wanted for job in expansion.jobs]
        tidy(results, [job.run_id for job in expansion.jobs])
        if tally.computed or not drawn or not out.is_dir():
            drawn = _draw(chosen, wanted, results, out)
        if drawn and not config_dir:
            records.note_drawn(results, chosen.name, chosen.scale, words)
    _close(tally, expansion.missing)


def _expand(chosen: Experiment, results: Path, force: bool, config_dir: Path | None) -> Expansion:
    from hpo_bench.experiments import expand
    from hpo_bench.progress import console

    screen = console(stderr=True)
    if not screen.is_terminal:
        return expand.expand(chosen, results, force=force, config_dir=config_dir)
    from rich.text import Text

    with screen.status(Text("planning …")) as status:
        return expand.expand(
            chosen,
            results,
            force=force,
            config_dir=config_dir,
            on_group=lambda group: status.update(
                Text(f"planning {group.method} on {group.dataset} …")
            ),
        )


def _plan(expansion: Expansion, results: Path, retry_failed: bool, force: bool) -> list[Job]:
    """Print the plan; the runs to compute: those whose repetitions no complete run holds."""
    from hpo_bench.experiments.estimate import Calibration
    from hpo_bench.experiments.expand import units
    from hpo_bench.store import held, index
    from hpo_bench.store.runs import runs_folder

    listing = index.read(runs_folder(results))
    missing = held.missing(listing, [job.wanted for job in expansion.jobs])
    if force:
        missing = {job.run_id: set(job.settings.seeds) for job in expansion.jobs}
    failed = {run_id for run_id, entry in listing.entries.items() if entry.status == "failed"}
    pending = [job for job in expansion.jobs if missing[job.run_id]]
    if retry_failed and not force:
        pending = [job for job in pending if job.run_id in failed]
    calibration = Calibration()
    estimates = [(unit, calibration.estimate(unit)) for unit in units(pending)]
    if expansion.jobs:
        _print_plan(expansion, {job.run_id: len(missing[job.run_id]) for job in pending}, estimates)
    earlier = (
        [] if force else held.of_earlier_versions(listing, [job.wanted for job in expansion.jobs])
    )
    if earlier:
        verb = "is" if len(earlier) == 1 else "are"
        print(
            f"{len(earlier)} of the stored runs {verb} of an earlier version, whose results differ from today's in "
            "rounding alone (CHANGELOG, Numbers); --force computes them again"
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

    chosen = expansion.experiment
    table = Table("part", "dataset", "method", box=None, pad_edge=False)
    for heading in ("runs", "stored", "repetitions", "weight updates", "shards", "time", "memory"):
        table.add_column(heading, justify="right")
    rows: dict[tuple[str, str, str], list[Job]] = {}
    for job in expansion.jobs:
        rows.setdefault((job.part, job.settings.dataset, job.settings.method.name), []).append(job)
    for key, jobs in rows.items():
        own = [
            estimate
            for unit, estimate in estimates
            if (unit[0].part, unit[0].settings.dataset, unit[0].settings.method.name) == key
        ]
        stored = sum(job.run_id not in pending for job in jobs)
        lengths = sorted({job.settings.weight_updates for job in jobs})
        table.add_row(
            *key,
            str(len(jobs)),
            str(stored),
            str(sum(job.settings.repetitions for job in jobs)),
            str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]}-{lengths[-1]}",
            str(sum(estimate.shards for estimate in own)) if own else "-",
            duration(sum(estimate.seconds for estimate in own)) if own else "-",
            gibibytes(max(estimate.bytes for estimate in own)) if own else "-",
        )
    screen = console()
    screen.print(f"{chosen.name}, {chosen.scale}: {chosen.title}")
    screen.print(table)
    repetitions = sum(pending.values())
    seconds = sum(
        estimate.seconds
        * sum(pending[job.run_id] for job in unit)
        / sum(job.settings.repetitions for job in unit)
        for unit, estimate in estimates
    )
    screen.print(
        f"{len(expansion.jobs)} runs, {len(expansion.jobs) - len(pending)} stored; to compute: {len(pending)} runs, "
        f"{repetitions} repetitions"
        + (f", about {duration(seconds)} on this machine" if estimates else ""),
        soft_wrap=True,
    )


def _compute(pending: Sequence[Job], chosen: Experiment, on: str | None) -> Tally:
    from hpo_bench.experiments.carry_out import Tally, carry_out
    from hpo_bench.progress import default_reporter

    if not pending:
        return Tally()
    pool = None
    if on not in (None, "threads"):
        from hpo_bench.running.places import open_pool

        pool = open_pool(on)
    tally = carry_out(pending, f"{chosen.name}, {chosen.scale}", default_reporter(), pool)
    others = f", {tally.elsewhere} by other processes" if tally.elsewhere else ""
    print(
        f"computed {tally.computed} runs ({tally.repetitions} repetitions){others}, {len(tally.failed)} failed"
    )
    return tally


def _draw(chosen: Experiment, wanted: Sequence[Wanted], results: Path, out: Path) -> bool:
    """Draw, and say what; whether there is nothing that could be drawn later."""
    from hpo_bench.experiments import artefacts

    runs = artefacts.stored_runs(results, wanted)
    finished = True
    for made, line in artefacts.draw(chosen, runs, results, out) if runs else ():
        print(line, file=sys.stdout if made else sys.stderr)
        finished = finished and made is not None
    return finished


def _tell(missing: Sequence[str]) -> None:
    for line in missing:
        print(f"missing: {line}", file=sys.stderr)


def _close(tally: Tally | None, missing: Sequence[str]) -> None:
    """End with an error where something failed or could not be run."""
    failed = list(tally.failed.values()) if tally else []
    if failed:
        text = f"{len(failed)} runs failed (--retry-failed computes them again); first: {failed[0]}"
        raise (
            UserError(text)
            if all(isinstance(error, UserError) for error in failed)
            else RunError(text)
        )
    if missing:
        raise RunError(
            f"incomplete: {'; '.join(line.partition(': ')[0] for line in missing)} missing, see above"
        )
