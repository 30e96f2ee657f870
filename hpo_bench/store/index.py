"""A compact index of the runs of a store, so that 50 000 of them are listed in a second (no pandas,
no torch).

``runs/.index.jsonl`` holds a line for each ``run.json`` that was read or written, with the file's
time, and its size and those of the run's tables. It is a cache: a line counts only while its files
are there and have that time and these sizes, every other run is read and noted. So it may be
deleted at any time, folders may be deleted, copied or edited, a line may be lost or cut off, and
several processes may add to it at once."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hpo_bench.errors import UserError
from hpo_bench.settings import identity
from hpo_bench.store import documents
from hpo_bench.system import locks
from hpo_bench.system.quoting import in_one_line

FILE = ".index.jsonl"
FORMAT = 4  # first of each line; lines of another are passed over
PATIENCE = 1.0  # seconds to wait for another writer
SLACK = 1000  # lines that may be stale before the file is written anew


class Entry(NamedTuple):
    """What a list of runs needs to know of one.

    Args:
        status: complete or failed.
        repetitions: of the run, finished or not.
        error: why it failed.
        data: what it was trained on (`identity.data_key`).
        spans: its seeds, as ``0-99`` or ``0-9,20-29``.
    """

    run_id: str
    status: str
    dataset: str
    method: str
    repetitions: int
    config_hash: str = ""
    error: str | None = None
    data: str = ""
    spans: str = ""

    @property
    def seeds(self) -> Iterator[int]:
        """Seeds of its repetitions."""
        return (seed for series in consecutive(self.spans) for seed in series)


Stamp = tuple[int, ...]  # time and size of run.json, sizes of the tables, -1 where there is none
TYPES = {
    (int, int, int, int, int, str, str, str, str, int, str, error, str, str)
    for error in (str, type(None))
}  # of a line's values


@dataclass(frozen=True)
class Listing:
    """All run folders of a store.

    Args:
        entries: those with a ``run.json``, by run id, sorted.
        unfinished: names of those without.
        damaged: what `read` could not read: name -> what is wrong with it and what to do.
    """

    entries: dict[str, Entry]
    unfinished: tuple[str, ...]
    damaged: dict[str, str]


def runs_folder(results_dir: str | Path) -> Path:
    """Folder that holds the run folders, whether it is there yet or not.

    Raises:
        UserError: what is called ``results_dir`` is no folder.
    """
    folder = Path(results_dir)
    if not folder.is_dir() and os.path.lexists(folder):
        why = (
            "a link that leads nowhere" if folder.is_symlink() and not folder.exists() else "a file"
        )
        raise UserError(f"results_dir={in_one_line(str(folder))}: is {why}, not a folder")
    return folder / "runs"


def entry(run_id: str, document: Mapping[str, Any]) -> Entry:
    """Entry of a ``run.json``'s content, as `documents.parsed_run` returns it."""
    config = document["config"]
    return Entry(
        run_id,
        str(document["status"]),
        str(config["dataset"]["name"]),
        str(config["method"]["name"]),
        len(document["seeds"]),
        str(document["config_hash"]),
        document.get("error"),
        identity.data_key(config, document.get("data") or {}, str(document["config_hash"])),
        spans(document["seeds"]),
    )


def consecutive(text: str) -> Iterator[range]:
    """The series of consecutive seeds that a text such as ``0-9,20-29`` names."""
    for span in filter(None, text.split(",")):
        first, _, last = span.partition("-")
        yield range(int(first), int(last or first) + 1)


def spans(seeds: Iterable[int]) -> str:
    """Seeds as a short text: ``0-99``, or ``0-9,20-29``."""
    found: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if found and seed == found[-1][1] + 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in found)


def note(runs: Path, run_id: str, document: Mapping[str, Any]) -> None:
    """Add one run. An index that cannot be written costs time later, nothing else."""
    with contextlib.suppress(OSError):
        _append(runs, [_line(entry(run_id, document), _stamp(f"{runs}/{run_id}"))])


def read(runs: Path) -> Listing:
    """List the runs of a folder, from the index where that is still true, and bring the index up to
    date.
    """
    known, lines = _known(runs)
    entries: dict[str, Entry] = {}
    fresh: list[str] = []
    unfinished, damaged = [], {}
    base = str(runs)
    for name in folders(runs):
        folder = f"{base}/{name}"
        file = f"{folder}/run.json"
        try:
            stamp = _stamp(folder)
        except (FileNotFoundError, NotADirectoryError):
            unfinished.append(name)
            continue
        except OSError as error:
            damaged[name] = f"cannot read {file}: {error.strerror or error}"
            continue
        cached = known.get(name)
        if cached is not None and cached[0] == stamp:
            entries[name] = cached[1]
            continue
        try:
            found = entry(name, documents.parsed_run(documents.text_of(Path(file))))
        except documents.Newer as error:
            damaged[name] = f"{file} is {error}"
            continue
        except OSError as error:
            damaged[name] = f"cannot read {file}: {error.strerror or error}"
            continue
        except ValueError as error:
            damaged[name] = f"{file} is damaged ({error}); {documents.again(runs / name)}"
            continue
        try:
            if found.status == "complete":
                documents.check_tables(Path(folder))
        except ValueError as error:
            damaged[name] = str(error)
            continue
        entries[name] = found
        known[name] = stamp, found
        fresh.append(_line(found, stamp))
    with contextlib.suppress(OSError):
        if lines + len(fresh) > len(entries) + SLACK:
            _rewrite(runs, (_line(entries[name], known[name][0]) for name in entries))
        elif fresh:
            _append(runs, fresh)
    return Listing(entries, tuple(unfinished), damaged)


def statuses(runs: Path, wanted: Iterable[str]) -> dict[str, str]:
    """Status of some runs: complete, failed, ``unfinished`` (a folder without run.json, or damaged)
    or ``missing``.
    """
    listing = read(runs)
    begun = {*listing.unfinished, *listing.damaged}

    def status(name: str) -> str:
        found = listing.entries.get(name)
        return found.status if found else "unfinished" if name in begun else "missing"

    return {name: status(name) for name in wanted}


def holders(runs: Path, config_hash: str) -> list[Entry]:
    """Complete runs of one configuration, by run id.

    The first call of a process looks at all runs, later ones at the index alone: a sweep of many
    runs asks for each."""
    folder = runs.absolute()
    if folder not in _SEEN or not (runs / FILE).exists():
        _SEEN.add(folder)
        entries: Iterable[Entry] = read(runs).entries.values()
    else:
        known, _ = _known(runs, config_hash)
        entries = (
            found
            for name, (_, found) in sorted(known.items())
            if (runs / name / "run.json").exists()
        )
    return [
        found
        for found in entries
        if found.config_hash == config_hash and found.status == "complete"
    ]


_SEEN: set[Path] = set()  # folders that this process has looked through


def repetitions(entries: Iterable[Entry]) -> dict[str, set[int]]:
    """Seeds that complete runs hold, by configuration: each counts once, however many runs hold
    it.
    """
    held: dict[str, set[int]] = {}
    for found in entries:
        if found.status == "complete":
            held.setdefault(found.config_hash, set()).update(found.seeds)
    return held


def folders(runs: Path) -> list[str]:
    """Names of the folders in a folder, sorted; without those that begin with a dot, none where it
    is not there.
    """
    try:
        with os.scandir(runs) as found:
            return sorted(
                item.name for item in found if not item.name.startswith(".") and item.is_dir()
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def _stamp(folder: str) -> Stamp:
    status = os.stat(f"{folder}/run.json")
    return (
        status.st_mtime_ns,
        status.st_size,
        _size(f"{folder}/final.parquet"),
        _size(f"{folder}/curves.parquet"),
    )


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return -1


def _line(found: Entry, stamp: Stamp) -> str:
    content = json.dumps([FORMAT, *stamp, *found], ensure_ascii=False, separators=(",", ":"))
    return f"{content}\n"


def _known(runs: Path, containing: str = "") -> tuple[dict[str, tuple[Stamp, Entry]], int]:
    """Entries and stamps by name, the newest line of each, and how many lines there are.

    Args:
        containing: text that a line must have.
    """
    try:
        text = documents.text_of(runs / FILE)
    except UnicodeDecodeError:
        text = (runs / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}, 0
    known: dict[str, tuple[Stamp, Entry]] = {}
    lines = [line for line in text.splitlines() if containing in line]
    for values in _parsed(lines):
        if isinstance(values, list) and tuple(map(type, values)) in TYPES and values[0] == FORMAT:
            found = Entry(*values[5:])
            known[found.run_id] = tuple(values[1:5]), found
    return known, len(lines)


def _parsed(lines: Sequence[str]) -> list[Any]:
    """Lines as values: all at once, which is six times faster, or, where one is damaged, each that
    is not.
    """
    try:
        return list(json.loads(f"[{','.join(lines)}]"))
    except ValueError:
        parsed = []
        for line in lines:
            with contextlib.suppress(ValueError):
                parsed.append(json.loads(line))
        return parsed


def _append(runs: Path, lines: Iterable[str]) -> None:
    """One write to the end; begins a line where a crash left half of one.

    One writer at a time: half of another's write would look like a crash.
    """
    data = "".join(lines).encode(errors="replace")
    descriptor = os.open(runs / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        _lock(descriptor)
        end = os.lseek(descriptor, 0, os.SEEK_END)
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            data = b"\n" + data
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Wait a moment for another writer. Without a lock, at worst a line is lost."""
    end = time.monotonic() + PATIENCE
    while locks.try_lock(descriptor) is False and time.monotonic() < end:
        time.sleep(0.01)


def _rewrite(runs: Path, lines: Iterable[str]) -> None:
    """Write the file anew, unless another process is about to."""
    temporary = runs / f"{FILE}.tmp"  # one name: what a killed process left is taken up by the next
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if locks.try_lock(descriptor) is not False:
            os.truncate(descriptor, 0)
            with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
                file.writelines(lines)
            os.replace(temporary, runs / FILE)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
