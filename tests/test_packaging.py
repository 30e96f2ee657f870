"""What is installed: the yamls come along, the two ways of setting up agree."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from hpo_bench.core.native import building

ROOT = Path(__file__).resolve().parent.parent


def shown_configuration(package: Path, cwd: Path) -> dict[str, object]:
    """What ``run --cfg job`` prints for the package in a folder, called from elsewhere; and where
    its yamls are.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hpo_bench",
            "run",
            "--cfg",
            "job",
            "method=lorraine",
            "dataset=uci_wine",
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(package)},
    )
    assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [
            sys.executable,
            "-c",
            "from hpo_bench.settings.yamls import configs_folder; print(configs_folder())",
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(package)},
    )
    assert Path(where.stdout.strip()).is_relative_to(package)
    return dict(yaml.safe_load(done.stdout))


def test_yamls_are_found_inside_a_package_and_beside_a_checkout(tmp_path: Path) -> None:
    for package in ("hpo_bench", "hydra_plugins"):
        shutil.copytree(ROOT / package, tmp_path / "installed" / package)
    shutil.copytree(ROOT / "configs", tmp_path / "installed" / "hpo_bench" / "configs")
    assert shown_configuration(tmp_path / "installed", tmp_path) == shown_configuration(
        ROOT, tmp_path
    )


@pytest.mark.slow
def test_the_wheel_has_all_yamls(tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install -e .[dev]")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("hpo_bench-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    installed = {
        path.relative_to(tmp_path / "installed" / "hpo_bench") for path in tmp_path.rglob("*.yaml")
    }
    assert installed == {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    for name in ("CITATION.cff", "py.typed"):
        assert (tmp_path / "installed" / "hpo_bench" / name).is_file()
    assert shown_configuration(tmp_path / "installed", tmp_path) == shown_configuration(
        ROOT, tmp_path
    )
    kernels_come_along(wheel, tmp_path)


def kernels_come_along(wheel: Path, folder: Path) -> None:
    """Where there is a C compiler, the wheel is for this platform, and needs none where it is
    installed.
    """
    if building.compiler() is None or os.environ.get("HPO_BENCH_NATIVE") == "0":
        assert wheel.name.endswith("-py3-none-any.whl")
        return
    assert not wheel.name.endswith("-any.whl")
    carried = {
        path.name for path in (folder / "installed" / "hpo_bench" / "core" / "native").glob("*.so")
    }
    assert carried == {building.file_name(variant) for variant in building.variants_of_machine()}
    code = "from hpo_bench.core import native; print(native.kernels().why)"
    variables = {
        **os.environ,
        "PATH": "",
        "PYTHONPATH": str(folder / "installed"),
        "HPO_BENCH_DATA": str(folder),
    }
    variables.pop("CC", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True
    )
    assert done.stdout.endswith(", from the package\n"), done.stderr


def test_without_a_compiler_the_wheel_is_pure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hatchling")
    hook_of = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert hook_of is not None
    assert hook_of.loader is not None
    module = importlib.util.module_from_spec(hook_of)
    hook_of.loader.exec_module(module)
    hook = module.CustomBuildHook(str(ROOT), {}, None, None, str(tmp_path), "wheel")
    data: dict[str, object] = {"force_include": {}, "pure_python": True}
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    for name, value in (("CC", str(broken)), ("HPO_BENCH_NATIVE", "0")):
        monkeypatch.setenv(name, value)
        hook.initialize("standard", data)
        hook.finalize("standard", data, "")
        assert data == {"force_include": {}, "pure_python": True}
        monkeypatch.delenv(name)
    hook.initialize("editable", data)
    assert data == {"force_include": {}, "pure_python": True}


def test_the_constraints_fit_the_requirements() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *itertools.chain(*project["optional-dependencies"].values()),
    ]
    for requirement in wanted:
        name, bounds = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?(.*)", requirement).groups()  # type: ignore[union-attr]
        assert name.lower() in pinned, name
        for operator, bound in re.findall(r"(>=|<)([\d.]+)", bounds):
            have, need = (
                [int(part) for part in text.split(".")] for text in (pinned[name.lower()], bound)
            )
            assert (have >= need) == (operator == ">="), requirement


def test_make_offers_what_the_script_does() -> None:
    goals = (
        (ROOT / "Makefile")
        .read_text(encoding="utf-8")
        .partition(".PHONY:")[2]
        .splitlines()[0]
        .split()
    )
    usage = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "dev.py")], capture_output=True, text=True
    )
    assert usage.returncode == 1
    assert goals == re.findall(r"scripts/dev\.py (\w+)", usage.stderr)
