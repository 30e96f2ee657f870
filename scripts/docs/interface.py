"""The Python interface as pages: every public name, from its docstring."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import is_dataclass

import hpo_bench

ROOMS = {
    "hypergradients": "Estimators of hypergradients",
    "rules": "Weight updates",
    "core.sgd": "",
    "core.schedules": "Schedules of the learning rate",
    "core.optimisers": "Optimisers of hyperparameters",
    "search": "Searches",
}
ARGUMENTS = re.compile(r"^Args:\n((?:[ ]+.*\n?|\n)+)", re.MULTILINE)


def public() -> list[str]:
    """The public names, without those that only tell a version."""
    return [name for name in hpo_bench.__all__ if not name.startswith("__")]


def undocumented() -> list[str]:
    """What of the public interface has no docstring, and arguments that none describes."""
    return [lack for name in public() for lack in _lacks(name, getattr(hpo_bench, name))]


def _lacks(name: str, found: object) -> Iterator[str]:
    if not inspect.getdoc(found):
        yield f"hpo_bench.{name}: a docstring"
    if inspect.isclass(found):
        for member, value in vars(found).items():
            if not member.startswith("_") and not inspect.getdoc(value):
                yield f"hpo_bench.{name}.{member}: a docstring"
        if "__init__" not in vars(found):
            return
    described = _described(inspect.getdoc(found) or "")
    for argument in inspect.signature(found).parameters:  # type: ignore[arg-type]
        if argument not in described:
            yield f"hpo_bench.{name}: its argument {argument} under 'Args:'"


def _described(docstring: str) -> set[str]:
    """Arguments that a docstring tells of; several may share a line."""
    section = ARGUMENTS.search(docstring)
    lines = section[1].splitlines() if section else []
    heads = [line.partition(":")[0] for line in lines if re.match(r" {4}\w", line)]
    return {name.strip("* ") for head in heads for name in head.split(",")}


def markdown() -> str:
    """The public names, as Markdown for MyST."""
    functions = [name for name in public() if inspect.isfunction(getattr(hpo_bench, name))]
    errors = [name for name in public() if _is_error(getattr(hpo_bench, name))]
    classes = [name for name in public() if name not in (*functions, *errors)]
    lines = ["```{eval-rst}", ".. currentmodule:: hpo_bench", ""]
    for title, names in (("Functions", functions), ("Classes", classes), ("Errors", errors)):
        lines += ["```", "", f"## {title}", "", "```{eval-rst}"]
        for name in names:
            kind = "autofunction" if name in functions else "autoclass"
            lines.append(f".. {kind}:: hpo_bench.{name}")
            if name in classes:
                lines.append("   :members:")
            lines.append("")
    return "\n".join([*lines, "```"]).replace("```{eval-rst}\n```\n\n", "")


def _is_error(found: object) -> bool:
    return inspect.isclass(found) and issubclass(found, Exception)


def components() -> dict[str, list[type]]:
    """Classes that a yaml may name as ``_target_``, by the title of their section."""
    found: dict[str, list[type]] = {}
    title = ""
    for room, named in ROOMS.items():
        title = named or title
        found.setdefault(title, []).extend(_components(f"hpo_bench.{room}"))
    return found


def _components(name: str) -> Iterator[type]:
    room = importlib.import_module(name)
    modules = [room]
    for module in pkgutil.iter_modules(getattr(room, "__path__", [])):
        modules.append(importlib.import_module(f"{name}.{module.name}"))
    for module in modules:
        for found in vars(module).values():
            is_own = inspect.isclass(found) and found.__module__ == module.__name__
            if is_own and is_dataclass(found) and _is_component(found):
                yield found


def _is_component(found: type) -> bool:
    """Whether it does what one of the protocols asks for, and is not abstract."""
    asked = (("estimate", "window"), ("advance", "init"), ("factor",), ("init", "update"))
    does = any(all(hasattr(found, name) for name in names) for names in (*asked, ("block",)))
    is_open = found.__name__.startswith("_") or bool(getattr(found, "__abstractmethods__", ()))
    return does and not is_open


def components_markdown() -> str:
    """The components, as Markdown for MyST."""
    lines = []
    for title, classes in components().items():
        lines += [f"## {title}", "", "```{eval-rst}"]
        for found in classes:
            lines += [f".. autoclass:: {found.__module__}.{found.__name__}", ""]
        lines += ["```", ""]
    return "\n".join(lines)
