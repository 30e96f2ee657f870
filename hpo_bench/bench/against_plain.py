"""What a pass of a method costs beside plain training by the same weight update, in one run."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from hpo_bench.bench.runtime import NEVER
from hpo_bench.running.trainer import Trainer
from hpo_bench.settings.run import Settings

# Methods, and the plain training in units of which their time is told.
PAIRS = (
    ("ours_wd_lr_m", "random"),
    ("diff_through_opt", "random"),
    ("ours_discounted", "random"),
    ("ours_adamw", "random_adam"),
    ("diff_through_opt_adamw", "random_adam"),
    ("random_adam", "random"),
)
METHODS = tuple(dict.fromkeys(name for pair in PAIRS for name in pair))
REPETITIONS = 200  # of the run whose division into blocks is taken


@dataclass(frozen=True)
class MethodTimes:
    """Microseconds of processor time per weight update and repetition, of each round.

    Args:
        rows: repetitions that were trained at once, by method.
        times: by method; the rounds of all methods were taken in turns.
    """

    dataset: str
    rows: Mapping[str, int]
    times: Mapping[str, tuple[float, ...]]

    def ratios(self, method: str, plain: str) -> NDArray[np.float64]:
        """Time of one method over that of another, round by round."""
        own, other = (np.array(self.times[name], dtype=np.float64) for name in (method, plain))
        ratios: NDArray[np.float64] = own / other
        return ratios


def method_times(settings: Mapping[str, Settings], *, updates: int, rounds: int) -> MethodTimes:
    """Train each method for some ``updates``, ``rounds`` times in turns, in one thread.

    Blocks are as large as those of a run of 200 repetitions. Where all rows make a batch everything
    is recorded at every update, else nothing.

    Args:
        settings: of one dataset, by method.
    """
    trainers = {name: _trainer(one, updates) for name, one in settings.items()}
    rows = {name: trainer.chunk(REPETITIONS).rows for name, trainer in trainers.items()}
    times: dict[str, list[float]] = {name: [] for name in trainers}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for round_ in range(rounds + 1):
            for name, trainer in trainers.items():
                begin = time.process_time()
                trainer.block(range(trainer.settings.seed, trainer.settings.seed + rows[name]))
                seconds = time.process_time() - begin
                if round_ > 0:
                    times[name].append(1e6 * seconds / updates / rows[name])
    finally:
        torch.set_num_threads(threads)
    dataset = next(iter(settings.values())).dataset
    return MethodTimes(dataset, rows, {name: tuple(found) for name, found in times.items()})


def _trainer(settings: Settings, updates: int) -> Trainer:
    """Of a short training, with its data loaded."""
    short = replace(
        settings,
        hyperparameter_updates=updates // settings.update_interval,
        workers=1,
        chunk=None,
        device="cpu",
        record_every=1 if settings.batch_size is None else NEVER,
    )
    table = settings.source.load(settings.validation_share)
    return Trainer.of(short, table, torch.device("cpu"))


def page(found: Sequence[MethodTimes], environment: Mapping[str, object]) -> str:
    """The page as Markdown."""
    left_out = ("threads", "workers")
    parts = [f"{key} {value}" for key, value in environment.items() if key not in left_out]
    lines = [
        f"Measured {datetime.date.today().isoformat()} with one thread: {', '.join(parts)}.",
        "",
        "Microseconds of processor time per weight update and repetition, all methods in turns; "
        "ratios are formed round by round: median (lowest to highest). Where all rows make a batch "
        "everything is recorded at every update, else nothing.",
        "",
        "| dataset | method | rows | µs | plain | rows | µs | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        for method, plain in PAIRS:
            cells = [one.dataset]
            for name in (method, plain):
                cells += [name, str(one.rows[name]), f"{np.median(one.times[name]):.1f}"]
            ratios = one.ratios(method, plain)
            spread = f"({ratios.min():.2f} to {ratios.max():.2f})"
            lines.append(f"| {' | '.join(cells)} | **{np.median(ratios):.2f}** {spread} |")
    return "\n".join([*lines, ""])
