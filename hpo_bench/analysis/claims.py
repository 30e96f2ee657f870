"""What the paper claims, and what the stored runs say about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from hpo_bench.analysis.costs import Cost, costs
from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.paper import PLAIN
from hpo_bench.analysis.rounding import rounded
from hpo_bench.analysis.selection import Runs, by_dataset, by_method, comparable, weight_updates
from hpo_bench.analysis.statistics.bootstrap import medians_of
from hpo_bench.analysis.statistics.interval import Interval, survival_median
from hpo_bench.analysis.statistics.pairs import bootstrap_two, paired_comparison
from hpo_bench.store.runs import Run

Frames = Mapping[str, pd.DataFrame]  # final values by method
Verdict = Literal["supported", "contradicted", "undecided", "not enough runs"]

DATASET = "uci_energy"
WEIGHT_UPDATES = 4000
# Median final test MSE of 24 repetitions of the authors' code on UCI Energy, CPU, float32, 4000
# weight updates.
REFERENCE_REPETITIONS = 24
EXPECTED = {
    "random": 7.6,
    "random_lr_schedule": 10.8,
    "lorraine": 7.6,
    "baydin": 6.6,
    "ours_wd_lr": 2.0,
    "ours_wd_lr_m": 0.53,
    "ours_wd_hdlr_m": 0.31,
    "diff_through_opt": 0.57,
}
ORDERINGS = (  # the first has the lower median
    (
        "random",
        "random_lr_schedule",
        "A decaying learning rate does not help random hyperparameters",
    ),
    (
        "baydin",
        "random",
        "Tuning the learning rate alone (Baydin) improves on random hyperparameters",
    ),
    (
        "ours_wd_lr",
        "random",
        "Tuning weight decay and learning rate improves on random hyperparameters",
    ),
    (
        "ours_wd_lr",
        "lorraine",
        "Tuning weight decay and learning rate beats weight decay alone (Lorraine)",
    ),
    ("ours_wd_lr", "baydin", "Tuning weight decay and learning rate beats Baydin"),
    (
        "ours_wd_lr_m",
        "random",
        "Tuning weight decay, learning rate and momentum improves on random hyperparameters",
    ),
    ("ours_wd_lr_m", "ours_wd_lr", "Tuning momentum, too, helps"),
    ("ours_wd_hdlr_m", "ours_wd_lr_m", "A learning rate for each weight helps"),
)
SIMILAR = (  # medians within a factor of SIMILAR_WITHIN
    (
        "ours_wd_lr_m",
        "diff_through_opt",
        "The approximate hypergradient does as well as exact differentiation",
    ),
    ("lorraine", "random", "Tuning weight decay alone (Lorraine) changes little"),
)
SIMILAR_WITHIN = 2.0
ROBUST = (  # the first has the smaller spread over initialisations
    (
        "ours_wd_lr_m",
        "random",
        "Results depend less on the initialisation than with random hyperparameters",
    ),
)
ELSEWHERE = (  # on each of the other sets the first has the lower median
    (
        "ours_wd_lr_m",
        "random",
        "Tuning weight decay, learning rate and momentum improves on random hyperparameters",
    ),
    ("ours_wd_lr_m", "lorraine", "… beats weight decay alone (Lorraine)"),
    ("ours_wd_lr_m", "baydin", "… beats Baydin"),
)
# Weight updates of the larger sets at which claims are judged: the paper's, and on Fashion-MNIST
# those of the tables of the version under review (10 epochs).
LARGER = {"fashion_mnist": (50_000, 10_000), "cifar10": (32_400,), "penn_treebank": (23_910,)}
WITH_HYPERGRADIENTS = "ours_wd_lr_m"  # the method whose costs are judged
COST_AT_MOST = 3.0
FEWEST_SEEDS, FEWEST_BLOCKS = 10, 3


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and its verdict.

    Args:
        expected, measured: in words, with numbers.
        interval: of what decides the verdict (a difference or ratio of medians, a ratio of times);
            None without runs.
        n: shared seeds, or blocks for times.
        verdict: ``undecided`` where the interval lies on both sides.
    """

    text: str
    expected: str
    measured: str
    interval: Interval | None
    n: int
    verdict: Verdict


def claims(runs: Runs, seed: int = 0) -> list[Claim]:
    """Verdicts on the paper's claims.

    Args:
        runs: any complete runs of a store; of each dataset and method the usual configuration, for
            orderings only of the lengths of `WEIGHT_UPDATES` and `LARGER`.
        seed: of the bootstraps.
    """
    frames = _frames(run for run in runs if run.dataset.startswith("uci_"))
    energy = frames.pop(DATASET, {})

    judged: list[Claim] = []
    for better, worse, text in ORDERINGS:
        expected = f"median {EXPECTED[better]} < {EXPECTED[worse]}"
        judged.append(_ordering(energy, better, worse, text, expected, seed))
    for method, other, text in SIMILAR:
        judged.append(_similar(energy, method, other, text, seed))
    for method, other, text in ROBUST:
        judged.append(_robust(energy, method, other, text, seed))
    for method in EXPECTED:
        if method in energy:
            judged.append(_reference(energy[method], method, seed))
    for elsewhere in frames.values():
        judged += _orderings_elsewhere(elsewhere, seed)
    for dataset, lengths in LARGER.items():
        for length in lengths:
            of_length = _frames((run for run in runs if run.dataset == dataset), length)
            judged += _orderings_elsewhere(of_length.get(dataset, {}), seed, f", {length} updates")
    return [*judged, *_costs(comparable(runs).runs, seed)]


def _frames(runs: Iterable[Run], length: int = WEIGHT_UPDATES) -> dict[str, Frames]:
    """Final values of the runs that are so many weight updates long, by dataset and method."""
    of_length = [run for run in runs if weight_updates(run) == length]
    frames: dict[str, Frames] = {}
    for dataset, group in by_dataset(comparable(of_length).runs).items():
        frames[dataset] = {method: finals(part) for method, part in by_method(group).items()}
    return frames


def _orderings_elsewhere(frames: Frames, seed: int, length: str = "") -> list[Claim]:
    """The claims of `ELSEWHERE` on a data set that has runs of both methods."""
    judged = []
    for better, worse, text in ELSEWHERE:
        if better in frames and worse in frames:
            label = frames[better]["dataset_label"].iloc[0]
            judged.append(
                _ordering(frames, better, worse, f"{label}{length}: {text}", "lower median", seed)
            )
    return judged


def _shared(frames: Frames, methods: Sequence[str]) -> pd.DataFrame:
    """Final metric of methods by shared seed, failures +inf.

    It is empty where a method has no runs.
    """
    columns: list[pd.Series[Any]] = []
    for method in methods:
        if method in frames:
            frame = frames[method]
            values = failure_aware(frame)
            columns.append(pd.Series(values, index=frame["seed"].to_numpy(), name=method))
        else:
            columns.append(pd.Series([], dtype=float, name=method))
    return pd.concat(columns, axis=1, join="inner")


def _ordering(
    frames: Frames, better: str, worse: str, text: str, expected: str, seed: int
) -> Claim:
    """Whether one method has the lower median."""
    shared = _shared(frames, (better, worse))
    if shared.empty:
        return _without_runs(text, expected, frames, (better, worse))
    result = paired_comparison(shared[better], shared[worse], seed=seed)
    probability = result.probability
    relation = "<" if result.difference.estimate < 0 else "≥"
    measured = (
        f"{_medians(shared, relation)}; better on the same seed in "
        f"{100 * probability.estimate:.0f} % "
        f"[{100 * probability.low:.0f}, {100 * probability.high:.0f}]"
    )
    verdict = _verdict(result.difference, result.n >= FEWEST_SEEDS, below=0.0)
    return Claim(text, expected, measured, result.difference, result.n, verdict)


def _similar(frames: Frames, a: str, b: str, text: str, seed: int) -> Claim:
    """Whether two medians lie within a factor of `SIMILAR_WITHIN`."""
    shared = _shared(frames, (a, b))
    expected = f"median {EXPECTED[a]} ≈ {EXPECTED[b]} (within a factor of {SIMILAR_WITHIN:g})"
    if shared.empty:
        return _without_runs(text, expected, frames, (a, b))
    ratio = bootstrap_two(shared[a], shared[b], "ratio", seed=seed)
    measured = f"{_medians(shared, 'against')}; ratio {_bounds(ratio)}"
    enough = len(shared) >= FEWEST_SEEDS
    verdict = _verdict(ratio, enough, below=SIMILAR_WITHIN, above=1 / SIMILAR_WITHIN)
    return Claim(text, expected, measured, ratio, len(shared), verdict)


def _robust(frames: Frames, a: str, b: str, text: str, seed: int) -> Claim:
    """Whether one method's results spread less over initialisations."""
    shared = _shared(frames, (a, b))
    expected = "narrower spread"
    if shared.empty:
        return _without_runs(text, expected, frames, (a, b))
    ratio = bootstrap_two(shared[a], shared[b], "spread", seed=seed)
    measured = f"interquartile range {_bounds(ratio)} × that of {b}"
    verdict = _verdict(ratio, len(shared) >= FEWEST_SEEDS, below=1.0)
    return Claim(text, expected, measured, ratio, len(shared), verdict)


def _reference(frame: pd.DataFrame, method: str, seed: int) -> Claim:
    """Whether the median of the authors' runs could be one of as many of ours."""
    median = medians_of(failure_aware(frame), REFERENCE_REPETITIONS, seed=seed)
    verdict: Verdict = "contradicted"
    if median.n < FEWEST_SEEDS:
        verdict = "not enough runs"
    elif median.low <= EXPECTED[method] <= median.high:
        verdict = "supported"
    return Claim(
        f"{frame['label'].iloc[0]}: the median is that of the authors' code",
        f"{EXPECTED[method]} ({REFERENCE_REPETITIONS} repetitions)",
        f"median {rounded(median.estimate).text}; of {REFERENCE_REPETITIONS} repetitions it would "
        f"lie in [{median.low:.2g}, {median.high:.2g}]",
        median,
        median.n,
        verdict,
    )


def _verdict(
    interval: Interval, enough: bool, below: float, above: float = float("-inf")
) -> Verdict:
    """Supported where all of the interval lies between the bounds, contradicted where none does."""
    if not enough:
        return "not enough runs"
    if above < interval.low and interval.high < below:
        return "supported"
    return "contradicted" if interval.low > below or interval.high < above else "undecided"


def _without_runs(text: str, expected: str, frames: Frames, methods: Sequence[str]) -> Claim:
    absent = [method for method in methods if method not in frames]
    what = f"no runs of {', '.join(absent)}" if absent else "no shared seeds"
    measured = f"{what} on {DATASET} with {WEIGHT_UPDATES} weight updates"
    return Claim(text, expected, measured, None, 0, "not enough runs")


def _medians(shared: pd.DataFrame, relation: str) -> str:
    left, right = (
        rounded(float(survival_median(shared[column]))).text for column in shared.columns
    )
    return f"median {left} {relation} {right}"


def _bounds(interval: Interval) -> str:
    if interval.n < 2:  # no interval from one value
        return f"{interval.estimate:.2f}"
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _costs(runs: Runs, seed: int) -> list[Claim]:
    """One claim per dataset that has runs of both plain and one-pass training.

    Where none has, one claim says so.
    """
    text = "One pass costs at most 2–3 × plain training"
    both = [run for run in runs if run.method in (PLAIN, WITH_HYPERGRADIENTS)]
    judged = []
    for cost in costs(both, seed):
        if cost.method == WITH_HYPERGRADIENTS and cost.times_plain is not None:
            judged.append(_cost(f"{text}: {cost.dataset_label}", cost, cost.times_plain))
    if judged:
        return judged
    methods = f"{PLAIN} and {WITH_HYPERGRADIENTS}"
    measured = f"no runs of {methods} on one dataset, machine and block size"
    return [Claim(text, "2–3 ×", measured, None, 0, "not enough runs")]


def _cost(text: str, cost: Cost, ratio: Interval) -> Claim:
    measured = f"{_bounds(ratio)} × ({cost.machine}, blocks of {cost.rows_in_block})"
    verdict = _verdict(ratio, ratio.n >= FEWEST_BLOCKS, below=COST_AT_MOST)
    return Claim(text, "2–3 ×", measured, ratio, ratio.n, verdict)
