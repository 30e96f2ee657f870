"""Numbers as tables show them: rounded to the first digit of their error, bold within the error of
the best.
"""

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
    """Round to the first digit of the error, both (0.528 ± 0.0213 → 0.53 ± 0.02); without one to
    three digits.

    Args:
        error: one standard error; None or NaN = not known, inf = without bound.
    """
    if not math.isfinite(value):
        return Rounded(
            value, 0.0, NOTHING if math.isnan(value) else INFINITE if value > 0 else f"−{INFINITE}"
        )
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
    texts = [_fixed(number, decimals, shift) for number in (value, error)]
    text = " ± ".join(texts)
    return Rounded(value, error, f"({text})e{shift}" if shift else text)


def _exponent(number: float) -> int:
    return int(f"{abs(number):e}".partition("e")[2])


def _first_digit(number: float) -> float:
    return float(f"{number:.0e}")


def _fixed(number: float, decimals: int, shift: int) -> str:
    places = max(decimals + shift, 0)
    return _minus(f"{number / 10.0**shift:.{places}f}")


def _plain(value: float, suffix: str) -> Rounded:
    value = float(f"{value:.{SIGNIFICANT - 1}e}")
    if value == 0:
        return Rounded(0.0, 0.0, f"0{suffix}")
    exponent = _exponent(value)
    if SMALL <= abs(value) < LARGE:
        return Rounded(value, 0.0, _fixed(value, SIGNIFICANT - 1 - exponent, 0) + suffix)
    mantissa = _fixed(value, SIGNIFICANT - 1 - exponent, exponent)
    return Rounded(
        value, 0.0, f"({mantissa}{suffix})e{exponent}" if suffix else f"{mantissa}e{exponent}"
    )


def _minus(text: str) -> str:
    return text.replace("-", "−")


def within_error_of_best(numbers: Sequence[Rounded]) -> list[bool]:
    """Which rounded values are at most the best (lowest) one plus its error; never one that is not
    finite.
    """
    finite = [number for number in numbers if math.isfinite(number.value)]
    if not finite:
        return [False] * len(numbers)
    best = min(finite, key=lambda number: (number.value, number.error))
    bound = best.value + best.error
    bound += 1e-9 * abs(bound)  # 0.3 + 0.1 as printed, whatever its binary digits
    return [math.isfinite(number.value) and number.value <= bound for number in numbers]
