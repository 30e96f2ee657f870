"""Puts the compiled kernels into a wheel for this platform where there is a C compiler; without one
the wheel is pure.

A wheel for x86-64 carries a library for AVX2 and one for AVX-512; which is used is decided where it
is installed. An
editable install and a source distribution carry none: there the kernels are compiled on first use.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("hpo_bench") / "core" / "native"


def load_building(root: Path) -> ModuleType:
    """`hpo_bench.core.native.building` by its path: the package itself cannot be imported while it
    is built.
    """
    specification = importlib.util.spec_from_file_location(
        "building", root / NATIVE / "building.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """See the module."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile every variant of this kind of machine, and mark the wheel as one for this
        platform.
        """
        if (
            self.target_name != "wheel"
            or version == "editable"
            or os.environ.get("HPO_BENCH_NATIVE") == "0"
        ):
            return
        building = load_building(Path(self.root))
        command = building.compiler()
        if command is None:
            self.app.display_info(
                "no C compiler: a pure wheel, whose kernels are compiled on first use"
            )
            return
        self._folder = tempfile.TemporaryDirectory()
        files = {}
        try:
            for variant in building.variants_of_machine():
                file = Path(self._folder.name) / building.file_name(variant)
                building.compile_to(file, command, variant)
                files[str(file)] = (NATIVE / file.name).as_posix()
        except (OSError, subprocess.SubprocessError) as error:
            self.app.display_warning(f"the kernels were not compiled, a pure wheel: {error}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["force_include"].update(files)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the compiled files, which are in the wheel now."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
