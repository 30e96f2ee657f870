"""Forward mode against reverse mode, finite differences and autograd; what it keeps; which mode is
chosen.
"""

import json
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.func import functional_call

from hpo_bench.cli import app
from hpo_bench.core.estimator import Costs
from hpo_bench.core.update import Linearisation
from hpo_bench.errors import UserError
from hpo_bench.hypergradients import exact
from hpo_bench.hypergradients.exact import Exact
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.models.mlp import MLP, Perceptron
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer
from hpo_bench.store.runs import read_table
from tests.problems import (
    ALL,
    final_loss,
    in_force,
    make_method,
    make_raw,
    make_settings,
    make_table,
    random_quadratic,
    run_steps,
)

CPU = torch.device("cpu")
TRACE = "uci_energy-LongDiffThroughOpt-A-T50"


@pytest.mark.parametrize("tuned", [ALL, ("lr",), ("momentum", "weight_decay")])
@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_forward_mode_is_reverse_mode(count, clip, tuned):
    training, validation, weights = random_quadratic()
    raw, buffer = make_raw(), torch.randn(3, 4, dtype=torch.float64)
    state, steps = run_steps(training, weights, raw, count, clip, buffer)
    gradient = validation(state.weights).gradient
    forward, reverse = (
        Forward(count).estimate(steps, gradient, tuned),
        Unroll(count).estimate(steps, gradient, tuned),
    )
    assert set(forward) == set(tuned)
    for name in tuned:
        torch.testing.assert_close(forward[name], reverse[name], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("clip", [None, 0.4])
def test_forward_mode_is_finite_differences(clip):
    training, validation, weights = random_quadratic()
    raw, buffer, epsilon = make_raw(), torch.randn(3, 4, dtype=torch.float64), 1e-5
    state, steps = run_steps(training, weights, raw, 6, clip, buffer)
    ours = Forward(6).estimate(steps, validation(state.weights).gradient, ALL)
    for name in ALL:
        up, down = (
            final_loss(
                training,
                validation,
                weights,
                {**raw, name: raw[name] + sign * epsilon},
                6,
                clip,
                buffer,
            )
            for sign in (1, -1)
        )
        torch.testing.assert_close(
            ours[name][:, 0], (up - down) / (2 * epsilon), rtol=1e-6, atol=1e-9
        )


def loss_of_perceptron(module, model, flat, inputs, targets):
    """Loss of one repetition by torch's own layers, differentiable to any order."""
    outputs = functional_call(module, model.layout.views(flat), (inputs,))
    if targets.is_floating_point():
        return torch.nn.functional.mse_loss(outputs, targets)
    return torch.nn.functional.cross_entropy(outputs, targets)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("mode", [Forward(6), Unroll(6)])
def test_both_modes_are_autograd_through_the_training_of_an_mlp(task, mode):
    table = make_table(task)
    model, module = (
        MLP((7,)).build(table, torch.float64, CPU),
        Perceptron([4, 7, table.outputs]).double(),
    )
    inputs, targets = torch.from_numpy(table.inputs), torch.from_numpy(table.targets)
    weights = torch.from_numpy(
        np.stack([model.initial_weights(np.random.default_rng(row)) for row in range(2)])
    )
    raw = {name: value[:2] for name, value in make_raw().items()}
    batch = model.batch(inputs[:30], targets[:30], shared=True, split="training")
    second = model.batch(inputs[30:], targets[30:], shared=True, split="validation")
    state, steps = run_steps(lambda w: model.linearise(w, batch, {}, True), weights, raw, 6)
    ours = mode.estimate(steps, model.linearise(state.weights, second, {}, False).gradient, ALL)
    for row in range(2):
        leaves = {name: value[row].clone().requires_grad_() for name, value in raw.items()}
        hyper, w, m = (
            in_force(leaves),
            weights[row].clone().requires_grad_(),
            torch.zeros_like(weights[row]),
        )
        for _ in range(6):
            loss = loss_of_perceptron(module, model, w, inputs[:30], targets[:30])
            (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
            m = hyper["momentum"] * m + gradient + hyper["weight_decay"] * w
            w = w - hyper["lr"] * m
        expected = torch.autograd.grad(
            loss_of_perceptron(module, model, w, inputs[30:], targets[30:]), list(leaves.values())
        )
        for name, value in zip(leaves, expected, strict=True):
            torch.testing.assert_close(ours[name][row], value, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 7, "gradient_clip_norm": 0.5},
        {"look_back": 4},
        {"table": make_table("classification"), "update_interval": 5},
    ],
)
@pytest.mark.parametrize("reset", [True, False])
def test_runs_in_both_modes_are_the_same_to_rounding(tmp_path, changes, reset):
    """Windows shorter than T and as long, batches, clipping, a momentum buffer that outlives the
    reset weights.
    """
    runs = []
    for mode in ("reverse", "forward"):
        estimator = Exact(changes.get("look_back", 100), mode)
        method = make_method("long_diff_through_opt", estimator=estimator, reset_weights=reset)
        run = execute(
            make_settings(tmp_path / mode, method, save_hypergradients=True, **changes)
        ).run
        runs.append(
            (read_table(run, "curves").drop(columns="elapsed_s"), read_table(run, "hypergradients"))
        )
    for reverse, forward in zip(*runs, strict=True):
        pd.testing.assert_frame_equal(reverse, forward, rtol=1e-10, atol=1e-12)
    assert (runs[0][1].filter(like="step_") != 0).all(axis=None)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_row_does_not_depend_on_its_neighbours(tmp_path, precision):
    method = make_method("long_diff_through_opt", estimator=Exact(100, "forward"))
    frames = []
    for chunk in (5, 2):
        settings = make_settings(
            tmp_path / str(chunk), method, repetitions=5, chunk=chunk, precision=precision
        )
        frames.append(read_table(execute(settings).run, "curves").drop(columns="elapsed_s"))
    pd.testing.assert_frame_equal(*frames, rtol=0, atol=0)


def test_a_row_of_nan_stays_alone():
    training, validation, weights = random_quadratic()
    raw, spoilt = make_raw(), weights.clone()
    spoilt[1] = torch.nan
    found = []
    for start in (weights, spoilt):
        state, steps = run_steps(training, start, raw, 4)
        found.append(Forward(4).estimate(steps, validation(state.weights).gradient, ALL))
    for name in ALL:
        assert torch.equal(found[0][name][[0, 2]], found[1][name][[0, 2]])
        assert torch.isnan(found[1][name][1]).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_several_hessian_products_at_once_are_the_single_ones(task, shared):
    table, rows = make_table(task), 3
    model = MLP((7,)).build(table, torch.float64, CPU)
    inputs, targets = torch.from_numpy(table.inputs), torch.from_numpy(table.targets)
    if not shared:
        order = torch.stack(
            [torch.from_numpy(np.random.default_rng(r).permutation(60)[:20]) for r in range(rows)]
        )
        inputs, targets = inputs[order], targets[order]
    batch = model.batch(inputs, targets, shared=shared, split="training")
    weights = torch.from_numpy(
        np.stack([model.initial_weights(np.random.default_rng(r)) for r in range(rows)])
    )
    linearisation = model.linearise(weights, batch, {}, True)
    vectors = torch.randn(4, rows, model.layout.count, dtype=torch.float64)
    single = torch.stack([linearisation.hessian_product(vector) for vector in vectors])
    torch.testing.assert_close(linearisation.products(vectors), single, rtol=1e-12, atol=1e-14)


def linearisations_alive(trainer, most):
    """Make the trainer's model note in ``most`` how many linearisations there are at once."""
    plain, alive = trainer.model.linearise, weakref.WeakSet()

    class Watched(Linearisation):
        __hash__ = object.__hash__

    def linearise(*arguments):
        made = Watched(**vars(plain(*arguments)))
        alive.add(made)
        most.append(len(alive))
        return made

    trainer.model.linearise = linearise


@pytest.mark.parametrize(("mode", "needed"), [("forward", 3), ("reverse", 30)])
def test_forward_mode_keeps_no_weight_updates(tmp_path, mode, needed):
    method, most = make_method("long_diff_through_opt", estimator=Exact(30, mode)), []
    settings = make_settings(tmp_path, method, update_interval=30, hyperparameter_updates=1)
    trainer = Trainer.of(settings, settings.source.load(0.25), CPU)
    linearisations_alive(trainer, most)
    trainer.block([0])
    assert max(most) <= needed + 3
    assert max(most) >= needed - 2
    assert (trainer.plan.kept == 30) == (mode == "reverse")


def test_the_mode_is_chosen_by_what_reverse_mode_would_keep():
    def costs(bytes_each, per_weight=()):
        return Costs(1000, lambda kept: 5000 + kept * bytes_each, per_weight)

    window = 200
    limit = exact.REVERSE_BYTES // window
    assert Exact(window).chosen(costs(limit))[0] == Unroll(window)
    assert Exact(window).chosen(costs(limit + 1))[0] == Forward(window)
    assert Exact(window).chosen(costs(limit + 1, ("lr",)))[0] == Unroll(window)
    for mode, kind in (("reverse", Unroll), ("forward", Forward)):
        for bytes_each in (1, 10 * limit):
            assert Exact(window, mode).chosen(costs(bytes_each))[0] == kind(window)
    assert Unroll(3).chosen(costs(1)) == (Unroll(3), None)
    assert Exact(5000).window(1000) == Forward(5000).window(1000) == 1000


def test_the_choice_is_reported(tmp_path, monkeypatch):
    said = []
    for limit, mode in ((exact.REVERSE_BYTES, "reverse"), (0, "forward")):
        monkeypatch.setattr(exact, "REVERSE_BYTES", limit)
        settings = make_settings(
            tmp_path / mode, make_method("long_diff_through_opt", estimator=Exact(10))
        )
        run = execute(settings, Talkative(said)).run
        assert f"hypergradients in {mode} mode, 10 weight updates kept would take" in said[-1]
        assert json.loads((run.path / "run.json").read_text())["hypergradients"].startswith(
            f"{mode} mode"
        )


class Talkative:
    """A reporter that notes its lines."""

    def __init__(self, said):
        self.say = said.append

    def begin(self, label, total, done=0): ...
    def advance(self, units): ...
    def end(self): ...


def test_per_weight_hyperparameters_are_refused_in_one_line(tmp_path):
    method = make_method(
        "long_diff_through_opt", estimator=Exact(10, "forward"), per_weight=("lr",)
    )
    with pytest.raises(
        UserError, match=r"method.per_weight=\[lr\]: .* use method.estimator.mode=reverse"
    ) as caught:
        execute(make_settings(tmp_path, method))
    assert "\n" not in str(caught.value)
    automatic = replace(method, estimator=Exact(10))
    assert isinstance(
        Trainer.of(make_settings(tmp_path, automatic), make_table(), CPU).plan.estimator, Unroll
    )  # which can
    training, validation, weights = random_quadratic()
    state, steps = run_steps(training, weights, make_raw(per_weight=4), 2)
    with pytest.raises(UserError, match="tangent for every weight's lr"):
        Forward(2).estimate(steps, validation(state.weights).gradient, ALL)


def test_a_mode_that_there_is_not_is_one_line():
    with pytest.raises(UserError, match=r"^mode=foward: did you mean forward\?"):
        Exact(5, "foward")


@pytest.mark.golden
@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_the_reference_trace_is_followed_in_both_modes(golden, tmp_path, mode):
    trace = np.load(golden / f"{TRACE}.npz")
    meta = json.loads(str(trace["meta"]))
    start = {name: trace[name][None] for name in trace.files if name.startswith("w0/")}
    start |= {f"raw/{name}": np.array([value]) for name, value in meta["init_log"].items()}
    np.savez(tmp_path / "init.npz", **start)
    overrides = [
        "method=long_diff_through_opt",
        f"method.estimator.mode={mode}",
        f"dataset={meta['dataset']}",
        f"update_interval={meta['network_weight_steps']}",
        f"hyperparameter_updates={meta['hyperparameter_steps']}",
        f"init.file={tmp_path / 'init.npz'}",
        "data_order=sequential",
        "precision=float64",
        f"results_dir={tmp_path}",
    ]
    app(["run", *overrides], standalone_mode=False)
    (curves,) = (tmp_path / "runs").glob("*/curves.parquet")
    ours = pd.read_parquet(curves).set_index("step")
    names = {"test_loss": "Loss/Test", **{name: f"Hyperparameter/{name.title()}" for name in ALL}}
    for column, logged in names.items():
        np.testing.assert_allclose(
            ours[column].loc[trace[f"step/{logged}"]], trace[f"trace/{logged}"], rtol=1e-10
        )
