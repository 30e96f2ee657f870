"""Bundles: runs and what was made of them in one zip file, to be handed to somebody else.

``manifest.json`` names every other file with its size and SHA-256. The same content is the same
bytes: names are sorted, times fixed, and nothing is compressed, since what takes the room (tables,
pictures) is already, and no two versions of zlib need agree.

Whoever takes a bundle in does not know who made it: nothing of it is believed before it is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hpo_bench.errors import RunError, UserError, of_the_system
from hpo_bench.store import documents
from hpo_bench.store.documents import TABLES
from hpo_bench.store.files import atomic
from hpo_bench.system import locks
from hpo_bench.system.quoting import in_one_line

KIND = "hpo-bench bundle"
MANIFEST = "manifest.json"
RUNS = "runs"  # folder of the runs, in a bundle as in a store
RUN_FILES = ("run.json", *(f"{name}.parquet" for name in TABLES), "final_weights.npz")
TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can say
CHUNK = 2**20  # bytes that are held at once

ENTRIES = 1_000_000  # files of a bundle
MANIFEST_BYTES = 2**28
NAME_BYTES = 255  # of a part of a name: the most that file systems take
RATIO = 200  # times that content may be larger than what it is stored in; text is not
SMALL = 2**20  # bytes below which a ratio says nothing
NOT_IN_NAMES = '\\:*?"<>|'  # of some file system: separators, drives, patterns
DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in range(10)
}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # a method of compression that there is not
    RuntimeError,  # a password
    ArithmeticError,
    LookupError,
    ValueError,
)  # all of these are what zipfile raises on archives that are damaged in one place or another


# --- writing ---


def write(path: Path, files: Mapping[str, Path | bytes], manifest: Mapping[str, Any]) -> int:
    """Write a bundle; it appears whole or not at all.

    Args:
        files: content by name (with ``/``), which is read piece by piece.
        manifest: what it says beside its files; only JSON's types.

    Returns:
        its size in bytes.

    Raises:
        UserError: it cannot be written there, or a file cannot be read.
    """
    described: dict[str, dict[str, Any]] = {}
    try:
        with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name in sorted(files):
                with _opened(files[name]) as source:
                    described[name] = _add(archive, name, source)
            content = {"format": documents.FORMAT, "kind": KIND, **manifest, "files": described}
            text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
            with _opened(f"{text}\n".encode()) as source:
                _add(archive, MANIFEST, source)
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot write {path}: {of_the_system(error)}") from None


@contextlib.contextmanager
def _opened(content: Path | bytes) -> Iterator[IO[bytes]]:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        yield file


def _add(archive: zipfile.ZipFile, name: str, source: IO[bytes]) -> dict[str, Any]:
    """Add a file, and say its size and digest."""
    entry = zipfile.ZipInfo(name, TIME)
    entry.create_system = 3  # Unix, whatever this is
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    digest, size = hashlib.sha256(), 0
    with archive.open(entry, "w", force_zip64=True) as target:
        while piece := source.read(CHUNK):
            target.write(piece)
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


# --- taking in ---


@dataclass(frozen=True)
class _Bundle:
    """An archive whose names and sizes were checked."""

    path: Path
    archive: zipfile.ZipFile
    entries: Mapping[str, zipfile.ZipInfo]
    files: Mapping[str, Mapping[str, Any]]


class _Wrong(ValueError):
    """What is wrong with an archive."""


@contextlib.contextmanager
def unpacked(path: Path, results_dir: Path) -> Iterator[Path]:
    """Unpack a bundle's runs into a store of their own, to be merged, while the context lasts.

    It lies in the destination's folder and is gone in the end. Every file was checked by its size
    and digest, those that are no runs too. What a killed process left of it is removed by the next.

    Raises:
        UserError: it is no bundle, or not as it was written; says what is wrong with it.
    """
    digest = hashlib.sha256(str(path.absolute()).encode()).hexdigest()
    folder = results_dir / f".unpacked-{digest[:12]}"
    created = not results_dir.exists()
    with contextlib.ExitStack() as stack:
        for empty in (*([results_dir] if created else []), folder):
            stack.callback(_remove_empty, empty)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.take(folder / ".lock"))
            stack.callback(_clear, folder)
            _clear(folder)
            _unpack(path, folder)
        except locks.Busy as busy:
            raise RunError(f"another process ({busy}) is merging {path}; wait for it") from None
        except OSError as error:
            raise UserError(f"cannot unpack {path}: {of_the_system(error)}") from None
        yield folder


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _clear(folder: Path) -> None:
    shutil.rmtree(folder / RUNS, ignore_errors=True)


def _unpack(path: Path, folder: Path) -> None:
    """Write the runs of a bundle to a folder.

    Raises:
        UserError: see `unpacked`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            bundle = _checked(path, archive)
            _check_room(bundle, folder)
            (folder / RUNS).mkdir()
            for name in bundle.files:
                _take(bundle, name, folder / name if name.startswith(f"{RUNS}/") else None)
    except _Wrong as error:
        raise UserError(f"{path}: {in_one_line(str(error))}; nothing was taken in") from None
    except BROKEN as error:
        reason = in_one_line(" ".join(str(error).split())) or type(error).__name__
        raise UserError(
            f"{path}: is not a zip file that can be read ({reason}); nothing was taken in"
        ) from None


def _checked(path: Path, archive: zipfile.ZipFile) -> _Bundle:
    """The bundle, with every name and size checked."""
    entries = archive.infolist()
    if len(entries) > ENTRIES:
        raise _Wrong(f"holds {len(entries)} files, more than {ENTRIES}")
    files: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        _check_entry(entry)
        if not entry.is_dir():
            if entry.filename in files:
                raise _Wrong(f"holds {entry.filename} twice")
            files[entry.filename] = entry
    _check_apart(files)
    packed_size = sum(entry.compress_size for entry in entries)
    if packed_size > path.stat().st_size:  # entries that lie on top of each other
        raise _Wrong("its files are larger than itself")
    described = _manifest(archive, files)
    for name, entry in files.items():
        if name != MANIFEST and described[name]["bytes"] != entry.file_size:
            size = described[name]["bytes"]
            raise _Wrong(f"{name} has {entry.file_size} bytes, {MANIFEST} says {size}")
    return _Bundle(path, archive, files, described)


def _check_entry(entry: zipfile.ZipInfo) -> None:
    """Refuse what leads out of the folder that it is unpacked in, and what is no plain file."""
    name = entry.filename
    if not name:
        raise _Wrong("holds a file without a name")
    parts = (name[:-1] if entry.is_dir() else name).split("/")
    if name != entry.orig_filename or not all(map(_is_safe, parts)):
        raise _Wrong(f"the name {entry.orig_filename!r} is not allowed in a bundle")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        raise _Wrong(f"{name} is not a plain file")
    if entry.flag_bits & 1:
        raise _Wrong(f"{name} is encrypted")
    if entry.compress_type not in METHODS:
        raise _Wrong(f"{name} is compressed in a way that bundles are not")
    if entry.file_size > max(SMALL, RATIO * entry.compress_size):
        raise _Wrong(f"{name} would be {entry.file_size} bytes out of {entry.compress_size}")


def _is_safe(part: str) -> bool:
    """Whether a part of a name is one on every system: no way up, no device, no stream."""
    if not part or part[0] == "." or part[-1] in ". " or part != part.strip():
        return False
    if not part.isprintable() or any(sign in NOT_IN_NAMES for sign in part):
        return False
    if part.partition(".")[0].strip().casefold() in DEVICES:
        return False
    return len(part.encode(errors="replace")) <= NAME_BYTES


def _check_apart(names: Mapping[str, Any]) -> None:
    """Refuse names that some file systems take for one, and files that are folders of others."""
    name_by_key: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFKC", name).casefold()
        if key in name_by_key:
            raise _Wrong(f"{name_by_key[key]} and {name} are one file on some systems")
        name_by_key[key] = name
    for key, name in name_by_key.items():
        parts = key.split("/")
        for length in range(1, len(parts)):
            if "/".join(parts[:length]) in name_by_key:
                raise _Wrong(f"{name} lies in what is a file")


def _manifest(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]
) -> dict[str, dict[str, Any]]:
    """What the manifest says of each file; it names those that are there, and no others."""
    if MANIFEST not in entries:
        raise _Wrong(f"is no bundle of hpo-bench, it has no {MANIFEST}; hpo-bench pack makes one")
    if entries[MANIFEST].file_size > MANIFEST_BYTES:
        raise _Wrong(f"{MANIFEST} is larger than {MANIFEST_BYTES} bytes")
    try:
        content = documents.parsed(archive.read(MANIFEST).decode())
    except documents.Newer as error:
        raise _Wrong(f"is {error}") from None
    except ValueError as error:
        raise _Wrong(f"{MANIFEST} is damaged ({error})") from None
    files = content.get("files")
    if content.get("kind") != KIND or not isinstance(files, dict):
        raise _Wrong("is no bundle of hpo-bench; hpo-bench pack makes one")
    for name, facts in files.items():
        fits = isinstance(facts, dict) and type(facts.get("bytes")) is int
        if not fits or not isinstance(facts.get("sha256"), str):
            raise _Wrong(f"{MANIFEST} is damaged (files.{name} must say bytes and sha256)")
    there = set(entries) - {MANIFEST}
    lacking, strange = sorted(set(files) - there), sorted(there - set(files))
    if lacking:
        raise _Wrong(f"lacks {lacking[0]}, which {MANIFEST} names")
    if strange:
        raise _Wrong(f"holds {strange[0]}, which {MANIFEST} does not name")
    _check_runs(files)
    return files


def _check_runs(names: Mapping[str, Any]) -> None:
    """Refuse files of runs that runs do not have."""
    for name in names:
        folder, *rest = name.split("/")
        if folder == RUNS and not (len(rest) == 2 and rest[1] in RUN_FILES):
            raise _Wrong(f"{name} is no file of a run")


def _check_room(bundle: _Bundle, folder: Path) -> None:
    """Refuse what the disk cannot take, once unpacked and once copied."""
    sizes = [facts["bytes"] for name, facts in bundle.files.items() if name.startswith(f"{RUNS}/")]
    needed = 2 * sum(sizes)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise _Wrong(f"its runs need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")


def _take(bundle: _Bundle, name: str, target: Path | None) -> None:
    """Read a file to its end, and write it unless ``target`` is None.

    Raises:
        _Wrong: it is not what the manifest says.
    """
    facts, digest, size = bundle.files[name], hashlib.sha256(), 0
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(bundle.archive.open(bundle.entries[name]))
        out: IO[bytes] | None = None
        if target is not None:
            target.parent.mkdir(exist_ok=True)
            out = stack.enter_context(target.open("xb"))
        while piece := source.read(CHUNK):
            size += len(piece)
            if size > facts["bytes"]:
                raise _Wrong(f"{name} is larger than the {facts['bytes']} bytes that it says")
            digest.update(piece)
            if out is not None:
                out.write(piece)
    if size != facts["bytes"] or digest.hexdigest() != facts["sha256"]:
        raise _Wrong(f"{name} is not the file that {MANIFEST} describes (SHA-256 differs)")


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a run's folder that belong into a bundle, by their names in it."""
    files = (folder / name for name in RUN_FILES)
    return {f"{RUNS}/{folder.name}/{file.name}": file for file in files if file.is_file()}
