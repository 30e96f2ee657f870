"""Why an even look-back distance fares worse than an odd one: lr × the largest curvature.

    python scripts/edge_of_stability.py [FOLDER]

FOLDER keeps the runs; without it they are thrown away. It takes a minute.

Trains Ours (WD+LR+M) on UCI Energy with T = 1 and T = 10 and takes the largest eigenvalue h of the
Hessian of the training loss at the final weights. Without momentum a step multiplies the error
along that direction by 1 - lr·h, which is what I - ∂u/∂w has there. Beyond lr·h = 2 it is below -1,
and the terms of the Neumann series grow and change sign; with momentum μ the training itself stays
stable up to 2·(1 + μ)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import linear, mse_loss

from hpo_bench.running.execute import execute
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.store.runs import read_run, runs_folder

REPETITIONS = 50
NAMES = ("layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias")


def largest_curvature(
    weights: dict[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor
) -> float:
    """Largest eigenvalue of the Hessian of the mean squared error of one hidden layer; exact, P²
    memory.
    """
    shapes = [weights[name].shape for name in NAMES]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        pieces = torch.split(flat, [shape.numel() for shape in shapes])
        w0, b0, w1, b1 = (piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True))
        return mse_loss(linear(torch.relu(linear(inputs, w0, b0)), w1, b1), targets)

    hessian = torch.func.hessian(loss)(torch.cat([weights[name].reshape(-1) for name in NAMES]))
    return float(np.linalg.eigvalsh(hessian.numpy())[-1])


def main(folder: Path) -> None:
    """Train with both intervals, and print quartiles of lr × curvature."""
    for interval in (1, 10):
        settings = parse(
            compose(
                [
                    "method=ours_wd_lr_m",
                    "dataset=uci_energy",
                    f"repetitions={REPETITIONS}",
                    f"update_interval={interval}",
                    "record_every=4000",
                    "save_weights=true",
                    f"results_dir={folder}",
                ]
            )
        )
        run = read_run(runs_folder(folder) / execute(settings).run.run_id)
        final = pd.read_parquet(run.path / "final.parquet")
        saved = np.load(run.path / "final_weights.npz")
        table = settings.source.load(settings.validation_share)
        rows = [
            torch.as_tensor(part[: table.training]).double()
            for part in (table.inputs, table.targets)
        ]
        steps = []
        for place in np.flatnonzero(final["status"] == "ok"):
            weights = {name: torch.as_tensor(saved[f"wT/{name}"][place]).double() for name in NAMES}
            steps.append(final["lr"][place] * largest_curvature(weights, *rows))
        low, middle, high = np.quantile(steps, [0.25, 0.5, 0.75])
        print(
            f"T = {interval}, i = {settings.look_back}, {len(steps)}/{len(final)} ok: "
            f"lr·h median {middle:.2f} (quartiles {low:.2f}, {high:.2f}), "
            f"above 2 in {np.mean(np.array(steps) > 2):.0%}, "
            f"at most {max(steps):.2f}; median momentum {final['momentum'].median():.2f}"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
