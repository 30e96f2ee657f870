"""Stored runs for other programs:

CSV, TensorBoard event files, and a learned schedule to replay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo_bench.errors import StoreError, UserError, nearest
from hpo_bench.settings.run import HYPERPARAMETERS
from hpo_bench.store import index
from hpo_bench.store.curves import add_scalars, event_writer, finite_points, summarise
from hpo_bench.store.files import atomic
from hpo_bench.store.runs import (
    FINAL_COLUMNS,
    Run,
    check_tables,
    complete_runs,
    read_run,
    read_table,
    runs_folder,
    told_apart,
)
from hpo_bench.system import notices
from hpo_bench.system.inherited import expanded

FORMATS = ("csv", "tensorboard")


def choose(results_dir: Path, names: Sequence[str]) -> list[Run]:
    """Complete runs by run id, by the beginning of one, or by path; all of the store without names.

    Raises:
        UserError: there is no such run, it is not complete or damaged, or a beginning fits several.
    """
    if names:
        return told_apart(_named(results_dir, name) for name in names)
    runs = complete_runs(results_dir)
    if not runs:
        raise UserError(f"no complete runs in {runs_folder(results_dir)}; hpo-bench run makes one")
    return runs


def _named(results_dir: Path, name: str) -> Run:
    folder = runs_folder(results_dir)
    known = index.folders(folder)
    fitting = (
        [name] if name in known else [each for each in known if name and each.startswith(name)]
    )
    if len(fitting) > 1:
        raise UserError(
            f"{name}: fits {len(fitting)} runs; say more of the name: {', '.join(fitting[:3])}, …"
        )
    path = folder / fitting[0] if fitting else _folder_of_run(name)
    if path is None:
        raise UserError(f"{name}: no such run in {folder}; {_near(name, known)}")
    run = read_run(path)
    if run is None or run.status != "complete":
        state = f"failed ({run.error})" if run else "is not finished"
        raise UserError(f"{path}: this run {state}; run it again to complete it")
    check_tables(run)
    return run


def _folder_of_run(name: str) -> Path | None:
    """The run folder that a user's path leads to; its last part is the run's id, also of ``.`` and
    ``runs/x/..``.
    """
    if not name or "\0" in name:
        return None
    try:
        path = expanded(name)
        return (
            (path.resolve() if path.name in ("", "..") else path)
            if (path / "run.json").is_file()
            else None
        )
    except (OSError, UserError):  # a name that is too long, a home folder that there is not
        return None


def _near(name: str, known: Sequence[str]) -> str:
    close = nearest(name, known).partition(" Allowed: ")[0] if known else ""
    return (
        close
        if close.startswith("did you mean")
        else f"hpo-bench status shows the {len(known)} runs there are"
    )


# --- CSV ---


def write_csv(runs: Sequence[Run], out: Path) -> list[Path]:
    """``finals.csv``, a row per repetition of all runs, and ``curves/<run_id>.csv`` each:
    unrounded, nulls empty.
    """
    finals, written = [], []
    for run, final, curves in _readable(runs):
        finals.append(_described(run, final))
        written.append(_to_csv(_whole_numbers(curves), out / "curves" / f"{run.run_id}.csv"))
    if finals:
        written.insert(0, _to_csv(pd.concat(finals, ignore_index=True), out / "finals.csv"))
    return written


def _readable(runs: Sequence[Run]) -> Iterator[tuple[Run, pd.DataFrame, pd.DataFrame]]:
    """Runs with their final values and curves; what is damaged is left out, where that may be."""
    for run in runs:
        try:
            tables = read_table(run, "final"), read_table(run, "curves")
        except StoreError as error:
            notices.leave_out(run.path, error)
            continue
        yield run, *tables


def _described(run: Run, final: pd.DataFrame) -> pd.DataFrame:
    frame = _whole_numbers(final[list(FINAL_COLUMNS)])
    for position, (name, value) in enumerate(
        {
            "run_id": run.run_id,
            "dataset": run.dataset,
            "method": run.method,
            "config_hash": run.config_hash,
        }.items()
    ):
        frame.insert(position, name, value)
    return frame


def _whole_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Steps are whole numbers also where some are missing."""
    whole = [name for name in ("diverged_at", "best_validation_step") if name in frame.columns]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _to_csv(frame: pd.DataFrame, path: Path) -> Path:
    try:
        with atomic(path) as temporary:
            frame.to_csv(temporary, index=False)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return path


# --- TensorBoard ---


def write_tensorboard(runs: Sequence[Run], out: Path, seeds: Sequence[int] = ()) -> list[Path]:
    """Event files: ``<run_id>`` with medians and quartiles over repetitions,
    ``<run_id>-seed-<seed>`` for some of them.

    Raises:
        UserError: the extra is not installed, a run lacks a seed, or the folder is taken.
    """
    for run in runs:
        for seed in seeds:
            _check_seed(run, seed)
    written = []
    for run, final, curves in _readable(runs):
        written.append(_events(out / run.run_id, summarise(curves, final)))
        for seed in seeds:
            own = curves[curves["seed"] == seed].set_index("step").drop(columns="seed")
            written.append(
                _events(out / f"{run.run_id}-seed-{seed}", own.dropna(axis="columns", how="all"))
            )
    return written


def _events(folder: Path, frame: pd.DataFrame) -> Path:
    if folder.is_dir() and any(folder.glob("events.out.tfevents.*")):
        raise UserError(
            f"{folder}: holds event files already, which would be drawn on top of each other; delete it"
        )
    writer = event_writer(folder)
    try:
        add_scalars(writer, "curves", finite_points(frame))
    finally:
        writer.close()
    return folder


# --- schedules ---


def write_schedule(run: Run, out: Path, seed: int | None = None) -> Path:
    """``<run_id>.schedule.csv``: see `schedule`."""
    name = (
        f"{run.run_id}.schedule.csv" if seed is None else f"{run.run_id}-seed-{seed}.schedule.csv"
    )
    return _to_csv(schedule(run, seed), out / name)


def schedule(run: Run, seed: int | None = None) -> pd.DataFrame:
    """Hyperparameters that a run learned, for the options of ``torch.optim.SGD`` of the same names.

    Args:
        seed: of one repetition; None for the median over all that did not diverge.

    Returns:
        Columns ``step``, ``lr``, ``weight_decay``, ``momentum``: values from weight update ``step``
        (0 is the first) until the next row.

    Raises:
        UserError: no such seed, all diverged, the weights were not updated by SGD, or the recorded
            steps leave changes out.
    """
    rule = run.config["method"].get("rule")
    if rule:
        raise UserError(
            f"{run.run_id}: a schedule is for torch.optim.SGD; this method's weights are updated by "
            f"{rule['_target_'].rpartition('.')[2]}"
        )
    interval, every = int(run.config["update_interval"]), int(run.config["record_every"])
    if interval % every:
        raise UserError(
            f"{run.run_id}: record_every={every} leaves out changes made after every {interval} weight updates; "
            f"run again with a record_every that divides {interval}"
        )
    curves = read_table(run, "curves", ("seed", "step", *HYPERPARAMETERS))
    if seed is not None:
        _check_seed(run, seed)
        kept = curves[curves["seed"] == seed]
    else:
        final = read_table(run, "final", ("seed", "status"))
        good = final.loc[final["status"] == "ok", "seed"]
        if good.empty:
            raise UserError(f"{run.run_id}: all repetitions diverged; name one with --seed")
        kept = curves[curves["seed"].isin(good)]
    medians = kept.groupby("step")[list(HYPERPARAMETERS)].median().astype(np.float64)
    used = medians[medians.index < _updates(run)]  # what follows the last update was never used
    changed = (used != used.shift()).any(axis=1)
    return used[changed].reset_index()


def _updates(run: Run) -> int:
    return int(run.config["update_interval"]) * int(run.config["hyperparameter_updates"])


def _check_seed(run: Run, seed: int) -> None:
    if seed not in run.seeds:
        raise UserError(f"--seed {seed}: {run.run_id} has the seeds {_span(run.seeds)}")


def _span(seeds: Sequence[Any]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
