"""The package's door: quick to import, every public name there, typed and described."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import hpo_bench

ROOT = Path(__file__).resolve().parents[2]
LIGHT = """
import sys, time
begin = time.perf_counter()
import hpo_bench
seconds = time.perf_counter() - begin
heavy = {"torch", "pandas", "numpy", "hydra", "matplotlib", "rich"} & set(sys.modules)
print(seconds, *heavy)
"""
LOADING = """
import sys
import hpo_bench
hpo_bench.load, hpo_bench.plot, hpo_bench.Results, hpo_bench.UserError, hpo_bench.RunError
try:
    hpo_bench.load(sys.argv[1])
except hpo_bench.UserError as error:
    print(error)
print(*({"torch", "hydra"} & set(sys.modules)))
"""


def in_python(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=True,
    )
    return done.stdout.splitlines()


def test_importing_the_package_is_quick_and_imports_nothing_heavy() -> None:
    lines = [in_python(LIGHT)[0].split() for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in lines) < 0.1
    assert [heavy for _, *heavy in lines] == [[], [], []]


def test_loading_imports_neither_torch_nor_hydra(tmp_path: Path) -> None:
    error, heavy = in_python(LOADING, str(tmp_path))
    assert error.startswith("no complete runs in")
    assert heavy == ""


@pytest.mark.parametrize("name", sorted(set(hpo_bench.__all__) - {"__version__"}))
def test_public_names_are_there_and_described(name: str) -> None:
    found = getattr(hpo_bench, name)
    assert name in dir(hpo_bench)
    assert len(inspect.getdoc(found) or "") > 60


@pytest.mark.parametrize("name", ["run", "sweep", "load", "plot"])
def test_public_functions_say_arguments_errors_and_show_an_example(name: str) -> None:
    text = inspect.getdoc(getattr(hpo_bench, name)) or ""
    assert "Args:" in text
    assert "Raises:" in text
    assert f"hpo_bench.{name}(" in text
    signature = inspect.signature(getattr(hpo_bench, name))
    assert all(one.annotation is not one.empty for one in signature.parameters.values())


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="runn"):
        hpo_bench.runn  # noqa: B018


def test_strict_users_can_check_their_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "mine.py"
    script.write_text(
        "import hpo_bench\n"
        "from hpo_bench import Results\n\n"
        "results: Results = hpo_bench.run('method=random', repetitions=2)\n"
        "ids: list[str] = results.run_ids\n"
        "rows: int = len(results.final) + len(results.curves)\n"
        "more: Results = hpo_bench.sweep(method=['a', 'b']) + hpo_bench.load('r', method='a')\n"
        "hpo_bench.plot('fig09', more).savefig('x.pdf')\n"
        "reveal_type(results.trials)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert "DataFrame | None" in done.stdout
    assert done.returncode == 0, done.stdout
