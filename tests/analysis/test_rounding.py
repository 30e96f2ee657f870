"""Rounding to the error's first digit, and what is bold."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_bench.analysis.rounding import rounded, within_error_of_best

NUMBERS = st.floats(1e-9, 1e9)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.5283, 0.0213, "0.53 ± 0.02"),
        (0.5283, 0.0962, "0.5 ± 0.1"),  # the error's first digit after rounding
        (7.651, 0.5, "7.7 ± 0.5"),
        (123.4, 45.6, "120 ± 50"),
        (123.4, 4.56, "123 ± 5"),
        (-17.3, 2.2, "−17 ± 2"),
        (0.02, 3.1, "0 ± 3"),
        (1.234e-5, 2.1e-7, "(1.23 ± 0.02)e-5"),
        (1.234e7, 3.3e6, "(1.2 ± 0.3)e7"),
        (2.0, 3.3e6, "(0 ± 3)e6"),
        (0.5283, 0.0, "0.528 ± 0"),
        (0.5283, math.inf, "0.528 ± ∞"),
        (0.5283, math.nan, "0.528"),
        (0.5283, None, "0.528"),
        (1234.5, None, "1230"),
        (0.0, None, "0"),
        (1.2345e-7, None, "1.23e-7"),
        (-1.2345e9, None, "−1.23e9"),
        (math.inf, 1.0, "∞"),
        (-math.inf, None, "−∞"),
        (math.nan, 1.0, "–"),
    ],
)
def test_text(value, error, text):
    assert rounded(value, error).text == text


def shown(text: str) -> tuple[float, float]:
    mantissas, _, exponent = text.partition("e")
    value, error = (float(part) for part in re.findall(r"[\d.]+", mantissas))
    return value * 10.0 ** int(exponent or 0), error * 10.0 ** int(exponent or 0)


@given(value=NUMBERS, error=NUMBERS)
def test_text_says_the_rounded_numbers_and_the_error_has_one_digit(value, error):
    number = rounded(value, error)
    told_value, told_error = shown(number.text)
    assert told_value == pytest.approx(number.value, rel=1e-9, abs=1e-12 * number.error)
    assert told_error == pytest.approx(number.error)
    assert number.error == float(f"{number.error:.0e}")
    assert abs(number.error - error) <= 0.5 * 10.0 ** math.floor(math.log10(error)) * (1 + 1e-9)
    assert abs(number.value - value) <= 0.5 * 10.0 ** math.floor(
        math.log10(number.error * (1 + 1e-9))
    ) * (1 + 1e-6) + math.ulp(value)


def bold(*numbers: tuple[float, float | None]) -> list[bool]:
    return within_error_of_best([rounded(value, error) for value, error in numbers])


def test_bold_is_what_lies_within_the_error_of_the_best():
    assert bold((0.3, 0.1), (0.4, 0.01), (0.41, 0.2), (0.41, 0.01)) == [True, True, True, False]


def test_bold_compares_rounded_numbers():
    assert bold((0.30, 0.1), (0.44, 0.1)) == [True, True]
    assert bold((0.30, 0.1), (0.46, 0.1)) == [True, False]


def test_a_wide_error_of_its_own_does_not_make_a_method_bold():
    assert bold((1.0, 0.1), (5.0, 4.0)) == [True, False]


def test_what_did_not_finish_is_never_bold():
    assert bold((math.inf, None), (math.nan, None)) == [False, False]
    assert bold((math.inf, None), (2.0, math.inf), (2.1, 0.1)) == [False, True, False]
    assert within_error_of_best([]) == []


def test_without_errors_the_lowest_alone_is_bold():
    assert bold((0.142, None), (0.1424, None), (0.15, None)) == [True, True, False]
