"""Where the hyperparameters of `hpo_bench.OnePass` start, and which weights do not decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from hpo_bench.core.hyperparameters import Coordinate, Space
from hpo_bench.core.rule import Rule
from hpo_bench.errors import UserError, nearest

SHOWN = 80  # characters of a value in a message

Value = float | Sequence[float] | Tensor
Choice = Sequence[str] | Callable[[str, nn.Parameter], bool]


# --- values ---


def natural_values(
    given: Mapping[str, Value], rule: Rule, arguments: Iterable[str]
) -> dict[str, Value]:
    """A natural value for each of the rule's hyperparameters: the given one, or its default.

    Args:
        arguments: other names that may have been meant.

    Raises:
        UserError: a name that the rule lacks, or one without a value.
    """
    kind, names = type(rule).__name__, tuple(rule.coordinates)
    for name in given:
        if name not in names:
            raise UserError(
                f"{name}: {kind} has no such hyperparameter, nor OnePass such an argument; "
                f"{nearest(name, (*names, *arguments))}"
            )
    values: dict[str, Value] = {}
    for name, coordinate in rule.coordinates.items():
        if name in given:
            values[name] = given[name]
        elif coordinate.default is not None:
            values[name] = coordinate.default
        else:
            raise UserError(f"{name}: {kind} does not say where it starts; give OnePass a value")
    return values


def raw_value(
    name: str, value: Value, coordinate: Coordinate, weights: Tensor, *, is_tuned: bool
) -> Tensor:
    """The raw value of each row, (R, 1), in the precision of ``weights`` (R, P).

    Raises:
        UserError: it has no finite raw value, or loses it in that precision. What is not tuned may
            be 0, but for lr.
    """
    values = numbers(name, value, len(weights))
    space = coordinate.space
    _check_range(name, values, space, may_be_zero=not is_tuned and name != "lr")
    raw = torch.tensor([space.raw(each) for each in values.tolist()], dtype=torch.float64)
    made = raw.unsqueeze(-1).to(weights)
    _check_kept(name, values.unsqueeze(-1), space.natural(made).cpu(), space)
    return made


def numbers(name: str, value: Value, rows: int) -> Tensor:
    """One number for each row, (R,) float64.

    Raises:
        UserError: neither a number nor R of them.
    """
    try:
        values = torch.as_tensor(_without_truth(value), dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise UserError(
            f"{name}={str(value)[:SHOWN]}: must be a number, or {rows} of them"
        ) from None
    if values.shape not in ((), (rows,)):
        raise UserError(
            f"{name}: has shape {tuple(values.shape)}; give one number, or one for each of "
            f"{rows} modules"
        )
    return values.expand(rows)


def _without_truth(value: Any) -> Any:
    """The value; raises a TypeError for truth values, which torch takes for numbers."""
    parts = value if isinstance(value, list | tuple) else [value]
    is_truth = getattr(value, "dtype", None) in (torch.bool, bool)
    if is_truth or any(isinstance(part, bool) for part in parts):
        raise TypeError("a truth value")
    return value


def _check_range(name: str, values: Tensor, space: Space, *, may_be_zero: bool) -> None:
    """Raise where a value has no raw value that is finite."""
    low, high = space.bounds
    is_above = (values > low) | (may_be_zero & (values == 0) & (low == 0))
    if bool((is_above & (values < high)).all()):
        return
    lower = "0 or more" if may_be_zero and low == 0 else f"above {low:g}"
    purpose = " to be tuned" if not may_be_zero and name != "lr" else ""
    upper = "" if high == torch.inf else f" and below {high:g}"
    shown = values.unique_consecutive().tolist()
    raise UserError(
        f"{name}={shown[0] if len(shown) == 1 else shown}: must be {lower}{purpose}{upper}"
    )


def _check_kept(name: str, values: Tensor, natural: Tensor, space: Space) -> None:
    """Raise where a value is lost in the precision of the hyperparameters: at 0, at ∞, at 1."""
    low, high = space.bounds
    lost = (values != 0) & ~((natural > low) & (natural < high))
    if bool(lost.any()):
        precision = str(natural.dtype).removeprefix("torch.")
        raise UserError(
            f"{name}={values[lost][0].item()}: would be {natural[lost][0].item():g} in "
            f"{precision}; give another value"
        )


# --- weights ---


def chosen(key: str, choice: Choice, named: Mapping[str, nn.Parameter]) -> frozenset[str]:
    """The names that are chosen out of those of a module's parameters.

    A pattern is that of a whole name or of its end, in parts: ``bias`` is each parameter of that
    name, ``norm*`` each whose own name, or that of whose layer, begins so.

    Args:
        choice: patterns with ``*`` and ``?``, or a function of name and parameter.
        named: all of them.

    Raises:
        UserError: neither, or a pattern that chooses nothing.
    """
    if callable(choice):
        return frozenset(name for name, parameter in named.items() if choice(name, parameter))
    if not isinstance(choice, list | tuple) or not all(isinstance(each, str) for each in choice):
        raise UserError(
            f"{key}={str(choice)[:SHOWN]}: must be a list of names such as ['bias', 'norm*'], or a "
            "function of name and parameter"
        )
    found: set[str] = set()
    for pattern in choice:
        matching = {name for name in named if _matches(name, pattern)}
        if not matching:
            raise UserError(f"{key}: no parameter is called {pattern}; {nearest(pattern, named)}")
        found |= matching
    return frozenset(found)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
