"""Stored runs for other programs: as CSV, as TensorBoard event files, as a schedule to replay."""

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
    intact_packs,
    is_packed,
    read_run,
    read_table,
    runs_folder,
    told_apart,
)
from hpo_bench.system import notices
from hpo_bench.system.inherited import expanded

# Estimators that are called after every weight update, not after every T of them.
AFTER_EVERY_UPDATE = (
    "hpo_bench.hypergradients.dot_product.DotProduct",
    "hpo_bench.hypergradients.ultimate.Ultimate",
)
FORMATS = ("csv", "tensorboard")


def choose(results_dir: Path, names: Sequence[str]) -> list[Run]:
    """Find complete runs by run id, by its beginning, or by path; without names all of the store.

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
    names = index.names(folder)
    fitting = [each for each in names if name and each.startswith(name)]
    if name in names:  # a run's whole name may be the beginning of another's
        fitting = [name]
    if len(fitting) > 1:
        raise UserError(
            f"{name}: fits {len(fitting)} runs; say more of the name: {', '.join(fitting[:3])}, …"
        )
    path = folder / fitting[0] if fitting else _folder_of_run(name)
    if path is None:
        with notices.leaving_out_nothing():  # it may be in a pack that is damaged
            intact_packs(results_dir)
        raise UserError(f"{name}: no such run in {folder}; {_near(name, names)}")
    run = read_run(path)
    if run is None or run.status != "complete":
        state = f"failed ({run.error})" if run else "is not finished"
        raise UserError(f"{path}: this run {state}; run it again to complete it")
    check_tables(run)
    return run


def _folder_of_run(name: str) -> Path | None:
    """The run folder that a user's path leads to; None where it leads to none.

    A run in a pack has the path that its folder would have.
    """
    if not name or "\0" in name:
        return None
    try:
        path = expanded(name)
        if not (path / "run.json").is_file() and not is_packed(path):
            return None
        # The path's last part is the run's id, which "." and "runs/x/.." do not say.
        return path.resolve() if path.name in ("", "..") else path
    except (OSError, UserError):  # a name that is too long, a home folder that there is not
        return None


def _near(name: str, names: Sequence[str]) -> str:
    # `nearest` lists all names where none is near: a store may hold thousands.
    close = nearest(name, names).partition(" Allowed: ")[0] if names else ""
    if close.startswith("did you mean"):
        return close
    return f"hpo-bench status shows the {len(names)} runs there are"


# --- CSV ---


def write_csv(runs: Sequence[Run], out: Path) -> list[Path]:
    """Write ``finals.csv``, a row per repetition of all runs, and ``curves/<run_id>.csv`` for each.

    Numbers are not rounded, and nulls are empty.

    Returns:
        The files.

    Raises:
        UserError: a file cannot be written.
    """
    finals, files = [], []
    for run, final, curves in _readable(runs):
        finals.append(_described(run, final))
        files.append(_to_csv(_whole_numbers(curves), out / "curves" / f"{run.run_id}.csv"))
    if finals:
        files.insert(0, _to_csv(pd.concat(finals, ignore_index=True), out / "finals.csv"))
    return files


def _readable(runs: Sequence[Run]) -> Iterator[tuple[Run, pd.DataFrame, pd.DataFrame]]:
    """Runs with their final values and curves; what is damaged is left out, where that may be."""
    for run in runs:
        try:
            tables = read_table(run, "final"), read_table(run, "curves")
        except StoreError as error:
            notices.leave_out(run.place, error)
            continue
        yield run, *tables


def _described(run: Run, final: pd.DataFrame) -> pd.DataFrame:
    frame = _whole_numbers(final[list(FINAL_COLUMNS)])
    description = {
        "run_id": run.run_id,
        "dataset": run.dataset,
        "method": run.method,
        "config_hash": run.config_hash,
    }
    for position, (name, value) in enumerate(description.items()):
        frame.insert(position, name, value)
    return frame


def _whole_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Make steps whole numbers, also where some are missing, which makes them floats for pandas."""
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
    """Write TensorBoard event files, in a folder for each curve.

    ``<run_id>`` holds medians and quartiles over repetitions, ``<run_id>-seed-<seed>`` the values
    of one.

    Args:
        seeds: of repetitions that every run must have.

    Returns:
        The folders.

    Raises:
        UserError: the extra is not installed, a run lacks a seed, or the folder is taken.
    """
    for run in runs:
        for seed in seeds:
            _check_seed(run, seed)
    folders = []
    for run, final, curves in _readable(runs):
        folders.append(_events(out / run.run_id, summarise(curves, final)))
        for seed in seeds:
            curve = curves[curves["seed"] == seed].set_index("step").drop(columns="seed")
            values = curve.dropna(axis="columns", how="all")
            folders.append(_events(out / f"{run.run_id}-seed-{seed}", values))
    return folders


def _events(folder: Path, frame: pd.DataFrame) -> Path:
    if folder.is_dir() and any(folder.glob("events.out.tfevents.*")):
        raise UserError(
            f"{folder}: holds event files already, which would be drawn on top of each other; "
            "delete it"
        )
    writer = event_writer(folder)
    try:
        add_scalars(writer, "curves", finite_points(frame))
    finally:
        writer.close()
    return folder


# --- schedules ---


def write_schedule(run: Run, out: Path, seed: int | None = None) -> Path:
    """Write what `schedule` returns as ``<run_id>.schedule.csv``; returns the file."""
    name = run.run_id if seed is None else f"{run.run_id}-seed-{seed}"
    return _to_csv(schedule(run, seed), out / f"{name}.schedule.csv")


def schedule(run: Run, seed: int | None = None) -> pd.DataFrame:
    """The hyperparameters that a run learned, named as the options of ``torch.optim.SGD``.

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
            f"{run.run_id}: a schedule is for torch.optim.SGD; "
            f"this method's weights are updated by {rule['_target_'].rpartition('.')[2]}"
        )
    interval, every = _between_changes(run), int(run.config["record_every"])
    if interval % every:
        often = "weight update" if interval == 1 else f"{interval} weight updates"
        instead = "record_every=1" if interval == 1 else f"a record_every that divides {interval}"
        raise UserError(
            f"{run.run_id}: record_every={every} leaves out changes made after every {often}; "
            f"run again with {instead}"
        )
    curves = read_table(run, "curves", ("seed", "step", *HYPERPARAMETERS))
    if seed is not None:
        _check_seed(run, seed)
        rows = curves[curves["seed"] == seed]
    else:
        final = read_table(run, "final", ("seed", "status"))
        good = final.loc[final["status"] == "ok", "seed"]
        if good.empty:
            raise UserError(f"{run.run_id}: all repetitions diverged; name one with --seed")
        rows = curves[curves["seed"].isin(good)]
    medians = rows.groupby("step")[list(HYPERPARAMETERS)].median().astype(np.float64)
    # No weight update used what the last hyperparameter update made.
    updates = int(run.config["update_interval"]) * int(run.config["hyperparameter_updates"])
    effective = medians[medians.index < updates]
    is_new = (effective != effective.shift()).any(axis=1)
    return effective[is_new].reset_index()


def _between_changes(run: Run) -> int:
    """Weight updates between changes of the hyperparameters."""
    method = run.config["method"]
    estimator = (method.get("estimator") or {}).get("_target_")
    always = method.get("schedule") or estimator in AFTER_EVERY_UPDATE
    return 1 if always else int(run.config["update_interval"])


def _check_seed(run: Run, seed: int) -> None:
    if seed not in run.seeds:
        raise UserError(f"--seed {seed}: {run.run_id} has the seeds {_span(run.seeds)}")


def _span(seeds: Sequence[Any]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
