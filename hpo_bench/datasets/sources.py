"""Public data files: found in the cache, on a mirror or on the web, always checked by SHA-256.

    $HPO_BENCH_DATA/<dataset>/<upstream file name>           the cache (else /hpo-bench below
                                                             $XDG_CACHE_HOME or ~/.cache)
    $HPO_BENCH_DATA_MIRROR/<dataset>/<upstream file name>    a folder or URL that is asked before
                                                             the public sources

Some files also come with packages of Linux distributions; these are read where they lie.

A download goes to ``<file>.part`` and is renamed once its checksum is right; one that was cut off
goes on from there.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hpo_bench import __version__
from hpo_bench.errors import UserError
from hpo_bench.system import locks, notices
from hpo_bench.system.inherited import cache_folder, expanded, is_terminal, tell, variable

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 3  # in a row that bring nothing new
BACK_OFF = 0.5  # seconds before the second attempt, doubled each time
BLOCK = 1 << 18
LOCK_NAME = ".lock"

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""``with progress(label, total bytes) as at: at(bytes so far)``"""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a public source.

    Args:
        name: its upstream name; also its name in the cache and on a mirror.
        urls: where it is published, tried in this order.
        sha256: of its content (hex).
        size: in bytes.
        folder: its folder in the cache and on a mirror, where that is not named after the dataset
            (shared files).
        packaged: where packages of Linux distributions put it, gzip-compressed.
        unpacked_sha256: of its decompressed content (hex), by which a packaged copy is known:
            packages rewrite the header of gzip files.
    """

    name: str
    urls: Sequence[str]
    sha256: str
    size: int
    folder: str | None = None
    packaged: Sequence[str] = ()
    unpacked_sha256: str | None = None

    @property
    def origin(self) -> str:
        """Who publishes it: the host, and for GitHub the repository."""
        if not self.urls:
            return "a mirror"
        url = urllib.parse.urlsplit(self.urls[0])
        if url.hostname == "raw.githubusercontent.com":
            return "github.com/" + "/".join(url.path.split("/")[1:3])
        return url.hostname or self.urls[0]


@dataclass(frozen=True)
class DatasetSummary:
    """What `hpo-bench data list` shows of a dataset.

    Args:
        rows, inputs: size of the table, None where only the user's file can tell.
        parts: training, validation and test rows, None likewise.
        origin: where the data come from.
    """

    rows: int | None
    inputs: int | None
    parts: tuple[int, int, int] | None
    origin: str


class _Unavailable(Exception):
    """This place does not have the file or cannot be reached; another one may."""


def cached_path(dataset: str, file: RemoteFile, cache: Path | None = None) -> Path:
    """Where ``file`` is kept, whether it is there yet or not.

    Raises:
        UserError: a yaml names a place outside of the cache.
    """
    folder = file.folder or dataset
    for part in (folder, file.name):
        if Path(part).is_absolute() or ".." in Path(part).parts or "\0" in part:
            raise UserError(
                f"{part!r}: leads out of the data cache; "
                "names of datasets and files are parts of a path"
            )
    return (cache if cache is not None else cache_folder()) / folder / file.name


def present(dataset: str, file: RemoteFile) -> Path | None:
    """The copy of ``file`` that would be used, in the cache or of a package; it is not checked."""
    places = (cached_path(dataset, file), *map(Path, file.packaged))
    return next((path for path in places if path.is_file()), None)


def damaged(dataset: str, file: RemoteFile) -> bool:
    """Whether the cached copy of ``file`` has another size than it should; `check` reads it."""
    path = cached_path(dataset, file)
    return path.is_file() and path.stat().st_size != file.size


def packaged(file: RemoteFile) -> Path | None:
    """The copy of ``file`` that a package of the system brought; None where there is none.

    It is decompressed for its checksum.
    """
    for path in map(Path, file.packaged):
        if _unpacked_sha256(path) == file.unpacked_sha256:
            return path
    return None


def _unpacked_sha256(path: Path) -> str:
    try:
        with gzip.open(path) as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error):
        return ""


def sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file, which is read in blocks."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check(dataset: str, file: RemoteFile, cache: Path | None = None) -> Path | None:
    """Check the cached copy of ``file``, and return it; None where there is none.

    Raises:
        UserError: the copy is damaged or cannot be read.
    """
    path = cached_path(dataset, file, cache)
    try:
        digest = sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if digest != file.sha256:
        raise UserError(
            f"{path} is damaged (expected SHA-256 {file.sha256}, found {digest}): "
            f"delete it or run: hpo-bench data download {dataset} --force"
        )
    return path


def fetch(
    dataset: str,
    file: RemoteFile,
    *,
    cache: Path | None = None,
    mirror: str | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Path:
    """Make sure that a file is on this machine; returns its path.

    It is downloaded if it is neither in the cache nor brought by a package of the system.

    Args:
        dataset: id of the dataset, the folder in cache and mirror.
        cache: folder to use instead of `cache_folder`.
        mirror: folder or URL to use instead of ``$HPO_BENCH_DATA_MIRROR``; empty for none.
        progress: shows the download; by default a bar on a terminal, a line elsewhere.
        force: download even if a copy is there; it is replaced once the new one is complete and
            right.

    Raises:
        UserError: damaged copy in the cache, wrong checksum, file nowhere to be had, or cache not
            writable.
    """
    target = cached_path(dataset, file, cache)
    if not force and (path := check(dataset, file, cache) or packaged(file)) is not None:
        locks.clear(target.parent / LOCK_NAME)  # a process that was killed may have left it
        return path
    if mirror is None:
        mirror = variable("HPO_BENCH_DATA_MIRROR") or ""
    places = _places(dataset, file, mirror)
    with _writable(target), _alone(target.parent) as lock:
        # Another process may have been faster.
        if not force and (path := check(dataset, file, cache)) is not None:
            return path
        # Without locks two processes may download at once: each to a file of its own.
        part_name = f"{target.name}.part" if lock.exclusive else f"{target.name}.{os.getpid()}.part"
        part = target.with_name(part_name)
        if force:
            part.unlink(missing_ok=True)
        _first_available(dataset, file, places, part, progress or terminal_progress)
        os.replace(part, target)
    return target


def _places(dataset: str, file: RemoteFile, mirror: str) -> list[Path | str]:
    """The paths and URLs where a file may be, in the order in which they are tried."""
    if not mirror:
        return list(file.urls)
    return [_on_mirror(mirror, dataset, file), *file.urls]


def _on_mirror(mirror: str, dataset: str, file: RemoteFile) -> Path | str:
    name = file.folder or dataset
    try:
        url = urllib.parse.urlsplit(mirror)
    except ValueError as error:
        raise UserError(f"HPO_BENCH_DATA_MIRROR={mirror} is no URL: {error}") from None
    if url.scheme in ("http", "https"):
        return f"{mirror.rstrip('/')}/{urllib.parse.quote(name)}/{urllib.parse.quote(file.name)}"
    if url.scheme == "file":
        folder = Path(urllib.request.url2pathname(url.path))
    else:
        folder = expanded(mirror)
    if not folder.is_dir():
        raise UserError(
            f"HPO_BENCH_DATA_MIRROR={mirror} is neither a folder nor a URL (http, https or file)"
        )
    return folder / name / file.name


@contextlib.contextmanager
def _writable(target: Path) -> Iterator[None]:
    """Make the folder of ``target``; what was made of it and is empty in the end is removed."""
    folders = (target.parent, *target.parent.parents)
    new_folders = [folder for folder in folders if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to the data cache {target.parent}: {error.strerror or error}; "
            "set HPO_BENCH_DATA to a folder that can be written"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # the first that holds something ends it
            for folder in new_folders:
                folder.rmdir()


def _alone(folder: Path) -> locks.Lock:
    """Wait for other downloads into a folder to end, in this process or another, and say so."""

    def waiting(holder: str) -> None:
        notices.say(f"waiting for {holder} to download into {folder}")

    return locks.take(folder / LOCK_NAME, waiting)


def _first_available(
    dataset: str, file: RemoteFile, places: Sequence[Path | str], part: Path, progress: Progress
) -> None:
    """Bring a file to ``part``, complete and checked, from the first of ``places`` that has it."""
    failures = []
    for place in places:
        try:
            _bring(dataset, file, place, part, progress)
        except _Unavailable as failure:
            failures.append(f"{_short(place)}: {failure}")
        else:
            return
    goal, name = part.parent / file.name, f"{file.folder or dataset}/{file.name}"
    reasons = "; ".join(failures) or "it has no public source"
    raise UserError(
        f"cannot download {name} ({reasons}). Without network: set HPO_BENCH_DATA_MIRROR "
        f"to a folder or URL that has {name}, or copy the file to {goal}, "
        "or use a dataset that needs no download (dataset=diabetes, dataset=digits)"
    )


def _short(place: Path | str) -> str:
    return str(place) if isinstance(place, Path) else (urllib.parse.urlsplit(place).netloc or place)


def _bring(
    dataset: str, file: RemoteFile, place: Path | str, part: Path, progress: Progress
) -> None:
    """Bring ``file`` from one place.

    Bytes left by an earlier attempt are dropped if the whole turns out wrong.
    """
    resumed = _size(part) > 0
    with progress(f"{dataset}/{file.name} from {_short(place)}", file.size) as at:
        if isinstance(place, Path):
            _copy(place, part, at)
        else:
            _download(place, file, part, at)
    digest = sha256(part)
    if digest == file.sha256:
        return
    size = _size(part)
    part.unlink()
    if resumed:
        _bring(dataset, file, place, part, progress)
        return
    raise UserError(
        f"{dataset}/{file.name} from {place} is not the file that was expected: "
        f"expected SHA-256 {file.sha256} ({file.size} bytes), found {digest} ({size} bytes)"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _copy(source: Path, part: Path, at: Callable[[int], None]) -> None:
    try:
        reader = source.open("rb")
    except OSError as error:
        raise _Unavailable(error.strerror or str(error)) from None
    with reader, part.open("wb") as writer:
        while block := reader.read(BLOCK):
            writer.write(block)
            at(writer.tell())


def _download(url: str, file: RemoteFile, part: Path, at: Callable[[int], None]) -> None:
    """Download until ``part`` is as long as it should be, or the server has sent everything.

    Raises:
        _Unavailable: the server does not have it, or `ATTEMPTS` attempts in a row brought nothing
            new.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            if _receive(url, file, part, at):
                return
            reason = f"the connection was cut at {_size(part)} of {file.size} bytes"
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                part.unlink()  # left by something else: start again
            elif error.code not in (408, 425, 429) and error.code < 500:
                # The others pass: the server is busy, or wants to be asked later.
                raise _Unavailable(reason) from None
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
        ) as error:
            reason = _reason(error)
        failures = 0 if _size(part) > before else failures + 1
        if failures == ATTEMPTS:
            raise _Unavailable(reason)
        time.sleep(BACK_OFF * 2 ** max(failures - 1, 0))


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    of_system = cause.strerror if isinstance(cause, OSError) else None
    text = of_system or str(cause) or cause.__class__.__name__
    return " ".join(text.split())


def _receive(url: str, file: RemoteFile, part: Path, at: Callable[[int], None]) -> bool:
    """Ask once for what ``part`` lacks.

    Returns:
        Whether all that was announced came before the connection ended.
    """
    start = _size(part)
    if start >= file.size:
        part.unlink()
        start = 0
    headers = {"User-Agent": f"hpo-bench/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        # A server may send all of it although only the rest was asked for.
        sent = response.headers.get("Content-Range", "")
        goes_on = response.status == 206 and sent.startswith(f"bytes {start}-")
        announced = response.headers.get("Content-Length")
        with part.open("ab" if goes_on else "wb") as writer:
            first = writer.tell()
            _pour(response, writer, file.size, at)
            total = writer.tell()
    if total >= file.size:
        return True
    return announced is not None and announced.isdecimal() and total - first >= int(announced)


def _pour(response: Any, writer: IO[bytes], size: int, at: Callable[[int], None]) -> None:
    """Write what comes, but not much more than was expected."""
    # A wrong answer may have no end.
    while writer.tell() <= size and (block := _read(response)):
        writer.write(block)
        at(writer.tell())


def _read(response: Any) -> bytes:
    try:
        block: bytes = response.read1(BLOCK)
        return block
    except OSError as error:  # not to be taken for trouble with the disk
        raise ConnectionError(_reason(error)) from None


@contextlib.contextmanager
def terminal_progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error if that is a terminal, else print one line."""
    if not is_terminal(sys.stderr):
        tell(f"fetching {label} ({_bytes(total)})")
        yield lambda _: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from hpo_bench.progress import console

    described = TextColumn("{task.description}", markup=False)
    columns = (described, BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda so_far: bar.update(task, completed=so_far)


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{max(size / 1e3, 0.1):.1f} kB"
