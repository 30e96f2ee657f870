"""The house stands: imports point one way, and light rooms stay light."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hpo_bench"

# What each room may stand on beside the root's errors and progress, and itself.
ALLOWED = {
    "system": set(),
    "core": {"system"},
    "hypergradients": {"core"},
    "rules": {"core"},
    "models": {"core"},
    "datasets": {"core", "system"},
    "settings": {"core", "datasets", "system"},
    "store": {"settings", "system"},
    "running": {"store", "settings", "datasets", "hypergradients", "core", "system"},
    "search": {"running", "store", "settings", "core"},
    "analysis": {"store", "settings", "system"},
    "figures": {"analysis", "store", "settings", "system"},
    "report": {"figures", "analysis", "store", "settings"},
    "experiments": {
        "running", "report", "figures", "analysis", "store", "settings", "hypergradients", "core",
        "system",
    },
    "api": {
        "experiments", "running", "figures", "analysis", "store", "settings", "hypergradients",
        "models", "core", "system",
    },
}  # fmt: skip
WITHOUT_TORCH = ("system", "settings", "store", "analysis", "figures", "report")
MODULES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}


def imported(file: Path, *, at_the_top: bool = False) -> Iterator[str]:
    """Dotted names of the modules that a file imports; all of them, or those of its top level."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if at_the_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def room(module: str) -> str | None:
    """The folder of this package that a module lies in; None for the root and other packages."""
    parts = module.split(".")
    inside = parts[0] == "hpo_bench" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir()
    return parts[1] if inside else None


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_a_room_stands_on_those_below_it_alone(name: str) -> None:
    for module, file in MODULES.items():
        if room(module) == name:
            rooms = {room(other) for other in imported(file)} - {None, name}
            assert rooms <= ALLOWED[name], f"{module} imports {sorted(rooms - ALLOWED[name])}"


def test_every_room_has_its_place() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms - set(ALLOWED) == {"bench", "cli"}, "the roof alone stands on everything"


def test_the_root_is_no_hallway() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 5


def test_the_two_doors_do_not_know_each_other() -> None:
    for module, file in MODULES.items():
        if room(module) in ("api", "cli"):
            other = {"api": "cli", "cli": "api"}[room(module) or ""]
            assert other not in {room(name) for name in imported(file)}, module


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_these_rooms_never_import_torch(name: str) -> None:
    for module, file in MODULES.items():
        if room(module) == name:
            assert not [other for other in imported(file) if other.split(".")[0] == "torch"], module


def test_hydra_is_asked_in_the_settings_and_by_the_run_command_alone() -> None:
    users = {
        module
        for module, file in MODULES.items()
        if any(other.split(".")[0] == "hydra" for other in imported(file))
    }
    assert {name for name in users if room(name) != "settings"} == {"hpo_bench.cli.run"}


@pytest.mark.parametrize("name", ["results", "drawing", "overrides"])
def test_what_is_stored_is_read_without_torch(name: str) -> None:
    file = PACKAGE / "api" / f"{name}.py"
    rooms = {room(module) for module in imported(file)} - {None}
    assert rooms <= {"api", "figures", "analysis", "store", "settings", "system"}


def test_no_import_goes_in_a_circle() -> None:
    above: dict[str, set[str]] = {
        module: {other for other in imported(file, at_the_top=True) if other in MODULES}
        for module, file in MODULES.items()
    }
    while True:  # take away what imports nothing that is left
        free = {module for module, others in above.items() if not others & set(above) - {module}}
        if not free:
            break
        above = {module: others for module, others in above.items() if module not in free}
    assert not above, f"these import each other: {sorted(above)}"


def test_no_class_name_stands_twice() -> None:
    found: dict[str, str] = {}
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                assert node.name not in found, f"{node.name}: {module} and {found[node.name]}"
                found[node.name] = module


def test_no_two_test_modules_have_one_name() -> None:
    """Pytest imports test modules by their names alone."""
    folder = Path(__file__).parent
    places: dict[str, Path] = {}
    for file in sorted(folder.rglob("test_*.py")):
        assert file.name not in places, f"{file} and {places[file.name]}"
        places[file.name] = file
