"""``hpo-bench doctor``: whether everything that a run needs is there."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hpo_bench.errors import UserError
from hpo_bench.system.inherited import expanded, variable
from hpo_bench.system.locks import unsupported

PACKAGES = (
    "torch",
    "hydra-core",
    "omegaconf",
    "typer",
    "rich",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "scikit-learn",
    "matplotlib",
)
GIB = 1 << 30
TIMEOUT = 5.0  # seconds to wait for a mirror
LITTLE_SPACE = 1 * GIB  # less than this is told of
CLEARLY = 1.1  # times as long: less is chance


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        good: True, False, or None for what is missing and not needed.
        what, found: the thing and what is there.
        fix: what to do about it if it is not good.
    """

    good: bool | None
    what: str
    found: str
    fix: str = ""


def doctor(
    results: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="Folder that results will go to.")
    ] = Path("results"),
) -> None:
    """Look at versions, device, data, mirror and folders.

    Exit code 1 if something that a run needs is broken.
    """
    broken = 0
    for check in _checks(results):
        mark = {True: "✓", False: "✗", None: "·"}[check.good]
        advice = f"  → {check.fix}" if check.good is not True and check.fix else ""
        print(f"{mark} {check.what}: {check.found}{advice}")
        broken += check.good is False
    if broken:
        print(f"{broken} problem{'s' * (broken > 1)}, marked ✗")
        raise typer.Exit(1)
    print("all that a run needs is there")


def _checks(results: Path) -> Iterator[Check]:
    yield from _versions()
    yield from _machine()
    yield from _folders(results)
    yield from _mirror()
    yield from _datasets()
    yield _kernels()


def _versions() -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, version

    from hpo_bench import __version__

    yield Check(True, "hpo-bench", f"{__version__} on Python {sys.version.split()[0]}")
    absent = []
    present = []
    for package in PACKAGES:
        try:
            present.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            absent.append(package)
    yield Check(True, "packages", ", ".join(present))
    if absent:
        fix = f"pip install {' '.join(absent)}"
        yield Check(False, "packages", f"{', '.join(absent)} missing", fix)
    yield _guarded("configuration", _composes, "install hpo-bench again")


def _composes() -> str:
    from hpo_bench.settings.compose import compose
    from hpo_bench.settings.yamls import configs_folder

    compose()
    return str(configs_folder())


def _guarded(what: str, look: Callable[[], str], fix: str) -> Check:
    try:
        return Check(True, what, look())
    except Exception as error:
        return Check(False, what, f"{type(error).__name__}: {' '.join(str(error).split())}", fix)


def _machine() -> Iterator[Check]:
    yield _guarded("device", _device, "install a torch that fits this machine (see README)")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(True, "processor", f"{cores} cores, {_memory()}")


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu (no CUDA device)"
    count = torch.cuda.device_count()
    return ", ".join(f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(count))


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "memory unknown"
    return f"{total / GIB:.1f} GiB of memory"


def _folders(results: Path) -> Iterator[Check]:
    from hpo_bench.system.inherited import cache_folder

    yield _writable(
        "data cache", cache_folder(), "set HPO_BENCH_DATA to a folder that can be written"
    )
    yield _writable("results", results.absolute(), "choose another folder with results_dir=…")


def _writable(what: str, folder: Path, fix: str) -> Check:
    """Say whether a folder can be written, or made where it is not there yet."""
    # It is not made: that is for the first run to do.
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check(False, what, f"cannot write to {folder}: {error.strerror}", fix)
    if (without := unsupported(existing)) is not None:
        fix = "do not start the same command twice at once, or choose a folder on a local disk"
        return Check(None, what, f"{folder}, where files cannot be locked ({without})", fix)
    if free < LITTLE_SPACE:
        text = f"{folder}, only {free / GIB:.2f} GiB free"
        return Check(False, what, text, f"free some space, or {fix}")
    return Check(True, what, f"{folder}, {free / GIB:.1f} GiB free")


def _mirror() -> Iterator[Check]:
    mirror = variable("HPO_BENCH_DATA_MIRROR")
    if mirror is None:
        yield Check(True, "mirror", "none set, public sources are used (HPO_BENCH_DATA_MIRROR)")
        return
    fix = "correct or unset HPO_BENCH_DATA_MIRROR"
    if mirror.startswith(("http://", "https://")):
        yield _guarded("mirror", lambda: _reached(mirror), fix)
    else:
        folder = expanded(mirror.removeprefix("file://"))
        good = folder.is_dir()
        yield Check(good, "mirror", str(folder) if good else f"{folder} is no folder", fix)


def _reached(url: str) -> str:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(url, method="HEAD"), timeout=TIMEOUT):
            pass
    except HTTPError:
        pass  # it answers; folders often have no page of their own
    return url


def _datasets() -> Iterator[Check]:
    from hpo_bench.datasets.sources import cached_path, damaged, present
    from hpo_bench.settings.catalogue import dataset_names, read_dataset

    absent, here = [], []
    for name in dataset_names():
        try:
            files = read_dataset(name).source.files
        except UserError as error:
            yield Check(False, name, str(error))
            continue
        wrong = [cached_path(name, file) for file in files if damaged(name, file)]
        if wrong:
            fix = f"hpo-bench data download --force {name}"
            yield Check(False, name, f"{wrong[0]} is damaged", fix)
        elif all(present(name, file) for file in files):
            here.append(name)
        else:
            absent.append(name)
    yield Check(True, "datasets here", ", ".join(here))
    if absent:
        fix = "downloaded on first use, or by hpo-bench data download"
        yield Check(None, "datasets not here", ", ".join(absent), fix)


def _kernels() -> Check:
    """Say which kernels are used, and measure for a second what there is.

    The measurement decides nothing: kernels and torch differ in the last digit, so a run would not
    be the same twice.
    """
    from hpo_bench.bench.kernels import speeds
    from hpo_bench.core import native

    try:
        with tempfile.TemporaryDirectory() as folder:
            kernels = native.look(Path(folder))
    except UserError as error:
        return Check(False, "kernels", str(error), "unset HPO_BENCH_NATIVE")
    if kernels.library is None:
        fix = (
            "with a C compiler or a wheel that carries them, "
            "models with one hidden layer run several times as fast"
        )
        return Check(None, "kernels", kernels.why, fix)
    times = speeds(kernels)
    listing = ", ".join(f"{value:.1f} µs by {name}" for name, value in times.items())
    text = f"{kernels.why}; loss and gradient of UCI Energy's size take {listing}"
    best = min(times, key=lambda name: times[name])
    usual = times[kernels.variant or best]
    if times["torch"] < usual:
        fix = "HPO_BENCH_NATIVE=0 is faster here, but its numbers differ in their last digits"
        return Check(None, "kernels", text, fix)
    if usual > CLEARLY * times[best]:
        fix = f"HPO_BENCH_NATIVE={best} is faster here, with the same numbers"
        return Check(None, "kernels", text, fix)
    return Check(True, "kernels", text)
