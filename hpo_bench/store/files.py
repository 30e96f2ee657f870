"""Writing files such that they are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpo_bench.system import locks


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to, which becomes ``path`` when the block ends without error.

    It lies beside ``path`` and is always the same, so that the next to write ``path`` takes up what
    a killed process left of it; who writes holds a lock on it. Where it is taken, or there are no
    locks, another name is made up.

    Raises:
        OSError: it cannot be written, or something is there that must not be replaced: a device, a
            pipe.
    """
    _refuse_special(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, descriptor = _temporary(path)
    try:
        yield temporary
        # In this order: after a loss of power there is the old file or the whole new one.
        _to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _refuse_special(path: Path) -> None:
    """Refuse to replace what is no file.

    Who may write to ``/dev`` would put a file in the place of ``/dev/null``.

    Raises:
        OSError: a device, a pipe or a socket is there.
    """
    folder = Path(os.path.realpath(path.parent))
    among_devices = folder == Path("/dev") or Path("/proc") in (folder, *folder.parents)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        kind = path.stat().st_mode
        if among_devices or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise OSError(errno.EINVAL, "not a regular file", str(path))


def _temporary(path: Path) -> tuple[Path, int]:
    """Open a file to write to that is ours alone: its name and descriptor."""
    usual = path.with_name(f".{path.name}.tmp")
    while True:
        try:
            descriptor = os.open(usual, os.O_RDWR | os.O_CREAT, 0o666)
        except (PermissionError, IsADirectoryError):
            break
        locked = locks.try_lock(descriptor)
        if not locked:
            os.close(descriptor)
            if locked is None:  # there are no locks: this is of no use to anybody
                usual.unlink(missing_ok=True)
            break
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), usual.stat()):
                return usual, descriptor
        os.close(descriptor)  # it was renamed between our opening and our locking it
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    Path(name).chmod(0o666 & ~_umask())
    return Path(name), descriptor


def _to_disk(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            # Some file systems cannot say when it is.
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                raise


def _umask() -> int:
    # It can only be read by setting it.
    current = os.umask(0)
    os.umask(current)
    return current


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically.

    Floats are split by byte, whose upper ones are alike from row to row, before zstd; keys are
    run-length encoded.
    """
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    others = [name for name in table.column_names if name not in floats]
    with atomic(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=others,
            use_byte_stream_split=floats,
            version="2.6",
        )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically; numbers that are not finite are refused."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
