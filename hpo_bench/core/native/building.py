"""How the kernels are compiled: used on first use, and by the hook that puts them into a wheel
(``hatch_build.py``).

Nothing but the standard library is imported here, because a wheel is built where nothing else need
be installed."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = (
    "elementary.c",
    "relu_regression_both.c",
    "relu_classification_both.c",
)  # each compiled by itself, for every type of number; they include the rest
FLAGS = (
    "-O3",
    "-ffp-contract=off",
    "-shared",
    "-fPIC",
)  # contraction would leave the last digit to the compiler
AVX2 = ("-mavx2", "-mfma")
VARIANTS = {
    "x86-64-v4": (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    "x86-64-v3": AVX2,
    "plain": (),
}
X86 = ("x86_64", "AMD64", "i386", "i686")
COMPILERS = ("cc", "gcc", "clang")
SECONDS = 120
HERE = Path(__file__).parent


def compiler() -> str | None:
    """Path of the C compiler that would be used, or None without one:

    ``CC``, or the first of `COMPILERS`.
    """
    names = filter(None, (os.environ.get("CC"), *COMPILERS))
    return next(filter(None, map(shutil.which, names)), None)


def variants_of_machine() -> tuple[str, ...]:
    """The variants that a wheel for this kind of machine carries."""
    return ("x86-64-v4", "x86-64-v3") if platform.machine() in X86 else ("plain",)


def file_name(variant: str) -> str:
    """Of a compiled library; it changes with the sources, so that a stale one is never found."""
    parts = [source.read_bytes() for source in sorted(HERE.glob("*.[ch]"))]
    parts += [repr((SOURCES, FLAGS, VARIANTS[variant])).encode()]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    return f"kernels-{platform.machine()}-{variant}-{key}.so"


def compile_to(file: Path, command: str, variant: str) -> None:
    """Compile one variant to ``file``, atomically: other processes may do the same.

    Raises:
        OSError, subprocess.SubprocessError: it did not work.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / "kernels.so"
        sources = [str(HERE / source) for source in SOURCES]
        done = subprocess.run(
            [command, *FLAGS, *VARIANTS[variant], "-o", str(made), *sources],
            capture_output=True,
            timeout=SECONDS,
        )
        if done.returncode != 0:
            raise OSError(
                done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
            )
        os.replace(made, file)
