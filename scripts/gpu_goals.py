"""How long the paper's experiments take on this machine's GPU, beside what they should take on an
H100.

    python scripts/gpu_goals.py [--share S] [--only NAME …]

Each line is a training of the paper's size, float32, its curves recorded as the paper's figures
need them. The time is that of the training itself, after the program has started and the data are
on the device. With ``--share 0.1`` a tenth of the weight updates is made and the time of the rest
is foretold; the table says so. Where a data set cannot be had,
random numbers of its shape stand for it: the arithmetic is the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from hpo_bench.analysis.paper import ONE_PASS, UCI
from hpo_bench.core.table import Table
from hpo_bench.errors import UserError
from hpo_bench.running.trainer import Trainer
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.run import Settings

LEAST_INTERVALS = 40  # of a share: the first ones are captured, not replayed


@dataclass(frozen=True)
class Goal:
    """Trainings that together should take no more than some seconds.

    Args:
        name: what they are.
        seconds: on an H100.
        runs: overrides of each.
    """

    name: str
    seconds: float
    runs: tuple[tuple[str, ...], ...]


def goals() -> Iterator[Goal]:
    """The goals in the order of their size."""
    ours = "method=ours_wd_lr_m"
    yield Goal(
        "UCI Energy, 200 x 4000 updates", 1, ((ours, "dataset=uci_energy", "repetitions=200"),)
    )
    yield Goal(
        "Fashion-MNIST, 100 x 50 000 updates",
        30,
        ((ours, "dataset=fashion_mnist", "repetitions=100"),),
    )
    yield Goal("ResNet-18 on CIFAR-10, 1 x 72 epochs", 120, ((ours, "dataset=cifar10"),))
    runs = tuple(
        (f"method={method}", f"dataset={dataset}", "repetitions=200")
        for dataset, method in product(UCI, ONE_PASS)
    )
    yield Goal("all UCI sets, nine methods, 200 x 4000 updates", 300, runs)
    yield Goal("Penn Treebank, 1 x 72 epochs", 600, ((ours, "dataset=penn_treebank"),))


def table_of(settings: Settings) -> tuple[Table, bool]:
    """The data set, or random numbers of its shape; and whether it is the real one."""
    try:
        return settings.source.load(settings.validation_share), True
    except UserError as error:
        table = random_table(settings.dataset)
        if table is None:
            raise
        print(f"{settings.dataset}: random numbers of its shape ({str(error)[:80]}…)")
        return table, False


def random_table(name: str) -> Table | None:
    """Random numbers in the shape of a large data set of the paper; None for others."""
    random = np.random.default_rng(0)
    if name == "cifar10":
        inputs, targets = (
            random.standard_normal((60_000, 3, 32, 32), np.float32),
            random.integers(0, 10, 60_000),
        )
        return Table(
            name, "classification", inputs, targets, 45_000, 5_000, 10_000, 10, 1.0, "random"
        )
    if name == "fashion_mnist":
        inputs, targets = (
            random.standard_normal((70_000, 784), np.float32),
            random.integers(0, 10, 70_000),
        )
        return Table(
            name, "classification", inputs, targets, 50_000, 10_000, 10_000, 10, 1.0, "random"
        )
    if name == "penn_treebank":
        words = random.integers(0, 10_000, (27_142, 40))
        return Table(
            name, "language", words[:-1], words[1:], 23_238, 1_844, 2_059, 10_000, 1.0, "random"
        )
    return None


def seconds_of(overrides: Sequence[str], share: float) -> tuple[float, float, bool]:
    """Seconds of a training, measured or foretold; the share of it that was made; whether its data
    are real.

    What was not made is foretold from the median time of an interval in the second half of what
    was: in the first half graphs are captured."""
    settings = parse(compose([*overrides, "device=cuda"]))
    table, real = table_of(settings)
    intervals = settings.hyperparameter_updates
    made = min(intervals, max(LEAST_INTERVALS, round(share * intervals)))
    trainer = Trainer.of(
        replace(settings, hyperparameter_updates=made), table, torch.device("cuda")
    )
    times: list[float] = []

    def on_progress(updates: int) -> None:
        if made < intervals:
            torch.cuda.synchronize()
            times.append(time.perf_counter())

    torch.cuda.synchronize()
    begin = time.perf_counter()
    trainer.block(settings.seeds, on_progress)
    seconds = time.perf_counter() - begin
    if made < intervals:
        each = float(np.median(np.diff(times[made // 2 :])))
        seconds += each * (intervals - made)
    return seconds, made / intervals, real


def main() -> None:
    """Measure and print a table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--share", type=float, default=1.0, help="of the weight updates that is made"
    )
    arguments.add_argument("--only", nargs="*", help="words of the names of goals")
    asked = arguments.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    seconds_of(
        ("method=random", "dataset=diabetes", "hyperparameter_updates=3"), 1.0
    )  # libraries are loaded
    lines = []
    for goal in goals():
        if asked.only and not any(word.lower() in goal.name.lower() for word in asked.only):
            continue
        total, smallest, real = 0.0, 1.0, True
        for overrides in goal.runs:
            seconds, made, own = seconds_of(overrides, asked.share)
            total, smallest, real = total + seconds, min(smallest, made), real and own
        note = "" if smallest == 1 else f", from {smallest:.1%} of the updates"
        note += "" if real else ", random data"
        lines.append(f"| {goal.name} | {goal.seconds:g} s | {total:.1f} s{note} |")
        print(lines[-1], flush=True)
    print("\n".join(["", "| training | goal (H100) | here |", "|---|---|---|", *lines]))


if __name__ == "__main__":
    main()
