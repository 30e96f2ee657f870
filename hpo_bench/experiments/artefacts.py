"""The figures and tables that an experiment feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hpo_bench.errors import StoreError
from hpo_bench.experiments.definition import Experiment
from hpo_bench.store import held
from hpo_bench.store.held import Wanted
from hpo_bench.store.runs import Run, runs_folder, told_apart
from hpo_bench.system import notices


def stored_runs(results_dir: Path, wanted: Iterable[Wanted]) -> list[Run]:
    """The complete ones among some runs, or those that hold their repetitions instead.

    What is damaged is left out, with a notice.
    """
    runs: list[Run] = []
    for each in wanted:
        try:
            runs += held.runs_with(results_dir, each)
        except StoreError as error:
            notices.leave_out(runs_folder(results_dir) / each.run_id, error)
    return told_apart(runs)


def draw(
    chosen: Experiment, runs: Sequence[Run], results_dir: Path, out: Path
) -> Iterator[tuple[bool | None, str]]:
    """Make the experiment's figures and tables from its own runs; no failure is fatal.

    Yields:
        (made, line) for each, ``made`` being None where it could not be written now, and may be
        later.
    """
    for name in chosen.figures:
        make = partial(_figure, name, runs, results_dir, out)
        yield from _guarded(f"figure {name}", make)
    for name in chosen.tables:
        make = partial(_made_table, name, runs, results_dir, out)
        yield from _guarded(f"table {name}", make)


def _guarded(
    what: str, make: Callable[[], Iterable[tuple[bool, str]]]
) -> Iterator[tuple[bool | None, str]]:
    """What ``make`` yields, and a line in its place where it fails."""
    lines: list[tuple[bool, str]] = []

    def made() -> None:
        lines.clear()
        for line in make():
            lines.append(line)

    try:
        notices.started_again(made)
        yield from lines
    except OSError as error:
        yield from lines
        yield None, f"{what}: not made ({error.strerror or error})"
    except Exception as error:  # a figure that fails must not take the results of hours with it
        yield from lines
        yield False, f"{what}: not made ({' '.join(str(error).split()) or type(error).__name__})"


def _readable(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if not notices.is_left_out(run.place)]


def _figure(
    name: str, runs: Sequence[Run], results_dir: Path, out: Path
) -> Iterator[tuple[bool, str]]:
    from hpo_bench.figures.common.make import Request, make

    for made in make([name], Request(str(results_dir), _readable(runs), out)):
        if made.files:
            yield True, f"{made.name}: {made.drawn} -> {made.files[0]}"
        else:
            yield False, f"figure {made.name}: not made (no run of this experiment fits)"


def _made_table(
    name: str, runs: Sequence[Run], results_dir: Path, out: Path
) -> Iterator[tuple[bool, str]]:
    from hpo_bench.analysis import tables
    from hpo_bench.analysis.render import FORMATS
    from hpo_bench.store.files import atomic

    runs, kind = _readable(runs), tables.TABLES.get(name)
    stored = {run.dataset for run in runs}
    of_the_table = kind.datasets if kind else ()
    datasets = [dataset for dataset in of_the_table if dataset in stored] or sorted(stored)
    table = tables.build(name, results_dir, datasets=datasets, where=_common(runs))
    for suffix, form in (("md", "markdown"), ("tex", "latex")):
        with atomic(out / f"{name}.{suffix}") as temporary:
            temporary.write_text(FORMATS[form](table), encoding="utf-8")
    yield True, f"table {name}: {', '.join(datasets)} -> {out / name}.md, .tex"


def _common(runs: Sequence[Run]) -> dict[str, Any]:
    """Settings that tell this scale's runs from those of another, where all runs share them."""
    common = {}
    for key in ("hyperparameter_updates", "repetitions"):
        values = {run.config[key] for run in runs}
        if len(values) == 1:
            common[key] = values.pop()
    return common
