"""Laws of order, split, standardisation and fingerprint."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_bench.core.table import Table
from hpo_bench.datasets.preparation import (
    Places,
    check_table,
    fingerprint,
    fixed_order,
    holdout,
    make_table,
    moments,
    split,
    standardise,
)
from hpo_bench.errors import UserError

DIABETES = [10, 166, 310, 101, 139, 319, 1, 213]
DIGITS = [685, 292, 980, 243, 1774, 211, 993, 8]
shares = st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True)


@given(st.text(), st.integers(1, 300))
def test_the_order_is_a_permutation_that_depends_on_the_name_alone(name: str, rows: int) -> None:
    order = fixed_order(name, rows)
    assert sorted(order) == list(range(rows))
    assert (order == fixed_order(name, rows)).all()


def test_the_order_never_changes() -> None:
    assert fixed_order("diabetes", 442)[:8].tolist() == DIABETES
    assert fixed_order("digits", 1797)[:8].tolist() == DIGITS


@given(st.integers(2, 100_000), shares)
def test_a_split_is_rounded_to_the_nearest_row_or_refused(rows: int, share: float) -> None:
    if not 1 <= np.rint(rows * (1 - share)) <= rows - 1:
        with pytest.raises(
            UserError, match=f"^validation_share={re.escape(str(share))} leaves no .* row of {rows}"
        ):
            split(rows, share)
        return
    training, validation = split(rows, share)
    assert training + validation == rows
    assert abs(training - rows * (1 - share)) <= 0.5


@given(st.integers(3, 10_000), shares)
def test_a_holdout_is_rounded_to_the_nearest_row_or_refused(rows: int, share: float) -> None:
    if not 1 <= np.rint(rows * share) <= rows - 2:
        with pytest.raises(
            UserError, match=f"^dataset.test_share={re.escape(str(share))} leaves .* of {rows};"
        ):
            holdout(rows, share)
        return
    assert abs(holdout(rows, share) - rows * share) <= 0.5


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), None, "half"])
def test_a_share_outside_0_and_1_is_named(share: float) -> None:
    with pytest.raises(UserError, match=f"^validation_share={share} .*between 0 and 1$"):
        split(100, share)
    with pytest.raises(UserError, match=f"^dataset.test_share={share} .*between 0 and 1$"):
        holdout(100, share)


@given(st.integers(0, 2**32 - 1), st.integers(3, 50), st.integers(2, 40))
def test_standardised_rows_have_mean_0_and_unbiased_std_1(
    seed: int, rows: int, fitted: int
) -> None:
    values = np.random.default_rng(seed).normal(3, 7, (rows, 4))
    fitted = min(fitted, rows)
    standardised, scale = standardise(values, fitted)
    np.testing.assert_allclose(standardised[:fitted].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(standardised[:fitted].std(axis=0, ddof=1), 1)
    np.testing.assert_allclose(standardised * scale + values[:fitted].mean(axis=0), values)


@pytest.mark.parametrize("constant", [0.0, 0.998, 288.0, 1e100, -1e-300])
def test_a_constant_column_becomes_zeros_though_its_computed_std_may_not_be_zero(
    constant: float,
) -> None:
    values = np.column_stack([np.arange(10_000.0), np.full(10_000, constant)])
    standardised, scale = standardise(values, 9_000)
    assert scale[1] == 1
    assert (standardised[:, 1] == 0).all()


def test_test_rows_do_not_take_part_in_standardisation() -> None:
    values = np.random.default_rng(0).normal(size=(30, 3))
    other = values.copy()
    other[20:] *= 100
    assert (standardise(values, 20)[0][:20] == standardise(other, 20)[0][:20]).all()
    assert (standardise(values, 20)[1] == standardise(other, 20)[1]).all()


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shared", [(), (1, 2), (0, 1, 2)])
def test_moments_are_those_of_the_known_rows_in_float64(
    monkeypatch: pytest.MonkeyPatch, kind: type, shared: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (23, 3, 4, 5)).astype(kind)
    whole = moments(values, 20, shared)
    monkeypatch.setattr("hpo_bench.datasets.preparation.BLOCK", 100)
    axes = (0, *(axis + 1 for axis in shared))
    known = values[:20].astype(np.float64)
    for centre, scale in (whole, moments(values, 20, shared)):
        np.testing.assert_allclose(centre, known.mean(axis=axes, keepdims=True)[0], rtol=1e-13)
        np.testing.assert_allclose(
            scale, known.std(axis=axes, ddof=1, keepdims=True)[0], rtol=1e-12
        )
        assert centre.dtype == scale.dtype == np.float64


def test_moments_of_bytes_round_only_at_the_end() -> None:
    """From exact sums: 7 rows of 0 and one of 255, and 8 of one value."""
    values = np.array([[0, 77]] * 7 + [[255, 77]], np.uint8)
    centre, scale = moments(values, 8)
    assert centre.tolist() == [255 / 8, 77]
    assert scale.tolist() == [math.sqrt(Fraction(8 * 255**2 - 255**2, 8 * 7)), 1]


def test_targets_decide_the_task() -> None:
    inputs, labels = np.random.default_rng(0).normal(size=(9, 2)), np.arange(9) % 3
    regression = make_table("x", inputs, labels.astype(np.float64), (5, 2, 2), "print")
    assert (regression.task, regression.outputs, regression.targets.shape) == (
        "regression",
        1,
        (9, 1),
    )
    assert regression.target_scale == pytest.approx(labels[:7].std(ddof=1))
    classes = make_table("x", inputs, labels.astype(np.int64), (5, 2, 2), "print")
    assert (classes.task, classes.outputs, classes.target_scale) == ("classification", 3, 1.0)
    assert (classes.targets == labels).all()


def test_every_part_of_the_content_changes_the_fingerprint() -> None:
    content = {"files": ["a", "b"], "drop": [1], "parts": (3, 2, 1)}
    changed = [
        {**content, "files": ["b", "a"]},
        {**content, "drop": []},
        {**content, "parts": (3, 1, 2)},
    ]
    prints = {
        fingerprint("x/1", content),
        fingerprint("x/2", content),
        *(fingerprint("x/1", one) for one in changed),
    }
    assert len(prints) == 5
    assert fingerprint("x/1", content) == fingerprint("x/1", dict(reversed(content.items())))


# --- what would only show in mid-training ---


def test_columns_of_the_smallest_numbers_have_a_standard_deviation() -> None:
    values = np.random.default_rng(0).normal(size=(30, 3))
    found, scale = standardise(values * [1, 1e-200, 1e-305], 20)
    np.testing.assert_allclose(found, standardise(values, 20)[0], rtol=1e-6)
    np.testing.assert_allclose(scale / [1, 1e-200, 1e-305], standardise(values, 20)[1], rtol=1e-6)
    np.testing.assert_allclose(moments(values * [1, 1e-200, 1e-305], 20)[1], scale, rtol=1e-6)
    together = moments(values * 1e-200, 20, (0,))[1]
    np.testing.assert_allclose(together, moments(values, 20, (0,))[1] * 1e-200, rtol=1e-6)


def made(**changes: Any) -> Table:
    rows = np.arange(20.0)
    table = make_table("mine", rows[:, None] % 7, rows, (10, 5, 5), "print")
    return replace(table, **changes)


def with_value(value: float) -> np.ndarray:
    inputs = np.zeros((20, 2))
    inputs[3, 1] = value
    return inputs


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"inputs": with_value(np.nan)}, r"^dataset mine: nan in the inputs, row 3"),
        ({"inputs": with_value(np.inf)}, r"^dataset mine: inf in the inputs, row 3"),
        (
            {"inputs": with_value(1e39)},
            r"1e\+39 in the inputs, row 3 .* is not a finite number in precision=float32",
        ),
        ({"targets": np.full((20, 1), np.nan)}, "nan in the targets, row 0"),
        ({"targets": np.zeros((19, 1))}, "20 inputs, 19 targets and 20 rows"),
        ({"training": 9}, "20 inputs, 20 targets and 19 rows"),
        ({"training": 15, "validation": 0}, "it has 0 validation rows; at least 1"),
        ({"test": 0, "training": 15}, "it has 0 test rows; at least 1"),
        (
            {"task": "classification", "targets": np.arange(20), "outputs": 3},
            "classes from 0 to 19; allowed: 0 to 2",
        ),
        (
            {"target_scale": 1e20},
            r"deviation 1e\+20 is out of proportion, .* precision=float32 .* precision=float64",
        ),
        ({"target_scale": 1e-25}, "deviation 1e-25 is out of proportion"),
        ({"target_scale": np.inf}, "deviation inf is out of proportion"),
    ],
)
def test_tables_that_cannot_be_trained_on_are_refused(changes: dict[str, Any], about: str) -> None:
    with pytest.raises(UserError, match=about):
        check_table(made(**changes), "float32")


def test_what_float64_holds_is_allowed_there() -> None:
    check_table(made(), "float32")
    for changes in ({"inputs": with_value(1e39)}, {"target_scale": 1e20}, {"target_scale": 1e-25}):
        check_table(made(**changes), "float64")


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(UserError, match=r"^dataset\.source: load gave a list, needed is a"):
        check_table([1, 2], "float32")  # type: ignore[arg-type]


def test_cells_out_of_all_proportion_are_located_in_their_source() -> None:
    inputs, targets = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20.0)
    inputs[19, 1] = 1e30
    with pytest.raises(
        UserError, match=r"^dataset mine: column 2, row 20: lies 1.*e\+30 standard deviations"
    ):
        make_table("mine", inputs, targets, (10, 5, 5), "")
    places = Places("a.csv", "price", ["a", "b"], "data row")
    with pytest.raises(UserError, match=r"^a\.csv: column 'b', data row 8: lies"):
        make_table("mine", inputs, targets, (10, 5, 5), "", places=places, order=np.r_[0:19, 7])


def test_a_target_that_is_constant_where_it_is_learned_from_is_refused() -> None:
    for targets in (
        np.r_[np.ones(10), np.arange(10.0)],
        np.r_[np.ones(10, np.int64), np.arange(10)],
    ):
        with pytest.raises(
            UserError,
            match=r"^dataset mine: the target is the same in every row that is trained on",
        ):
            make_table("mine", np.ones((20, 1)), targets, (10, 5, 5), "")
