"""The reference traces of the paper authors' code, followed through the command line in float64."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpo_bench.cli import app

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("HPO_BENCH_GOLDEN", HERE.parent.parent / "shared" / "golden"))
TRACES = {
    path.stem: path for folder in (HERE / "golden", SHARED) for path in sorted(folder.glob("*.npz"))
}
METHODS = {
    "Random": "random",
    "Random_SteppedLR": "random_lr_schedule",
    "Lorraine": "lorraine",
    "Baydin": "baydin",
    "Ours_LR": "ours_wd_lr",
    "Ours_LR_Momentum": "ours_wd_lr_m",
    "Ours_HDLR_Momentum": "ours_wd_hdlr_m",
    "DiffThroughOpt": "diff_through_opt",
    "LongDiffThroughOpt_UCI_Standalone": "long_diff_through_opt",
}
COLUMNS = {
    "train_loss": "Loss/Training",
    "validation_loss": "Loss/Validation",
    "test_loss": "Loss/Test",
    "test_metric": "Unnormalised_Loss/Test",
    "lr": "Hyperparameter/Lr",
    "weight_decay": "Hyperparameter/Weight_Decay",
    "momentum": "Hyperparameter/Momentum",
}
TOLERANCE = 1e-10  # relative, of every logged value; the bar is 1e-6


def overrides(meta, init):
    given = meta["overrides"]
    wrapper = given.get("config_dicts", {}).get("hyperparameter_wrapper", {})
    look_back = wrapper.get(
        "hyperparameter_rollback_distance", given.get("reset_loop_before_hyperparameter_step")
    )
    clip = given.get("network_weight_grad_clipping", {}).get("norm")
    return [
        f"method={METHODS[meta['algorithm']]}",
        f"dataset={meta['dataset']}",
        f"update_interval={meta['network_weight_steps']}",
        f"hyperparameter_updates={meta['hyperparameter_steps']}",
        *([f"look_back={look_back}"] if look_back else []),
        *([f"gradient_clip_norm={clip}"] if clip else []),
        f"batch_size={meta['batch'] or 'null'}",
        f"init.file={init}",
        "data_order=sequential",
        "precision=float64",
        "record_every=1",
        "save_weights=true",
    ]


def write_start(trace, meta, path):
    arrays = {name: trace[name][None] for name in trace.files if name.startswith("w0/")}
    arrays |= {f"raw/{name}": np.array([value]) for name, value in meta["init_log"].items()}
    if meta["lr_multiplier"]:
        arrays["lr_multiplier"] = np.array([meta["lr_multiplier"]])
    np.savez(path, **arrays)


@pytest.mark.golden
@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize("name", sorted(TRACES))
def test_a_reference_trace_is_followed(name, tmp_path):
    trace = np.load(TRACES[name])
    meta = json.loads(str(trace["meta"]))
    write_start(trace, meta, tmp_path / "init.npz")
    app(
        ["run", *overrides(meta, tmp_path / "init.npz"), f"results_dir={tmp_path}"],
        standalone_mode=False,
    )
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    curves = pd.read_parquet(run / "curves.parquet").set_index("step")
    compared = set()
    for column, logged in COLUMNS.items():
        if f"trace/{logged}" not in trace.files:
            continue
        ours = curves[column].loc[trace[f"step/{logged}"]].to_numpy()
        theirs = trace[f"trace/{logged}"]
        if meta["algorithm"] == "Random" and column == "validation_loss":
            assert np.isnan(ours).all()
            continue
        if theirs.ndim == 2:  # one learning rate per weight: median and quantiles are stored
            quantiles = [curves[f"lr_q{q:02d}"].to_numpy() for q in (5, 25, 75, 95)]
            expected = np.quantile(theirs, [0.05, 0.25, 0.75, 0.95], axis=1)
            np.testing.assert_allclose(quantiles, expected, rtol=TOLERANCE)
            theirs = np.median(theirs, axis=1)
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, err_msg=column)
        compared.add(column)
    assert {"train_loss", "test_loss", "test_metric"} <= compared
    weights = np.load(run / "final_weights.npz")
    for parameter in weights.files:
        scale = np.abs(trace[parameter]).max()
        np.testing.assert_allclose(
            weights[parameter][0], trace[parameter], rtol=0, atol=TOLERANCE * scale
        )
