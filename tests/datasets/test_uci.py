"""The UCI sets: made-up files for what can go wrong, the real ones (where a mirror is set) against
known facts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hpo_bench.datasets.sources import RemoteFile
from hpo_bench.datasets.uci import UCI
from hpo_bench.errors import UserError
from hpo_bench.settings.catalogue import read_dataset

KNOWN, TEST, INPUTS = 16, 4, 3
ROWS = KNOWN + TEST
Make = Callable[..., UCI]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Put files on a mirror and return the source that reads them."""
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", str(tmp_path / "mirror"))

    def make(data: str, order: str, name: str = "made_up", drop: Sequence[int] = ()) -> UCI:
        folder = tmp_path / "mirror" / name
        folder.mkdir(parents=True)
        files = {}
        for key, content in {"data": data, "order": order}.items():
            (folder / f"{key}.txt").write_text(content)
            digest = hashlib.sha256(content.encode()).hexdigest()
            files[key] = RemoteFile(
                f"{key}.txt", ("https://invalid.invalid/x",), digest, len(content)
            )
        return UCI(name, files["data"], files["order"], INPUTS, KNOWN, TEST, drop)

    return make


def numbers(seed: int = 0, columns: int = INPUTS + 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 3, (ROWS, columns))


def text(table: np.ndarray) -> str:
    return "".join(" \t".join(repr(float(value)) for value in row) + "\n" for row in table)


def lines(order: Iterable[int]) -> str:
    return "".join(f"{row}\n" for row in order)


STRAIGHT = lines(range(ROWS))


def test_rows_are_indexed_by_the_order_and_standardised_by_the_known_ones(make: Make) -> None:
    table, order = numbers(), np.random.default_rng(1).permutation(ROWS)
    loaded = make(text(table), lines(order)).load(0.25)
    expected = table[order]
    mean, std = expected[:KNOWN].mean(axis=0), expected[:KNOWN].std(axis=0, ddof=1)
    np.testing.assert_allclose(loaded.inputs, ((expected - mean) / std)[:, :-1], atol=1e-14)
    np.testing.assert_allclose(loaded.targets, ((expected - mean) / std)[:, -1:], atol=1e-14)
    assert loaded.target_scale == pytest.approx(std[-1], rel=1e-14)
    assert (loaded.training, loaded.validation, loaded.test) == (12, 4, 4)
    assert (loaded.name, loaded.task, loaded.outputs) == ("made_up", "regression", 1)
    assert loaded.inputs.dtype == loaded.targets.dtype == np.float64


def test_an_order_that_repeats_rows_is_taken_as_it_is(make: Make) -> None:
    table = numbers()
    table[7] = table[3]
    repeating = [3 if row == 7 else row for row in range(ROWS)]
    loaded = make(text(table), lines(repeating), "a").load(0.25)
    straight = make(text(table), STRAIGHT, "b").load(0.25)
    assert (loaded.inputs == straight.inputs).all()
    assert (loaded.targets == straight.targets).all()


def test_numbers_never_pass_through_float32(make: Make) -> None:
    table = 1e6 + np.random.default_rng(0).normal(size=(ROWS, INPUTS + 1))
    loaded = make(text(table), STRAIGHT).load(0.25)
    back = loaded.targets[:, 0] * loaded.target_scale
    np.testing.assert_allclose(back - back[0], table[:, -1] - table[0, -1], atol=1e-9)


def test_dropped_columns_leave_the_rest_in_place(make: Make) -> None:
    table = numbers(columns=INPUTS + 2)
    dropped = make(text(table), STRAIGHT, "a", drop=[INPUTS + 1]).load(0.25)
    without = make(text(table[:, :-1]), STRAIGHT, "b").load(0.25)
    assert (dropped.inputs == without.inputs).all()
    assert (dropped.targets == without.targets).all()


def test_blank_lines_at_the_end_are_nothing(make: Make) -> None:
    table = text(numbers())
    blank = make(table + "\n", STRAIGHT, "a").load(0.25)
    assert (blank.inputs == make(table, STRAIGHT, "b").load(0.25).inputs).all()


def test_a_constant_input_is_zero_everywhere(make: Make) -> None:
    table = numbers()
    table[:, 1] = 0.998
    assert (make(text(table), STRAIGHT).load(0.25).inputs[:, 1] == 0).all()


def test_the_fingerprint_follows_what_decides_the_numbers(make: Make) -> None:
    source = make(text(numbers()), STRAIGHT, "a")
    same = make(text(numbers()), STRAIGHT, "b")
    other = make(text(numbers(1)), STRAIGHT, "c")
    reordered = make(text(numbers()), lines(reversed(range(ROWS))), "d")
    assert (
        source.load(0.25).fingerprint
        == source.load(0.24999).fingerprint
        == same.load(0.25).fingerprint
    )
    prints = {
        one.load(share).fingerprint for one in (source, other, reordered) for share in (0.25, 0.5)
    }
    assert len(prints) == 6


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_a_value_that_is_not_finite_is_located(make: Make, bad: str) -> None:
    table = numbers()
    table[4, 2] = float(bad)
    with pytest.raises(
        UserError, match=rf"data\.txt: {bad} in row 5, column 3 .*\(1 such value in the file\)$"
    ):
        make(text(table), STRAIGHT).load(0.25)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (text(numbers()[:-1]), "19 rows x 4 columns, expected 20 x 4"),
        (text(numbers(columns=3)), "20 rows x 3 columns, expected 20 x 4"),
        (text(numbers()) + "1 2\n", "not a table of numbers"),
        (text(numbers()).replace(".", "x", 1), "not a table of numbers"),
    ],
)
def test_data_of_another_shape_are_named(make: Make, data: str, complaint: str) -> None:
    with pytest.raises(UserError, match=f"data.txt .*{complaint}") as error:
        make(data, STRAIGHT).load(0.25)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("order", "complaint"),
    [
        (lines(range(1, ROWS + 1)), f"names row {ROWS}, allowed: 0 to {ROWS - 1}"),
        (lines(range(-1, ROWS - 1)), f"names row -1, allowed: 0 to {ROWS - 1}"),
        (lines(range(ROWS - 1)), "has 19 lines of 1 numbers, expected 20 of 1"),
        (STRAIGHT.replace("7\n", "7.5\n"), "not a list of row numbers"),
        (STRAIGHT.replace("\n", " "), "has 1 lines of 20 numbers, expected 20 of 1"),
    ],
)
def test_an_order_that_does_not_fit_is_named(make: Make, order: str, complaint: str) -> None:
    with pytest.raises(UserError, match=f"order.txt .*{complaint}") as error:
        make(text(numbers()), order).load(0.25)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0, 1, 0.001, 0.999])
def test_a_share_that_leaves_a_part_empty_is_refused_before_any_file_is_read(
    make: Make, share: float
) -> None:
    with pytest.raises(UserError, match=f"validation_share={share}"):
        make("no table", "no order").load(share)


# Rows, inputs, training, validation, test, mean and std of the target over training and validation
# rows.
FACTS = {
    "uci_boston": (506, 13, 364, 91, 51, 22.4325274725, 9.1427155705),
    "uci_concrete": (1030, 8, 742, 185, 103, 35.6422437972, 16.7082376164),
    "uci_energy": (768, 8, 614, 78, 76, 22.3825578035, 10.1444017606),
    "uci_kin8nm": (8192, 8, 5898, 1475, 819, 0.71560935258, 0.263370119618),
    "uci_naval": (11934, 16, 8593, 2148, 1193, 0.975009868727, 0.0147138850356),
    "uci_power": (9568, 4, 6889, 1722, 957, 454.472622227, 17.0610075495),
    "uci_wine": (1599, 11, 1151, 288, 160, 5.63238359972, 0.811312114103),
    "uci_yacht": (308, 6, 222, 55, 31, 10.4277256318, 15.1801327145),
}
SHARES = {name: 78 / 692 if name == "uci_energy" else 0.2 for name in FACTS}


@pytest.mark.parametrize("name", FACTS)
def test_what_the_listing_says_is_what_the_paper_used(name: str) -> None:
    rows, inputs, *parts = FACTS[name][:5]
    summary = read_dataset(name).summary
    assert (summary.rows, summary.inputs, summary.parts) == (rows, inputs, tuple(parts))


@pytest.mark.skipif(
    "HPO_BENCH_DATA_MIRROR" not in os.environ, reason="HPO_BENCH_DATA_MIRROR is not set"
)
@pytest.mark.parametrize("name", FACTS)
def test_the_real_files_give_the_known_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path))
    rows, inputs, training, validation, test, mean, std = FACTS[name]
    loaded = read_dataset(name).source.load(SHARES[name])
    assert loaded.inputs.shape == (rows, inputs)
    assert loaded.targets.shape == (rows, 1)
    assert (loaded.training, loaded.validation, loaded.test) == (training, validation, test)
    assert loaded.target_scale == pytest.approx(std, rel=1e-10)
    known = training + validation
    for values in (loaded.inputs[:known], loaded.targets[:known]):
        constant = values.max(axis=0) == values.min(axis=0)
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-10)
        np.testing.assert_allclose(values.std(axis=0, ddof=1), np.where(constant, 0, 1), atol=1e-10)
    raw = np.loadtxt(tmp_path / name / "data.txt")[:, : inputs + 1]
    order = np.loadtxt(tmp_path / name / "permutation_indices.txt", dtype=int)
    np.testing.assert_allclose(loaded.targets[:, 0] * std + mean, raw[order, -1], rtol=1e-9)
    assert np.isfinite(loaded.inputs).all()


@pytest.mark.skipif(
    "HPO_BENCH_DATA_MIRROR" not in os.environ, reason="HPO_BENCH_DATA_MIRROR is not set"
)
def test_only_the_two_constant_columns_of_naval_are_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path))
    inputs = read_dataset("uci_naval").source.load(0.2).inputs
    assert np.flatnonzero((inputs == 0).all(axis=0)).tolist() == [8, 11]
