"""One's own table through the command: what is said of it, what its results are called, and
mistakes in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpo_bench.store import runs
from tests.cli.conftest import Call

RUN = (
    "run",
    "dataset=csv",
    "dataset.target=price",
    "method=random",
    "repetitions=2",
    "hyperparameter_updates=2",
)
ROWS = 112


def cells(row: int) -> list[str]:
    angles = np.sin(row * np.array([1.7, 2.3, 3.1]))
    return [f"{value:.4f}" for value in (*angles, angles.sum())]


def table(header: str = "a,b,c,price", separator: str = ",", rows: int = ROWS) -> str:
    return "\n".join([header, *(separator.join(cells(row)) for row in range(rows)), ""])


def test_two_files_in_one_store_are_told_apart(call: Call, tmp_path: Path) -> None:
    (tmp_path / "house.csv").write_text(table())
    (tmp_path / "[flat].csv").write_text(table(rows=ROWS - 10))
    for file in ("house.csv", "[flat].csv"):
        code, _, err = call(*RUN, f"dataset.path='{file}'")
        assert code == 0
        assert "regression of 'price'; 3 inputs: a, b, c; separator comma" in err
    labels = {run.config["dataset"]["label"] for run in runs.scan(tmp_path / "results")}
    assert labels == {"house.csv: price", "[flat].csv: price"}


def test_a_label_of_ones_own_is_kept_and_is_no_other_run(call: Call, tmp_path: Path) -> None:
    (tmp_path / "house.csv").write_text(table())
    assert call(*RUN, "dataset.path=house.csv", "dataset.label=Houses")[0] == 0
    assert call(*RUN, "dataset.path=house.csv")[0] == 0
    (run,) = runs.scan(tmp_path / "results")
    assert run.config["dataset"]["label"] == "Houses"


def test_classes_are_said_before_training(call: Call, tmp_path: Path) -> None:
    lines = table().splitlines()
    (tmp_path / "t.csv").write_text(
        "\n".join(
            [
                lines[0],
                *(
                    f"{line[:-1]}{'xy'[at % 2]}"
                    for at, line in enumerate(line.rsplit(",", 1)[0] + ",k_" for line in lines[1:])
                ),
            ]
        )
    )
    code, _, err = call(*RUN, "dataset.path=t.csv")
    assert code == 0
    assert "classification of 'price' into 2 classes (kx=0, ky=1)" in err


MISTAKES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "header twice": (table("a,b,price,price"), (), "the column name 'price' stands 2 times"),
    "nodata": (
        table() + "1,-1.797e308,1,1\n" * 3,
        (),
        "column 'b', data row 113: -1.797e+308 is too large",
    ),
    "12.5 EUR": (
        table().replace("\n", " EUR\n").replace("price EUR", "price"),
        (),
        "target not numeric: price",
    ),
    "one row": (
        table(),
        ("model=mlp_batchnorm", "method=ours_wd_lr_m", "batch_size=20"),
        "batch_size=20: the last",
    ),
    "no header": (table().split("\n", 1)[1], (), "the first line holds numbers"),
    "directory": ("", ("dataset.path=.",), "dataset.path=. cannot be read: Is a directory"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_trained(
    call: Call, tmp_path: Path, mistake: str
) -> None:
    content, options, about = MISTAKES[mistake]
    (tmp_path / "t.csv").write_text(content)
    code, out, err = call(*RUN[:3], *RUN[4:], "method=random", "dataset.path=t.csv", *options)
    assert code == 2
    assert (out, len(err.splitlines())) == ("", 1)
    assert about in err
    assert not list((tmp_path / "results").glob("runs/*/run.json"))
