"""What answers at an address: found out before Ray is asked, which waits for minutes and prints its
calls' errors.

A probe sends an empty message to two of Ray's own services. It needs nothing of Ray but the library
for such calls."""

from __future__ import annotations

import os
import socket
from enum import Enum
from typing import Any

from hpo_bench.errors import UserError

CONNECT_SECONDS = 5.0  # for a connection, and again for the greeting of Ray's protocol
ANSWER_SECONDS = 5.0  # for an answer to each of the two questions


class AddressKind(Enum):
    """What is behind a port, with the call that it alone answers."""

    # The port of a head, for drivers on the cluster's machines.
    CLUSTER = "/ray.rpc.NodeInfoGcsService/CheckAlive"
    CLIENT = "/ray.rpc.RayletDriver/ClusterInfo"  # the port for drivers from elsewhere


def locate(address: str) -> str:
    """The address that ``auto`` stands for: that of ``RAY_ADDRESS``, or of the cluster that this
    machine belongs to.

    Raises:
        UserError: there is none.
    """
    if address != "auto":
        return address
    found = os.environ.get("RAY_ADDRESS") or _of_this_machine()
    if not found or found in ("auto", "local"):
        raise UserError(
            "--on ray://auto: this machine belongs to no Ray cluster; ray start --head makes one"
        )
    return found.removeprefix("ray://")


def _of_this_machine() -> str | None:
    """Where Ray left the address of the cluster that was started, or joined, on this machine
    last.
    """
    from ray._private.utils import read_ray_address

    return str(read_ray_address() or "") or None


def check_address(address: str) -> AddressKind:
    """Make sure that a Ray cluster answers at ``HOST:PORT`` or ``auto``, within about 20 s.

    Returns:
        Which of its ports it is.

    Raises:
        UserError: not an address, or nothing of Ray answers there.
    """
    place = locate(address)
    named = f"--on ray://{address}" + f" ({place})" * (place != address)
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UserError(
            f"{named}: must be ray://HOST:PORT (as ray start --head printed it) or ray://auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"{named}: nothing answers there ({error.strerror or error}); ray start --head makes "
            "a cluster"
        ) from None
    kind = ask(place)
    if kind is None:
        raise UserError(
            f"{named}: something listens there, but does not answer as Ray does; needed is the "
            "port that "
            "ray start --head printed, or its client port, 10001 by default"
        )
    return kind


def ask(place: str) -> AddressKind | None:
    """Which of Ray's ports ``HOST:PORT`` is; None where nothing answers as Ray does."""
    if _encrypted():
        return AddressKind.CLIENT if place.endswith(":10001") else AddressKind.CLUSTER
    import grpc

    with _channel(place) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            return None
        return next((kind for kind in AddressKind if _answers(channel, kind)), None)


def answers(place: str, kind: AddressKind) -> bool:
    """Whether the port of a cluster that was there still answers."""
    if _encrypted():
        return True
    with _channel(place) as channel:
        return _answers(channel, kind)


def _encrypted() -> bool:
    """Whether Ray is told to speak TLS: its certificates are its own affair, so that nothing is
    asked then.
    """
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _channel(place: str) -> Any:
    import grpc

    return grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)])


def _answers(channel: Any, kind: AddressKind) -> bool:
    """Whether the service knows the call; that it refuses an empty message, or one without a token,
    is an answer.
    """
    import grpc

    call = channel.unary_unary(kind.value, request_serializer=bytes, response_deserializer=bytes)
    try:
        call(b"", timeout=ANSWER_SECONDS)
    except grpc.RpcError as error:
        silent = (
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.UNAVAILABLE,
        )
        return error.code() not in silent
    return True
