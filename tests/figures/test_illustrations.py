"""Figures 1 and 2 are computed, and what is computed is right."""

from __future__ import annotations

import numpy as np
import pytest

from hpo_bench.figures import fig01, fig02
from hpo_bench.figures.common.base import Options
from hpo_bench.figures.common.needs import NeededRuns

NOTHING = NeededRuns({}, (), ())
RIDGE = fig01.problem()


@pytest.fixture(scope="module")
def derivation():
    return fig01.points(NOTHING, Options())


@pytest.fixture(scope="module")
def readings():
    return fig02.points(NOTHING, Options()).frame


@pytest.mark.parametrize("log_decay", [-2.0, 0.0, 1.5])
def test_weights_rest_at_the_best_response(log_decay):
    assert RIDGE.update(log_decay, float(RIDGE.best_response(log_decay))) == pytest.approx(
        0, abs=1e-15
    )


@pytest.mark.parametrize("log_decay", [-2.0, 0.0, 1.5])
def test_the_exact_hypergradient_is_the_slope_along_the_best_response(log_decay):
    losses = RIDGE.validation_loss(
        RIDGE.best_response(np.array([log_decay - 1e-5, log_decay + 1e-5]))
    )
    exact = RIDGE.hypergradient(log_decay, float(RIDGE.best_response(log_decay)), None)
    assert exact == pytest.approx(np.diff(losses)[0] / 2e-5, rel=1e-6)


def test_many_neumann_terms_are_exact():
    assert RIDGE.hypergradient(0.3, 0.2, 500) == pytest.approx(RIDGE.hypergradient(0.3, 0.2, None))


def test_exact_updates_stay_on_the_line_and_both_kinds_approach_the_optimum(derivation):
    frame, (log_decay, weight) = derivation.frame, derivation.context["optimum"]
    exact = frame[frame["part"] == "exact"]
    np.testing.assert_allclose(exact["weight"], RIDGE.best_response(exact["log_decay"].to_numpy()))
    assert weight == pytest.approx(RIDGE.best_response(log_decay))
    for part in ("exact", "approximate"):
        path = frame[frame["part"] == part]
        distance = np.hypot(path["log_decay"] - log_decay, path["weight"] - weight)
        assert distance.iloc[-1] < 0.1 * distance.iloc[0]


def test_the_approximation_makes_t_weight_updates_before_each_hyperparameter_update(derivation):
    path = derivation.frame[derivation.frame["part"] == "approximate"]
    kinds = list(path["kind"])[1:]
    assert kinds[: fig01.UPDATE_INTERVAL + 1] == ["weight"] * fig01.UPDATE_INTERVAL + [
        "hyperparameter"
    ]
    moved = path[["log_decay", "weight"]].diff().iloc[1:].ne(0)
    assert list(moved["log_decay"]) == [kind == "hyperparameter" for kind in kinds]
    assert list(moved["weight"]) == [kind == "weight" for kind in kinds]


def test_both_readings_lead_to_the_same_weight(readings):
    steps = readings[readings["part"] == "step"]
    for _, pair in steps.groupby("rate"):
        assert set(pair["panel"]) == {"a", "b"}
        assert pair["end"].nunique() == 1
    in_b = steps[steps["panel"] == "b"]
    np.testing.assert_allclose(in_b["end"], in_b["weight"] - in_b["slope"])  # a step of size one
    in_a = steps[steps["panel"] == "a"]
    np.testing.assert_allclose(in_a["end"], in_a["weight"] - in_a["rate"] * in_a["slope"])


@pytest.mark.parametrize("rate", fig02.RATES)
def test_slopes_are_those_of_the_drawn_losses(rate, readings):
    loss = readings[(readings["part"] == "loss") & (readings["rate"] == rate)]
    step = readings[
        (readings["part"] == "step") & (readings["panel"] == "b") & (readings["rate"] == rate)
    ].iloc[0]
    slope = np.interp(step["weight"], loss["weight"], np.gradient(loss["value"], loss["weight"]))
    assert slope == pytest.approx(step["slope"], rel=1e-3)
