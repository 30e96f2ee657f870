"""Set up, try, test and check hpo-bench with nothing but Python and pip.

python3 scripts/dev.py setup [--extras ray,wandb,…]
                                       install into the active virtual environment, or into .venv,
                                       with these extras
python3 scripts/dev.py demo            train 20 repetitions on embedded data
python3 scripts/dev.py test [ARG…]     run the tests (arguments go to pytest)
python3 scripts/dev.py lint            ruff, mypy --strict and the layers
python3 scripts/dev.py check           lint, then test
python3 scripts/dev.py format          let ruff reformat
python3 scripts/dev.py docs [--keep]   build the site into build/site/html, examples and all;
                                       with --keep only what has changed
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 11), (3, 13)
WORKERS = "2"


def environment() -> Path:
    """Folder of the virtual environment: the active one, or .venv in the checkout."""
    return Path(sys.prefix) if sys.prefix != sys.base_prefix else ROOT / ".venv"


def python(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint() -> str:
    """Changes when what has to be installed changes."""
    parts = [str(ROOT).encode(), sys.version.encode()]
    parts += [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def setup(extras: frozenset[str] = frozenset()) -> Path:
    """Install what is not installed yet; torch first, since the rest takes it as given.

    Args:
        extras: of the package, beside ``dev``. Those that an earlier call installed stay.

    Returns:
        The interpreter to use.
    """
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        sys.exit(
            f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} is needed, "
            f"this is {sys.version.split()[0]}"
        )
    folder = environment()
    stamp = folder / "hpo-bench-installed"
    wanted = fingerprint()
    known, *installed = stamp.read_text().split() if stamp.exists() else [""]
    if known == wanted and extras <= set(installed) and python(folder).exists():
        return python(folder)
    make(folder)
    extras = extras.union(installed)
    pip = [
        str(python(folder)),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "-c",
        str(ROOT / "constraints.txt"),
    ]
    run([*pip, "torch"])
    run([*pip, "-e", f"{ROOT}[{','.join(['dev', *sorted(extras)])}]"])
    stamp.write_text(" ".join([wanted, *sorted(extras)]))
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    print(f"installed into {folder}; {programs}{os.sep}hpo-bench --help")
    return python(folder)


def make(folder: Path) -> None:
    """Make a virtual environment where there is none, and give it pip; what is in it stays."""
    if has_pip(folder):
        return
    try:
        if python(folder).exists():
            subprocess.run([python(folder), "-m", "ensurepip"], check=True)
        else:
            venv.create(folder, with_pip=True)
    except (subprocess.CalledProcessError, OSError) as error:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        sys.exit(
            f"cannot make a virtual environment with pip in {folder} "
            f"({error.__class__.__name__}); on Debian, Ubuntu: apt install python{version}-venv; "
            "or activate an environment of your own with pip, and call this again"
        )


def has_pip(folder: Path) -> bool:
    """Whether there is an environment that can install."""
    if not python(folder).exists():
        return False
    return (
        subprocess.run([python(folder), "-m", "pip", "--version"], capture_output=True).returncode
        == 0
    )


def run(command: list[str]) -> None:
    """Run in the checkout; its exit code ends this program if it is not 0."""
    print("+", " ".join(command), flush=True)
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        sys.exit(code)


def demo(interpreter: str) -> None:
    """The default run, and what is stored then."""
    run([interpreter, "-m", "hpo_bench", "run"])
    run([interpreter, "-m", "hpo_bench", "status"])


def test(interpreter: str, arguments: list[str]) -> None:
    """All tests, quick ones first."""
    run([interpreter, "-m", "pytest", "-n", WORKERS, *arguments])


def lint(interpreter: str) -> None:
    """Style, format, types, and that imports point one way."""
    run([interpreter, "-m", "ruff", "check", "."])
    run([interpreter, "-m", "ruff", "format", "--check", "."])
    run([interpreter, "-m", "mypy", "--strict", "hpo_bench"])
    run([interpreter, "-m", "pytest", "-q", "tests/test_layers.py"])


def reformat(interpreter: str) -> None:
    """Mend what ruff can mend."""
    run([interpreter, "-m", "ruff", "check", "--fix", "."])
    run([interpreter, "-m", "ruff", "format", "."])


def docs(interpreter: str, arguments: list[str]) -> None:
    """The site, from pages, docstrings and examples that are run."""
    run([interpreter, "scripts/docs", *arguments])


def main(arguments: list[str]) -> None:
    """Do what the first argument says."""
    goal, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    extras: frozenset[str] = frozenset()
    if goal == "setup" and rest[:1] == ["--extras"] and len(rest) == 2:
        extras, rest = frozenset(rest[1].split(",")), []
    goals = ("setup", "demo", "test", "lint", "check", "format", "docs")
    if goal not in goals or (rest and goal not in ("test", "docs")):
        sys.exit((__doc__ or "").strip())
    if goal == "docs":
        extras = frozenset(["docs"])
    interpreter = str(setup(extras))
    if goal == "demo":
        demo(interpreter)
    if goal in ("lint", "check"):
        lint(interpreter)
    if goal in ("test", "check"):
        test(interpreter, rest)
    if goal == "format":
        reformat(interpreter)
    if goal == "docs":
        docs(interpreter, rest)


if __name__ == "__main__":
    main(sys.argv[1:])
