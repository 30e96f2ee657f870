"""What the README shows under "Extending it" works as it stands there."""

from pathlib import Path

import numpy as np
import pytest

from hpo_bench import figures
from hpo_bench.analysis.frames import finals
from hpo_bench.analysis.selection import find
from hpo_bench.figures.common.base import Options
from hpo_bench.figures.common.make import Request, make
from hpo_bench.running.execute import execute
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from tests.make_store import make_run

README = Path(__file__).parents[1] / "README.md"
pytestmark = pytest.mark.skipif(
    not README.is_file(), reason="the README is not part of what is installed"
)


def shown(language: str) -> str:
    """The one piece of code in that language."""
    section = (
        README.read_text(encoding="utf-8").partition("## Extending it")[2].partition("\n## ")[0]
    )
    _, *pieces = section.split(f"```{language}\n")
    (piece,) = pieces
    return piece.partition("```")[0]


def test_a_method_is_one_yaml(tmp_path):
    own = tmp_path / "mine" / "method" / "slow.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(shown("yaml"), encoding="utf-8")
    line = [
        "dataset=diabetes",
        "repetitions=2",
        "hyperparameter_updates=3",
        f"results_dir={tmp_path}",
    ]
    slow = execute(parse(compose([*line, "method=slow"], config_dir=own.parents[1]))).run
    fast = execute(parse(compose([*line, "method=ours_wd_lr"]))).run
    moved = []
    for run in (slow, fast):
        ended = finals([run])
        moved.append(np.abs(np.log10(ended["lr"] / ended["initial_lr"])).to_numpy())
    np.testing.assert_allclose(
        moved[0] / moved[1], 0.01 / 0.05, rtol=0.2
    )  # Adam's first steps are hyper.lr long


def test_a_figure_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "learned_lr.py").write_text(shown("python"), encoding="utf-8")
    monkeypatch.setattr(figures, "__path__", [*figures.__path__, str(tmp_path)])
    rng = np.random.default_rng(0)
    for method in ("random", "ours_wd_lr"):
        make_run(
            tmp_path,
            method,
            "uci_energy",
            rng.lognormal(size=(6, 3)),
            lr=rng.lognormal(size=(6, 3)),
        )
    assert "learned_lr" in figures.names()
    request = Request(
        str(tmp_path), find(tmp_path), tmp_path / "out", ("png",), Options(resamples=20)
    )
    (made,) = make(["learned_lr"], request)
    assert {path.name for path in made.files} == {
        f"learned_lr.{kind}" for kind in ("png", "csv", "json")
    }
    assert any("ours_wd_lr_m" in str(lack) for lack in made.missing)
