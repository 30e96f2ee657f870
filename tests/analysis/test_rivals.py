"""Which datasets and methods can be ranked."""

from __future__ import annotations

from collections.abc import Mapping

import hypothesis.strategies as st
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis.extra.numpy import arrays

from hpo_bench.analysis.rivals import compared_on_all


def there(methods_of: Mapping[str, str]) -> pd.DataFrame:
    """A letter is a method."""
    letters = sorted(set("".join(methods_of.values())))
    rows = {name: [letter in own for letter in letters] for name, own in methods_of.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=letters)


def block(methods_of: Mapping[str, str]) -> tuple[list[str], str]:
    found = compared_on_all(there(methods_of))
    return list(found.index), "".join(found.columns)


def test_a_set_with_few_methods_takes_no_method_out() -> None:
    assert block({"x": "abcdef", "y": "abcdef", "z": "ab"}) == (["x", "y"], "abcdef")


def test_a_method_that_few_sets_have_takes_no_set_out() -> None:
    assert block({"x": "abc", "y": "ab", "z": "ab"}) == (["x", "y", "z"], "ab")


def test_of_equals_the_one_with_more_sets() -> None:
    assert block({"x": "abc", "y": "abc", "z": "ab"}) == (["x", "y", "z"], "ab")


def test_one_set_is_never_a_comparison() -> None:
    assert block({"x": "abcdefgh", "y": "ab"}) == (["x", "y"], "ab")
    assert block({"x": "abcdefgh"}) == ([], "")


@given(arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_nothing_is_missing_in_it_and_no_set_or_method_could_be_added(cells: np.ndarray) -> None:
    found = compared_on_all(pd.DataFrame(cells))
    assert found.to_numpy().all()
    sets, methods = list(found.index), list(found.columns)
    if sets and methods:
        inside = cells[:, methods].all(axis=1)
        assert set(np.flatnonzero(inside)) == set(sets)
        assert set(np.flatnonzero(cells[sets].all(axis=0))) == set(methods)
