"""Where repetitions start: drawn from their seeds, or read from a file."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpo_bench.core.hyperparameters import LOGIT, Coordinate
from hpo_bench.core.loop import InitialState
from hpo_bench.core.model import Model
from hpo_bench.core.seeds import generator
from hpo_bench.errors import UserError
from hpo_bench.settings.run import Method, StartRanges

# The order of the draws from a repetition's one stream.
DRAWN = ("lr", "weight_decay", "momentum", "lr_multiplier")
UNREADABLE = (
    OSError,
    ValueError,
    zipfile.BadZipFile,
    EOFError,
    AttributeError,
    TypeError,
)  # of np.load


def draw(
    seeds: Sequence[int],
    dataset: str,
    model: Model,
    ranges: StartRanges,
    coordinates: Mapping[str, Coordinate],
) -> dict[str, np.ndarray]:
    """Initial weights and raw hyperparameters of some repetitions, as float64 arrays, rows first.

    The paper's four numbers are drawn for every method, in one order, and what another rule has in
    the place of one of them starts from the same random number: methods are paired (paper §2,
    appendix B).
    """
    weights, shares = [], []
    for seed in seeds:
        weights.append(model.initial_weights(generator(seed, dataset, "weights")))
        random = generator(seed, dataset, "hyperparameters")
        share = {name: random.random() for name in DRAWN}
        for name, coordinate in coordinates.items():
            if (coordinate.drawn_as or name) not in DRAWN:
                share[name] = generator(seed, dataset, f"hyperparameter {name}").random()
        shares.append(share)

    def uniform(name: str, low: float, high: float) -> np.ndarray:
        return np.array([low + (high - low) * share[name] for share in shares])

    values = {"weights": np.stack(weights)}
    for name, coordinate in coordinates.items():
        low, high = ranges.of(name) or coordinate.start
        drawn = uniform(coordinate.drawn_as or name, low, high)
        is_logit = coordinate.space is LOGIT
        values[name] = logarithms(drawn) - logarithms(1 - drawn) if is_logit else drawn
    values["lr_multiplier"] = uniform("lr_multiplier", *ranges.lr_multiplier)
    return values


def logarithms(values: np.ndarray) -> np.ndarray:
    """Natural logarithms (R,) by the C library:

    NumPy's differ in their last digit between AVX2 and AVX-512.
    """
    outside = {True: -math.inf, False: math.nan}
    return np.array(
        [math.log(value) if value > 0 else outside[value == 0] for value in values.tolist()]
    )


def digest(path: Path) -> str:
    """SHA-256 (hex) over the arrays of an ``.npz``, however it was written; over the bytes of what
    is none.

    Raises:
        UserError: it cannot be read.
    """
    found = hashlib.sha256()
    try:
        try:
            arrays = _arrays(path)
        except UNREADABLE:
            return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"init.file={path}: cannot be read ({error.strerror or error})") from None
    for name, array in sorted(arrays.items()):
        values = array.astype(np.float64) if array.dtype.kind in "fiub" else array
        found.update(f"{name} {values.dtype} {values.shape}".encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def read(
    path: Path, rows: Sequence[int], model: Model, coordinates: Mapping[str, Coordinate]
) -> dict[str, np.ndarray]:
    """Initial values of some rows of an ``.npz`` with ``w0/PARAMETER`` (R, …), ``raw/…`` and
    ``lr_multiplier`` (R,).

    Raises:
        UserError: a missing array, a wrong shape, too few rows, a value that is not finite.
    """
    try:
        arrays = _arrays(path)
    except UNREADABLE as error:
        raise UserError(
            f"init.file={path}: not a readable .npz file ({str(error).splitlines()[0]})"
        ) from None
    wanted: dict[str, tuple[int, ...]] = {
        f"w0/{name}": shape
        for name, shape in zip(model.layout.names, model.layout.shapes, strict=True)
    }
    wanted |= {f"raw/{name}": () for name in coordinates}
    if "lr_multiplier" in arrays:
        wanted["lr_multiplier"] = ()
    chosen = {}
    for name, shape in wanted.items():
        if name not in arrays:
            raise UserError(
                f"init.file={path}: array {name} is missing; needed: {', '.join(wanted)}"
            )
        array = arrays[name]
        if array.shape[1:] != shape or array.ndim == 0 or len(array) <= max(rows):
            needed = ", ".join(["R", *map(str, shape)])
            raise UserError(
                f"init.file={path}: {name} has shape {array.shape}, needed ({needed}) with R at "
                f"least {max(rows) + 1}"
            )
        chosen[name] = array[np.asarray(rows)].astype(np.float64)
        may_be_infinite = name[4:] in coordinates and coordinates[name[4:]].space is LOGIT
        if not np.isfinite(chosen[name]).all() and not may_be_infinite:
            raise UserError(f"init.file={path}: {name} has values that are not finite")
    weights = model.layout.flatten(
        {name[3:]: array for name, array in chosen.items() if name.startswith("w0/")}
    )
    numbers = {name: chosen[f"raw/{name}"] for name in coordinates}
    return {
        "weights": weights,
        **numbers,
        **{k: v for k, v in chosen.items() if k == "lr_multiplier"},
    }


def to_device(
    values: dict[str, np.ndarray],
    method: Method,
    coordinates: Mapping[str, Coordinate],
    like: Tensor,
) -> InitialState:
    """Start tensors in the dtype and on the device of ``like``.

    What the method fixes takes the place of what was drawn; per-weight hyperparameters repeat their
    one value.

    Raises:
        UserError: a schedule without multipliers.
    """
    weights = torch.from_numpy(values["weights"]).to(like)
    raw = {}
    for name, coordinate in coordinates.items():
        numbers = values[name]
        if name in method.fixed:
            numbers = np.full_like(numbers, coordinate.space.raw(method.fixed[name]))
        raw[name] = torch.from_numpy(numbers).to(like).unsqueeze(-1)
    for name in method.per_weight:
        raw[name] = raw[name].repeat(1, weights.shape[-1])
    multiplier = None
    if method.lr_schedule:
        if "lr_multiplier" not in values:
            raise UserError(
                f"init.file lacks the array lr_multiplier, which method={method.name} needs"
            )
        log10_multiplier = logarithms(values["lr_multiplier"]) / math.log(10)
        multiplier = torch.from_numpy(log10_multiplier).to(like).unsqueeze(-1)
    return InitialState(weights, raw, multiplier)
