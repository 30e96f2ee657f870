"""Kill, or disturb, a command at every place at which it touches the disk, and start it again.

    python -m tests.killing [--all] [SCENARIO]

(in a process of its own, since forks of one that has trained would hang)

    --all: at every place, with every error; otherwise at those that differ (`disturbances`)

Prints a line for each place after which the same command did not end as an undisturbed one, and
then how many were tried. `tests/test_killing.py` wants no line but the last."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hpo_bench.cli import merge as merge_command
from hpo_bench.cli import reproduce as command
from hpo_bench.datasets import sources
from hpo_bench.errors import RunError, UserError
from hpo_bench.experiments import artefacts, estimate, expand, records
from hpo_bench.experiments.definition import Experiment, Part
from hpo_bench.running.execute import execute
from hpo_bench.running.identify import identify
from hpo_bench.running.provenance import code_version, environment
from hpo_bench.search.asha import ASHA
from hpo_bench.search.bayesopt import BayesianOptimisation
from hpo_bench.search.pbt import PopulationBasedTraining
from hpo_bench.store import files, index
from hpo_bench.system import locks
from tests import places
from tests.make_store import make_run
from tests.problems import make_method, make_settings

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.ENOLCK)
TIMES = ["seconds", "rows_in_block", "elapsed_s"]
Act = Callable[[Path], None]


def run(root: Path) -> None:
    """Two blocks, with weights, and a checkpoint after the hyperparameter update of each."""
    common = {
        "chunk": 2,
        "workers": 1,
        "save_weights": True,
        "hyperparameter_updates": 1,
        "repetitions": 4,
    }
    execute(make_settings(root, checkpoint_every=0.0, **common))


def again(root: Path, force: bool = True) -> None:
    """A run that is computed again where it is stored."""
    execute(make_settings(root, force=force, workers=1, hyperparameter_updates=1, repetitions=2))


def held(root: Path) -> None:
    """A run of which another holds two repetitions."""
    execute(make_settings(root, workers=1, hyperparameter_updates=1, repetitions=3))


def search(kind: Any) -> Act:
    """A search with a checkpoint at each of its decisions."""

    def act(root: Path) -> None:
        method = replace(
            make_method("random_validation"), name=type(kind).__name__.lower(), search=kind
        )
        changes = {"hyperparameter_updates": 2, "repetitions": 1, "workers": 1}
        execute(make_settings(root, method, checkpoint_every=0.0, **changes))

    return act


def joined(root: Path) -> None:
    """A store that takes two runs from another."""
    with_exit(lambda: merge_command.merge([root.parent / "other"], root))


def listed(root: Path) -> None:
    """An index with more stale lines than it may have."""
    index.SLACK = 0
    runs = root / "runs"
    for path in runs.glob("*/run.json"):
        os.utime(path, (1, 1))
    index.read(runs)


def fetched(root: Path) -> None:
    """A file that a mirror has."""
    content = b"content" * 1000
    file = sources.RemoteFile("file.bin", (), hashlib.sha256(content).hexdigest(), len(content))
    sources.fetch("set", file, cache=root, mirror=str(root.parent / "mirror"))


def reproduced(root: Path) -> None:
    """Cells of a grid, their record, and what is drawn of them."""
    settings = [
        make_settings(
            root,
            look_back=i,
            hyperparameter_updates=1,
            repetitions=1,
            checkpoint_every=0.0,
            workers=1,
        )
        for i in (2, 3)
    ]
    table = settings[0].source.load(0.25)
    jobs = [expand.Job("part", each, table, *identify(each, table)) for each in settings]
    chosen = Experiment("grid", "small", "A grid", ("figure",), (), (Part("part", (), (), 1),))

    def draw(
        chosen: object, runs: object, results_dir: Path, out: Path
    ) -> Iterator[tuple[bool | None, str]]:
        for name in ("one", "two"):
            yield from artefacts._guarded(name, lambda name=name: made(name, out))  # type: ignore[misc]

    def made(name: str, out: Path) -> Iterator[tuple[bool, str]]:
        with files.atomic(out / f"{name}.txt") as temporary:
            temporary.write_text(name)
        yield True, name

    expand.expand = lambda *_, **__: expand.Expansion(chosen, tuple(jobs), ())
    artefacts.draw = draw  # type: ignore[assignment]
    records.fingerprint = lambda *_: "one"
    estimate.Calibration.estimate = lambda *_: estimate.Estimate(1.0, 1, 1)  # type: ignore[method-assign]
    command._run(chosen, [], root, False, False, False, None, None)


def with_exit(act: Callable[[], None]) -> None:
    """Typer's exit codes as those of a process."""
    import typer

    try:
        act()
    except typer.Exit as end:
        sys.exit(end.exit_code)


def prepare(name: str, root: Path) -> None:
    """What a scenario begins with."""
    shutil.rmtree(root.parent, ignore_errors=True)
    root.parent.mkdir(parents=True)
    if name == "joined":
        make_run(root.parent / "other", "random", "uci_energy", [0.5, 0.4])
        make_run(root.parent / "other", "baydin", "uci_energy", [0.5, 0.4])
    elif name == "listed":
        make_run(root, "random", "uci_energy", [0.5])
    elif name == "fetched":
        (root.parent / "mirror" / "set").mkdir(parents=True)
        (root.parent / "mirror" / "set" / "file.bin").write_bytes(b"content" * 1000)
    elif name in ("again", "held"):
        places.undisturbed(root, lambda: again(root, force=False), root.parent / "said")


def content(root: Path) -> dict[str, object]:
    """Everything that is stored, without times: names of files, and the numbers in them."""
    found: dict[str, object] = dict.fromkeys(
        places.files(root) - {f"runs/{index.FILE}"}
    )  # a cache, made when wanted
    for file in root.rglob("*.parquet"):
        frame = pd.read_parquet(file).drop(columns=TIMES, errors="ignore")
        found[str(file.relative_to(root))] = hashlib.sha256(frame.to_csv().encode()).hexdigest()
    for file in (path for kind in ("*.txt", "*.bin") for path in root.rglob(kind)):
        found[str(file.relative_to(root))] = file.read_bytes()
    return found


def expected(act: Act) -> Act:
    """The command with the exit codes of ``hpo-bench``: what is no error of ours ends as 3."""

    def guarded(root: Path) -> None:
        try:
            act(root)
        except (UserError, RunError) as error:
            print(f"error: {error}")
            sys.exit(3 if "\n" in str(error) else 2 if isinstance(error, UserError) else 1)
        except Exception as error:
            import traceback

            traceback.print_exc()
            print(f"internal error: {type(error).__name__}: {error}")
            sys.exit(3)

    return guarded


def disturbances(found: Sequence[str], every: bool) -> Iterator[tuple[int, int | None]]:
    """Which places to try (from 1 up), each with an error, or None for a kill.

    A kill is tried once for each state of the disk, so not between two places that leave it as it
    is. An error is tried
    at the first place of each kind: the same event on the same file, of whichever run and block it
        is.

    Args:
        every: kill, and try each of the errors, at each place.
    """
    kinds: set[str] = set()
    above = ""
    for at, place in enumerate(found, 1):
        # A lock is that of the file before it.
        above = above if place.endswith(places.UNCHANGED) else place
        kind = re.sub(
            r"[0-9a-f]{12}|\d+", "#", re.sub(r"runs/[^/]*", "runs/#", f"{above}; {place}")
        )
        if every or at == 1 or not found[at - 2].endswith(places.UNCHANGED):
            yield at, None
        if every or kind not in kinds:
            yield from ((at, error) for error in (ERRORS if every else (ERRORS[at % len(ERRORS)],)))
        kinds.add(kind)


def tried(name: str, act: Act, every: bool) -> Iterator[str]:
    """Kill the scenario, and let it fail; a line for whatever goes wrong, then how many places and
    trials there are.

    Args:
        every: see `disturbances`.
    """
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where fsync costs nothing
    with tempfile.TemporaryDirectory(prefix="hpo-bench-", dir=memory) as folder:
        root, said = Path(folder) / name / "root", Path(folder) / "said"

        def command() -> None:
            act(root)

        prepare(name, root)
        found = places.recorded(root, command, said)
        whole = content(root)
        chosen = list(disturbances(found, every))
        for at, error in chosen:
            how = "killed" if error is None else errno.errorcode[error]
            what = f"{name}: {how} at {found[at - 1]} ({at})"
            prepare(name, root)
            for text in _disturbed(root, command, at, error, said):
                yield f"{what}: {text}"
            for text in _goes_on(root, command, whole, said):
                yield f"{what}: {text}"
        yield f"{name}: {len(found)} places, {len(chosen)} trials"


def _disturbed(
    root: Path, command: Callable[[], None], at: int, error: int | None, said: Path
) -> list[str]:
    """Kill the command at a place, or let that fail; what it should not have ended with."""
    if error is None:
        return [] if places.killed(root, command, at, said) else ["never came there"]
    code = places.failing(root, command, at, error, said)
    return (
        []
        if code in (0, 1, 2)
        else [f"exit code {code}: {said.read_text().strip().splitlines()[-1:]}"]
    )


def _goes_on(
    root: Path, command: Callable[[], None], whole: dict[str, object], said: Path
) -> list[str]:
    """Start the command again; how its end differs from that of an undisturbed one."""
    code = places.undisturbed(root, command, said)
    if code:
        return [f"then exit code {code}: {said.read_text().strip().splitlines()[-1:]}"]
    now = content(root)
    differing = sorted(key for key in {*now, *whole} if now.get(key, 0) != whole.get(key, 0))
    return [f"then other results or litter: {differing[:5]}"] if differing else []


SCENARIOS: dict[str, Act] = {
    "run": run,
    "again": again,
    "held": held,
    "halving": search(ASHA(trials=2, batch=2, grace=10)),
    "population": search(PopulationBasedTraining(population=2, interval=10)),
    "bayesian": search(
        BayesianOptimisation(trials=2, random=2)
    ),  # the process itself touches no disk
    "joined": joined,
    "listed": listed,
    "fetched": fetched,
    "reproduced": reproduced,
}


def main(names: Sequence[str]) -> None:
    """See above."""
    locks.PATIENCE = 0.01
    environment(
        torch.device("cpu"), 1
    )  # what is found out once a process is found out before it is forked
    code_version()
    gc.freeze()
    for name in [name for name in names if name != "--all"] or SCENARIOS:
        for line in tried(name, expected(SCENARIOS[name]), "--all" in names):
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
