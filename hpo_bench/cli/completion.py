"""What a shell may complete: experiments, figures, tables, runs and settings, by what is there."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def experiments(incomplete: str) -> list[str]:
    """The ids of the experiments that begin with what is typed."""
    from hpo_bench.experiments import definition

    return _beginning(definition.names(), incomplete)


def figures(incomplete: str) -> list[str]:
    """The names of the figures that begin with what is typed."""
    from hpo_bench import figures as drawn

    return _beginning(drawn.names(), incomplete)


def tables(incomplete: str) -> list[str]:
    """The names of the tables that begin with what is typed."""
    from hpo_bench.analysis.tables import TABLES

    return _beginning(TABLES, incomplete)


def scales(incomplete: str) -> list[str]:
    """The scales of experiments that begin with what is typed."""
    from hpo_bench.settings.yamls import SCALES

    return _beginning(SCALES, incomplete)


def datasets(incomplete: str) -> list[str]:
    """The ids of the datasets that begin with what is typed."""
    return _options("dataset", incomplete)


def methods(incomplete: str) -> list[str]:
    """The ids of the methods that begin with what is typed."""
    return _options("method", incomplete)


def runs(ctx: Any, incomplete: str) -> list[str]:
    """Ids of the stored runs, in the folder that ``--results`` names if it stands before."""
    from hpo_bench.store.index import names, runs_folder
    from hpo_bench.system.inherited import expanded

    try:
        results = expanded(Path(str(ctx.params.get("results") or "results")))
        return _beginning(names(runs_folder(results)), incomplete)
    except (OSError, ValueError):  # whatever is wrong with it: the command will say so
        return []


def overrides(incomplete: str) -> list[str]:
    """Overrides: groups and their options, settings, and experiments for ``experiment=``."""
    from hpo_bench.settings.yamls import groups, setting_names

    key = _key_before()
    if key is not None:  # bash completes what stands behind the equals sign alone
        return _values(key, incomplete)
    key, equals, value = incomplete.partition("=")
    if equals:
        return [f"{key}={name}" for name in _values(key, value)]
    settings = setting_names()
    if "." in incomplete:
        return _beginning([f"{name}=" for name in settings], incomplete)
    keys = {*groups(), "experiment", *(name for name in settings if "." not in name)}
    sections = {f"{name.partition('.')[0]}." for name in settings if "." in name}
    return _beginning([*(f"{name}=" for name in keys), *sections], incomplete)


def _key_before() -> str | None:
    """What stands before an equals sign that bash took for a word of its own; None elsewhere."""
    try:
        words = shlex.split(os.environ.get("COMP_WORDS", ""))
        words = words[: int(os.environ.get("COMP_CWORD", "")) + 1]
    except ValueError:
        return None
    for place in (-1, -2):  # nothing is typed behind it yet, or the beginning of a value
        if len(words) > -place and words[place] == "=":
            return words[place - 1]
    return None


def _values(key: str, value: str) -> list[str]:
    """Values of a key that begin so, where they can be told."""
    return experiments(value) if key == "experiment" else _options(key, value)


def _options(group: str, incomplete: str) -> list[str]:
    from hpo_bench.settings.yamls import configs_folder, groups

    if group not in groups():
        return []
    return _beginning((file.stem for file in (configs_folder() / group).glob("*.yaml")), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
