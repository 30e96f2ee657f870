"""A user's own module, from a folder of yamls and a package that this one knows nothing about."""

import json
import random
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from hpo_bench import cli
from hpo_bench.errors import UserError
from hpo_bench.models.autograd import built
from hpo_bench.models.custom import Custom
from hpo_bench.models.mlp import MLP
from hpo_bench.progress import Silent
from hpo_bench.running.execute import execute
from hpo_bench.running.trainer import Trainer
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.store.runs import read_table
from tests.problems import make_method, make_settings, make_table

CPU = torch.device("cpu")
PACKAGE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width, outputs=10):
        super().__init__()
        self.inner, self.norm = nn.Linear(64, width), nn.BatchNorm1d(width)
        self.outer = nn.Linear(width, outputs)
        nn.init.orthogonal_(self.inner.weight)

    def forward(self, inputs):
        return self.outer(torch.tanh(self.norm(self.inner(inputs))))
"""
GUIDE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
YAML = (
    GUIDE.partition("## Your own model")[2].partition("```yaml\n")[2].partition("```")[0]
)  # what is promised there
SMALL = (
    "dataset=digits",
    "model=net",
    "repetitions=2",
    "hyperparameter_updates=2",
    "batch_size=50",
    "device=cpu",
)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a yaml; its package can be imported."""
    (tmp_path / "my_package.py").write_text(PACKAGE)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "net.yaml").write_text(YAML)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "mine"
    sys.modules.pop("my_package", None)


def settings_of(own, *overrides):
    return parse(compose([*SMALL, f"results_dir={own.parent / 'results'}", *overrides], own))


def test_a_module_outside_the_package_trains(own, monkeypatch):
    before, results = torch.get_rng_state(), own.parent / "results"
    line = ["hpo-bench", "run", "--config-dir", str(own), *SMALL, f"results_dir={results}"]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    (folder,) = (results / "runs").glob("digits-*")
    final = pd.read_parquet(folder / "final.parquet")
    assert np.isfinite(final.test_loss).all()
    assert (final.test_loss.nunique(), final.test_metric.between(0, 1).all()) == (2, True)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_repetition_starts_from_the_modules_own_values_by_its_seed(own):
    settings = settings_of(own)
    trainer = Trainer.of(settings, settings.source.load(0.2), CPU)
    torch.manual_seed(1)
    first = trainer.start(range(3)).weights
    torch.manual_seed(2)
    again = trainer.start([2]).weights
    assert torch.equal(first[2:], again)
    inner = trainer.model.layout.views(first)["inner.weight"].double()
    identity = torch.eye(32, dtype=torch.float64).expand(3, 32, 32)
    torch.testing.assert_close(
        inner @ inner.mT, identity, rtol=1e-5, atol=1e-5
    )  # orthogonal, as the module says
    assert not torch.equal(first[0], first[1])


def test_a_module_like_the_mlp_is_the_mlp(tmp_path):
    table = make_table("classification")

    def like():
        return nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3))

    theirs, ours = (model.build(table, torch.float64, CPU) for model in (Custom(like), MLP((7,))))
    weights = torch.from_numpy(
        np.stack([theirs.initial_weights(np.random.default_rng(row)) for row in range(2)])
    )
    inputs, targets = torch.from_numpy(table.inputs), torch.from_numpy(table.targets)
    found = [
        m.linearise(weights, m.batch(inputs, targets, shared=True, split="training"), {}, True)
        for m in (theirs, ours)
    ]
    torch.testing.assert_close(found[0].gradient, found[1].gradient)
    torch.testing.assert_close(found[0].hessian_product(weights), found[1].hessian_product(weights))


@pytest.mark.parametrize(
    ("task", "loss"), [("classification", "cross_entropy"), ("regression", "l1_loss")]
)
def test_a_loss_of_ones_own_is_trained_and_the_metric_stays(task, loss):
    table = make_table(task)
    outputs = 3 if task == "classification" else 1

    def own(scores, targets):
        return 2 * getattr(functional, loss)(scores, targets)

    model = Custom(lambda: nn.Linear(4, outputs), own).build(table, torch.float64, CPU)
    weights = torch.from_numpy(
        np.stack([model.initial_weights(np.random.default_rng(row)) for row in range(2)])
    )
    inputs, targets = torch.from_numpy(table.inputs), torch.from_numpy(table.targets)
    batch = model.batch(inputs, targets, shared=True, split="test")
    losses, metrics = model.evaluate(weights, batch, {})
    for row, views in enumerate(zip(*model.layout.views(weights).values(), strict=True)):
        scores = functional.linear(inputs, *views)
        assert losses[row] == pytest.approx(own(scores, targets).item())
        squared = (
            functional.mse_loss(scores, targets) * table.target_scale**2
            if task == "regression"
            else None
        )
        wrong = squared if squared is not None else (scores.argmax(-1) != targets).double().mean()
        assert metrics[row] == pytest.approx(wrong.item())


class Noisy(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) + torch.randn(len(inputs), 3)


class Reading(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) * (1.0 if inputs.sum() + self.weight.sum() > 0 else 2.0)


def frozen():
    layer = nn.Linear(4, 3)
    layer.bias.requires_grad_(False)
    return layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1)),
            r"layer 1 \(Dropout\) draws random numbers",
        ),
        (lambda: Noisy(4, 3), r"draws random numbers .*\(test_custom.py, line \d+\)"),
        (lambda: Reading(4, 3), r"RuntimeError: .*\(test_custom.py, line \d+\)"),
        (lambda: nn.Linear(4, 2), r"maps inputs \(4, 4\) to \(4, 2\), needed \(4, 3\)"),
        (lambda: nn.Linear(5, 3), "cannot be multiplied"),
        (lambda: nn.Flatten(), "no parameters"),
        (frozen, "parameter bias is frozen"),
        (lambda: nn.LazyLinear(3), "has no shape yet"),
        (lambda: 3, "makes a int"),
        (lambda: nn.Linear(4), "TypeError"),
    ],
)
def test_what_cannot_be_trained_is_one_line(make, message):
    with pytest.raises(UserError, match=message) as caught:
        Custom(make).build(make_table("classification"), torch.float32, CPU)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_one_number():
    with pytest.raises(UserError, match=r"model\.(loss|module)"):
        Custom(lambda: nn.Linear(4, 3), lambda outputs, targets: outputs.sum(-1)).build(
            make_table("classification"), torch.float64, CPU
        )


def test_no_dropout_is_no_randomness():
    Custom(lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.0))).build(
        make_table("classification"), torch.float64, CPU
    )


def test_a_wrong_argument_and_a_missing_package(own):
    with pytest.raises(UserError, match="unexpected keyword argument 'depth'"):
        execute(settings_of(own, "+model.module.depth=3"))
    with pytest.raises(UserError, match="no_such_package"):
        settings_of(own, "model.module._target_=no_such_package.Net")


def test_a_row_alone_and_in_a_block(tmp_path):
    def normed():
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))

    table = make_table("classification")
    curves = [
        read_table(
            execute(
                make_settings(
                    tmp_path / str(c), table=table, model=Custom(normed), chunk=c, batch_size=12
                )
            ).run,
            "curves",
        )
        for c in (1, 3)
    ]
    for column in ("train_loss", "test_loss", "lr", "momentum"):
        np.testing.assert_allclose(curves[0][column], curves[1][column], rtol=1e-9)


def test_built_leaves_the_global_generator_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    layers = [built(lambda: nn.Linear(2, 2), 5) for _ in range(2)]
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(layers[0].weight, layers[1].weight)


# --- state, randomness, and weights in odd places ---


class Centred(nn.Module):
    """Subtracts a running mean that it assigns anew, from where it was kept."""

    def __init__(self, kept="buffer"):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        if kept == "attribute":
            self.mean = torch.zeros(4, dtype=torch.float64)
        else:
            self.register_buffer("mean", torch.zeros(4) if kept == "buffer" else None)

    def forward(self, inputs):
        if self.training:
            before = torch.zeros_like(inputs[0]) if self.mean is None else self.mean
            self.mean = 0.9 * before + 0.1 * inputs.mean(0).detach()
        return self.layer(inputs - self.mean if self.mean is not None else inputs)


def test_a_buffer_that_forward_assigns_anew_is_carried_as_plain_pytorch_keeps_it(tmp_path):
    table = make_table("classification")
    changes = {"batch_size": 12, "data_order": "sequential", "repetitions": 2, "save_weights": True}
    method = make_method("random", data_for_weights="train_and_validation")
    run = execute(make_settings(tmp_path, method, table, model=Custom(Centred), **changes)).run
    curves, saved = read_table(run, "curves"), np.load(run.path / "final_weights.npz")
    inputs, targets = torch.from_numpy(table.inputs), torch.from_numpy(table.targets)
    used = table.training + table.validation
    for seed in range(2):
        module = Centred().double()
        batches = inputs[:used].split(12)
        for number in range(51):  # the last row of the curves has seen one batch more
            module(batches[number % len(batches)])
        with torch.no_grad():
            for name, value in module.named_parameters():
                value.copy_(torch.from_numpy(saved[f"wT/{name}"][seed]))
            wanted = functional.cross_entropy(module.eval()(inputs[used:]), targets[used:]).item()
        assert curves[curves.seed == seed].test_loss.iloc[-1] == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("chunk", [1, 3])
def test_carried_buffers_do_not_depend_on_the_block(chunk, tmp_path):
    settings = make_settings(
        tmp_path,
        table=make_table("classification"),
        model=Custom(Centred),
        chunk=chunk,
        batch_size=12,
    )
    assert np.isfinite(read_table(execute(settings).run, "curves").test_loss).all()


class Drawn(nn.Module):
    """A layer whose weights come from ``draw``."""

    def __init__(self, draw):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.layer.weight.data = torch.as_tensor(draw(), dtype=torch.float32).reshape(3, 4)

    def forward(self, inputs):
        return self.layer(inputs)


def by_python():
    return [random.gauss(0, 1) for _ in range(12)]


@pytest.mark.parametrize("draw", [lambda: np.random.randn(12), by_python, lambda: torch.randn(12)])  # noqa: NPY002
def test_starts_follow_from_the_seed_whatever_they_are_drawn_with(draw):
    table, states = (
        make_table("classification"),
        (np.random.get_state()[1].copy(), random.getstate()),  # noqa: NPY002
    )

    def starts(order):
        model = Custom(lambda: Drawn(draw)).build(table, torch.float64, CPU)
        assert model.remarks == ()
        return {seed: model.initial_weights(np.random.default_rng(seed)) for seed in order}

    first, again = starts((0, 1, 2)), starts((2, 0))
    for seed in again:
        np.testing.assert_array_equal(first[seed], again[seed])
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(states[0], np.random.get_state()[1])  # noqa: NPY002
    assert states[1] == random.getstate()


def test_starts_that_no_seed_decides_are_refused():
    for draw in (
        lambda: np.random.default_rng().normal(size=12),
        lambda: [time.perf_counter() % 1] * 12,
    ):
        with pytest.raises(UserError, match="gives itself other values each time"):
            Custom(partial(Drawn, draw)).build(make_table("classification"), torch.float32, CPU)


class Seeded(nn.Linear):
    def __init__(self):
        torch.manual_seed(3)
        super().__init__(4, 3)


def test_a_module_that_seeds_itself_is_said_to_start_equal(tmp_path):
    said = []

    class Says(Silent):
        def say(self, text):
            said.append(text)

    table = make_table("classification")
    execute(make_settings(tmp_path / "three", table=table, model=Custom(Seeded)), Says())
    assert sum("all repetitions start from equal weights" in line for line in said) == 1
    said.clear()
    execute(
        make_settings(tmp_path / "one", table=table, model=Custom(Seeded), repetitions=1), Says()
    )
    assert not any("equal weights" in line for line in said)


class Counts(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        self.seen = super().forward(inputs)  # to look at, and never read: no harm
        return self.seen


class Divides(Counts):
    def forward(self, inputs):
        return super().forward(inputs) / self.calls


class NumpyNoise(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) * float(np.random.rand())  # noqa: NPY002


class Grows(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("seen", torch.zeros(1, 4))

    def forward(self, inputs):
        self.seen = torch.cat([self.seen, inputs])
        return super().forward(inputs)


class ComplexBuffer(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("phases", torch.ones(3, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Divides, "keeps calls from one forward pass to the next"),
        (partial(Centred, "attribute"), "keeps mean from one forward pass to the next"),
        (partial(Centred, "none"), "buffer mean is None before the first batch"),
        (partial(NumpyNoise, 4, 3), "draws random numbers in its forward pass"),
        (partial(Grows, 4, 3), "buffer seen does not keep its shape"),
        (partial(ComplexBuffer, 4, 3), "phases holds complex numbers"),
        (lambda: nn.LazyBatchNorm1d(), "has no shape yet"),
    ],
)
def test_what_would_be_lost_between_forward_passes_is_told(make, message):
    with pytest.raises(UserError, match=message):
        Custom(make).build(make_table("classification"), torch.float64, CPU)


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ParameterList(
            [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.zeros(3))]
        )

    def forward(self, inputs):
        return inputs @ self.parts[0] + self.parts[1]


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ParameterDict({"weight": nn.Parameter(torch.randn(4, 3))})

    def forward(self, inputs):
        return inputs @ self.parts["weight"]


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.weight = nn.Parameter(torch.randn(4, 90)), nn.Parameter(torch.randn(90, 3))

    def forward(self, inputs):
        return torch.tanh(inputs @ self.wide) @ self.weight


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(1, 8), nn.Linear(8, 3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)

    def forward(self, inputs):
        return self.leave(self.layer(self.enter(inputs[..., None])).mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.again, self.part = self.first, nn.Linear(4, 4, bias=False)
        self.part.weight = self.first.weight

    def forward(self, inputs):
        return self.last(self.part(torch.tanh(self.again(torch.tanh(self.first(inputs))))))


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (Listed, 3),
        (Named, 3),
        (Bare, 90),
        (Attends, 64),
        (Tied, 4),
        (Counts, 3),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), 3),
    ],
)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_weights_may_sit_anywhere(make, least, tmp_path):
    table = make_table("classification")
    model = Custom(make).build(table, torch.float64, CPU)
    assert model.activations >= least
    changes = {"table": table, "model": Custom(make), "hyperparameter_updates": 2, "repetitions": 2}
    curves = [
        read_table(execute(make_settings(tmp_path / f"{c}", chunk=c, **changes)).run, "curves")
        for c in (1, 2)
    ]
    assert np.isfinite(curves[0].test_loss).all()
    np.testing.assert_allclose(curves[0].test_loss, curves[1].test_loss, rtol=1e-9)


# --- what is found before training, or fails in the middle of it ---


class Plain(nn.Module):
    """Linear, with something added to it."""

    def __init__(
        self, change=lambda module: None, forward=lambda module, inputs: module.layer(inputs)
    ):
        super().__init__()
        self.layer, self.inner = nn.Linear(4, 3), forward
        change(self)

    def forward(self, inputs):
        return self.inner(self, inputs)


def hooked(module):
    module.layer.weight.register_hook(lambda gradient: 0 * gradient)


COUNTED = [0]


def counting(module, inputs):
    COUNTED[0] += 1
    return module.layer(inputs) * COUNTED[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((hooked,), r"parameter layer\.weight has a hook"),
        ((lambda module: module.to("meta"),), "is on the meta device"),
        (
            (lambda module: module.layer.weight.data.fill_(torch.nan),),
            "does not start from finite numbers",
        ),
        (
            (lambda module: None, lambda module, inputs: module.layer(inputs).detach()),
            "does not depend on the model's",
        ),
        ((lambda module: None, counting), "does not put out the same twice"),
    ],
)
def test_what_would_train_something_else_is_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        Custom(partial(Plain, *arguments)).build(make_table("classification"), torch.float32, CPU)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_linear_in_the_parameters_has_no_curvature():
    def lean(outputs, targets):
        return (outputs * targets).mean()

    model = Custom(partial(nn.Linear, 4, 1), lean).build(
        make_table("regression"), torch.float32, CPU
    )
    inputs = torch.ones(2, 4)
    batch = model.batch(inputs, torch.ones(2, 1), shared=True, split="training")
    linearisation = model.linearise(torch.zeros(3, model.layout.count), batch, {}, True)
    torch.testing.assert_close(linearisation.gradient, torch.ones(3, model.layout.count))
    assert not linearisation.hessian_product(torch.ones(3, model.layout.count)).any()


def test_a_module_that_asks_for_a_number_is_trained_by_all_rows_and_refused_for_minibatches(
    tmp_path,
):
    def asking(module, inputs):
        return module.layer(inputs) * (1 + inputs.abs().max().item())

    table, component = (
        make_table("classification"),
        Custom(partial(Plain, lambda module: None, asking)),
    )
    Trainer.of(make_settings(tmp_path, table=table, model=component), table, CPU).check_batches()
    with pytest.raises(UserError, match="cannot be computed for several repetitions at once"):
        Trainer.of(
            make_settings(tmp_path, table=table, model=component, batch_size=20), table, CPU
        ).check_batches()


def test_a_model_that_is_too_large_to_make_is_one_line():
    with pytest.raises(UserError, match="model: does not fit into memory"):
        MLP(hidden=[10**13], batch_norm=True).build(
            make_table("classification"), torch.float32, CPU
        )


class Late(nn.Linear):
    """Raises after some forward passes."""

    passes = 0

    def forward(self, inputs):
        Late.passes += 1
        if Late.passes > 40:
            raise KeyError("odd\nerror")
        return super().forward(inputs)


def test_a_module_that_raises_in_the_middle_leaves_a_failed_run_with_one_line(
    own, monkeypatch, capsys
):
    Late.passes = 0
    sys.modules["late_package"] = sys.modules[__name__]
    (own / "model" / "late.yaml").write_text(
        "# @package _global_\nmodel:\n  _target_: hpo_bench.models.custom.Custom\n"
        "  module: {_target_: late_package.Late, in_features: 64, out_features: 10}\n"
    )
    results = own.parent / "results"
    line = [
        "hpo-bench",
        "run",
        "--config-dir",
        str(own),
        *SMALL,
        "model=late",
        f"results_dir={results}",
    ]
    monkeypatch.setattr(sys, "argv", [*line, "hyperparameter_updates=10"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    del sys.modules["late_package"]
    assert caught.value.code == 1
    (run,) = (results / "runs").glob("*/run.json")
    record = json.loads(run.read_text())
    assert record["status"] == "failed"
    assert "KeyError" in record["error"]
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "KeyError: 'odd\\nerror'" in last
