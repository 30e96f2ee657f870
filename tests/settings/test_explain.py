"""What Hydra refuses, in one line with the nearest names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hpo_bench.errors import UserError
from hpo_bench.settings.compose import compose

UNKNOWN = {
    "method=ours_wd_lrm": ("method=ours_wd_lrm: no such method", "did you mean ours_wd_lr_m"),
    "dataset=uci_enrgy": ("dataset=uci_enrgy: no such dataset", "did you mean uci_energy"),
    "model=mpl": ("model=mpl: no such model", "mlp"),
    "methd=random": ("methd: no such setting", "did you mean method"),
    "sead=1": ("sead: no such setting", "did you mean seed"),
    "lr=1": ("lr: no such setting", "did you mean hyper.lr"),
    "hyper.beta=1": ("hyper.beta: no such setting", "did you mean betas"),
    "hyperr.lr=1": ("hyperr.lr: no such setting", "did you mean hyper"),
    "hydra/launcher=nothing": ("hydra/launcher=nothing: no such launcher", "basic"),
    "method=random,baydin": ("method=random,baydin names several values", "-m"),
    "seed=range(0,3)": ("seed=range(0,3) names several values", "-m"),
    "seed": ("cannot read 'seed' as key=value", ""),
    "tuned=[lr": ("cannot read 'tuned=[lr' as key=value", ""),
    "~nothing": ("Could not delete from config. 'nothing'", "does not exist"),
    "model=null": ("model=null: must be a name, not null", ""),
}


@pytest.mark.parametrize("override", UNKNOWN)
def test_what_does_not_compose_is_one_line_with_the_nearest_names(override: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([override])
    assert str(caught.value).startswith(UNKNOWN[override][0])
    assert UNKNOWN[override][1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_nearest_names_include_those_of_a_further_folder(layers: Path) -> None:
    (layers / "method" / "broken.yaml").write_text("a: [", encoding="utf-8")
    (layers / "dataset" / "mine.yaml").write_text(
        "dataset: {name: mine, favourite: 1}\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"did you mean favourite"):
        compose(["dataset.favorite=2"], layers)
    with pytest.raises(UserError, match=r"method=min: no such method; did you mean mine"):
        compose(["method=min"], layers)


def test_a_yaml_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "broken.yaml").write_text("a: [1,\nb: 2", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.yaml") as caught:
        compose(["method=broken"], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("dataset.path=data(1).csv", """'dataset.path="data(1).csv"'"""),
        ("dataset.path=ünï.csv", """'dataset.path="ünï.csv"'"""),
        ("dataset.path=it's.csv", """'dataset.path="it'"'"'s.csv"'"""),
        ("dataset.path='it's.csv'", """'dataset.path="it'"'"'s.csv"'"""),
        ("dataset.drop=[city, state,when (UTC)]", """'dataset.drop=[city,state,"when (UTC)"]'"""),
        ("dataset.path=[x].csv", """'dataset.path="[x].csv"'"""),
        ("dataset.path={x}.csv", """'dataset.path="{x}.csv"'"""),
        ("dataset.path=[link=x]y.csv", """'dataset.path="[link=x]y.csv"'"""),
    ],
)
def test_a_value_that_needs_quotation_marks_is_shown_with_them(override: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([override])
    assert str(caught.value).endswith(f": {hint}")
    (word,) = shlex.split(hint)
    compose(["dataset=csv", word])


@pytest.mark.parametrize(
    "override", ["tuned=[lr", "tuned=[", "seed=range(0,3", "hyper={lr:1", "hyper={lr:(1}"]
)
def test_what_has_no_end_is_not_taken_for_text(override: str) -> None:
    with pytest.raises(UserError, match="cannot read") as caught:
        compose([override])
    assert "quotation marks" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["hydra.launcher.timeout_mins=60", "hydra/launcher=hpo_bench"],
            "hydra.launcher.timeout_mins: no such",
        ),
        (["hydra.lancher.x=1"], "did you mean launcher?"),
        (["hydra.run.dirr=x"], "did you mean dir?"),
        (["hydra.job.chdirs=true"], "did you mean chdir?"),
        (["hydra.sweeper.max_batch=1"], "did you mean max_batch_size?"),
        (["hydra.job.env_set.X=1"], "it is empty, +hydra.job.env_set.X=… adds one"),
    ],
)
def test_a_misspelt_key_of_hydra_names_those_of_its_section(
    overrides: list[str], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        compose(overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chosen", [["hydra/launcher=joblib"], []])
def test_a_misspelt_key_of_a_launcher_names_the_launchers(chosen: list[str]) -> None:
    pytest.importorskip(
        "hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed"
    )
    with pytest.raises(UserError, match=r"did you mean n_jobs") as caught:
        compose(["hydra.launcher.n_job=2", *chosen])
    assert ("of hydra/launcher=joblib" in str(caught.value)) == (not chosen)


@pytest.mark.parametrize("override", ["seed=1,", "seed=,1", "seed=1,,2", "seed=,"])
def test_a_comma_without_a_value_is_not_taken_for_text(override: str) -> None:
    with pytest.raises(UserError, match="a value is missing before or after a comma"):
        compose([override])


def test_a_line_end_in_a_hint_stays_one() -> None:
    with pytest.raises(UserError, match=re.escape(r"""$'dataset.path="a\x0ab.csv"'""")):
        compose(["dataset.path=a\nb.csv"])
