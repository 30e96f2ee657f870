"""Training from Python: what ``hpo-bench run`` and ``hpo-bench run -m`` do, for a script or a
notebook.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

from hpo_bench.api import overrides as words_of
from hpo_bench.api.overrides import Plain
from hpo_bench.api.results import Results
from hpo_bench.core import checks
from hpo_bench.errors import Failed, RunError, UserError, described, of_the_system
from hpo_bench.experiments import artefacts, grid, records
from hpo_bench.experiments import definition as plan
from hpo_bench.experiments.carry_out import carry_out
from hpo_bench.experiments.expand import Job, expand
from hpo_bench.progress import Reporter, Silent, default_reporter
from hpo_bench.running.execute import execute
from hpo_bench.running.places import open_pool
from hpo_bench.running.pool import Pool
from hpo_bench.settings.compose import DEFAULT, compose, values_of
from hpo_bench.settings.parse import parse
from hpo_bench.settings.yamls import groups
from hpo_bench.store import index
from hpo_bench.store.runs import read_run, runs_folder
from hpo_bench.store.writer import tidy
from hpo_bench.system import signals
from hpo_bench.system.quoting import quoted

Folder = str | PathLike[str]
SWEPT = re.compile(r"(range|choice|interval|glob|shuffle|sort|tag)\(")


def run(
    *overrides: str,
    force: bool = False,
    on: str | None = None,
    config_dir: Folder | None = None,
    progress: bool = True,
    **settings: object,
) -> Results:
    """Train repetitions of one method on one dataset and store them, as ``hpo-bench run`` does.

        results = hpo_bench.run("method=ours_wd_lr_m", dataset="uci_energy", repetitions=200)
        results = hpo_bench.run(hyper={"lr": 0.1}, tuned=["lr", "momentum"], results_dir=Path("r"))

    Store, run id, resuming and trackers are those of the command: a finished run is not computed
    again, an interrupted one goes on, one that another process computes is waited for. Without
    arguments it trains what the command trains. The method is the paper's Section 3, the training
    its Section 4.

    Args:
        overrides: in Hydra's grammar: ``"hyper.lr=0.1"``.
        force: compute again what is stored.
        on: where to compute: ``threads``, ``ray`` or ``ray://HOST:PORT``.
        config_dir: a further folder of yamls.
        progress: show a bar in a terminal or a notebook, lines elsewhere.
        settings: keys of the configuration and their values, as they are: text, paths, numbers,
            lists, None. Sections are mappings (``hyper={"lr": 0.1}``), or ``**{"hyper.lr": 0.1}``.
            ``experiment="uci_main", scale="smoke"`` carries out an experiment instead.

    Returns:
        The stored run; diverged repetitions are part of it, as divergence is a result.

    Raises:
        UserError: a key, a value, data or a device that cannot be; nothing was begun.
        RunError: the run had begun and failed; what was finished is kept.
    """
    words = [*words_of.check(overrides), *words_of.written(settings)]
    reporter = default_reporter() if progress else Silent()
    folder = _config_dir(config_dir)
    with _as_told(), signals.handled():
        if any(word.startswith("experiment=") for word in words):
            asked = [*words_of.check(overrides), *_with_commas(settings)]
            return _experiments(asked, reporter, open_pool(on), force, folder)
        if not words:
            reporter.say(f"no arguments: running {' '.join(DEFAULT)}")
            words = [*DEFAULT]
        pool = open_pool(on)
        chosen = parse(compose(words, folder), force=force)
        return Results([execute(chosen, reporter, pool).run])


def sweep(
    *overrides: str,
    force: bool = False,
    on: str | None = None,
    config_dir: Folder | None = None,
    progress: bool = True,
    **settings: object,
) -> Results:
    """Train every combination of some values, in one pool; it stores what ``hpo-bench run -m``
    stores.

        results = hpo_bench.sweep(method=["random", "ours_wd_lr_m"], dataset="uci_energy",
                                  repetitions=200)
        results = hpo_bench.sweep("seed=range(0,200)", update_interval=[5, 10, 20])
        results = hpo_bench.sweep(method="ours_wd_lr_m", tuned=[["lr"], ["lr", "weight_decay"]])

    What is stored is kept, and the rest goes on after a run that failed. Cells that differ in their
    look-back alone are trained as one program; seeds that follow on one another are one run. The
    paper's grids are those of its Figures 4 and 6.

    Args:
        settings: as of `run`; a list is a list of values. Of a setting that is a list itself
            (``tuned``, ``hyper.betas``) a list of lists is meant, and a single list is its value.
        overrides, force, on, config_dir, progress: as of `run`; overrides may name several values
            (``"method=random,baydin"``).

    Returns:
        All runs of the grid, those that were stored before included.

    Raises:
        UserError: a key, a value, data or a device that cannot be; nothing was begun.
        RunError: runs had begun and failed. The others are stored, the same call goes on.
    """
    folder = _config_dir(config_dir)
    with _as_told(), signals.handled():
        fixed, axes = _axes(words_of.check(overrides), settings, folder)
        pool = open_pool(on)
        jobs = grid.jobs_of(fixed, axes, force=force, config_dir=folder)
        _compute(jobs, "sweep", default_reporter() if progress else Silent(), pool, force)
        return _stored(jobs)


# --- experiments ---


def _with_commas(settings: Mapping[str, object]) -> Iterator[str]:
    """Keywords as an experiment takes them: lists are several values."""
    for key, value in words_of.flattened(settings):
        several = value if isinstance(value, list) else [value]
        yield f"{key}={','.join(quoted(each) for each in several)}"


def _experiments(
    words: Sequence[str], reporter: Reporter, pool: Pool, force: bool, config_dir: Path | None
) -> Results:
    """What ``hpo-bench reproduce`` computes of some experiments; figures are left to `plot`.

    Raises:
        RunError: something that an experiment needs is missing, or runs failed; the rest is stored.
    """
    given: dict[str, list[Plain]] = {"scale": ["paper"], "results_dir": ["results"]}
    rest: list[str] = []
    for word in words:
        key = word.partition("=")[0]
        if key in (*given, "experiment"):
            given[key] = values_of(word)
        else:
            rest.append(word)
    results_dir = checks.path("results_dir", given["results_dir"][0])
    made = Results(())
    for name in given["experiment"]:
        chosen = plan.narrow(plan.read(str(name), str(given["scale"][0])), rest)
        expansion = expand(chosen, results_dir, force=force, config_dir=config_dir)
        if not expansion.jobs:
            lacking = "; ".join(expansion.missing)
            raise UserError(lacking or f"{chosen.name}: no runs left of it")
        if config_dir is None:
            records.remember(results_dir, expansion, rest)
        _compute(expansion.jobs, f"{chosen.name}, {chosen.scale}", reporter, pool, force)
        tidy(results_dir, [job.run_id for job in expansion.jobs])
        if expansion.missing:
            raise RunError(f"incomplete: {'; '.join(expansion.missing)}; the rest is stored")
        wanted = [job.wanted for job in expansion.jobs]
        made += Results(artefacts.stored_runs(results_dir, wanted))
    return made


def _config_dir(folder: Folder | None) -> Path | None:
    if folder is None:
        return None
    return checks.folder("config_dir", str(words_of.plain("config_dir", folder)))


@contextlib.contextmanager
def _as_told() -> Iterator[None]:
    """Context: what the operating system refuses, and a component that ends the process, are the
    one line that the command would print.
    """
    try:
        yield
    except OSError as error:
        raise RunError(of_the_system(error)) from error
    except SystemExit as error:  # raised by a component of one's own: it must not end a notebook
        raise RunError(described(error)) from error


# --- grids ---


def _axes(
    words: Sequence[str], settings: Mapping[str, object], config_dir: Path | None
) -> tuple[list[str], dict[str, list[Plain]]]:
    """What all runs share, as overrides, and the values of what they differ in."""
    fixed, axes = _of_words(words)
    unclear: dict[str, list[Plain]] = {}  # lists that may be one value or several
    for key, value in words_of.flattened(settings):
        if not isinstance(value, list):
            fixed += words_of.written({key: value})
        elif key in groups() or (value and all(isinstance(item, list) for item in value)):
            axes[key] = value
        else:
            unclear[key] = value
    if unclear:
        firsts = {key: axes[key][0] for key in groups() if axes.get(key)}
        base = [*fixed, *words_of.written(firsts)]
        lists = grid.lists_among(unclear, base, config_dir)
        for key, values in unclear.items():
            if key in lists and not any(isinstance(item, list) for item in values):
                fixed += words_of.written({key: values})
            else:
                axes[key] = values
    return fixed, axes


def _of_words(words: Sequence[str]) -> tuple[list[str], dict[str, list[Plain]]]:
    """Overrides with one value, and the values of those with several."""
    fixed: list[str] = []
    axes: dict[str, list[Plain]] = {}
    for word in words:
        key, _, text = word.partition("=")
        if key.startswith("hydra"):
            raise UserError(f"{word}: a sweep is computed in one pool; on=… says where")
        several = [] if key.startswith("~") else values_of(word)
        if len(several) > 1:
            axes[key] = several
        elif several and SWEPT.match(text):
            fixed += words_of.written({key: several[0]})
        else:
            fixed.append(word)
    return fixed, axes


def _compute(jobs: Sequence[Job], label: str, reporter: Reporter, pool: Pool, force: bool) -> None:
    """Compute what is not stored of some jobs.

    Raises:
        UserError, RunError: some failed; the others are stored.
    """
    pending = list(jobs)
    if not force:
        by_store: dict[Path, set[str]] = {}
        for job in jobs:
            by_store.setdefault(job.settings.results_dir, set()).add(job.run_id)
        stored = {
            (results_dir, run_id)
            for results_dir, names in by_store.items()
            for run_id, status in index.statuses(runs_folder(results_dir), names).items()
            if status == "complete"
        }
        pending = [job for job in jobs if (job.settings.results_dir, job.run_id) not in stored]
    if not pending:
        reporter.say(f"{label}: all {len(jobs)} runs are stored, nothing to compute")
        return
    tally = carry_out(pending, label, reporter, pool)
    failures = list(tally.failed.values())
    if len(failures) == 1:
        raise failures[0]
    if failures:
        all_of_the_user = all(isinstance(failure, UserError) for failure in failures)
        text = "; ".join(dict.fromkeys(str(failure) for failure in failures))
        raise UserError(text) if all_of_the_user else Failed(failures)


def _stored(jobs: Sequence[Job]) -> Results:
    runs = (read_run(runs_folder(job.settings.results_dir) / job.run_id) for job in jobs)
    return Results(run for run in runs if run is not None)
