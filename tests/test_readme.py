"""What the pages show works as it stands there (`tests.pages` takes them apart)."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from hpo_bench import figures
from hpo_bench.analysis.frames import finals
from hpo_bench.analysis.selection import find
from hpo_bench.cli import COMMANDS, app
from hpo_bench.cli.run import split
from hpo_bench.experiments import definition
from hpo_bench.figures.common.base import Options
from hpo_bench.figures.common.make import Request, make
from hpo_bench.running.execute import execute
from hpo_bench.settings.compose import compose, values_of
from hpo_bench.settings.parse import parse
from tests import pages
from tests.make_store import make_run
from tests.pages import ROOT, Block, Command, Page

PAGES = [Page(path) for path in pages.PAGES]
EXTENDING = Page(ROOT / "docs" / "extending.md")
CONTRIBUTING = Page(ROOT / "CONTRIBUTING.md")
TABLE = "\n".join(["a,b,COLUMN", *(f"{row},{row % 7},{3 * row + row % 5}" for row in range(60))])

NAMES = [page.path.relative_to(ROOT).as_posix() for page in PAGES]

each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The folder of a reader who follows a page; modules in it can be imported."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "FILE.csv", TABLE)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


# --- every command can be called ---


@each_page
def test_every_command_can_be_called(page, reader):
    for name, text in page.shown_files.items():
        write(reader / name, text)
    for command in page.commands:
        try:
            check(command.words)
        except Exception as error:
            pytest.fail(f"{command.line}: {type(error).__name__}: {error}")


def check(words: Sequence[str]) -> None:
    """That a program is there and takes such arguments."""
    program, *arguments = words
    match program:
        case "hpo-bench":
            check_ours(arguments)
        case "PYTHONPATH=.":
            check(arguments)
        case "python" | "python3":
            check_script(arguments)
        case "make":
            goals = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())
            assert goals is not None
            assert set(arguments) <= set(goals[1].split())
        case "pip":
            check_pip(arguments)
        case _:
            assert words == ["source", ".venv/bin/activate"], "no such program"


def check_script(arguments: Sequence[str]) -> None:
    script = (ROOT / arguments[0]).read_text(encoding="utf-8")
    for place, word in enumerate(arguments[1:]):
        if place == 0 or word.startswith("--"):
            assert word.isupper() or word in script, f"{arguments[0]} knows no {word}"


def check_pip(arguments: Sequence[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert arguments[0] == "install"
    for word in arguments[1:]:
        ours = re.search(r"\[(.*)\]", word)
        if ours:
            assert set(ours[1].split(",")) <= set(extras)
        elif word not in ("-c", "-e", "."):
            assert (ROOT / word).is_file() or word in str(extras)


def check_ours(words: Sequence[str]) -> None:
    """That a command of ours has these options, and that its overrides compose."""
    command, arguments = found(words)
    if arguments in ([], ["--help"]):
        return
    if words[0] == "run" and not any(word.startswith("experiment=") for word in arguments):
        check_run(arguments)
        return
    values = command.make_context(words[0], list(arguments)).params
    if words[0] == "reproduce":
        experiment = definition.read(values["experiment"], values["scale"])
        narrowed = definition.narrow(experiment, values["overrides"] or [])
        group = next(iter(definition.groups(narrowed)))
        parse(compose(group.overrides))


def found(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and its arguments."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("hpo-bench", [], resilient_parsing=True)
    arguments = list(words)
    while hasattr(command, "get_command") and arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
        command = command.get_command(context, name)
        assert command is not None, f"no command {name}"
    return command, arguments


def check_run(arguments: Sequence[str]) -> None:
    """That the first job of a run composes, and its launcher's settings with it."""
    line = split(arguments)
    overrides = [word for word in line.overrides if not word.startswith("hydra")]
    if "--multirun" in line.flags:
        overrides = [f"{word.partition('=')[0]}={values_of(word)[0]}" for word in overrides]
    parse(compose(overrides, line.config_dir))
    launcher = [word for word in line.overrides if word.startswith("hydra")]
    if launcher and is_installed(launcher):
        words = ["run", *overrides, *launcher, "--cfg", "hydra"]
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0


def is_installed(launcher: Sequence[str]) -> bool:
    packages = {"joblib": "hydra_joblib_launcher", "submitit": "hydra_submitit_launcher"}
    needed = [package for name, package in packages.items() if name in " ".join(launcher)]
    return all(importlib.util.find_spec(f"hydra_plugins.{package}") for package in needed)


def test_every_command_of_the_program_stands_on_a_page():
    told: set[str] = set()
    for page in PAGES:
        told.update(*(command.words for command in page.commands))
    assert set(COMMANDS) <= told


def test_the_reference_has_every_setting_and_every_variable():
    reference = set(Page(ROOT / "docs" / "reference.md").spans)
    settings = yaml.safe_load((ROOT / "configs" / "config.yaml").read_text(encoding="utf-8"))
    for key, value in settings.items():
        names = [f"{key}.{name}" for name in value] if isinstance(value, dict) else [key]
        if key not in ("defaults", "hydra"):
            assert set(names) <= reference
    variables: set[str] = set()
    for file in (ROOT / "hpo_bench").rglob("*.py"):
        variables.update(re.findall(r"\bHPO_BENCH(?:_[A-Z]+)+\b", file.read_text(encoding="utf-8")))
    assert variables <= reference


# --- what is shown is run, page by page, made small ---

SMALL = {"repetitions": 2, "hyperparameter_updates": 2}
WITHOUT_NETWORK = {"uci_energy": "diabetes", "uci_kin8nm": "diabetes", "fashion_mnist": "digits"}


@pytest.mark.slow
@each_page
def test_what_a_page_shows_runs(page, reader):
    furnish(reader)
    for part in page.parts:
        if isinstance(part, Command):
            run(part)
        elif part.file:
            write(reader / part.file, part.text)
        elif part.language == "python":
            run_python(part.text, reader)
        else:
            run_all(part)


def furnish(folder: Path) -> None:
    """Store the two runs that pages call ``RUN``."""
    small = [f"{key}={value}" for key, value in SMALL.items()]
    for method in ("ours_wd_lr", "random"):
        line = [f"method={method}", "dataset=diabetes", f"results_dir={folder / 'results'}"]
        execute(parse(compose([*line, *small])))


def run_all(block: Block) -> None:
    for command in pages.commands_of(block):
        run(command)


def run(command: Command) -> None:
    """Run a command of ours in this process, unless it needs something, or minutes."""
    words = [word for word in command.words if word != "PYTHONPATH=."]
    if words[0] != "hpo-bench" or not command.is_run:
        return
    done = CliRunner().invoke(app, made_small(with_runs(words[1:])))
    assert done.exit_code == 0, f"{command.line}: {done.output} {done.exception!r}"


def with_runs(words: Sequence[str]) -> list[str]:
    """The words, with ids of stored runs in the places of ``RUN``."""
    ids = iter(sorted(run.run_id for run in find("results")))
    return [next(ids) if word == "RUN" else word for word in words]


def made_small(words: Sequence[str]) -> list[str]:
    """The words of a command, with a small budget, on data that come with scikit-learn."""
    if words[0] not in ("run", "reproduce", "audit") or "--help" in words:
        return list(words)
    kept = [in_small(word) for word in words if word.partition("=")[0] not in SMALL]
    if words[0] == "reproduce":
        kept = [word for word in kept if not word.startswith("dataset=")] + ["dataset=diabetes"]
    return [*kept, *(f"{key}={value}" for key, value in SMALL.items())]


def in_small(word: str) -> str:
    key, _, value = word.partition("=")
    if key == "seed" and value.startswith("range"):
        return "seed=range(0,2)"
    if key == "dataset":
        return f"dataset={WITHOUT_NETWORK.get(value, value)}"
    return word


def run_python(code: str, folder: Path) -> None:
    """Run a program for fewer steps, in a process of its own, on stored runs."""
    (first, *_) = with_runs(["RUN"])
    code = re.sub(r"range\(\d{3,}\)", "range(60)", code.replace("<run id>", first))
    for schedule in folder.glob("exported/*.schedule.csv"):
        code = code.replace("RUN.schedule.csv", schedule.name)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_method_of_ones_own_does_what_its_yaml_says(tmp_path):
    folder = tmp_path / "mine"
    write(folder / "method" / "slow.yaml", EXTENDING.shown_files["mine/method/slow.yaml"])
    line = ["dataset=diabetes", "repetitions=2", "hyperparameter_updates=3"]
    line.append(f"results_dir={tmp_path}")
    slow = execute(parse(compose([*line, "method=slow"], config_dir=folder))).run
    fast = execute(parse(compose([*line, "method=ours_wd_lr"]))).run
    moved = []
    for run in (slow, fast):
        ended = finals([run])
        moved.append(np.abs(np.log10(ended["lr"] / ended["initial_lr"])).to_numpy())
    # Adam's first steps are hyper["lr"] long.
    np.testing.assert_allclose(moved[0] / moved[1], 0.01 / 0.05, rtol=0.2)


def test_a_weight_update_is_one_function_in_less_than_30_lines():
    assert len(EXTENDING.shown_files["sign_sgd.py"].splitlines()) < 30


def test_a_figure_is_one_file(tmp_path, monkeypatch):
    text = EXTENDING.shown_files["hpo_bench/figures/learned_lr.py"]
    write(tmp_path / "learned_lr.py", text)
    monkeypatch.setattr(figures, "__path__", [*figures.__path__, str(tmp_path)])
    rng = np.random.default_rng(0)
    for method in ("random", "ours_wd_lr"):
        values, rates = rng.lognormal(size=(2, 6, 3))
        make_run(tmp_path, method, "uci_energy", values, lr=rates)
    assert "learned_lr" in figures.names()
    options = Options(resamples=20)
    request = Request(str(tmp_path), find(tmp_path), tmp_path / "out", ("png",), options)
    (made,) = make(["learned_lr"], request)
    kinds = {path.suffix for path in made.files if path.stem == "learned_lr"}
    assert kinds == {".png", ".csv", ".json"}
    assert any("ours_wd_lr_m" in str(lack) for lack in made.missing)


# --- what a page names is there ---


@pytest.mark.skipif(not (ROOT / "results" / "figures").is_dir(), reason="results are not installed")
@each_page
def test_links_lead_somewhere(page):
    for target in page.links:
        path, _, anchor = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        assert file.exists(), target
        assert not anchor or anchor in Page(file).anchors, target


@each_page
def test_modules_files_and_folders_that_a_page_names_exist(page):
    assert not list(pages.wrong_names(page.words - set(page.shown_files)))


def test_a_wrong_name_is_found():
    right = {"hpo_bench.core.seeds", "core.loop", "core/seeds.py", "hpo_bench/core"}
    right |= {"hpo_bench.OnePass", "final.parquet", "core.loop.train"}
    wrong = {"hpo_bench.core.sead", "core.loop.Loop", "core/sead.py", "hpo_bench/cellar"}
    assert set(pages.wrong_names(right | wrong)) == wrong


def test_the_map_shows_every_room_with_modules_that_it_has():
    (drawn,) = (block.text for block in CONTRIBUTING.blocks if block.language == "text")
    shown = dict(re.findall(r"^  (\w+)/ +(.*)$", drawn, re.MULTILINE))
    assert set(shown) == pages.rooms()
    for room, line in shown.items():
        for name in re.findall(r"\w+\.py", line):
            assert (ROOT / "hpo_bench" / room / name).is_file(), f"{room}/{name}"
    concepts = Page(ROOT / "docs" / "concepts.md").text
    assert not [room for room in shown if not re.search(rf"\b{room}\b", concepts)]
