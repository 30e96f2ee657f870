"""Batch normalisation: running statistics of each repetition's own, against plain PyTorch
training.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from hpo_bench.core.loop import train
from hpo_bench.core.update import State
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.models.mlp import MLP, Perceptron
from hpo_bench.rules.adam import AdamW
from hpo_bench.rules.dog import DoG
from hpo_bench.rules.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from hpo_bench.running.checkpoint import Checkpoints
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer
from hpo_bench.store.runs import read_table
from tests.problems import advance, in_force, make_method, make_raw, make_settings, make_table

CPU = torch.device("cpu")
NORMED = MLP((6,), batch_norm=True)


def problem(rows=3, table=None, dtype=torch.float64):
    """Model, weights (R, P) and a function that makes the batch of some rows of the table."""
    table = table or make_table("classification")
    model = NORMED.build(table, dtype, CPU)
    draws = [model.initial_weights(np.random.default_rng(row)) for row in range(rows)]
    inputs, targets = torch.from_numpy(table.inputs).to(dtype), torch.from_numpy(table.targets)

    def batch(begin, end, split="training"):
        return model.batch(inputs[begin:end], targets[begin:end], shared=True, split=split)

    return model, torch.from_numpy(np.stack(draws)).to(dtype), batch


def test_the_layers_are_the_papers():
    model = NORMED.build(make_table("classification"), torch.float64, CPU)
    assert [type(layer).__name__ for layer in model.module.layers] == [
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
    ]
    assert model.layout.names == (
        "layers.0.weight",
        "layers.1.weight",
        "layers.1.bias",
        "layers.3.weight",
        "layers.3.bias",
    )
    norm = model.module.layers[1]
    assert (norm.momentum, norm.eps) == (0.1, 1e-5)
    arrays = model.layout.arrays(model.initial_weights(np.random.default_rng(0)))
    assert (arrays["layers.1.weight"] == 1).all()
    assert (arrays["layers.1.bias"] == 0).all()
    carried = model.initial_carried(2)
    assert carried["layers.1.running_var"].tolist() == [[1.0] * 6] * 2
    assert carried["layers.1.running_mean"].tolist() == [[0.0] * 6] * 2


def test_training_is_plain_pytorchs(tmp_path):
    """Losses, and at the end the test loss by running statistics that training and validation
    batches have moved.
    """
    table = make_table("classification")
    method = make_method("random", data_for_weights="train")
    changes = {"model": NORMED, "repetitions": 2, "batch_size": 12, "data_order": "sequential"}
    settings = make_settings(tmp_path, method, table, **changes)
    curves = read_table(execute(settings).run, "curves")
    model = NORMED.build(table, torch.float64, CPU)
    start = Trainer.of(settings, table, CPU).start(range(2))
    inputs, targets = torch.from_numpy(table.inputs), torch.from_numpy(table.targets)
    for row in range(2):
        module = Perceptron([4, 6, 3], batch_norm=True).double()
        views = model.layout.views(start.weights)
        module.load_state_dict({name: view[row] for name, view in views.items()}, strict=False)
        lr, decay = 10 ** start.raw["lr"][row].item(), 10 ** start.raw["weight_decay"][row].item()
        momentum = torch.sigmoid(start.raw["momentum"][row]).item()
        optimiser = torch.optim.SGD(
            module.parameters(), lr=lr, weight_decay=decay, momentum=momentum
        )
        own = curves[curves.seed == row]
        for step in range(51):
            begin = 12 * (step % 3)
            module.train()
            loss = functional.cross_entropy(
                module(inputs[begin : begin + 12]), targets[begin : begin + 12]
            )
            with torch.no_grad():
                validation = functional.cross_entropy(module(inputs[36:48]), targets[36:48])
                test = functional.cross_entropy(module.eval()(inputs[48:]), targets[48:])
            expected = [loss.item(), validation.item(), test.item()]
            assert own.iloc[step][
                ["train_loss", "validation_loss", "test_loss"]
            ].tolist() == pytest.approx(expected, rel=1e-9)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_alone_is_a_row_of_a_batch(dtype):
    model, weights, batch = problem(dtype=dtype)
    vector = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    tolerance = (
        {"rtol": 1e-12, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    )

    def numbers(rows):
        carried = {name: value[rows] for name, value in before.items()}
        linearisation = model.linearise(weights[rows], batch(20, 36), carried, True)
        evaluated = model.evaluate(weights[rows], batch(48, 60, "test"), linearisation.carried)
        product = linearisation.hessian_product(vector[rows])
        return [
            linearisation.loss,
            linearisation.gradient,
            product,
            *linearisation.carried.values(),
            *evaluated,
        ]

    before = model.linearise(weights, batch(0, 20), model.initial_carried(3), False).carried
    whole = numbers(torch.arange(3))
    for row in range(3):
        for part, every in zip(numbers(torch.tensor([row])), whole, strict=True):
            torch.testing.assert_close(part, every[[row]], **tolerance)


def test_a_diverged_row_leaves_the_others_and_their_statistics_as_they_are():
    model, weights, batch = problem()
    clean = model.linearise(weights, batch(0, 20), model.initial_carried(3), True)
    spoilt = weights.clone()
    spoilt[1] = torch.nan
    dirty = model.linearise(spoilt, batch(0, 20), model.initial_carried(3), True)
    assert torch.equal(dirty.gradient[[0, 2]], clean.gradient[[0, 2]])
    assert torch.equal(
        dirty.carried["layers.1.running_var"][[0, 2]], clean.carried["layers.1.running_var"][[0, 2]]
    )
    assert torch.isnan(model.evaluate(spoilt, batch(48, 60), dirty.carried)[1]).tolist() == [
        False,
        True,
        False,
    ]


def test_second_derivatives_go_through_the_batch_statistics():
    model, weights, batch = problem()
    vector, epsilon = torch.randn(weights.shape, dtype=torch.float64), 1e-6
    carried = model.initial_carried(3)
    up, down = (
        model.linearise(weights + s * epsilon * vector, batch(0, 36), carried, False).gradient
        for s in (1, -1)
    )
    product = model.linearise(weights, batch(0, 36), carried, True).hessian_product(vector)
    torch.testing.assert_close(product, (up - down) / (2 * epsilon), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimator", [Unroll(3), Neumann(1)])
def test_hypergradients_are_finite_differences(estimator):
    """Of the validation loss in training mode after the window's updates."""
    model, weights, batch = problem()
    count = estimator.window(10)

    def run(raw):
        hyper, state, steps = (
            in_force(raw),
            State(weights, torch.full_like(weights, 0.01)),
            [],
        )
        for _ in range(count):
            linearisation = model.linearise(
                state.weights, batch(0, 36), model.initial_carried(3), True
            )
            state, step = advance(state, linearisation, hyper, None)
            steps.append(step)
        return steps, model.linearise(state.weights, batch(36, 48), model.initial_carried(3), False)

    raw, epsilon = make_raw(), 1e-5
    steps, validation = run(raw)
    found = estimator.estimate(steps, validation.gradient, ("lr", "weight_decay", "momentum"))
    for name, value in found.items():
        up, down = (run({**raw, name: raw[name] + s * epsilon})[1].loss for s in (1, -1))
        torch.testing.assert_close(
            value.squeeze(-1), (up - down) / (2 * epsilon), rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize(
    "method",
    [
        "random",
        "random_validation",
        "baydin",
        "ours_wd_lr_m",
        "ours_wd_hdlr_m",
        "diff_through_opt",
        "long_diff_through_opt",
    ],
)
def test_every_method_trains_it_whatever_the_chunk(tmp_path, method):
    table = make_table("classification")
    curves = [
        read_table(
            execute(
                make_settings(
                    tmp_path / str(chunk),
                    method,
                    table,
                    model=NORMED,
                    batch_size=12,
                    chunk=chunk,
                    hyperparameter_updates=3,
                )
            ).run,
            "curves",
        )
        for chunk in (3, 2)
    ]
    columns = ["train_loss", "test_loss", "test_metric", "lr", "weight_decay", "momentum"]
    assert np.isfinite(curves[0][columns]).all().all()
    np.testing.assert_allclose(curves[0][columns], curves[1][columns], rtol=1e-9)


def test_an_interrupted_training_goes_on_with_its_statistics(tmp_path):
    settings = make_settings(
        tmp_path, table=make_table("classification"), model=NORMED, batch_size=12
    )
    trainer = Trainer.of(settings, settings.source.load(0.25), CPU)
    whole = trainer.block([0, 1])
    kept = replace(trainer, checkpoints=Checkpoints(tmp_path, 0))
    told: list[int] = []

    def interrupt(updates):
        told.append(updates)
        if sum(told) >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.block([0, 1], interrupt)
    told.clear()
    resumed = kept.block([0, 1], told.append)
    assert (sum(told), len(told) < 5) == (50, True)  # it did not begin anew
    columns = ["train_loss", "validation_loss", "test_loss", "lr"]
    assert whole.tables["curves"].select(columns).equals(resumed.tables["curves"].select(columns))


@pytest.mark.parametrize("rule", [ScheduleFreeSGD(), ScheduleFreeAdamW(), DoG()])
@pytest.mark.parametrize(("batch_size", "rows"), [(None, 48), (12, 48)])
def test_averaged_weights_are_evaluated_with_statistics_of_their_own(
    rule, batch_size, rows, tmp_path
):
    """As plain PyTorch that forgets the training's statistics and takes the mean of those of the
    batches.
    """
    table = make_table("classification")
    method = make_method("random", rule=rule)
    changes = {"model": NORMED, "repetitions": 2, "batch_size": batch_size, "save_weights": True}
    run = execute(make_settings(tmp_path, method, table, **changes)).run
    curves, saved = read_table(run, "curves"), np.load(run.path / "final_weights.npz")
    inputs, targets = torch.from_numpy(table.inputs), torch.from_numpy(table.targets)
    test = slice(table.training + table.validation, None)
    for seed in range(2):
        module = Perceptron([4, 6, 3], batch_norm=True).double()
        norm = module.layers[1]
        norm.momentum = None  # PyTorch's mean of all batches
        with torch.no_grad():
            for name, value in module.named_parameters():
                value.copy_(torch.from_numpy(saved[f"wT/{name}"][seed]))
            for batch in inputs[:rows].split(batch_size or rows):
                module(batch)
            module.eval()
            wanted = functional.cross_entropy(module(inputs[test]), targets[test]).item()
        assert curves[curves.seed == seed].test_loss.iloc[-1] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("rule", [None, AdamW()])
def test_trained_weights_keep_the_statistics_of_their_training(rule, tmp_path):
    changes = {"model": NORMED, "repetitions": 2, "batch_size": 12}
    settings = make_settings(
        tmp_path, make_method("random", rule=rule), make_table("classification"), **changes
    )
    trainer = Trainer.of(settings, settings.source.load(0.25), CPU)
    found = []
    for settled in (trainer.problem([0]).settled, None):
        recorder = trainer.recorder(1)
        train(
            replace(trainer.problem([0]), settled=settled),
            trainer.plan,
            trainer.start([0]),
            recorder,
        )
        found.append(recorder.curves()["test_loss"])
    np.testing.assert_array_equal(found[0], found[1])
