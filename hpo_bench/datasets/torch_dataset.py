"""One's own data as a map-style ``torch.utils.data.Dataset``, read once into arrays.

Does not import torch itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from hpo_bench.core.table import Table, Task
from hpo_bench.datasets.preparation import (
    FARTHEST,
    FILLED,
    LARGEST,
    Places,
    check_standardised,
    check_told_apart,
    check_varies,
    content_of,
    fingerprint,
    fixed_order,
    holdout,
    moments,
    split,
    standardise,
    unseen_classes,
)
from hpo_bench.datasets.sources import DatasetSummary, RemoteFile
from hpo_bench.errors import UserError, described, nearest

LOADER = "torch/1"
MINIMUM_ITEMS = 10
MOST = np.iinfo(np.int64).max
STANDARDISE = ("entry", "channel", "none")
Shared = tuple[int, ...]


class MapStyle(Protocol):
    """What is asked of a dataset: items by number, each a pair of an input and a target."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class FromTorch:
    """Items of ``training`` and of ``test``, each a pair of an input and a target.

    Those of ``training`` are put into the order of `fixed_order`, the last of them for validation;
    ``test`` stays as it is. Inputs are arrays or tensors of one shape; whole or boolean targets are
    class numbers, others are regressed. Every item is read once, so random augmentation is frozen;
    inputs keep their own type (uint8, float32 or float64).

    Args:
        name: id of the dataset; seeds derive from it.
        training: items for training and validation.
        test: items for the test; None holds out the last rint(items·test_share) of ``training``, in
            `fixed_order`.
        test_share: see ``test``.
        standardise: inputs by mean and unbiased std of the training and validation items: of each
            ``entry``, of each ``channel`` (the first axis of an item), or ``none``; then int64
            inputs are tokens.
    """

    name: str
    training: MapStyle
    test: MapStyle | None = None
    test_share: float = 0.1
    standardise: str = "entry"

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """The files that have to be downloaded: none."""
        return ()

    def summary(self, validation_share: float) -> DatasetSummary:
        """What is known of the data before the items are read: nothing."""
        return DatasetSummary(None, None, None, "your Dataset")

    def load(self, validation_share: float) -> Table:
        """Read and check all items.

        Raises:
            UserError: not map-style, an item that cannot be read, is no pair, has another shape or
                type than the first, holds NaN, infinity or numbers out of all proportion; negative
                classes; a target that is always the same; too few items; a bad share.
        """
        if self.standardise not in STANDARDISE:
            allowed = nearest(self.standardise, STANDARDISE)
            raise UserError(f"dataset.source.standardise={self.standardise}: {allowed}")
        inputs, targets = _read("dataset.source.training", self.training)
        order = fixed_order(self.name, len(inputs))
        inputs, targets = inputs[order], targets[order]
        training_rows = None
        if self.test is None:
            test = holdout(len(inputs), self.test_share)
        else:
            test_inputs, test_targets = _read("dataset.source.test", self.test)
            inputs = _joined(inputs, test_inputs, "inputs")
            targets = _joined(targets, test_targets, "targets")
            test = len(test_inputs)
            training_rows = len(order)
        parts = (*split(len(inputs) - test, validation_share), test)
        facts = {
            "sha256": _digest(inputs, targets),
            "standardise": self.standardise,
            "parts": parts,
        }
        digest = fingerprint(LOADER, facts)
        items = _Items(order, training_rows)
        table = _table(self.name, inputs, targets, parts, digest, self.standardise, items)
        content = content_of(inputs, targets, test, self.standardise)
        return replace(table, content=content, notice=_notice(table, self.standardise))


@dataclass(frozen=True)
class _Items:
    """Which item each row of the table was.

    Args:
        order: of the items of ``training``.
        training_rows: how many rows are of ``training``, if those after them are of ``test``; None
            if there is none.
    """

    order: np.ndarray
    training_rows: int | None

    def of(self, row: int) -> str:
        """Call the setting and the item that a row was, as messages begin."""
        if self.training_rows is not None and row >= self.training_rows:
            return f"dataset.source.test: item {row - self.training_rows}"
        return f"dataset.source.training: item {self.order[row]}"

    def target(self, row: int, _: int = 0) -> str:
        """Call the target of the item that a row was."""
        return f"{self.of(row)}: the target"

    def entry_of(self, row: int, _: int, entry: int) -> str:
        """Call an entry of the input, flattened, of the item that a row was."""
        return f"{self.of(row)}: entry {entry}"

    def row_of(self, entry: int, row: int, _: int) -> str:
        """Call an entry as `entry_of` does, with the entry given first."""
        return self.entry_of(row, 0, entry)


def _table(
    name: str,
    inputs: np.ndarray,
    targets: np.ndarray,
    parts: tuple[int, int, int],
    digest: str,
    how: str,
    items: _Items,
) -> Table:
    fitted = parts[0] + parts[1]
    centre, scale = _moments(inputs, fitted, how)
    if inputs.dtype.kind == "f":
        _check_inputs(inputs, fitted, centre, scale, items)
    outputs = _classes(targets, fitted, items) if targets.dtype == np.int64 else 1
    learned = parts[0] if parts[0] > 1 else fitted  # one item never varies
    check_varies(targets[:learned], Places("dataset.source.training", row="item"))
    task: Task = "classification"
    target_scale = 1.0
    if targets.dtype != np.int64:
        task = "regression"
        standardised, scales = standardise(targets[:, None], fitted)
        check_standardised(standardised, items.target)
        check_told_apart(targets[:fitted, None], standardised[:fitted], items.target)
        targets, target_scale = standardised, float(scales[0])
    return Table(name, task, inputs, targets, *parts, outputs, target_scale, digest, centre, scale)


def _check_inputs(
    inputs: np.ndarray,
    fitted: int,
    centre: np.ndarray | None,
    scale: np.ndarray | None,
    items: _Items,
) -> None:
    """Refuse inputs that are out of all proportion (`check_standardised`, `check_told_apart`).

    What is not standardised is held against the same bound.
    """
    # Of the largest and the smallest of each entry: a standardised copy of all would need twice
    # the memory.
    largest, smallest = inputs.max(axis=0), inputs.min(axis=0)
    if centre is None or scale is None:
        _check_size(inputs, np.maximum(np.abs(largest), np.abs(smallest)), items)
        return

    def standardised(values: np.ndarray) -> np.ndarray:
        result: np.ndarray = (values.astype(np.float64) - centre) / scale
        return result.reshape(len(values), -1)

    if not (np.abs(standardised(np.stack([largest, smallest]))) < FARTHEST).all():
        for row in range(len(inputs)):  # to say which
            check_standardised(standardised(inputs[row : row + 1]), partial(items.entry_of, row))
    flat = inputs[:fitted].reshape(fitted, -1)
    centres = np.broadcast_to(centre, inputs.shape[1:]).reshape(-1)
    scales = np.broadcast_to(scale, inputs.shape[1:]).reshape(-1)
    # Only entries that may have marks for missing values are looked at one by one.
    for entry in np.flatnonzero(np.maximum(flat.max(axis=0), -flat.min(axis=0)) >= FILLED):
        values = flat[:, [entry]].astype(np.float64)
        far = (values - centres[entry]) / scales[entry]
        check_told_apart(values, far, partial(items.row_of, int(entry)))


def _check_size(inputs: np.ndarray, largest: np.ndarray, items: _Items) -> None:
    if (largest < FARTHEST).all():
        return
    row, *_ = (int(at) for at in np.argwhere(np.abs(inputs) >= FARTHEST)[0])
    raise UserError(
        f"{items.of(row)}: holds {np.abs(inputs[row]).max():g} in size "
        f"(allowed: below {FARTHEST:g}, since it is not standardised); correct it, or leave it out"
    )


def _notice(table: Table, how: str) -> str:
    """Say in one line what was made of the items."""
    shape = " x ".join(map(str, table.inputs.shape[1:]))
    scaling = "as they are" if how == "none" else f"standardised by {how}"
    target = "a floating-point target" if table.task == "regression" else f"{table.outputs} classes"
    unseen = ", ".join(map(str, unseen_classes(table)))
    text = f"{table.task} of {target} by inputs {shape} of {table.inputs.dtype}, {scaling}"
    return text + f"; in no training item, so never learned: {unseen}" * bool(unseen)


def _moments(
    inputs: np.ndarray, fitted: int, how: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if how == "none":
        # Bytes become numbers on their way to the device, by these two.
        return (np.zeros(1), np.ones(1)) if inputs.dtype == np.uint8 else (None, None)
    if inputs.dtype == np.int64:
        raise UserError(
            "dataset.source.training: inputs are whole numbers of more than 8 bits; "
            "make them floating-point, or set dataset.source.standardise=none if they are tokens"
        )
    axes = tuple(range(1, inputs.ndim - 1)) if how == "channel" else ()
    return moments(inputs, fitted, axes)


def _classes(targets: np.ndarray, fitted: int, items: _Items) -> int:
    """Count the classes.

    Raises:
        UserError: a negative one, only one, or too many to be classes.
    """
    low, count = int(targets.min()), int(targets[:fitted].max()) + 1
    if low < 0:
        raise UserError(
            f"{items.of(int(targets.argmin()))}: class {low} is not allowed, classes count from 0"
        )
    if int(targets.max()) >= count:
        raise UserError(
            f"dataset.source.test: class {targets.max()} is not among those of the other items, "
            f"0 to {count - 1}"
        )
    if not 2 <= count <= max(fitted // 2, 2):
        raise UserError(
            f"dataset.source.training: {count} classes in {fitted} items; "
            "whole targets are class numbers, make them floating-point for regression"
        )
    return count


def _joined(first: np.ndarray, more: np.ndarray, what: str) -> np.ndarray:
    if (first.shape[1:], first.dtype) != (more.shape[1:], more.dtype):
        raise UserError(
            f"dataset.source.test has {what} of {more.dtype} {more.shape[1:]}, "
            f"dataset.source.training of {first.dtype} {first.shape[1:]}"
        )
    return np.concatenate([first, more])


def _digest(inputs: np.ndarray, targets: np.ndarray) -> str:
    digest = hashlib.sha256(f"{inputs.dtype} {inputs.shape} {targets.dtype}".encode())
    for array in (inputs, targets):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(key: str, dataset: MapStyle) -> tuple[np.ndarray, np.ndarray]:
    """Read all inputs (N, …) and targets (N,), int64 for classes and float64 otherwise."""
    count = _length(key, dataset)
    first_input, first_target = _pair(key, dataset, 0)
    inputs, targets = _room(key, count, first_input), _room(key, count, first_target)
    for number in range(count):
        values, target = _pair(key, dataset, number)
        for one, first, what in ((values, first_input, "input"), (target, first_target, "target")):
            if (one.shape, one.dtype) != (first.shape, first.dtype):
                raise UserError(
                    f"{key}: the {what} of item {number} is {one.dtype} {one.shape}, "
                    f"that of item 0 {first.dtype} {first.shape}; all must be alike"
                )
        inputs[number], targets[number] = values, target
    _usable(key, inputs, "input")
    _usable(key, targets, "target")
    return inputs, targets


def _length(key: str, dataset: MapStyle) -> int:
    name = type(dataset).__name__
    if isinstance(dataset, Iterable) and not hasattr(type(dataset), "__getitem__"):
        raise UserError(
            f"{key}: {name} can only be gone through; "
            "a map-style Dataset, with items by number, is needed"
        )
    try:
        count = len(dataset)
    except (TypeError, NotImplementedError):
        raise UserError(f"{key}: {name} has no length; a map-style Dataset is needed") from None
    except (Exception, SystemExit) as error:  # the user's code
        raise UserError(
            f"{key}: {name} has no length ({described(error)}); a map-style Dataset is needed"
        ) from None
    if count < (MINIMUM_ITEMS if key.endswith("training") else 1):
        raise UserError(
            f"{key} has {count} items; at least {MINIMUM_ITEMS} (for the test 1) are needed"
        )
    return count


def _room(key: str, count: int, like: np.ndarray) -> np.ndarray:
    """Make an empty array for ``count`` values such as one of them.

    Raises:
        UserError: no memory holds it: a dataset may give any number as its length.
    """
    try:
        return np.empty((count, *like.shape), like.dtype)
    except (MemoryError, ValueError) as error:
        raise UserError(
            f"{key}: {count} items of {like.nbytes} bytes do not fit into memory ({error})"
        ) from None


def _pair(key: str, dataset: MapStyle, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Read one item as an input of at least one dimension and a target without any."""
    try:
        item = dataset[number]
    except (Exception, SystemExit) as error:  # the user's code
        raise UserError(
            f"{key}: item {number} cannot be read: {type(error).__name__}: {_line(error)}"
        ) from None
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise UserError(
            f"{key}: item {number} is {type(item).__name__}, not a pair (input, target)"
        )
    values = _numbers(key, number, "input", item[0], _input_type)
    target = _numbers(key, number, "target", item[1], _target_type)
    if target.size != 1:
        raise UserError(
            f"{key}: the target of item {number} is of shape {target.shape}; one number is needed"
        )
    return np.atleast_1d(values), target.reshape(())


def _numbers(
    key: str, number: int, what: str, value: Any, type_of: Callable[[np.dtype], type | None]
) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as error:  # tensors on a GPU or with gradients, lists of unequal length
        raise UserError(f"{key}: the {what} of item {number} is no array: {_line(error)}") from None
    if np.ma.is_masked(value):
        raise UserError(f"{key}: the {what} of item {number} is masked in places; fill these in")
    dtype = type_of(array.dtype)
    if dtype is None or array.size == 0:
        kind = array.dtype if array.size else "empty"
        raise UserError(f"{key}: the {what} of item {number} is {kind}, not real numbers")
    if array.dtype.kind == "u" and dtype == np.int64 and array.max() > MOST:
        raise UserError(
            f"{key}: the {what} of item {number} holds {array.max()}; allowed: up to {MOST}"
        )
    return array.astype(dtype, copy=False)


def _input_type(dtype: np.dtype) -> type | None:
    """The type that inputs are stored in: their own where it is uint8, float32 or float64."""
    if dtype == np.uint8 or dtype.kind == "b":
        return np.uint8
    if dtype.kind == "f":
        return np.float64 if dtype.itemsize > 4 else np.float32
    return np.int64 if dtype.kind in "iu" else None


def _target_type(dtype: np.dtype) -> type | None:
    return {"b": np.int64, "i": np.int64, "u": np.int64, "f": np.float64}.get(dtype.kind)


def _usable(key: str, values: np.ndarray, what: str) -> None:
    """Refuse NaN, infinity, and what does not fit into float32."""
    if values.dtype.kind != "f" or np.abs(values).max() < LARGEST:
        return
    for number, value in enumerate(values):
        if not np.isfinite(value).all():
            raise UserError(f"{key}: the {what} of item {number} holds NaN or infinity")
        if not (largest := np.abs(value).max()) < LARGEST:
            raise UserError(
                f"{key}: the {what} of item {number} holds {largest:g} in size; "
                f"allowed: below {LARGEST:g} (a mark for missing values?)"
            )


def _line(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())
    except Exception:  # a class whose __str__ fails
        return "no message"
