"""A compact index of the runs of a store, so that 50 000 of them are listed in a second.

``runs/.index.jsonl`` holds a line for each ``run.json`` that was read or written, with the file's
time, and its size and those of the run's tables. It is a cache: a line counts only while its files
are there and have that time and these sizes, every other run is read and noted. So it may be
deleted at any time, folders may be deleted, copied or edited, a line may be lost or cut off, and
several processes may add to it at once. Runs in packs (`hpo_bench.store.packed`) are listed with
the others and have no line there. Imports no pandas and no torch, which take longer to import than
this file to read.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from hpo_bench.errors import UserError
from hpo_bench.settings import identity
from hpo_bench.store import documents, packed
from hpo_bench.store.packed import Pack
from hpo_bench.system import locks
from hpo_bench.system.quoting import in_one_line

FOLDER = "runs"  # of a store: a folder for each run
FILE = ".index.jsonl"
LINE_FORMAT = 4  # first of each line; lines of another are passed over
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
        """The seeds of its repetitions."""
        return (seed for series in consecutive(self.spans) for seed in series)


Stamp = tuple[int, ...]  # time and size of run.json, sizes of the tables, -1 where there is none
# Of a line's values: its format, a stamp, an entry. JSON knows no others, so types can be compared.
LINE_TYPES = {
    (int, int, int, int, int, str, str, str, str, int, str, error, str, str)
    for error in (str, type(None))
}


@dataclass(frozen=True)
class Listing:
    """All runs of a store.

    Args:
        entries: run folders with a ``run.json``, and runs in packs, by run id, sorted.
        unfinished: names of folders without, whose run is in no pack.
        damaged: what `read` could not read: name of a run, or path of a pack -> what is wrong with
            it and what to do.
    """

    entries: dict[str, Entry]
    unfinished: tuple[str, ...]
    damaged: dict[str, str]


def runs_folder(results_dir: str | Path) -> Path:
    """The folder that holds the run folders, whether it is there yet or not.

    Raises:
        UserError: what is called ``results_dir`` is no folder.
    """
    folder = Path(results_dir)
    if not folder.is_dir() and os.path.lexists(folder):
        is_broken_link = folder.is_symlink() and not folder.exists()
        kind = "a link that leads nowhere" if is_broken_link else "a file"
        raise UserError(f"results_dir={in_one_line(str(folder))}: is {kind}, not a folder")
    return folder / FOLDER


def entry(run_id: str, document: Mapping[str, Any]) -> Entry:
    """Make the entry of a ``run.json``'s content, as `documents.parsed_run` returns it."""
    config = document["config"]
    config_hash = str(document["config_hash"])
    return Entry(
        run_id,
        status=str(document["status"]),
        dataset=str(config["dataset"]["name"]),
        method=str(config["method"]["name"]),
        repetitions=len(document["seeds"]),
        config_hash=config_hash,
        error=document.get("error"),
        data=identity.data_key(config, document.get("data") or {}, config_hash),
        spans=spans(document["seeds"]),
    )


def consecutive(text: str) -> Iterator[range]:
    """The series of consecutive seeds that a text such as ``0-9,20-29`` names."""
    for span in filter(None, text.split(",")):
        first, _, last = span.partition("-")
        yield range(int(first), int(last or first) + 1)


def spans(seeds: Iterable[int]) -> str:
    """Write seeds as a short text, which `consecutive` reads: ``0-99``, or ``0-9,20-29``."""
    series: list[list[int]] = []  # first and last of each
    for seed in sorted(set(seeds)):
        if series and seed == series[-1][1] + 1:
            series[-1][1] = seed
        else:
            series.append([seed, seed])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in series)


def note(runs: Path, run_id: str, document: Mapping[str, Any]) -> None:
    """Add a line for one run."""
    # An index that cannot be written costs time later, nothing else.
    with contextlib.suppress(OSError):
        _append(runs, [_line(entry(run_id, document), _stamp(f"{runs}/{run_id}"))])


def read(runs: Path) -> Listing:
    """List the runs of a folder and of the packs beside it, and bring the index up to date."""
    cache, line_count = _cached(runs)
    entries: dict[str, Entry] = {}
    unfinished: list[str] = []
    damaged: dict[str, str] = {}
    fresh: list[str] = []
    # Paths as text: making 50 000 Path objects would take longer than all the rest.
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
        line = cache.get(name)
        if line is not None and line[0] == stamp:
            entries[name] = line[1]
            continue
        try:
            new = _read_entry(runs / name)
        except ValueError as error:
            damaged[name] = str(error)
            continue
        entries[name] = new
        cache[name] = stamp, new
        fresh.append(_line(new, stamp))
    # A store that may not be written to is listed all the same.
    with contextlib.suppress(OSError):
        if line_count + len(fresh) > len(entries) + SLACK:
            _rewrite(runs, (_line(entries[name], cache[name][0]) for name in entries))
        elif fresh:
            _append(runs, fresh)
    return _with_packs(runs, Listing(entries, tuple(unfinished), damaged))


def _with_packs(runs: Path, listing: Listing) -> Listing:
    """A listing of folders, with the runs in packs that no folder stands for."""
    packs = packed.find(runs.parent)
    if not packs.whole and not packs.damaged:
        return listing
    entries = {
        name: each
        for name, each in _packed_entries(packs.whole).items()
        if name not in listing.damaged
    }
    entries |= listing.entries
    unfinished = tuple(name for name in listing.unfinished if name not in entries)
    damaged = {str(path): str(error) for path, error in packs.damaged.items()}
    return Listing(dict(sorted(entries.items())), unfinished, listing.damaged | damaged)


@lru_cache(maxsize=16)
def _packed_entries(packs: tuple[Pack, ...]) -> dict[str, Entry]:
    """The entries of some packs' runs; of a run in several packs, that of the first."""
    entries: dict[str, Entry] = {}
    for pack in reversed(packs):
        entries |= {run_id: entry(run_id, content) for run_id, content in pack.contents.items()}
    return entries


def _read_entry(folder: Path) -> Entry:
    """Read the ``run.json`` of a run that the index does not know, and look at its tables.

    Raises:
        ValueError: it cannot be read; says what is wrong with it and what to do.
    """
    file = folder / "run.json"
    try:
        new = entry(folder.name, documents.parsed_run(documents.text_of(file)))
    except documents.Newer as error:
        raise ValueError(f"{file} is {error}") from None
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}); {documents.again(folder)}") from None
    if new.status == "complete":
        documents.check_tables(folder)
    return new


def statuses(runs: Path, run_ids: Iterable[str]) -> dict[str, str]:
    """Status of some runs: ``complete``, ``failed``, ``unfinished`` or ``missing``.

    A run is unfinished where its folder holds no ``run.json``, or one that is damaged, and no pack
    holds it.
    """
    listing = read(runs)
    unfinished = {*listing.unfinished, *listing.damaged}
    status_of: dict[str, str] = {}
    for name in run_ids:
        if name in listing.entries:
            status_of[name] = listing.entries[name].status
        else:
            status_of[name] = "unfinished" if name in unfinished else "missing"
    return status_of


def holders(runs: Path, config_hash: str) -> list[Entry]:
    """Complete runs of one configuration, sorted by run id.

    The first call of a process looks at all runs, later ones at the index alone: a sweep of many
    runs asks for each.
    """
    folder = runs.absolute()
    if folder not in _FOLDERS_READ or not (runs / FILE).exists():
        _FOLDERS_READ.add(folder)
        entries = read(runs).entries
    else:
        entries = {}
        for name, (_, cached_entry) in sorted(_cached(runs, config_hash)[0].items()):
            if (runs / name / "run.json").exists():  # its line may be older than its end
                entries[name] = cached_entry
        for name, packed_entry in _packed_entries(packed.find(runs.parent).whole).items():
            if packed_entry.config_hash == config_hash:
                entries.setdefault(name, packed_entry)
    alike = [each for each in entries.values() if each.config_hash == config_hash]
    return sorted(each for each in alike if each.status == "complete")


_FOLDERS_READ: set[Path] = set()  # folders that this process has looked through


def repetitions(entries: Iterable[Entry]) -> dict[str, set[int]]:
    """The seeds that complete runs hold, by configuration; each once, however many runs hold it."""
    seeds_of: dict[str, set[int]] = {}
    for entry in entries:
        if entry.status == "complete":
            seeds_of.setdefault(entry.config_hash, set()).update(entry.seeds)
    return seeds_of


def names(runs: Path) -> list[str]:
    """Run ids of all run folders, finished or not, and of all runs in packs, sorted.

    Packs that cannot be read are passed over.
    """
    in_packs = (run_id for pack in packed.find(runs.parent).whole for run_id in pack.lines)
    return sorted({*folders(runs), *in_packs})


def folders(runs: Path) -> list[str]:
    """Names of the run folders in a folder, sorted; none where it is not there.

    What begins with a dot is no run.
    """
    try:
        with os.scandir(runs) as items:
            return sorted(
                item.name for item in items if not item.name.startswith(".") and item.is_dir()
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


def _line(entry: Entry, stamp: Stamp) -> str:
    content = json.dumps([LINE_FORMAT, *stamp, *entry], ensure_ascii=False, separators=(",", ":"))
    return f"{content}\n"


def _cached(runs: Path, containing: str = "") -> tuple[dict[str, tuple[Stamp, Entry]], int]:
    """Stamps and entries by name, the newest line of each, and how many lines there are.

    Args:
        containing: text that a line must have.
    """
    try:
        text = documents.text_of(runs / FILE)
    except UnicodeDecodeError:
        text = (runs / FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}, 0
    cache: dict[str, tuple[Stamp, Entry]] = {}
    lines = [line for line in text.splitlines() if containing in line]
    for values in _values(lines):
        if (
            isinstance(values, list)
            and tuple(map(type, values)) in LINE_TYPES
            and values[0] == LINE_FORMAT
        ):
            entry = Entry(*values[5:])
            cache[entry.run_id] = tuple(values[1:5]), entry
    return cache, len(lines)


def _values(lines: Sequence[str]) -> list[Any]:
    """Read lines of JSON; those that are damaged are passed over."""
    try:
        # All at once is six times faster than one by one.
        return list(json.loads(f"[{','.join(lines)}]"))
    except ValueError:
        values = []
        for line in lines:
            with contextlib.suppress(ValueError):
                values.append(json.loads(line))
        return values


def _append(runs: Path, lines: Iterable[str]) -> None:
    """Write lines to the end of the index, in one piece."""
    data = "".join(lines).encode(errors="replace")
    descriptor = os.open(runs / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        # One writer at a time: half of another's line would look like what a crash left.
        _lock(descriptor)
        end = os.lseek(descriptor, 0, os.SEEK_END)
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            data = b"\n" + data
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Lock the index, or go on without a lock after a moment: at worst a line is lost."""
    end = time.monotonic() + PATIENCE
    while locks.try_lock(descriptor) is False and time.monotonic() < end:
        time.sleep(0.01)


def _rewrite(runs: Path, lines: Iterable[str]) -> None:
    """Write the index anew, unless another process is about to."""
    # Always the same name: what a killed process left is taken up by the next.
    temporary = runs / f"{FILE}.tmp"
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
