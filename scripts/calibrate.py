"""Calibrate `adamw_calibrated` and `sgd_calibrated`: write what they start from on each data set.

    hpo-bench run -m method=random_adam dataset=uci_energy,uci_kin8nm,uci_power,uci_boston,\\
uci_concrete,uci_naval,uci_wine,uci_yacht repetitions=100 data_for_weights=train \\
method.full_validation=true record_every=4000 results_dir=calibration
    python scripts/calibrate.py results calibration

The first folder has the runs of `random_validation` (SGD), the second those of `random_adam`. The
recipe is `hpo_bench/analysis/calibration.py`; for each set it looks at the others alone. A file
`configs/method_dataset/METHOD__DATASET.yaml` is written for each set that has runs; what is printed
besides, the choice of all sets, stands in `configs/method/METHOD.yaml` and holds for any other set.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hpo_bench.analysis import paper
from hpo_bench.analysis.calibration import Calibrated, calibrate
from hpo_bench.analysis.selection import Runs, comparable, find, settings
from hpo_bench.store.runs import Run

CONFIGS = Path(__file__).parents[1] / "configs"
TRAINED_ALONE = "train"  # the rows that the weights of calibrating runs are trained on


def main(sgd: str, adamw: str) -> None:
    """Calibrate both methods from two results folders."""
    _calibrate("sgd_calibrated", sgd, "random_validation", ("lr", "weight_decay", "momentum"))
    _calibrate("adamw_calibrated", adamw, "random_adam", ("lr", "weight_decay", "beta1"))


def _calibrate(method: str, folder: str, source: str, names: Sequence[str]) -> None:
    """Write the yamls of one method from the runs of another."""
    runs = [run for run in find(folder, datasets=paper.UCI, methods=[source]) if _usable(run)]
    runs = comparable(runs).runs
    for dataset, choice in calibrate(runs, names).items():
        text = _yaml(choice, source, runs, dataset)
        if dataset is None:
            print(f"{method}, any other set:\n{text}")
            continue
        file = CONFIGS / "method_dataset" / f"{method}__{dataset}.yaml"
        file.write_text(text, encoding="utf-8")
        widths = tuple(choice.widths.values())
        values, rank = dict(choice.values), choice.expected_rank
        print(f"{file.name}: {values}, expected rank {rank:.3f}, widths {widths}")


def _usable(run: Run) -> bool:
    """Whether a run's validation rows had no part in its weights."""
    config = settings(run)
    rows = config["data_for_weights"]
    if rows == "method":
        rows = config["method.data_for_weights"]
    return bool(rows == TRAINED_ALONE)


def _yaml(choice: Calibrated, source: str, runs: Runs, dataset: str | None) -> str:
    counts = [len(run.seeds) for run in runs if run.dataset in choice.datasets]
    values = ", ".join(f"{name}: {value!r}" for name, value in choice.values.items())
    others = "other UCI sets" if dataset else "UCI sets"
    return (
        "# @package _global_\n"
        f"# Best by validation loss on {len(choice.datasets)} {others} among {sum(counts)} runs of "
        f"{source}: scripts/calibrate.py.\n"
        "method:\n"
        f"  fixed: {{{values}}}\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
