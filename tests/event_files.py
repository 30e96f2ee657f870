"""Reads TensorBoard event files: length, checksum, protocol buffer, checksum; needs
tensorboardX.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars of the event files in a folder by tag, as (step, value); skips without
    tensorboardX.
    """
    reason = "tensorboardX is not installed (pip install 'hpo-bench[tensorboard]')"
    record = pytest.importorskip("tensorboardX.record_writer", reason=reason)
    proto = pytest.importorskip("tensorboardX.proto.event_pb2", reason=reason)
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            body = data[at + 12 : at + 12 + length]
            assert struct.unpack_from("<I", data, at + 12 + length) == (record.masked_crc32c(body),)
            event = proto.Event.FromString(body)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
            at += 16 + length
    return found
