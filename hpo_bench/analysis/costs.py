"""What a method's training costs beside plain training, from the wall times of stored blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hpo_bench.analysis.frames import finals
from hpo_bench.analysis.incumbent import is_search
from hpo_bench.analysis.paper import PLAIN
from hpo_bench.analysis.selection import MACHINE, Runs, by_dataset, by_method, weight_updates
from hpo_bench.analysis.statistics.interval import Interval
from hpo_bench.analysis.statistics.pairs import bootstrap_two
from hpo_bench.store.runs import Run


@dataclass(frozen=True)
class Cost:
    """Cost of a method on a dataset.

    The conditions are those in which most of its repetitions were trained.

    Args:
        machine: device or CPU, threads and blocks side by side.
        repetitions, blocks: that the medians rest on.
        seconds: of one training (wall time of its block ÷ rows of the block).
        milliseconds_per_update: the same per weight update.
        times_plain: cost per update ÷ that of plain training under the same conditions; None for
            plain training itself and without such runs.
    """

    dataset: str
    dataset_label: str
    method: str
    label: str
    machine: str
    rows_in_block: int
    repetitions: int
    blocks: int
    seconds: float
    milliseconds_per_update: float
    times_plain: Interval | None


def costs(runs: Runs, seed: int = 0) -> list[Cost]:
    """Costs of all methods of all datasets; searches, which are many trainings, are left out.

    Args:
        runs: one configuration per dataset and method.
        seed: of the bootstrap over blocks.
    """
    trainings = [run for run in runs if not is_search(run)]
    all_costs: list[Cost] = []
    for group in by_dataset(trainings).values():
        frames = {method: finals(part) for method, part in by_method(group).items()}
        plain = frames.get(PLAIN)
        all_costs += [_cost(_usual(frame), plain, seed) for frame in frames.values()]
    return all_costs


def evaluates_between(run: Run) -> bool:
    """Whether a training looked at the test set between its first step and its last."""
    return int(run.config["record_every"]) < weight_updates(run)


def seconds_without_evaluation(runs: Runs, frame: pd.DataFrame) -> pd.Series:
    """What repetitions took less the share of it in which their runs evaluated.

    A short training that evaluates at both ends alone may do little else.

    Args:
        frame: finals of ``runs``.
    """
    training = {run.run_id: run.seconds["train"] / run.seconds["total"] for run in runs}
    return frame["seconds"] * frame["run_id"].map(training)


def of_several_machines(runs: Runs) -> tuple[str, ...]:
    """A line that says of which datasets the run times should not be compared; none if of none.

    Args:
        runs: those whose seconds stand in one panel or table, for each dataset.
    """
    told = []
    for group in by_dataset(runs).values():
        machines = sorted({device(run.environment) for run in group} - {""})
        if len(machines) > 1:
            told.append(f"{group[0].dataset_label} ({', '.join(machines)})")
    return (f"seconds of several machines: {'; '.join(told)}",) if told else ()


def device(environment: Mapping[Any, Any]) -> str:
    """The name of what a run was computed on, a processor or a GPU; nothing where it is not told.

    Args:
        environment: of the run's document, or a row of `frames.finals`.
    """
    name = environment.get("device", "")
    return str(environment.get("cpu", "") if name == "cpu" else name)


def _cost(frame: pd.DataFrame, plain: pd.DataFrame | None, seed: int) -> Cost:
    blocks, first = _blocks(frame), frame.iloc[0]
    times_plain = None
    if plain is not None and first["method"] != PLAIN:
        times_plain = _ratio(frame, plain, seed)
    return Cost(
        dataset=first["dataset"],
        dataset_label=first["dataset_label"],
        method=first["method"],
        label=first["label"],
        machine=_machine(first),
        rows_in_block=int(first["rows_in_block"]),
        repetitions=len(frame),
        blocks=len(blocks),
        seconds=float(blocks["seconds"].median()),
        milliseconds_per_update=1000 * float(_per_update(blocks).median()),
        times_plain=times_plain,
    )


def _ratio(frame: pd.DataFrame, plain: pd.DataFrame, seed: int) -> Interval | None:
    """Cost per update ÷ that of plain training under the same conditions; None without such."""
    alike = plain[(_conditions(plain) == _conditions(frame).iloc[0]).to_numpy()]
    if alike.empty:
        return None
    of_method, of_plain = _per_update(_blocks(frame)), _per_update(_blocks(alike))
    return bootstrap_two(of_method, of_plain, "ratio", paired=False, seed=seed)


def _conditions(frame: pd.DataFrame) -> pd.Series[str]:
    """Machine and block size of each row as one text.

    Sizes are alike up to a factor of about √2: ``chunk=auto`` gives 15 here and 17 there.
    """
    machine: pd.Series[str] = frame[list(MACHINE)].astype(str).agg("/".join, axis=1)
    size = pd.Series(np.log2(frame["rows_in_block"].astype(float))).round().astype(str)
    return machine + "/" + size


def _usual(frame: pd.DataFrame) -> pd.DataFrame:
    """Repetitions trained under the most frequent conditions."""
    conditions = _conditions(frame)
    return frame[(conditions == conditions.mode().iloc[0]).to_numpy()]


def _blocks(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per block: its repetitions share a wall time."""
    return frame.drop_duplicates(["run_id", "seconds"])


def _per_update(blocks: pd.DataFrame) -> pd.Series[float]:
    return blocks["seconds"] / blocks["weight_updates"]


def _machine(row: pd.Series[str]) -> str:
    return f"{device(row.to_dict())}, {row['threads']} threads, {row['workers']} side by side"
