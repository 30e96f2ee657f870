"""One's own map-style Dataset: what it becomes, and one clear line for whatever is wrong with
it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from hpo_bench.datasets.preparation import fixed_order, standardise
from hpo_bench.datasets.torch_dataset import FromTorch
from hpo_bench.errors import UserError

ITEMS = 30


def tensors(items: int = ITEMS, seed: int = 0, shape: tuple[int, ...] = (3,)) -> TensorDataset:
    """Inputs in float32 and classes 0 to 2."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(items, *shape, generator=generator)
    return TensorDataset(inputs, torch.arange(items) % 3)


class Items(Dataset):
    """Items that a function makes of their number; remembers which were asked for."""

    def __init__(self, item: Callable[[int], Any], count: int = ITEMS) -> None:
        self.item, self.count, self.asked = item, count, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        return self.item(index)


def test_training_items_are_in_the_fixed_order_and_test_items_as_they_are() -> None:
    training, test = tensors(), tensors(6, seed=1)
    loaded = FromTorch("mine", training, test).load(0.2)
    order = fixed_order("mine", ITEMS)
    np.testing.assert_array_equal(
        loaded.inputs, np.concatenate([training.tensors[0].numpy()[order], test.tensors[0]])
    )
    np.testing.assert_array_equal(
        loaded.targets, np.concatenate([training.tensors[1].numpy()[order], test.tensors[1]])
    )
    assert loaded.inputs.dtype == np.float32
    assert (loaded.task, loaded.outputs, loaded.training, loaded.validation, loaded.test) == (
        "classification",
        3,
        24,
        6,
        6,
    )


def test_without_test_items_the_last_of_the_fixed_order_are_held_out() -> None:
    training = tensors()
    loaded = FromTorch("mine", training, test_share=0.2).load(0.25)
    np.testing.assert_array_equal(
        loaded.inputs, training.tensors[0].numpy()[fixed_order("mine", ITEMS)]
    )
    assert (loaded.training, loaded.validation, loaded.test) == (18, 6, 6)


def test_entries_or_channels_are_standardised_by_the_known_items() -> None:
    loaded = FromTorch("mine", tensors(shape=(2, 4, 5)), test_share=0.2).load(0.25)
    expected, _ = standardise(loaded.inputs.reshape(ITEMS, -1).astype(np.float64), 24)
    found = (loaded.inputs - loaded.centre) / loaded.scale
    np.testing.assert_allclose(found.reshape(ITEMS, -1), expected, atol=1e-12)
    by_channel = FromTorch(
        "mine", tensors(shape=(2, 4, 5)), test_share=0.2, standardise="channel"
    ).load(0.25)
    assert by_channel.centre is not None
    assert by_channel.centre.shape == (2, 1, 1)
    known = ((by_channel.inputs - by_channel.centre) / by_channel.scale)[:24]
    np.testing.assert_allclose(known.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(
        known.reshape(24, 2, 20).swapaxes(1, 2).reshape(-1, 2).std(axis=0, ddof=1), 1
    )
    as_they_are = FromTorch("mine", tensors(), standardise="none").load(0.25)
    assert as_they_are.centre is None


def test_bytes_stay_bytes_until_they_are_moved() -> None:
    def image(index: int) -> Any:
        return np.full((2, 2), index, np.uint8), index % 2 == 0

    loaded = FromTorch("mine", Items(image), test_share=0.2).load(0.25)
    assert loaded.inputs.dtype == np.uint8
    assert loaded.scale is not None
    np.testing.assert_allclose(loaded.scale, loaded.inputs[:24].std(axis=0, ddof=1))
    assert set(loaded.targets) == {0, 1}
    raw = FromTorch("mine", Items(image), standardise="none").load(0.25)
    assert (raw.centre, raw.scale) == (0, 1)


def test_floating_point_targets_are_regressed() -> None:
    loaded = FromTorch(
        "mine", Items(lambda index: (torch.tensor([1.0, index]), torch.tensor([index / 7])))
    ).load(0.2)
    known = loaded.training + loaded.validation
    values = np.arange(ITEMS)[fixed_order("mine", ITEMS)] / 7
    assert (loaded.task, loaded.outputs, loaded.targets.shape) == ("regression", 1, (ITEMS, 1))
    np.testing.assert_allclose(
        loaded.targets, standardise(np.float32(values)[:, None].astype(float), known)[0]
    )
    assert loaded.target_scale == pytest.approx(values[:known].std(ddof=1), rel=1e-6)


def test_tokens_are_taken_as_they_are_where_nothing_is_standardised() -> None:
    tokens = Items(lambda index: (torch.tensor([index, 7]), index % 2))
    assert FromTorch("mine", tokens, standardise="none").load(0.2).inputs.dtype == np.int64
    with pytest.raises(UserError, match=r"standardise=none if they are tokens"):
        FromTorch("mine", tokens).load(0.2)


def test_every_item_is_read_once_and_the_first_twice() -> None:
    items = Items(lambda index: (np.array([index, 0.5]), index % 2))
    FromTorch("mine", items).load(0.2)
    assert items.asked == [0, *range(ITEMS)]


def test_the_fingerprint_is_that_of_the_content() -> None:
    same = FromTorch("mine", Items(lambda index: tensors()[index])).load(0.2).fingerprint
    assert FromTorch("mine", tensors()).load(0.2).fingerprint == same
    options: list[dict[str, Any]] = [
        {},
        {"standardise": "none"},
        {"test_share": 0.2},
        {"test": tensors(6)},
    ]
    prints = {
        FromTorch("mine", tensors(seed=seed), **option).load(0.2).fingerprint
        for seed in (0, 1)
        for option in options
    }
    assert len(prints) == 8
    assert FromTorch("mine", tensors()).load(0.5).fingerprint != same


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        yield 1, 2


def unlike(value: Any, at: int = 7) -> Items:
    """Good items but for one."""
    return Items(lambda index: value if index == at else (np.array([index, 1.0]), index % 2))


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


def mute(index: int) -> Any:
    raise Mute


class Long(Items):
    def __init__(self, length: int) -> None:
        super().__init__(lambda index: (np.array([index, 1.0]), index % 2))
        self.length = length

    def __len__(self) -> int:
        return self.length


TRAINING = r"^dataset\.source\.training: "
WRONG: dict[str, tuple[Any, str]] = {
    "a stream": (Stream(), f"{TRAINING}Stream has no length; a map-style Dataset"),
    "too few": (tensors(9), r"^dataset\.source\.training has 9 items; at least 10"),
    "raises": (Items(lambda index: {}[index]), f"{TRAINING}item 0 cannot be read: KeyError: 0"),
    "raises later": (
        Items(lambda index: ([1.0], [1, 0, 1][index])),
        f"{TRAINING}item 3 cannot be read: IndexError",
    ),
    "no pair": (TensorDataset(torch.zeros(20, 2)), f"{TRAINING}item 0 is tuple, not a pair"),
    "a number": (Items(lambda index: index), f"{TRAINING}item 0 is int, not a pair"),
    "another shape": (
        unlike((np.zeros(3), 1)),
        f"{TRAINING}the input of item 7 is float64 (3,), that of item 0 ",
    ),
    "another type": (
        unlike((np.zeros(2, np.float32), 1)),
        f"{TRAINING}the input of item 7 is float32 (2,)",
    ),
    "another target": (
        unlike((np.zeros(2), 1.5)),
        f"{TRAINING}the target of item 7 is float64 (), that of item 0 ",
    ),
    "nodata": (
        unlike((np.array([1, -1.797e308]), 1)),
        f"{TRAINING}the input of item 7 holds 1.797e+308 in size; allowed: below 3.4e+38".replace(
            "+", r"\+"
        ),
    ),
    "huge target": (
        Items(lambda index: (np.array([index, 1.0]), 1e39 if index == 7 else float(index))),
        f"{TRAINING}the target of item 7 holds 1e+39 in size".replace("+", r"\+"),
    ),
    "long class": (
        Items(lambda index: (np.array([index, 1.0]), np.uint64(2**63))),
        f"{TRAINING}the target of item 0 holds 9223372036854775808; allowed: up to "
        "9223372036854775807",
    ),
    "empty input": (Items(lambda index: ([], 1)), f"{TRAINING}the input of item 0 is empty"),
    "NaN": (
        unlike((np.array([1, np.nan]), 1)),
        f"{TRAINING}the input of item 7 holds NaN or infinity",
    ),
    "infinity": (
        Items(lambda index: (np.ones(2), float("inf") if index == 4 else 0.5)),
        f"{TRAINING}the target of item 4 holds NaN or infinity",
    ),
    "text": (
        Items(lambda index: ("word", 1)),
        f"{TRAINING}the input of item 0 is <U4, not real numbers",
    ),
    "complex": (
        Items(lambda index: ([1j], 1)),
        f"{TRAINING}the input of item 0 is complex128, not real numbers",
    ),
    "ragged": (
        Items(lambda index: ([[1], [1, 2]], 1)),
        f"{TRAINING}the input of item 0 is no array: ",
    ),
    "gradients": (
        Items(lambda index: (torch.zeros(2, requires_grad=True), 1)),
        f"{TRAINING}the input of item 0 is no array: ",
    ),
    "several targets": (
        Items(lambda index: ([1.0], [1, 2])),
        f"{TRAINING}the target of item 0 is of shape (2,); one",
    ),
    "negative": (
        Items(lambda index: ([1.0], index % 2 - 1)),
        TRAINING + "item [0-9]*: class -1 is not allowed",
    ),
    "one class": (Items(lambda index: ([1.0], 0)), f"{TRAINING}1 classes in 27 items"),
    "no classes": (
        Items(lambda index: ([1.0], index)),
        f"{TRAINING}30 classes in 27 items; whole targets are class",
    ),
    "ends the process": (
        Items(lambda index: sys.exit(3)),
        f"{TRAINING}item 0 cannot be read: SystemExit: 3",
    ),
    "an error without text": (Items(mute), f"{TRAINING}item 0 cannot be read: Mute: no message"),
    "a length below zero": (Long(-1), f"{TRAINING}Long has no length (ValueError"),
    "a length of no number": (Long(2**70), f"{TRAINING}Long has no length (OverflowError"),
    "a length that cannot be": (
        Long(10**15),
        f"{TRAINING}1000000000000000 items of 16 bytes do not fit into memory",
    ),
    "masked": (
        Items(lambda index: (np.ma.masked_array([1.0, 2.0], [True, False]), 1)),
        f"{TRAINING}the input of item 0 is masked in places",
    ),
    "a mark": (
        unlike((np.array([1e20, 1.0]), 1)),
        f"{TRAINING}item 7: entry 0: 1e.20 is so large that the other val",
    ),
    "constant": (
        Items(lambda index: ([1.0], 0.5)),
        f"{TRAINING}the target is the same in every item",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_clear_line(case: str) -> None:
    dataset, complaint = WRONG[case]
    with pytest.raises(UserError, match=complaint.replace("(", r"\(").replace(")", r"\)")) as error:
        FromTorch("mine", dataset).load(0.2)
    assert "\n" not in str(error.value)


def test_marks_in_what_is_not_standardised_and_in_targets_are_located() -> None:
    with pytest.raises(UserError, match=r"training: item 7: holds 1e\+20 in size"):
        FromTorch("mine", unlike((np.array([1e20, 1.0]), 1)), standardise="none").load(0.2)
    odd = Items(lambda index: (np.array([index, 1.0]), 1e20 if index == 7 else index / 3))
    with pytest.raises(UserError, match=r"training: item 7: the target: 1e\+20 is so large"):
        FromTorch("mine", odd).load(0.2)


def test_test_items_have_to_be_like_the_others() -> None:
    with pytest.raises(
        UserError, match=re.escape("dataset.source.test has inputs of float32 (4,), ")
    ):
        FromTorch("mine", tensors(), tensors(6, shape=(4,))).load(0.2)
    with pytest.raises(UserError, match=r"dataset\.source\.test: class 9 is not among .* 0 to 2"):
        FromTorch("mine", tensors(), Items(lambda index: (torch.zeros(3), 9), 5)).load(0.2)
    with pytest.raises(UserError, match=r"dataset\.source\.test has 0 items"):
        FromTorch("mine", tensors(), tensors(0)).load(0.2)
    with pytest.raises(
        UserError, match=r"dataset\.source\.standardise=chanel: did you mean channel"
    ):
        FromTorch("mine", tensors(), standardise="chanel").load(0.2)


YAML = """# @package _global_
dataset:
  name: mine
  label: Mine
  task: classification
  metric: error
  metric_label: Test error
  metric_scale: 1
  offline: true
  source:
    _target_: hpo_bench.datasets.torch_dataset.FromTorch
    name: mine
    training: {_target_: HERE.Spiral, items: 60}
    test: {_target_: HERE.Spiral, items: 12, seed: 1}
hyperparameter_updates: 4
batch_size: 16
record_every: 10
"""


def test_a_yaml_outside_the_package_names_the_dataset(tmp_path: Path) -> None:
    from hpo_bench.running.execute import execute
    from hpo_bench.settings.compose import compose
    from hpo_bench.settings.parse import parse

    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    (tmp_path / "mine" / "dataset" / "spiral.yaml").write_text(
        YAML.replace("HERE", __name__), encoding="utf-8"
    )
    overrides = ["dataset=spiral", f"results_dir={tmp_path}", "device=cpu", "repetitions=2"]
    run = execute(parse(compose(overrides, tmp_path / "mine"))).run
    assert (run.dataset, run.seeds, run.config["dataset"]["label"]) == ("mine", (0, 1), "Mine")


class Spiral(Dataset):
    """Points on two spirals."""

    def __init__(self, items: int, seed: int = 0) -> None:
        angle = np.random.default_rng(seed).uniform(0, 6, items)
        self.labels = np.arange(items) % 2
        self.points = np.stack(
            [angle * np.cos(angle + 3 * self.labels), angle * np.sin(angle + 3 * self.labels)], 1
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor(self.points[index], dtype=torch.float32), int(self.labels[index])


def test_no_module_of_datasets_imports_torch() -> None:
    code = (
        "import importlib, pkgutil, sys; import hpo_bench.datasets as package; "
        "[importlib.import_module(f'hpo_bench.datasets.{m.name}') for m in "
        "pkgutil.iter_modules(package.__path__)]; "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False"]


def far(at: int, count: int = ITEMS) -> Items:
    """Inputs and targets of which one is out of all proportion."""
    return Items(
        lambda index: (np.array([1e30 if index == at else float(index % 5), 1.0]), float(index)),
        count,
    )


def test_items_out_of_all_proportion_are_located() -> None:
    last = int(fixed_order("mine", ITEMS)[-1])
    with pytest.raises(
        UserError,
        match=rf"{TRAINING}item {last}: entry 0: lies .* standard deviations from the mean",
    ):
        FromTorch("mine", far(last)).load(0.2)
    with pytest.raises(UserError, match=r"^dataset\.source\.test: item 2: entry 0: lies"):
        FromTorch("mine", far(-1), far(2, 5)).load(0.2)
    target = Items(
        lambda index: (np.array([float(index % 5), 1.0]), 1e30 if index == last else float(index))
    )
    with pytest.raises(UserError, match=rf"{TRAINING}item {last}: the target: lies"):
        FromTorch("mine", target).load(0.2)


def test_what_was_made_of_the_items_is_said() -> None:
    assert FromTorch("mine", tensors()).load(0.2).notice == (
        "classification of 3 classes by inputs 3 of float32, standardised by entry"
    )
    last = int(fixed_order("mine", ITEMS)[ITEMS - 4])  # for validation
    rare = Items(lambda index: (np.array([index, 1.0]), 2 if index == last else index % 2))
    notice = FromTorch("mine", rare, standardise="none").load(0.2).notice
    assert notice == (
        "classification of 3 classes by inputs 2 of float64, as they are; in no training item, so "
        "never learned: 2"
    )
