"""Where blocks are computed: threads of this process, or the machines of a Ray cluster."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hpo_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from hpo_bench.running.pool import Pool

PLACES = ("threads", "ray", "ray://HOST:PORT")


def open_pool(where: str | None = None) -> Pool:
    """The pool that ``--on`` names, for `hpo_bench.running.execute.execute`.

    Args:
        where: ``threads`` (or None), ``ray`` for a Ray of its own on this machine,
            ``ray://HOST:PORT`` for a running cluster, ``ray://auto`` for the one that this machine
            belongs to. Nothing is started before the first block.

    Raises:
        UserError: no such place, nothing answers there, or the extra is not installed.
    """
    if where in (None, "threads"):
        from hpo_bench.running.pool import Threads

        return Threads()
    kind, separator, address = str(where).partition("://")
    if kind != "ray" or bool(separator) != bool(address):
        if where == "auto" or re.fullmatch(r"[^/]+:\d+", str(where)):
            raise UserError(
                f"--on {where}: did you mean ray://{where}? Allowed: {', '.join(PLACES)}"
            )
        raise UserError(f"--on {where}: {nearest(str(where), PLACES)}")
    if find_spec("ray") is None:
        raise UserError(f"--on {where}: Ray is not installed; pip install 'hpo-bench[ray]'")
    from hpo_bench.running.probe import check_address
    from hpo_bench.running.ray_pool import RayPool

    if address:
        check_address(address)
    return RayPool(address or None)
