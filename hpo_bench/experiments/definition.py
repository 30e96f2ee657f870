"""Experiments as data: what ``configs/experiment/NAME.yaml`` says, and which runs that means.

An experiment has parts; a part is datasets × methods × cells of a grid, each of them one run of
``repetitions``. A scale changes parts: ``datasets``, ``methods`` keep some of them, ``repetitions``
bounds them, ``grid`` replaces the values of keys that a part sweeps, ``overrides`` are added; under
``parts`` stands what concerns one part alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpo_bench.core import checks
from hpo_bench.errors import UserError, nearest
from hpo_bench.settings.yamls import SCALES, SCALES_OF_ALL, configs_folder, read_yaml

KEYS = ("title", "figures", "tables", "parts", "scales")
PART_KEYS = ("datasets", "methods", "repetitions", "overrides", "grid", "at_most")
CHANGES = ("datasets", "methods", "repetitions", "overrides", "grid")
Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """Runs that share their settings.

    Args:
        repetitions: of each run, seeds from ``seed``.
        overrides: in Hydra's grammar, without sweeps.
        grid: dotted key -> the values it takes.
        at_most: key -> the key that it must not exceed in a cell.
    """

    name: str
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    repetitions: int
    seed: int = 0
    overrides: tuple[str, ...] = ()
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    at_most: Mapping[str, str] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """Combinations of the grid's values; one empty one without a grid."""
        combinations = itertools.product(*self.grid.values())
        cells: list[Cell] = [dict(zip(self.grid, values, strict=True)) for values in combinations]
        for small, large in self.at_most.items():
            cells = [cell for cell in cells if cell[small] <= cell[large]]
        return cells


@dataclass(frozen=True)
class Experiment:
    """One experiment at one scale."""

    name: str
    scale: str
    title: str
    figures: tuple[str, ...]
    tables: tuple[str, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Group:
    """Runs of one part that differ in their cell alone: one configuration to compose."""

    part: Part
    dataset: str
    method: str

    @property
    def overrides(self) -> tuple[str, ...]:
        """What Hydra composes; the cells' values are set afterwards."""
        part = self.part
        seeds = (f"seed={part.seed}", f"repetitions={part.repetitions}")
        return (f"method={self.method}", f"dataset={self.dataset}", *seeds, *part.overrides)


def names(configs: Path | None = None) -> list[str]:
    """Ids of all experiments, sorted."""
    folder = (configs or configs_folder()) / "experiment"
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read(name: str, scale: str = "paper", configs: Path | None = None) -> Experiment:
    """Read one experiment at one scale.

    Raises:
        UserError: no such experiment or scale, or a yaml that is not as it should be.
    """
    folder = configs or configs_folder()
    if name not in names(folder):
        raise UserError(f"{name}: no such experiment; {nearest(name, names(folder))}")
    file = folder / "experiment" / f"{name}.yaml"
    with _told_with(file):
        content = checks.section("", read_yaml(file), KEYS, needed=KEYS)
        scales = checks.section("scales", content["scales"], SCALES, needed=SCALES_OF_ALL)
    if scale not in scales:
        raise UserError(f"--scale {scale}: {nearest(scale, scales)}{_elsewhere(scale, name)}")
    with _told_with(file):
        return _experiment(name, scale, content)


def _elsewhere(scale: str, name: str) -> str:
    """Say that others have a scale which an experiment does not have."""
    return f" (of {name}; some others have it)" if scale in SCALES else ""


@contextmanager
def _told_with(file: Path) -> Iterator[None]:
    """Say in which file a mistake is."""
    try:
        yield
    except UserError as error:
        text = str(error)
        raise UserError(text if str(file) in text else f"{file}: {text}") from None


def _experiment(name: str, scale: str, content: Mapping[str, Any]) -> Experiment:
    scales = content["scales"]
    parts = [_part(key, value) for key, value in checks.section("parts", content["parts"]).items()]
    changes = checks.section(f"scales.{scale}", scales[scale], (*CHANGES, "parts"))
    part_names = tuple(part.name for part in parts)
    of_all = {key: value for key, value in changes.items() if key != "parts"}
    of_each = checks.section(f"scales.{scale}.parts", changes.get("parts", {}), part_names)
    changed = []
    for part in parts:
        at_scale = _change(f"scales.{scale}", part, of_all)
        where = f"scales.{scale}.parts.{part.name}"
        changed.append(_change(where, at_scale, of_each.get(part.name, {})))
    return Experiment(
        name,
        scale,
        checks.text("title", content["title"]),
        _words("figures", content["figures"]),
        _words("tables", content["tables"]),
        tuple(part for part in changed if part.datasets and part.methods),
    )


def _part(name: str, content: Any) -> Part:
    where = f"parts.{name}"
    checks.section(where, content, PART_KEYS, needed=("datasets", "methods", "repetitions"))
    grid = _grid(where, content.get("grid", {}))
    at_most = checks.section(f"{where}.at_most", content.get("at_most", {}), tuple(grid))
    for key in at_most.values():
        checks.choice(f"{where}.at_most", key, tuple(grid))
    return Part(
        name,
        _words(f"{where}.datasets", content["datasets"]),
        _words(f"{where}.methods", content["methods"]),
        checks.whole(f"{where}.repetitions", content["repetitions"], 1),
        overrides=_words(f"{where}.overrides", content.get("overrides", [])),
        grid=grid,
        at_most=at_most,
    )


def _words(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UserError(f"{key}={value!r}: must be a list of words")
    return tuple(value)


def _grid(where: str, content: Any) -> dict[str, tuple[Any, ...]]:
    grid = checks.section(f"{where}.grid", content)
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}.grid.{key}={values!r}: must be a list of values")
    return {key: tuple(values) for key, values in grid.items()}


def _change(where: str, part: Part, change: Any) -> Part:
    """A part with what a scale changes in it."""
    checks.section(where, change, CHANGES)
    changed: dict[str, Any] = {}
    for key in ("datasets", "methods"):
        if key in change:
            wanted = _words(f"{where}.{key}", change[key])
            changed[key] = tuple(name for name in getattr(part, key) if name in wanted)
    if "repetitions" in change:
        bound = checks.whole(f"{where}.repetitions", change["repetitions"], 1)
        changed["repetitions"] = min(part.repetitions, bound)
    grid = dict(part.grid)
    for key, values in _grid(where, change.get("grid", {})).items():
        if key in grid:
            grid[key] = values
    overrides = (*part.overrides, *_words(f"{where}.overrides", change.get("overrides", [])))
    return replace(part, **changed, grid=grid, overrides=overrides)


# --- what the user asks for on top ---


def narrow(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """The experiment with a user's overrides.

    ``dataset=a,b`` and ``method=a,b`` keep those runs (a name that no part has takes the place of
    all of them); ``repetitions=`` and ``seed=`` are set; a key that a part sweeps takes the values
    given, in the parts that sweep it; all others are passed on.

    Raises:
        UserError: not ``key=value``, or a number that is none.
    """
    parts = experiment.parts
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key:
            raise UserError(f"{override}: must be KEY=VALUE")
        parts = tuple(_narrowed(part, override, experiment.parts) for part in parts)
    with_runs = tuple(part for part in parts if part.datasets and part.methods)
    return replace(experiment, parts=with_runs)


def _narrowed(part: Part, override: str, all_parts: Sequence[Part]) -> Part:
    """A part with one override of the user's."""
    key, _, value = override.partition("=")
    if key in ("dataset", "method"):
        wanted = tuple(value.split(","))
        known = {name for other in all_parts for name in getattr(other, f"{key}s")}
        of_part = [name for name in getattr(part, f"{key}s") if name in wanted]
        new = [name for name in wanted if name not in known]
        names = (*of_part, *new)
        return replace(part, datasets=names) if key == "dataset" else replace(part, methods=names)
    if key == "repetitions":
        return replace(part, repetitions=checks.whole(key, _value(override), 1))
    if key == "seed":
        return replace(part, seed=checks.whole(key, _value(override), 0))
    if key in part.grid:
        return replace(part, grid={**part.grid, key: _values(override)})
    if any(key in other.grid for other in all_parts):
        return part  # another part sweeps it: here it keeps its value
    return replace(part, overrides=(*part.overrides, override))


def _values(override: str) -> tuple[Any, ...]:
    """The values of ``key=1,2,5`` or ``key=range(1,11)``, read as ``hpo-bench run`` reads them."""
    from hpo_bench.settings.compose import values_of

    return tuple(values_of(override))


def _value(override: str) -> Any:
    """The one value of ``key=value``, or the text where there are several."""
    values = _values(override)
    return values[0] if len(values) == 1 else override.partition("=")[2]


# --- which runs ---


def groups(experiment: Experiment) -> Iterator[Group]:
    """Everything to compose, part by part, dataset by dataset."""
    for part in experiment.parts:
        for dataset, method in itertools.product(part.datasets, part.methods):
            yield Group(part, dataset, method)


def unknown(
    experiment: Experiment, configs: Path | None = None, extra: Path | None = None
) -> dict[str, str]:
    """Datasets and methods that have no yaml, and a line for each: who needs it.

    Args:
        extra: a further folder of groups, as ``--config-dir``.

    Returns:
        by ``dataset=NAME`` or ``method=NAME``.
    """
    folders = [configs or configs_folder(), *([extra] if extra else [])]
    lines: dict[str, str] = {}
    for kind in ("dataset", "method"):
        known = {file.stem for folder in folders for file in (folder / kind).glob("*.yaml")}
        needed: dict[str, list[str]] = {}
        for part in experiment.parts:
            for name in getattr(part, f"{kind}s"):
                if name not in known:
                    needed.setdefault(name, []).append(part.name)
        for name, parts in needed.items():
            who = f"part{'s' * (len(parts) > 1)} {', '.join(parts)} of {experiment.name}"
            lines[f"{kind}={name}"] = (
                f"{kind}={name}: no such {kind} (needed by {who}); {_short(name, known)}"
            )
    return lines


def _short(name: str, known: set[str]) -> str:
    """The nearest name, or all where none is near."""
    hint = nearest(name, known)
    if hint.startswith("did you mean"):
        return hint.partition(" Allowed: ")[0]
    return f"allowed: {', '.join(sorted(known))}"
