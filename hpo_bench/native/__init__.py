"""Kernels in C, compiled for this machine's processor on first use; without a compiler everything runs on torch alone.

They are worth it where a model is so small that its activations fit a core's first cache: torch then spends its time in
passes over memory. ``HPO_BENCH_NATIVE=0`` leaves them out. The library is kept in the cache folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hpo_bench.datasets.sources import cache_folder

SOURCES = ("relu_regression_both.c",)  # each compiled by itself, for every type of number; they include the rest
FLAGS = ("-O3", "-ffp-contract=fast", "-shared", "-fPIC")
TUNINGS = (("-march=native",), ("-mcpu=native",), ())
COMPILERS = ("cc", "gcc", "clang")
SECONDS = 120


@dataclass(frozen=True)
class Kernels:
    """The compiled library, or why there is none.

    Args:
        library: None without one.
        why: a sentence for ``hpo-bench doctor``.
        seconds: that it took to compile in this process; 0 where it was there.
    """

    library: ctypes.CDLL | None
    why: str
    seconds: float = 0.0


def left_out() -> bool:
    """Whether the user does not want them."""
    return os.environ.get("HPO_BENCH_NATIVE", "1") == "0"


def compiler() -> str | None:
    """Path of the C compiler that would be used; None without one, or where kernels are left out."""
    names = () if left_out() else filter(None, (os.environ.get("CC"), *COMPILERS))
    return next(filter(None, map(shutil.which, names)), None)


@cache
def kernels() -> Kernels:
    """Load the library, compiling it if need be; never raises."""
    if left_out():
        return Kernels(None, "left out, HPO_BENCH_NATIVE=0")
    command = compiler()
    if command is None:
        return Kernels(None, "none: no C compiler (cc, gcc, clang) was found, torch does all the work")
    begin = time.perf_counter()
    for folder in (cache_folder() / "native", Path(tempfile.gettempdir()) / f"hpo-bench-{_user()}"):
        try:
            file = folder / f"kernels-{_key(command)}.so"
            fresh = not file.is_file()
            if fresh:
                _compile(command, file)
            seconds = time.perf_counter() - begin if fresh else 0.0
            return Kernels(ctypes.CDLL(str(file)), f"compiled by {command}", seconds)
        except (OSError, subprocess.SubprocessError) as error:
            reason = str(error).splitlines()[0]
    return Kernels(None, f"none: {command} failed ({reason}), torch does all the work")


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"


def _sources() -> list[Path]:
    return sorted(Path(__file__).parent.glob("*.[ch]"))


def _key(compiler: str) -> str:
    """Changes with the source, the compiler and the processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=SECONDS, check=True).stdout
    parts = [source.read_bytes() for source in _sources()]
    return hashlib.sha256(b"\0".join([*parts, version, _processor().encode(), repr(FLAGS).encode()])).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _compile(compiler: str, file: Path) -> None:
    """Compile to ``file``, atomically: other processes may do the same.

    Raises:
        OSError, subprocess.SubprocessError: it did not work.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.parent.stat().st_uid != os.getuid():
        raise OSError(f"{file.parent} belongs to somebody else")
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / "kernels.so"
        for tuning in TUNINGS:
            files = [str(Path(__file__).parent / source) for source in SOURCES]
            command = [compiler, *FLAGS, *tuning, "-o", str(made), *files]
            done = subprocess.run(command, capture_output=True, timeout=SECONDS)
            if done.returncode == 0:
                os.replace(made, file)
                return
    raise OSError(done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}")
