"""``hpo-bench audit``: options, overrides, one's own methods, and its errors in one line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hpo_bench.cli import app
from hpo_bench.cli.audit import factors, numbers
from hpo_bench.errors import UserError

SMALL = ("repetitions=2", "model.hidden=[4]", "--intervals", "3", "--look-backs", "1..3")
MINE = """# @package _global_
defaults: [ours_wd_lr_m]
method:
  name: mine
  label: Mine
  estimator: {_target_: tests.experiments.test_audit.Wrong, look_back: "${look_back}"}
"""


def audit(tmp_path: Path, *arguments: str) -> None:
    app(["audit", *arguments, f"results_dir={tmp_path}"], standalone_mode=False)


def stored(tmp_path: Path) -> pd.DataFrame:
    (file,) = (tmp_path / "audits").glob("*/hypergradient_error.parquet")
    return pd.read_parquet(file)


def test_a_line_a_cell_and_the_rows_behind_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit(tmp_path, *SMALL)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["T", "i", "cosine"]
    assert [line.split()[:2] for line in lines[1:4]] == [["3", "1"], ["3", "2"], ["3", "3"]]
    assert lines[1].split()[2] == "1.0000"  # one Neumann term is exact
    assert lines[-1].startswith(str(tmp_path / "audits"))
    assert len(stored(tmp_path)) == 3 * 2 * 4


def test_it_is_in_double_precision_unless_told_otherwise(tmp_path: Path) -> None:
    for precision, extra in (("float64", []), ("float32", ["precision=float32"])):
        audit(tmp_path / precision, *SMALL, *extra)
        exact = stored(tmp_path / precision).exact.dropna()
        assert (exact == exact.astype("float32")).all() == (precision == "float32")


def test_a_method_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own" / "method").mkdir(parents=True)
    (tmp_path / "own" / "method" / "mine.yaml").write_text(MINE, encoding="utf-8")
    audit(tmp_path, *SMALL, "method=mine", "--config-dir", str(tmp_path / "own"))
    assert (stored(tmp_path).query("look_back == 1").cosine < -0.999).all()
    assert "mine" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1..4", (1, 2, 3, 4)), ("5,2", (2, 5)), ("7", (7,)), ("1..2,2..3", (1, 2, 3))],
)
def test_numbers(text: str, expected: tuple[int, ...]) -> None:
    assert numbers("--intervals", text) == expected


def test_discounts_have_lines_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    carried = ("method=ours_discounted", "--discounts", "1,0", "--hyper-update", "2")
    audit(tmp_path, *SMALL[:4], "--look-backs", "6", *carried)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["γ", "T", "i", "cosine"]
    assert [line.split()[:3] for line in lines[1:3]] == [["0", "3", "6"], ["1", "3", "6"]]
    assert lines[2].split()[3] == "1.0000"  # undiscounted tangents are exact


def test_over_time_has_a_line_for_each_moment_and_horizon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = (*SMALL[:2], "hyperparameter_updates=4", "--moments", "1,4", "--horizons", "1,5")
    audit(tmp_path, "--over-time", *small)
    lines = capsys.readouterr().out.splitlines()
    places = [["10", "1"], ["10", "5"], ["40", "1"], ["40", "5"]]
    assert [line.split()[:2] for line in lines[1:5]] == places
    (file,) = (tmp_path / "audits").glob("*/over_time.parquet")
    assert len(pd.read_parquet(file)) == 2 * 2 * 2 * 4


@pytest.mark.parametrize(("text", "expected"), [("1,0", (0.0, 1.0)), ("0.95", (0.95,))])
def test_factors(text: str, expected: tuple[float, ...]) -> None:
    assert factors("--discounts", text) == expected


@pytest.mark.parametrize("text", ["", "1.1", "-0.1", "nan", "a", "0..1", "0.9,"])
def test_what_is_no_factor_is_one_line(text: str) -> None:
    with pytest.raises(
        UserError, match=r"--discounts .*: must be numbers from 0 to 1, as 0,0.95,1"
    ):
        factors("--discounts", text)


@pytest.mark.parametrize("text", ["", "0", "3..1", "1..", "a", "1-3", "²", "-1"])
def test_what_is_no_number_is_one_line(text: str) -> None:
    with pytest.raises(
        UserError, match=r"--intervals .*: must be whole numbers from 1 up, as 1..10 or 1,2,5"
    ):
        numbers("--intervals", text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=random"], "method=random: tunes nothing"),
        (["method=ours_wd_lr_n"], "did you mean ours_wd_lr_m"),
        (["look_bakc=3"], "look_bakc: no such setting; did you mean look_back"),
        (["--hyper-update", "0"], "--hyper-update 0: must be"),
        (["--over-time", "--look-backs", "3"], "--look-backs 3: not with --over-time"),
        (["--over-time", "--hyper-update", "3"], "--hyper-update 3: not with --over-time"),
        (["--horizons", "3"], "--horizons 3: only with --over-time"),
        (["--over-time", "--moments", "0"], "--moments 0: must be whole numbers"),
        (["--over-time", "--moments", "401"], "--moments 401: the training has"),
        (["--discounts", "0.5"], "--discounts: method=ours_wd_lr_m has no discount"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
        (
            ["--intervals", "2", "--look-backs", "3"],
            "--look-backs 3: longer than every interval; at most 2",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        audit(tmp_path, *arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "audits").exists()
