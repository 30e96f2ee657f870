"""An experiment as one file to hand on.

It holds the runs, figures, tables and the report, the configuration, and the command that makes
them again."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo_bench import __version__
from hpo_bench.errors import UserError
from hpo_bench.experiments import artefacts, records
from hpo_bench.experiments import definition as plan
from hpo_bench.experiments.definition import Experiment
from hpo_bench.experiments.expand import expand
from hpo_bench.report import page
from hpo_bench.settings.yamls import citation_file, configs_folder
from hpo_bench.store import bundle, packing
from hpo_bench.store.held import Wanted
from hpo_bench.store.runs import Run, complete_runs

README = """# {title}

The experiment `{name}` ({scale}) of hpo-bench {version}: {runs} runs, {repetitions} repetitions.

- `report.html` shows everything; it opens from disk.
- `figures/`, `tables/`: the images, the plotted points (CSV), how they were computed (JSON).
- `runs/`: the stored runs. `hpo-bench merge FILE.zip` takes them into a results folder.
- `configs/`: every setting; the resolved ones of a run are in its `run.json`.
- `manifest.json`: sizes and SHA-256 of all files.
- `CITATION.cff`: what to cite.

The runs were made by `{command}`.
{missing}"""


@dataclass(frozen=True)
class Chosen:
    """An experiment as it was begun here, and what it consists of.

    Args:
        overrides: of ``hpo-bench reproduce``.
        missing: a line for whatever of it cannot be had.
    """

    experiment: Experiment
    overrides: tuple[str, ...]
    wanted: tuple[Wanted, ...]
    missing: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What makes its runs."""
        words = ("hpo-bench", "reproduce", self.experiment.name, *self.overrides)
        return shlex.join([*words, "--scale", self.experiment.scale])


@dataclass(frozen=True)
class Packed:
    """What a bundle holds.

    Args:
        bytes: its size.
        missing: run ids that the experiment consists of and that are not stored.
        notes: figures and tables that could not be made, and why.
    """

    path: Path
    bytes: int
    runs: tuple[Run, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def choose(
    name: str, results_dir: Path, scale: str | None = None, overrides: Sequence[str] = ()
) -> Chosen:
    """What an experiment consists of, by the record of how it was begun here, or anew.

    Args:
        scale: where the experiment was begun in one way only, that is meant by None; ``paper``
            where it was not begun.

    Raises:
        UserError: no such experiment or scale, or it was begun in several ways and none is named.
    """
    plan.read(name, scale or "paper")
    if scale is None and not overrides:
        begun = records.begun(results_dir, name)
        if len(begun) > 1:
            ways = "; ".join(" ".join((f"--scale {one.scale}", *one.overrides)) for one in begun)
            raise UserError(f"{name}: was begun here in several ways, say which: {ways}")
        if begun and begun[0].wanted:
            (record,) = begun
            experiment = plan.narrow(plan.read(name, record.scale), record.overrides)
            return Chosen(experiment, record.overrides, record.wanted, record.missing)
    experiment = plan.narrow(plan.read(name, scale or "paper"), overrides)
    known = records.finished_record(results_dir, name, experiment.scale, overrides)
    if known is not None:
        return Chosen(experiment, tuple(overrides), known)
    expansion = expand(experiment, results_dir)
    wanted = tuple(job.wanted for job in expansion.jobs)
    return Chosen(experiment, tuple(overrides), wanted, expansion.missing)


def pack(
    chosen: Chosen, results_dir: Path, out: Path, say: Callable[[str], None] = lambda line: None
) -> Packed:
    """Write the bundle of an experiment's stored runs; the same runs give the same bytes.

    Args:
        say: told about each figure and table as soon as it is made.

    Raises:
        UserError: none of its runs is stored, or the file cannot be written.
    """
    stored: dict[Path, Run] = {}
    missing = []
    for each in chosen.wanted:
        found = artefacts.stored_runs(results_dir, [each])
        stored |= {run.path.absolute(): run for run in found}
        missing += [] if found else [each.run_id]
    if not stored:
        lacking = "; ".join(chosen.missing) or f"{chosen.command} makes them"
        raise UserError(
            f"{chosen.experiment.name}: no run of it is stored in {results_dir}; {lacking}"
        )
    files: dict[str, Path | bytes] = {}
    with tempfile.TemporaryDirectory(prefix="hpo-bench-pack-") as temporary:
        staged = Path(temporary).resolve() / "results"
        runs = _staged(stored.values(), staged)
        made = staged / "made"
        notes = []
        for done, line in artefacts.draw(chosen.experiment, runs, staged, made):
            # The folder that it was drawn in will be gone.
            text = line.partition(f" -> {made}")[0].replace(str(staged), str(results_dir))
            say(text)
            notes += [] if done else [text]
        for file in sorted(made.glob("*")):
            folder = "tables" if file.suffix in (".md", ".tex") else "figures"
            files[f"{folder}/{file.name}"] = file
        report = page.render(page.build(staged)).replace(str(staged), "results")
        files["report.html"] = report.encode()
        for run in runs:
            files |= bundle.files_of(run.path)
        files |= _about(chosen, runs, missing)
        size = bundle.write(out, files, _manifest(chosen, runs, missing))
    return Packed(out, size, tuple(stored.values()), tuple(missing), tuple(notes))


def _staged(stored: Iterable[Run], results_dir: Path) -> list[Run]:
    """A store of these runs alone, for figures and tables to be made from.

    Folders of runs are linked; what lies in a pack becomes a folder.
    """
    (results_dir / "runs").mkdir(parents=True)
    for run in stored:
        folder = results_dir / "runs" / run.run_id
        if run.pack is None:
            os.symlink(run.path.resolve(), folder, target_is_directory=True)
        else:
            packing.unpack(run, folder)
    return complete_runs(results_dir)


def _about(chosen: Chosen, runs: Sequence[Run], missing: Sequence[str]) -> dict[str, Path | bytes]:
    """What a bundle says about itself: how its runs were made, and what to cite."""
    configs = configs_folder()
    files: dict[str, Path | bytes] = {
        f"configs/{file.relative_to(configs).as_posix()}": file for file in configs.rglob("*.yaml")
    }
    lacking = f"{len(missing)} runs of the experiment are missing: {', '.join(missing)}.\n"
    text = README.format(
        title=chosen.experiment.title,
        name=chosen.experiment.name,
        scale=chosen.experiment.scale,
        version=__version__,
        runs=len(runs),
        repetitions=sum(len(run.seeds) for run in runs),
        command=chosen.command,
        missing=f"\n{lacking}" if missing else "",
    )
    return {**files, "README.md": text.encode(), "CITATION.cff": citation_file()}


def _manifest(chosen: Chosen, runs: Sequence[Run], missing: Sequence[str]) -> dict[str, object]:
    return {
        "experiment": chosen.experiment.name,
        "scale": chosen.experiment.scale,
        "overrides": list(chosen.overrides),
        "title": chosen.experiment.title,
        "command": chosen.command,
        "version": __version__,
        "runs": [run.run_id for run in runs],
        "missing": list(missing),
        "citation": "CITATION.cff",
    }
