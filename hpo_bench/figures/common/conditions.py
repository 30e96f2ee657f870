"""What a figure asks of a setting of its runs.

Beside plain values, which are compared for equality, these are conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from hpo_bench.system.quoting import quoted


@runtime_checkable
class Condition(Protocol):
    """A condition on one setting."""

    def fits(self, value: Any) -> bool:
        """Whether a run with this value is wanted."""
        ...

    @property
    def value(self) -> Any:
        """What to set to make such a run; None where the default will do."""
        ...


@dataclass(frozen=True)
class Except:
    """Any value but these."""

    values: tuple[Any, ...]
    value: None = None

    def fits(self, value: Any) -> bool:
        return value not in self.values


@dataclass(frozen=True)
class Preferably:
    """This value where there are such runs, any other where there are none."""

    wanted: Any
    value: None = None

    def fits(self, value: Any) -> bool:
        return True


@dataclass(frozen=True)
class Fixed:
    """A range of initial values that is a single number, up to rounding in the command."""

    number: float

    def fits(self, value: Any) -> bool:
        if not isinstance(value, list) or len(value) != 2:
            return False
        return all(abs(end - self.number) < 1e-3 for end in value)

    @property
    def value(self) -> list[float]:
        return [self.number, self.number]


def fits(stored: Any, wanted: Any) -> bool:
    """Whether a stored setting is as wanted.

    Args:
        wanted: a condition, one of several values (tuple, range), or the value itself.
    """
    if isinstance(wanted, Condition):
        return wanted.fits(stored)
    if isinstance(wanted, (tuple, range)):
        return stored in wanted
    return bool(stored == wanted)


def override(wanted: Any) -> str | None:
    """What is wanted in the grammar of Hydra's command line; None where there is nothing to say."""
    match wanted:
        case Condition():
            return None if wanted.value is None else override(wanted.value)
        case None:
            return "null"
        case bool():
            return str(wanted).lower()
        case range():
            return f"range({wanted.start},{wanted.stop})"
        case tuple():
            return ",".join(str(override(value)) for value in wanted)
        case list():
            return f"[{','.join(str(override(value)) for value in wanted)}]"
        case _:
            return quoted(wanted)
