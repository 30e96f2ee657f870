"""Kernels in C: carried by the wheel, or compiled by the machine's own compiler on first use, or
torch in their place.

They are worth it where a model is so small that its activations fit a core's first cache: torch
then spends its time in passes over memory. One source (`lanes.h` says how) gives a variant for each
instruction set:

- ``x86-64-v4`` (AVX-512) and ``x86-64-v3`` (AVX2), whose results are the same bit by bit, so that
  the faster one may be taken wherever there is one;
- ``plain`` for other processors, whose results are its own: with fused multiply-add on ARM, without
  it on older x86, where torch is as fast and taken unless it is asked for.

Which one is taken depends on the processor alone, as torch sees it (``ATEN_CPU_CAPABILITY=avx2``
counts here too), and
never on a measurement: kernels and torch differ in the last digit, and a run would not be the same
twice. ``hpo-bench doctor`` measures them. ``HPO_BENCH_NATIVE`` names a variant to be taken instead,
or is ``0`` for none."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hpo_bench.core.native import building
from hpo_bench.core.native.building import VARIANTS
from hpo_bench.errors import UserError
from hpo_bench.system.inherited import cache_folder, temporary_cache

HERE = "compiled on this machine"
BY_CAPABILITY = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}


@dataclass(frozen=True)
class Kernels:
    """The compiled library, or why there is none.

    Args:
        library: None without one.
        why: a sentence for ``hpo-bench doctor`` and ``run.json``.
        seconds: that it took to compile in this process; 0 where it was there.
        variant: which of `building.VARIANTS` it is.
    """

    library: ctypes.CDLL | None
    why: str
    seconds: float = 0.0
    variant: str | None = None


def wanted() -> str:
    """What ``HPO_BENCH_NATIVE`` says: ``0`` for none, ``1`` (as unless it is set) for the best one,
    or a variant.

    Raises:
        UserError: something else.
    """
    given = os.environ.get("HPO_BENCH_NATIVE") or "1"
    if given not in ("0", "1", *VARIANTS):
        raise UserError(f"HPO_BENCH_NATIVE={given}: must be 0, 1 or one of {', '.join(VARIANTS)}")
    return given


def left_out() -> bool:
    """Whether the user does not want them."""
    return wanted() == "0"


def compiler() -> str | None:
    """Path of the C compiler that would be used;

    None without one, or where kernels are left out.
    """
    return None if left_out() else building.compiler()


def variants() -> tuple[str, ...]:
    """Those that this processor can run, the fastest first."""
    return tuple(VARIANTS)[tuple(VARIANTS).index(_best()) :]


def _best() -> str:
    import torch

    return BY_CAPABILITY.get(torch.backends.cpu.get_cpu_capability(), "plain")


@cache
def kernels() -> Kernels:
    """Load the library, compiling it if need be.

    Raises:
        UserError: ``HPO_BENCH_NATIVE`` has a wrong value.
    """
    return look()


def look(keep: Path | None = None) -> Kernels:
    """`kernels`, found anew; see `load` for ``keep``."""
    name = wanted()
    if name == "0":
        return Kernels(None, "left out, HPO_BENCH_NATIVE=0")
    if name in VARIANTS and name not in variants():
        return Kernels(
            None,
            f"none: HPO_BENCH_NATIVE={name}, which this processor cannot run, torch does all the "
            "work",
        )
    if name == "1" and _best() == "plain" and platform.machine() in building.X86:
        return Kernels(None, "none: a processor without AVX2, for which torch is as fast")
    return load(name if name in VARIANTS else _best(), keep)


def load(variant: str, keep: Path | None = None) -> Kernels:
    """One variant: from the package, from the cache, or compiled now; never raises.

    Args:
        keep: folder for what is compiled now, instead of the cache.
    """
    name = building.file_name(variant)
    for folder, how in (
        (building.HERE, "from the package"),
        *((folder, HERE) for folder in _folders()),
    ):
        if (folder / name).is_file() and (folder == building.HERE or _is_own(folder)):
            try:
                return Kernels(ctypes.CDLL(str(folder / name)), f"{variant}, {how}", 0.0, variant)
            except OSError:
                continue  # damaged, or made for another C library: compiled here it will do
    command = compiler()
    if command is None:
        missing = "not in the package, and no C compiler (cc, gcc, clang) was found"
        return Kernels(None, f"none: {missing}, torch does all the work")
    begin, reason = time.perf_counter(), ""
    for folder in _folders() if keep is None else (keep,):
        try:
            _own(folder)
            building.compile_to(folder / name, command, variant)
            library = ctypes.CDLL(str(folder / name))
            return Kernels(library, f"{variant}, {HERE}", time.perf_counter() - begin, variant)
        except (OSError, subprocess.SubprocessError) as error:
            reason = str(error).splitlines()[0]
    return Kernels(None, f"none: {command} failed ({reason}), torch does all the work")


def _folders() -> Iterator[Path]:
    """Where compiled libraries are kept: the cache, or a folder of the user's own among the
    temporary ones.
    """
    yield cache_folder() / "native"
    yield temporary_cache()


def _is_own(folder: Path) -> bool:
    """Whether nobody else can have put a library there."""
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def _own(folder: Path) -> None:
    """Make a folder that nobody else can put a library into.

    Raises:
        OSError: it cannot be made, or belongs to somebody else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_own(folder):
        raise OSError(f"{folder} belongs to somebody else")
