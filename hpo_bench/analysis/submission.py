"""The numbers that the paper printed, beside those of the stored runs, cell by cell.

They are those of Tables 1 and 2 of the version under review, in ``submission.csv``, whose head says
where they are from. Both sides have the paper's statistics: runs that diverged are dropped.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from hpo_bench.analysis import paper
from hpo_bench.analysis.frames import finals
from hpo_bench.analysis.rounding import Rounded, rounded
from hpo_bench.analysis.selection import Runs, by_method, comparable, settings, weight_updates
from hpo_bench.analysis.statistics.bootstrap import bootstrap
from hpo_bench.analysis.statistics.interval import RESAMPLES
from hpo_bench.analysis.summary import Sample, paper_sample
from hpo_bench.settings import identity
from hpo_bench.settings.compose import compose
from hpo_bench.settings.yamls import configs_folder, read_yaml
from hpo_bench.store.runs import Run
from hpo_bench.system.quoting import override

Statistic = Literal["mean", "median", "best"]
Verdict = Literal["agrees", "differs", "cannot be said"]
Judgement = tuple[Verdict, str]  # and why

FILE = Path(__file__).with_name("submission.csv")
METRIC = "test_metric"
COLUMNS = {  # of the runs, by the metric that they printed
    "test_mse": METRIC,
    "test_cross_entropy": "test_loss",
    "test_perplexity": METRIC,
}
STANDARD_ERRORS = 2.0  # of the difference, within which two numbers agree
CHANCE = 2 * float(scipy.stats.norm.sf(STANDARD_ERRORS))  # that two of one distribution do not
FEWEST = 10  # runs whose bootstrap is worth an error
DIGITS = 3  # that they printed of a best value
DEPARTURES = 3  # settings that a reason names


@dataclass(frozen=True)
class Printed:
    """A number that they printed.

    Args:
        method: as it is shown, ``random_3_batched`` included.
        metric: one of `COLUMNS`, not scaled.
        error: one standard error; NaN of a best value, which has none.
    """

    dataset: str
    method: str
    metric: str
    statistic: Statistic
    value: float
    error: float


@dataclass(frozen=True)
class Protocol:
    """How they trained on a dataset.

    Args:
        label: of the dataset, with the factor by which its numbers are shown.
        weight_updates: of a training.
        repetitions: initialisations of each method.
        overrides: of ``hpo-bench run``, where the settings here are not theirs.
        scale: by which its numbers are shown.
    """

    label: str
    weight_updates: int
    repetitions: int
    overrides: tuple[str, ...] = ()
    scale: float = 1.0


PROTOCOLS: Mapping[str, Protocol] = {
    "uci_energy": Protocol("UCI Energy", 4000, 200),
    "uci_kin8nm": Protocol("UCI Kin8nm (× 1000)", 4000, 200, scale=1000.0),
    "uci_power": Protocol("UCI Power", 4000, 200),
    # The captions of the published version say 50 epochs, those of this one 10.
    "fashion_mnist": Protocol("Fashion-MNIST", 10_000, 100, ("hyperparameter_updates=1000",)),
    "penn_treebank": Protocol("Penn Treebank", 23_910, 50),
    # Their code standardises pixels from 0 to 255 with constants for those from 0 to 1.
    "cifar10": Protocol("CIFAR-10", 32_400, 50, ("dataset.pixel_scale=paper",)),
}
# Settings in which runs may differ from theirs: the length is asked for by itself, rounding is
# another with each machine, and which rows train the weights of Random, Random (× LR) and Baydin on
# the larger sets the text and the released scripts say differently.
FREE = ("hyperparameter_updates", "precision", "data_for_weights")
SOURCE = "dataset.source."  # where data lie; what is made of them is said outside of it

_MULTIPLIER = (
    "the text multiplies the learning rate after every weight update, here it is after every tenth"
)
# On the UCI sets and Fashion-MNIST the ranges of both come to the same.
DOUBTFUL: Mapping[tuple[str, str], str] = {
    ("penn_treebank", "random_lr_schedule"): _MULTIPLIER,
    ("cifar10", "random_lr_schedule"): _MULTIPLIER,
}


@dataclass(frozen=True)
class JudgedNumber:
    """A printed number, what came out here, and whether they agree; numbers are not scaled.

    Args:
        theirs, their_error: the error is one standard error, NaN where they have none.
        ours, our_error: by the paper's statistics; NaN without runs like theirs. The error of a
            best value is NaN.
        n: repetitions here that count, 0 without runs like theirs.
        verdict: see `judge_estimate` and `judge_best`.
        reason: of the verdict.
    """

    dataset: str
    method: str
    statistic: Statistic
    theirs: float
    their_error: float
    ours: float
    our_error: float
    n: int
    verdict: Verdict
    reason: str


# --- what they printed ---


@cache
def printed() -> tuple[Printed, ...]:
    """All numbers of the file, in its order."""
    with FILE.open(encoding="utf-8", newline="") as file:
        lines = [line for line in file if not line.startswith("#")]
    return tuple(
        Printed(
            dataset=row["dataset"],
            method=row["method"],
            metric=row["metric"],
            statistic=_statistic(row["statistic"]),
            value=float(row["value"]),
            error=float(row["standard_error"] or "nan"),
        )
        for row in csv.DictReader(lines)
    )


def _statistic(name: str) -> Statistic:
    kinds: dict[str, Statistic] = {"mean": "mean", "median": "median", "best": "best"}
    return kinds[name]


@cache
def method_label(method: str) -> str:
    """How one of their methods is called."""
    if method == paper.GROUPED_NAME:
        return paper.GROUPED_LABEL
    content = read_yaml(configs_folder() / "method" / f"{method}.yaml")
    return str(content["method"]["label"])


# --- verdicts ---


def judge(runs: Runs, seed: int = 0) -> list[JudgedNumber]:
    """Judge every number that they printed by the stored runs.

    Runs of another length or with other settings than theirs are not judged by.

    Args:
        runs: any complete runs of a store.
        seed: of the bootstraps and of the grouping of Random (3-batched).
    """
    samples: dict[tuple[str, str, str], Sample | str] = {}
    judged = []
    for number in printed():
        key = (number.dataset, number.method, number.metric)
        if key not in samples:
            samples[key] = _sample(runs, *key, seed)
        judged.append(_judged(number, samples[key], seed))
    return judged


def judge_estimate(theirs: float, their_error: float, ours: float, our_error: float) -> Judgement:
    """Whether two means or two medians agree.

    They do if they differ by at most `STANDARD_ERRORS` = 2 standard errors of their difference,
    which are those of both, squared, added and put under a root. Two samples of one distribution
    then differ in `CHANCE` = 4.6 % of the cells (6 or 7 of 144), as far as both estimates are
    normal and the errors, which are printed with one digit, right. Asking that both errors, added,
    cover the difference would be stricter where they are equal: one cell in six would differ.

    It cannot be said where as much as 2 standard errors of the difference is no less than the
    numbers themselves: then everything down to zero would agree.

    Args:
        their_error, our_error: one standard error each.
    """
    error = math.hypot(their_error, our_error)
    if not (math.isfinite(error) and math.isfinite(theirs) and math.isfinite(ours)):
        return _unsaid("a number or an error is missing")
    distance = abs(ours - theirs)
    within = STANDARD_ERRORS * error
    if distance > within:
        return "differs", _apart(theirs, ours, error)
    if within >= max(abs(theirs), abs(ours)):
        return _unsaid("the errors are as large as the numbers")
    return "agrees", _apart(theirs, ours, error)


def _apart(theirs: float, ours: float, error: float) -> str:
    """How far ours is from theirs."""
    if ours == theirs:
        return "no difference"
    side = "lower" if ours < theirs else "higher"
    return f"{side} by {abs(ours - theirs) / error:.1f} standard errors of the difference"


def judge_best(theirs: float, repetitions: int, lowest: ArrayLike) -> Judgement:
    """Whether the best of their repetitions can be the best of as many like ours.

    Nothing need be known of the distribution: if all n + m repetitions are alike, the best of
    their m is above the k-th lowest of our n only if the k lowest of all are ours. The first k
    for which this has a chance of at most `CHANCE` bounds what their best can be: up to it, it
    agrees, above it, it differs. Below our own best nothing can be said: chance has it there in
    m of n + m cases, and how far below depends on a tail of which nothing is stored.

    Args:
        theirs: printed with `DIGITS` digits, which is allowed for.
        repetitions: m, theirs.
        lowest: of each of our repetitions, (n,).
    """
    values = np.sort(np.asarray(lowest, dtype=float))
    values = values[np.isfinite(values)]
    n, m = len(values), repetitions
    rounding = 0.5 * 10.0 ** (math.floor(math.log10(theirs)) - DIGITS + 1)
    if n and theirs + rounding < values[0]:
        share = 100 * m / (n + m)
        return _unsaid(
            f"below the best of {n} here, where the best of {m} is by chance in {share:.0f} %"
        )
    rank = rank_of_bound(n, m)
    if rank is None:
        return _unsaid(f"{n} repetitions bound no best value")
    better = int((values < theirs - rounding).sum())
    if better >= rank:
        return "differs", f"{better} of {n} are better here, by chance up to {rank - 1}"
    return "agrees", f"{better} of {n} are better here, by chance up to {rank - 1}"


def rank_of_bound(n: int, m: int) -> int | None:
    """The first k for which chance makes the k lowest of n + m repetitions all ours in `CHANCE`.

    Args:
        n, m: how many are ours and theirs, all alike.

    Returns:
        None where n are too few for any.
    """
    chance = 1.0
    for rank in range(1, n + 1):
        chance *= (n - rank + 1) / (n + m - rank + 1)
        if chance <= CHANCE:
            return rank
    return None


def shown(cell: JudgedNumber) -> tuple[Rounded, Rounded]:
    """Both numbers with their errors as a table shows them."""
    scale = PROTOCOLS[cell.dataset].scale
    theirs = rounded(scale * cell.theirs, scale * cell.their_error)
    return theirs, rounded(scale * cell.ours, scale * cell.our_error)


def note(seed: int) -> str:
    """What must be said below the numbers: where they are from, and how they were judged."""
    return (
        "printed: the version of the paper under review, read from it by a machine; statistics on "
        "both sides: paper (diverged runs dropped; mean and median ± standard error over "
        f"{RESAMPLES} bootstrap resamples, here with seed {seed}); a mean or median agrees within "
        f"{STANDARD_ERRORS:g} standard errors of the difference, a best value up to the bound "
        "that the repetitions here set; runs of another length or with other settings are not "
        "judged by"
    )


def expected_to_differ(cells: Iterable[JudgedNumber]) -> float:
    """How many of the numbers that are judged would differ by chance if all were alike, at most.

    It is a mean: those of one dataset share their starts, and so rather differ together.
    """
    return CHANCE * sum(cell.verdict != "cannot be said" for cell in cells)


def verdicts(cells: Iterable[JudgedNumber]) -> dict[Verdict, int]:
    """How many cells have each verdict."""
    counts = Counter(cell.verdict for cell in cells)
    kinds: tuple[Verdict, ...] = ("agrees", "differs", "cannot be said")
    return {kind: counts[kind] for kind in kinds}


def _judged(number: Printed, sample: Sample | str, seed: int) -> JudgedNumber:
    """A printed number beside a sample, or beside the reason why there is none."""
    ours, our_error, n = math.nan, math.nan, 0
    if isinstance(sample, str):
        verdict, reason = _unsaid(sample)
    else:
        n = len(sample.finals)
        ours, our_error = _of(sample, number.statistic, seed)
        verdict, reason = _judgement(number, sample, ours, our_error)
    return JudgedNumber(
        dataset=number.dataset,
        method=number.method,
        statistic=number.statistic,
        theirs=number.value,
        their_error=number.error,
        ours=ours,
        our_error=our_error,
        n=n,
        verdict=verdict,
        reason=reason,
    )


def _of(sample: Sample, statistic: Statistic, seed: int) -> tuple[float, float]:
    """A statistic of a sample and its standard error; NaN where there is none."""
    if statistic != "best":
        found = bootstrap(sample.finals, statistic, seed=seed)
        return found.estimate, found.standard_deviation
    lowest = sample.lowest[np.isfinite(sample.lowest)]
    return (float(lowest.min()) if len(lowest) else math.nan), math.nan


def _judgement(number: Printed, sample: Sample, ours: float, our_error: float) -> Judgement:
    n = len(sample.finals)
    if n == 0:
        return _unsaid(f"all {sample.repetitions} repetitions are dropped")
    if n < FEWEST:
        return _unsaid(f"{n} repetitions are too few")
    if (number.dataset, number.method) in DOUBTFUL:
        return _unsaid(DOUBTFUL[number.dataset, number.method])
    if number.statistic == "best":
        return _judged_best(number, sample)
    verdict, reason = judge_estimate(number.value, number.error, ours, our_error)
    if n < sample.repetitions:
        reason += f"; {sample.repetitions - n} dropped"
    return verdict, reason


def _judged_best(number: Printed, sample: Sample) -> Judgement:
    protocol = PROTOCOLS[number.dataset]
    repetitions = protocol.repetitions
    if number.method == paper.GROUPED_NAME:
        repetitions //= paper.GROUP_SIZE
    verdict, reason = judge_best(number.value, repetitions, sample.lowest)
    if sample.recorded <= protocol.weight_updates:
        reason += f"; the best of {sample.recorded} recorded steps, theirs of all"
    return verdict, reason


def _unsaid(reason: str) -> Judgement:
    return "cannot be said", reason


# --- runs like theirs ---


def _sample(runs: Runs, dataset: str, method: str, metric: str, seed: int) -> Sample | str:
    """What the runs like theirs say, or why there are none."""
    source = paper.GROUP_SOURCE if method == paper.GROUPED_NAME else method
    stored = [run for run in runs if run.dataset_name == dataset and run.method == source]
    if not stored:
        return f"no run of {source} here" if source != method else "no run here"
    updates = PROTOCOLS[dataset].weight_updates
    of_length = [run for run in stored if weight_updates(run) == updates]
    if not of_length:
        lengths = sorted({weight_updates(run) for run in stored})
        here = ", ".join(str(length) for length in lengths[:DEPARTURES])
        return f"runs here have {here} weight updates, theirs {updates}"
    alike = [run for run in of_length if not departures(run)]
    if not alike:
        fewest = min((departures(run) for run in of_length), key=len)
        return f"runs here have {', '.join(fewest[:DEPARTURES])}"
    chosen = by_method(comparable(alike).runs)[source]
    frame = finals(chosen).sort_values("seed", ignore_index=True)
    return paper_sample(chosen, frame, COLUMNS[metric], seed)


def departures(run: Run) -> list[str]:
    """The settings in which a run is otherwise than theirs, ``KEY=VALUE (theirs: VALUE)``.

    Its length is none of them, nor is what `FREE` names.
    """
    wanted = _settings_of(run.dataset_name, run.method)
    found = []
    for key, value in settings(run).items():
        role = identity.role(key)
        counts = role in identity.DECISIVE and not key.startswith(SOURCE) and key not in FREE
        # What is made of the data is left out where it is nothing; of a component, any default.
        said = key in wanted or role is identity.Role.DATA
        if counts and said and value != wanted.get(key):
            found.append(f"{key}={value} (theirs: {wanted.get(key)})")
    return sorted(found)


@cache
def _settings_of(dataset: str, method: str) -> dict[str, Any]:
    """The settings with which their runs are made here, by dotted key."""
    from omegaconf import OmegaConf

    composed = compose([f"dataset={dataset}", f"method={method}", *PROTOCOLS[dataset].overrides])
    content: Any = OmegaConf.to_container(composed, resolve=True)
    return dict(identity.flat(identity.canonical(content)))


def commands(
    runs: Runs, datasets: Sequence[str], methods: Sequence[str], results_dir: str | Path
) -> tuple[str, ...]:
    """A line for each dataset that lacks runs like theirs, with the command that makes them.

    Args:
        datasets: some of `PROTOCOLS`.
        methods: ids of stored runs.
    """
    lines = []
    for dataset, protocol in PROTOCOLS.items():
        if dataset not in datasets:
            continue
        there = {run.method for run in runs if run.dataset_name == dataset and _is_like_theirs(run)}
        absent = [method for method in methods if method not in there]
        if absent:
            words = [
                "hpo-bench run",
                *(["-m"] if len(absent) > 1 else []),
                f"method={','.join(absent)}",
                f"dataset={dataset}",
                f"repetitions={protocol.repetitions}",
                *protocol.overrides,
            ]
            if str(results_dir) != "results":
                words.append(override("results_dir", str(results_dir)))
            lines.append(
                f"no runs like theirs of {', '.join(absent)} on {dataset}; make them with: "
                f"{' '.join(words)}"
            )
    return tuple(lines)


def _is_like_theirs(run: Run) -> bool:
    protocol = PROTOCOLS[run.dataset_name]
    return weight_updates(run) == protocol.weight_updates and not departures(run)
