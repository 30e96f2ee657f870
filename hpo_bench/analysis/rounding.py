"""Numbers as tables show them.

They are rounded to the first digit of their error, and bold within the error of the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SIGNIFICANT = 3  # digits of a number that has no error
NOTHING, INFINITE = "–", "∞"
LARGE, SMALL = 1e5, 1e-3  # from here on with a power of ten


@dataclass(frozen=True)
class Rounded:
    """A number as shown.

    Args:
        value, error: rounded; the error is 0 where there is none to compare with.
        text: ``0.53 ± 0.02``, ``(1.2 ± 0.3)e-5``, ``∞``, or ``–`` for NaN.
    """

    value: float
    error: float
    text: str


def rounded(value: float, error: float | None = None) -> Rounded:
    """Round a value and its error to the first digit of the error, or a value to three digits.

    So 0.528 ± 0.0213 is 0.53 ± 0.02.

    Args:
        error: one standard error; None or NaN = not known, inf = without bound.
    """
    if math.isnan(value):
        return Rounded(value, 0.0, NOTHING)
    if math.isinf(value):
        return Rounded(value, 0.0, INFINITE if value > 0 else f"−{INFINITE}")
    if error is None or math.isnan(error):
        return _plain(value, "")
    if math.isinf(error):
        return _plain(value, f" ± {INFINITE}")
    if error == 0:
        return _plain(value, " ± 0")
    error = _first_digit(error)
    decimals = -_exponent(error)
    value = round(value, decimals)
    largest = max(abs(value), error)
    shift = 0 if SMALL <= largest < LARGE else _exponent(largest)
    text = f"{_fixed(value, decimals, shift)} ± {_fixed(error, decimals, shift)}"
    return Rounded(value, error, f"({text})e{shift}" if shift else text)


def _exponent(number: float) -> int:
    """The power of ten of a number's first digit."""
    return int(f"{abs(number):e}".partition("e")[2])


def _first_digit(number: float) -> float:
    return float(f"{number:.0e}")


def _fixed(number: float, decimals: int, shift: int) -> str:
    """A number without its power of ten ``shift``, with the digits that ``decimals`` leaves."""
    places = max(decimals + shift, 0)
    return _minus(f"{number / 10.0**shift:.{places}f}")


def _plain(value: float, suffix: str) -> Rounded:
    """A value to three digits, before a suffix that says what is known of its error."""
    value = float(f"{value:.{SIGNIFICANT - 1}e}")
    if value == 0:
        return Rounded(0.0, 0.0, f"0{suffix}")
    exponent = _exponent(value)
    if SMALL <= abs(value) < LARGE:
        return Rounded(value, 0.0, _fixed(value, SIGNIFICANT - 1 - exponent, 0) + suffix)
    mantissa = _fixed(value, SIGNIFICANT - 1 - exponent, exponent)
    if suffix:
        mantissa = f"({mantissa}{suffix})"
    return Rounded(value, 0.0, f"{mantissa}e{exponent}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def within_error_of_best(numbers: Sequence[Rounded]) -> list[bool]:
    """Which rounded values are at most the best (lowest) one plus its error.

    One that is not finite never is.
    """
    finite = [number for number in numbers if math.isfinite(number.value)]
    if not finite:
        return [False] * len(numbers)
    best = min(finite, key=lambda number: (number.value, number.error))
    bound = best.value + best.error
    bound += 1e-9 * abs(bound)  # 0.3 + 0.1 as printed, whatever its binary digits
    return [math.isfinite(number.value) and number.value <= bound for number in numbers]
