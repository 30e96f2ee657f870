"""What the paper claims, and what the stored runs say about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from hpo_bench.analysis import selection
from hpo_bench.analysis.costs import PLAIN, Cost, costs
from hpo_bench.analysis.frames import failure_aware, finals
from hpo_bench.analysis.rounding import rounded
from hpo_bench.analysis.selection import Runs
from hpo_bench.analysis.statistics import bootstrap, pairs
from hpo_bench.analysis.statistics.interval import Interval, survival_median
from hpo_bench.analysis.summary import by

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
ELSEWHERE = (  # on each of the other UCI sets the first has the lower median
    (
        "ours_wd_lr_m",
        "random",
        "Tuning weight decay, learning rate and momentum improves on random hyperparameters",
    ),
    ("ours_wd_lr_m", "lorraine", "… beats weight decay alone (Lorraine)"),
    ("ours_wd_lr_m", "baydin", "… beats Baydin"),
)
ONE_PASS = "ours_wd_lr_m"
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
            orderings only of the paper's length.
        seed: of the bootstraps.
    """
    long = [
        run
        for run in runs
        if run.dataset.startswith("uci_") and selection.weight_updates(run) == WEIGHT_UPDATES
    ]
    frames: dict[str, dict[str, pd.DataFrame]] = {DATASET: {}}
    for dataset, group in by(selection.comparable(long).runs, "dataset").items():
        frames[dataset] = {method: finals(part) for method, part in by(group, "method").items()}
    energy = frames.pop(DATASET)
    return [
        *(
            _ordering(energy, better, worse, text, _expected(better, worse), seed)
            for better, worse, text in ORDERINGS
        ),
        *(_similar(energy, a, b, text, seed) for a, b, text in SIMILAR),
        *(_robust(energy, a, b, text, seed) for a, b, text in ROBUST),
        *(_reference(energy[method], method, seed) for method in EXPECTED if method in energy),
        *(
            _ordering(
                found,
                better,
                worse,
                f"{found[better]['dataset_label'].iloc[0]}: {text}",
                "lower median",
                seed,
            )
            for found in frames.values()
            for better, worse, text in ELSEWHERE
            if better in found and worse in found
        ),
        *_costs(selection.comparable(runs).runs, seed),
    ]


def _expected(better: str, worse: str) -> str:
    return f"median {EXPECTED[better]} < {EXPECTED[worse]}"


def _shared(frames: dict[str, pd.DataFrame], methods: Sequence[str]) -> pd.DataFrame:
    """Final metric of methods by shared seed, failures +inf; a method without runs leaves it
    empty.
    """
    columns = [
        pd.Series(failure_aware(frames[method]), index=frames[method]["seed"], name=method)
        if method in frames
        else pd.Series([], dtype=float, name=method)
        for method in methods
    ]
    return pd.concat(columns, axis=1, join="inner")


def _ordering(
    frames: dict[str, pd.DataFrame], better: str, worse: str, text: str, expected: str, seed: int
) -> Claim:
    shared = _shared(frames, (better, worse))
    if shared.empty:
        return _without_runs(text, expected, frames, (better, worse))
    result = pairs.paired_comparison(shared[better], shared[worse], seed=seed)
    probability = result.probability
    measured = (
        f"{_medians(shared, '<' if result.difference.estimate < 0 else '≥')}; better on the same seed in "
        f"{100 * probability.estimate:.0f} % [{100 * probability.low:.0f}, {100 * probability.high:.0f}]"
    )
    verdict = _verdict(result.difference, result.n >= FEWEST_SEEDS, below=0.0)
    return Claim(text, expected, measured, result.difference, result.n, verdict)


def _similar(frames: dict[str, pd.DataFrame], a: str, b: str, text: str, seed: int) -> Claim:
    shared = _shared(frames, (a, b))
    expected = f"median {EXPECTED[a]} ≈ {EXPECTED[b]} (within a factor of {SIMILAR_WITHIN:g})"
    if shared.empty:
        return _without_runs(text, expected, frames, (a, b))
    ratio = pairs.bootstrap_two(shared[a], shared[b], "ratio", seed=seed)
    measured = f"{_medians(shared, 'against')}; ratio {_bounds(ratio)}"
    enough = len(shared) >= FEWEST_SEEDS
    verdict = _verdict(ratio, enough, below=SIMILAR_WITHIN, above=1 / SIMILAR_WITHIN)
    return Claim(text, expected, measured, ratio, len(shared), verdict)


def _robust(frames: dict[str, pd.DataFrame], a: str, b: str, text: str, seed: int) -> Claim:
    shared = _shared(frames, (a, b))
    expected = "narrower spread"
    if shared.empty:
        return _without_runs(text, expected, frames, (a, b))
    ratio = pairs.bootstrap_two(shared[a], shared[b], "spread", seed=seed)
    measured = f"interquartile range {_bounds(ratio)} × that of {b}"
    return Claim(
        text,
        expected,
        measured,
        ratio,
        len(shared),
        _verdict(ratio, len(shared) >= FEWEST_SEEDS, below=1.0),
    )


def _reference(frame: pd.DataFrame, method: str, seed: int) -> Claim:
    """Whether the median of the authors' runs could be one of as many of ours."""
    found = bootstrap.medians_of(failure_aware(frame), REFERENCE_REPETITIONS, seed=seed)
    within = found.low <= EXPECTED[method] <= found.high
    verdict: Verdict = "supported" if within else "contradicted"
    return Claim(
        f"{frame['label'].iloc[0]}: the median is that of the authors' code",
        f"{EXPECTED[method]} ({REFERENCE_REPETITIONS} repetitions)",
        f"median {rounded(found.estimate).text}; of {REFERENCE_REPETITIONS} repetitions it would lie in "
        f"[{found.low:.2g}, {found.high:.2g}]",
        found,
        found.n,
        verdict if found.n >= FEWEST_SEEDS else "not enough runs",
    )


def _verdict(
    interval: Interval, enough: bool, below: float, above: float = float("-inf")
) -> Verdict:
    """Supported where the whole interval lies between ``above`` and ``below``, contradicted where
    none of it does.
    """
    if not enough:
        return "not enough runs"
    if above < interval.low and interval.high < below:
        return "supported"
    return "contradicted" if interval.low > below or interval.high < above else "undecided"


def _without_runs(
    text: str, expected: str, frames: dict[str, pd.DataFrame], methods: Sequence[str]
) -> Claim:
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
    """One claim per dataset that has runs of both plain and one-pass training; one without runs
    where none has.
    """
    text = "One pass costs at most 2–3 × plain training"
    wanted = [run for run in runs if run.method in (PLAIN, ONE_PASS)]
    found = [
        _cost(f"{text}: {cost.dataset_label}", cost)
        for cost in costs(wanted, seed)
        if cost.method == ONE_PASS
    ]
    measured = f"no runs of {PLAIN} and {ONE_PASS} on one dataset, machine and block size"
    none = Claim(text, "2–3 ×", measured, None, 0, "not enough runs")
    return [claim for claim in found if claim is not None] or [none]


def _cost(text: str, cost: Cost) -> Claim | None:
    ratio = cost.times_plain
    if ratio is None:
        return None
    measured = f"{_bounds(ratio)} × ({cost.machine}, blocks of {cost.rows_in_block})"
    verdict = _verdict(ratio, ratio.n >= FEWEST_BLOCKS, below=COST_AT_MOST)
    return Claim(text, "2–3 ×", measured, ratio, ratio.n, verdict)
