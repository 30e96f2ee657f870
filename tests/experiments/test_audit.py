"""Audits: the closed form on a quadratic, finite differences, laws of the cells, the store."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

from hpo_bench.core import schedules
from hpo_bench.core.estimator import Estimator
from hpo_bench.core.layout import Layout
from hpo_bench.core.model import Batch
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.core.update import Linearisation
from hpo_bench.errors import StoreError, UserError
from hpo_bench.experiments import audit
from hpo_bench.experiments.audit import ALL, COLUMNS, AuditGrid
from hpo_bench.hypergradients.forward import Forward
from hpo_bench.hypergradients.neumann import Neumann
from hpo_bench.hypergradients.unroll import Unroll
from hpo_bench.rules.adam import AdamW
from hpo_bench.rules.rmsprop import RMSprop
from hpo_bench.running.execute import execute
from hpo_bench.store.runs import read_table
from tests.problems import make_method, make_settings, make_table

TUNED = ["weight_decay", "lr", "momentum"]


def settings_at(tmp_path, method="ours_wd_lr_m", hyper_updates=1, **changes):
    def at(interval, look_back):
        own = method if not isinstance(method, str) else make_method(method, look_back, interval)
        return make_settings(
            tmp_path,
            own,
            update_interval=interval,
            look_back=look_back,
            hyperparameter_updates=hyper_updates,
            **changes,
        )

    return at


def compared(at, intervals, look_backs, hyper_update=1):
    return audit.hypergradient_error(at, AuditGrid(intervals, look_backs, hyper_update))


class Linear:
    """A model of my own: one linear layer without bias and squared error, so that the loss is a
    quadratic.
    """

    carries_state = False

    def build(self, table, dtype, device):
        self.layout = Layout(("weight",), ((table.inputs.shape[1],),))
        return self

    def initial_weights(self, random):
        return random.standard_normal(self.layout.count)

    def initial_carried(self, rows):
        return {}

    def batch(self, inputs, targets, *, shared, split, first=True):
        return Batch(inputs, targets, targets.shape[0 if shared else 1], shared, split, first)

    def _gap(self, weights, batch):
        return torch.einsum("...bd,rd->rb", batch.inputs, weights) - batch.targets[..., 0]

    def linearise(self, weights, batch, carried, second_order):
        hessian = 2 * torch.einsum("bd,be->de", batch.inputs, batch.inputs) / batch.count
        gap = self._gap(weights, batch)
        gradient = 2 * torch.einsum("rb,bd->rd", gap, batch.inputs) / batch.count
        return Linearisation((gap**2).mean(-1), gradient, lambda vector: vector @ hessian)

    def loss(self, weights, batch, carried):
        return (self._gap(weights, batch) ** 2).mean(-1), carried

    def evaluate(self, weights, batch, carried):
        loss = self.loss(weights, batch, carried)[0]
        return loss, loss

    def row_bytes(self, batch_rows, window):
        return 1000

    def evaluation_bytes(self, rows):
        return 1000

    def working_set(self, batch_rows):
        return 1000


def closed_form(table, weights, raw, interval):
    """d loss/d log10 lr after T updates without momentum or decay: w_T = w* + (I - lr·H)^T (w_0 -
    w*).
    """
    inputs, targets = table.inputs[: table.training], table.targets[: table.training, 0]
    hessian = 2 * inputs.T @ inputs / len(inputs)
    fixed, lr = np.linalg.lstsq(inputs, targets, rcond=None)[0], 10 ** raw["lr"]
    shrink = np.eye(len(hessian)) - lr * hessian
    end = fixed + np.linalg.matrix_power(shrink, interval) @ (weights - fixed)
    part = slice(table.training, table.training + table.validation)
    slope = (
        2
        * table.inputs[part].T
        @ (table.inputs[part] @ end - table.targets[part, 0])
        / table.validation
    )
    change = -interval * hessian @ np.linalg.matrix_power(shrink, interval - 1) @ (weights - fixed)
    return slope @ change * lr * np.log(10)


def test_exact_is_the_closed_form_on_a_quadratic_for_a_model_of_ones_own(tmp_path):
    table = make_table()
    init = tmp_path / "init.npz"
    random = np.random.default_rng(0)
    weights, raw_lr = random.standard_normal((3, 4)), np.array([-2.0, -1.5, -1.0])
    np.savez(
        init,
        **{
            "w0/weight": weights,
            "raw/lr": raw_lr,
            "raw/weight_decay": np.full(3, -300.0),
            "raw/momentum": np.full(3, -np.inf),
        },
    )
    start = replace(make_settings(tmp_path).start, file=init)
    frame = compared(
        settings_at(tmp_path, model=Linear(), table=table, start=start), (1, 4, 7), (1, 4, 7)
    )
    whole = frame[(frame.update_interval == frame.look_back) & (frame.hyperparameter == "lr")]
    assert len(whole) == 9
    for row in whole.itertuples():
        expected = closed_form(
            table, weights[row.seed], {"lr": raw_lr[row.seed]}, row.update_interval
        )
        assert row.exact == pytest.approx(expected, rel=1e-10)
        assert row.finite_difference == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 7, "gradient_clip_norm": 0.3}, {"table": make_table("classification")}],
)
def test_exact_is_finite_differences_of_the_training(tmp_path, changes):
    frame = compared(settings_at(tmp_path, **changes), (3, 6), (1, 2, 5))
    own = frame[frame.hyperparameter != ALL]
    assert set(zip(own.update_interval, own.look_back, strict=True)) == {
        (3, 1),
        (3, 2),
        (6, 1),
        (6, 2),
        (6, 5),
    }
    np.testing.assert_allclose(own.exact, own.finite_difference, rtol=1e-5, atol=1e-9)


def test_under_a_schedule_too(tmp_path):
    """The updates are made again with the factors that they had."""

    def at(interval, look_back):
        settings = settings_at(tmp_path, hyper_updates=4)(interval, look_back)
        schedule = schedules.Linear(warmup=0.5)
        return replace(settings, method=replace(settings.method, schedule=schedule))

    frame = compared(at, (3,), (1, 3), hyper_update=2)
    own = frame[frame.hyperparameter != ALL]
    assert (own.exact != 0).all()
    np.testing.assert_allclose(own.exact, own.finite_difference, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("hyper_update", [1, 3])
def test_what_is_compared_is_what_a_run_computes(tmp_path, hyper_update):
    """The hypergradients and (at the first update) steps are those that a run with the same
    settings saves.
    """
    at = settings_at(tmp_path, hyper_updates=hyper_update, save_hypergradients=True, batch_size=7)
    frame = compared(at, (6,), (2, 5), hyper_update)
    for look_back in (2, 5):
        saved = read_table(execute(at(6, look_back)).run, "hypergradients")
        saved = saved[saved.hyper_step == hyper_update - 1].set_index("seed")
        cell = frame[frame.look_back == look_back]
        for name in TUNED:
            own = cell[cell.hyperparameter == name].set_index("seed")
            np.testing.assert_allclose(own.approximate, saved[f"hypergradient_{name}"], rtol=1e-10)
            if hyper_update == 1:
                np.testing.assert_allclose(own.step_approximate, saved[f"step_{name}"], rtol=1e-10)


def test_the_exact_method_has_no_error_and_one_neumann_term_neither(tmp_path):
    exact = compared(settings_at(tmp_path, "diff_through_opt"), (2, 5), (1, 3, 5))
    assert (exact.absolute_error == 0).all()
    assert (exact.relative_error == 0).all()
    assert (exact.cosine == 1).all()
    neumann = compared(settings_at(tmp_path), (5,), (1, 4))
    first, fourth = (neumann[neumann.look_back == look_back] for look_back in (1, 4))
    assert first.relative_error.max() < 1e-13
    assert fourth.relative_error.min() > 1e-6


def test_errors_are_what_they_are_called(tmp_path):
    frame = compared(settings_at(tmp_path, method=make_method("ours_wd_hdlr_m")), (4,), (3,))
    assert tuple(frame.columns) == COLUMNS
    own = frame[frame.hyperparameter.isin(["weight_decay", "momentum"])]
    difference = (own.approximate - own.exact).abs()
    np.testing.assert_allclose(own.absolute_error, difference, rtol=1e-12)
    np.testing.assert_allclose(own.relative_error, difference / own.exact.abs(), rtol=1e-12)
    np.testing.assert_allclose(own.cosine, np.sign(own.approximate * own.exact), rtol=1e-12)
    per_weight = frame[frame.hyperparameter == "lr"]
    assert ((per_weight.cosine < 1) & (per_weight.cosine > -1)).all()
    np.testing.assert_allclose(per_weight.exact, per_weight.finite_difference, rtol=1e-5)
    each = frame[frame.hyperparameter != ALL].groupby("seed").absolute_error
    np.testing.assert_allclose(
        frame[frame.hyperparameter == ALL].set_index("seed").absolute_error,
        each.agg(lambda v: np.hypot.reduce(v)),
        rtol=1e-12,
    )
    approximate, exact = (
        torch.tensor([[3.0, 4.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 4.0], [0.0, 0.0]]),
    )
    found = audit.errors(approximate, exact)
    assert found["absolute_error"].tolist() == [3, 0]
    assert found["relative_error"].tolist() == [0.75, 0]
    assert found["cosine"].tolist() == pytest.approx([0.8, 1])


@dataclass(frozen=True)
class Wrong(Estimator):
    """An estimator of my own: minus the Neumann estimate."""

    look_back: int

    def window(self, update_interval):
        return 1

    def estimate(self, steps, gradient, tuned):
        return {
            name: -value
            for name, value in Neumann(self.look_back).estimate(steps, gradient, tuned).items()
        }


def test_a_method_of_ones_own_is_audited(tmp_path):
    frame = compared(
        settings_at(tmp_path, make_method("ours_wd_lr_m", estimator=Wrong(1))), (3,), (1,)
    )
    np.testing.assert_allclose(frame.cosine, -1)
    np.testing.assert_allclose(frame.relative_error, 2)


def test_an_estimator_called_at_every_update_is_audited(tmp_path):
    frame = compared(settings_at(tmp_path, "baydin"), (1, 4), (1, 3))
    assert set(frame.hyperparameter) == {"lr", ALL}
    own = frame[frame.hyperparameter == "lr"]
    np.testing.assert_allclose(own.exact, own.finite_difference, rtol=1e-5)


def test_rows_do_not_depend_on_the_block(tmp_path):
    whole, parts = (
        compared(settings_at(tmp_path, repetitions=5, chunk=chunk), (3,), (2,)) for chunk in (5, 2)
    )
    order = ["hyperparameter", "seed"]
    pd.testing.assert_frame_equal(
        *(frame.sort_values(order, ignore_index=True) for frame in (whole, parts)), rtol=0, atol=0
    )


def test_an_audit_is_stored_once(tmp_path):
    at, grid = settings_at(tmp_path), AuditGrid((2, 3), (1, 2))
    first = audit.run(at, grid)
    assert first.path.parent == tmp_path / "audits"
    assert {path.name for path in first.path.iterdir()} == {
        "audit.json",
        "hypergradient_error.parquet",
    }
    document = json.loads((first.path / "audit.json").read_text())
    assert (document["status"], document["intervals"], document["look_backs"]) == (
        "complete",
        [2, 3],
        [1, 2],
    )
    stamp = (first.path / "audit.json").stat().st_mtime_ns
    again = audit.run(at, grid)
    pd.testing.assert_frame_equal(first.frame, again.frame)
    assert (first.path / "audit.json").stat().st_mtime_ns == stamp
    assert audit.run(at, grid, force=True).path == first.path
    assert (first.path / "audit.json").stat().st_mtime_ns != stamp
    others = {
        audit.run(at, other).path for other in (AuditGrid((2,), (1, 2)), AuditGrid((2, 3), (1,)))
    }
    others.add(audit.run(settings_at(tmp_path, hyper_updates=2), AuditGrid((2, 3), (1, 2), 2)).path)
    assert len(others | {first.path}) == 4
    (first.path / "hypergradient_error.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(StoreError, match="cannot be read"):
        audit.run(at, grid)


def test_what_cannot_be_audited_is_one_line(tmp_path):
    with pytest.raises(UserError, match="method=random: tunes nothing"):
        compared(settings_at(tmp_path, "random"), (2,), (1,))
    with pytest.raises(UserError, match="--look-backs 5: longer than every interval; at most 3"):
        compared(settings_at(tmp_path), (2, 3), (5, 6))


RULES = {
    "adamw": (AdamW(), ("weight_decay", "lr", "beta1")),
    "rmsprop": (RMSprop(), ("weight_decay", "lr", "alpha")),
    "nesterov": (MomentumSGD(nesterov=True, dampening=0.2), tuple(TUNED)),
}


def through(rule, estimator, **changes):
    """The paper's method with another rule and estimator."""
    of_rule, tuned = RULES[rule]
    return make_method("ours_wd_lr_m", rule=of_rule, tuned=tuned, estimator=estimator, **changes)


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("kind", [Neumann, Unroll, Forward])
def test_any_rule_is_audited(tmp_path, rule, kind):
    """Exact hypergradients are finite differences, and the exact methods have no error."""
    frame = compared(settings_at(tmp_path, through(rule, kind(3)), hyper_updates=2), (4,), (3,), 2)
    own = frame[frame.hyperparameter != ALL]
    assert list(dict.fromkeys(own.hyperparameter)) == list(RULES[rule][1])
    assert (own.exact != 0).all()
    np.testing.assert_allclose(own.exact, own.finite_difference, rtol=2e-5, atol=1e-8)
    if kind is Neumann:
        assert own.relative_error.min() > 1e-6
    else:
        assert own.relative_error.max() < 1e-9


@pytest.mark.parametrize("rule", list(RULES))
def test_carried_tangents_are_exact_through_the_whole_training(tmp_path, rule):
    """Across hyperparameter updates, against reverse mode and finite differences."""
    at = settings_at(tmp_path, through(rule, Forward()), hyper_updates=3)
    frame = compared(at, (4,), (1, 5, 12), 3)
    assert sorted(set(frame.look_back)) == [1, 5, 12]
    whole = frame[(frame.look_back == 12) & (frame.hyperparameter != ALL)]
    assert whole.relative_error.max() < 1e-9
    np.testing.assert_allclose(whole.exact, whole.finite_difference, rtol=2e-5, atol=1e-8)
    shorter = frame[(frame.look_back == 5) & (frame.hyperparameter != ALL)]
    assert shorter.relative_error.min() > 1e-6


def test_discounts_are_compared_and_stored(tmp_path):
    at, grid = settings_at(tmp_path, make_method("ours_wd_lr_m", estimator=Forward())), None
    grid = AuditGrid((3,), (1, 6), 2, (0.0, 0.9, 1.0))
    found = audit.run(settings_at(tmp_path, at(3, 1).method, hyper_updates=2), grid)
    frame = found.frame
    assert list(frame.columns) == [*COLUMNS, "discount"]
    of_one = frame[(frame.discount == 0) & (frame.look_back == 1)]
    of_all = frame[(frame.discount == 1) & (frame.look_back == 6)]
    assert of_one.relative_error.max() < 1e-12
    assert of_all.relative_error.max() < 1e-9
    assert frame[frame.discount == 0.9].relative_error.min() > 1e-6
    assert json.loads((found.path / "audit.json").read_text())["discounts"] == [0.0, 0.9, 1.0]
    assert list(audit.summary(frame).discount.unique()) == [0.0, 0.9, 1.0]


def test_what_has_no_discount_or_no_past_is_one_line(tmp_path):
    with pytest.raises(UserError, match="--discounts: method=ours_wd_lr_m has no discount"):
        audit.hypergradient_error(settings_at(tmp_path), AuditGrid((2,), (1,), 1, (0.5,)))
    carried = settings_at(tmp_path, make_method("ours_wd_lr_m", estimator=Forward()))
    with pytest.raises(UserError, match="longer than every training until then; at most 4"):
        compared(carried, (2,), (5,), 2)


def test_every_update_is_compared_through_the_last_i(tmp_path):
    """Baydin's memory is one update long, the exact hypergradient's is not."""
    frame = compared(settings_at(tmp_path, "baydin"), (4,), (1, 3))
    own = frame[frame.hyperparameter == "lr"].pivot(index="seed", columns="look_back")
    assert (own.exact[1] != own.exact[3]).all()
    assert (own.approximate[1] == own.approximate[3]).all()
