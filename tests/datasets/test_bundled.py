"""The sets that need no download."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

from hpo_bench.datasets.bundled import Bundled
from hpo_bench.datasets.preparation import fixed_order, standardise
from hpo_bench.errors import UserError
from hpo_bench.settings.catalogue import read_dataset

RAW = {
    "diabetes": lambda: load_diabetes(return_X_y=True, scaled=False),
    "digits": lambda: load_digits(return_X_y=True),
}


@pytest.fixture(params=sorted(RAW))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_rows_are_scikit_learns_in_the_fixed_order(name: str) -> None:
    inputs, targets = RAW[name]()
    order = fixed_order(name, len(inputs))
    loaded = read_dataset(name).source.load(0.2)
    known = loaded.training + loaded.validation
    np.testing.assert_array_equal(loaded.inputs, standardise(inputs[order], known)[0])
    if loaded.task == "classification":
        np.testing.assert_array_equal(loaded.targets, targets[order])
        assert loaded.targets.dtype == np.int64
        assert (loaded.outputs, loaded.target_scale) == (len(np.unique(targets)), 1.0)
    else:
        np.testing.assert_array_equal(loaded.targets, standardise(targets[order, None], known)[0])
        assert loaded.target_scale == pytest.approx(targets[order][:known].std(ddof=1))
        assert loaded.outputs == 1


def test_the_parts_are_those_of_the_listing(name: str) -> None:
    dataset = read_dataset(name)
    loaded = dataset.source.load(0.2)
    assert dataset.summary.parts == (loaded.training, loaded.validation, loaded.test)
    assert loaded.inputs.shape == (dataset.summary.rows, dataset.summary.inputs)
    assert loaded.task == dataset.task
    assert loaded.test == round(0.1 * len(loaded.inputs))
    assert dataset.source.files == ()


def test_the_test_rows_stay_the_same_whatever_the_validation_share(name: str) -> None:
    source = read_dataset(name).source
    one, other = source.load(0.2), source.load(0.5)
    assert one.fingerprint != other.fingerprint
    np.testing.assert_array_equal(one.inputs, other.inputs)
    assert one.test == other.test
    assert source.load(0.2).fingerprint == one.fingerprint


def test_every_digit_is_in_every_part() -> None:
    loaded = read_dataset("digits").source.load(0.2)
    cuts = [loaded.training, loaded.training + loaded.validation]
    for part in np.split(loaded.targets, cuts):
        assert set(part) == set(range(10))


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"validation_share=1\.0"):
        read_dataset("diabetes").source.load(1.0)
    with pytest.raises(UserError, match=r"dataset\.test_share=0\.0001 leaves no test row of 442"):
        Bundled("diabetes", 442, 10, 0.0001).load(0.2)
