"""Which runs a figure takes, which it misses, and the command that makes those."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import replace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hpo_bench import figures
from hpo_bench.analysis.selection import find
from hpo_bench.errors import UserError
from hpo_bench.figures.common import standard
from hpo_bench.figures.common.conditions import Except, Fixed, Preferably, fits, override
from hpo_bench.figures.common.make import Request, make
from hpo_bench.figures.common.needs import AUDITS, Need, Store, check_names, select
from hpo_bench.settings.compose import compose
from hpo_bench.settings.identity import flat
from hpo_bench.settings.yamls import configs_folder
from tests.make_store import make_run

NEEDS = [
    (name, number, need)
    for name in figures.names()
    for number, need in enumerate(figures.find(name).NEEDS)
]


def selection(results, *needs: Need):
    stored = Store.of(find(results))
    return select(needs, lambda folder: stored, "results")


def overrides(command: str) -> tuple[list[str], bool]:
    """Overrides of a ``hpo-bench run`` command, and whether it is a multirun."""
    program, run, *words = shlex.split(command)
    assert (program, run) in (("hpo-bench", "run"), ("hpo-bench", "audit"))
    flags = ("-m", "--over-time")
    return [word for word in words if word not in flags], "-m" in words


@pytest.mark.parametrize(
    ("name", "number", "need"), NEEDS, ids=[f"{name}-{number}" for name, number, _ in NEEDS]
)
def test_the_command_makes_runs_that_the_figure_takes(name, number, need):
    command = need.command(need.datasets, need.methods, "results")
    words, multirun = overrides(command.partition(" && ")[0])
    parsed = OverridesParser.create().parse_overrides(words)
    assert multirun == any(one.is_sweep_override() for one in parsed)
    datasets, methods = (
        [name for name in names if (configs_folder() / kind / f"{name}.yaml").exists()]
        for kind, names in (("dataset", need.datasets), ("method", need.methods))
    )
    pair = list(itertools.product(datasets, methods))
    if not pair:
        pytest.skip(f"none of {', '.join((*need.datasets, *need.methods))} has a yaml yet")
    dataset, method = pair[0]
    cell = need.cells()[0]
    fixed = [
        one.input_line for one in parsed if one.key_or_group not in {"dataset", "method", *cell}
    ]
    chosen = [
        f"dataset={dataset}",
        f"method={method}",
        *(f"{key}={value}" for key, value in cell.items()),
    ]
    settings = dict(flat(OmegaConf.to_container(compose([*chosen, *fixed]), resolve=True)))
    assert need.accepts(settings), {key: settings.get(key) for key in need.where}


def test_one_run_needs_no_multirun_and_the_default_folder_is_not_named():
    need = Need(("uci_energy",), ("random",), 7)
    assert (
        need.command(["uci_energy"], ["random"], "results")
        == "hpo-bench run method=random dataset=uci_energy repetitions=7"
    )
    assert need.command(["uci_energy"], ["random"], "my runs").endswith("'results_dir=my runs'")


def test_methods_that_lack_the_same_datasets_share_a_line(tmp_path):
    make_run(tmp_path, "random", "uci_energy", [1.0])
    make_run(tmp_path, "random", "uci_kin8nm", [1.0])
    make_run(tmp_path, "baydin", "uci_kin8nm", [1.0])
    found = selection(
        tmp_path,
        Need(("uci_energy", "uci_kin8nm"), ("random", "baydin", "lorraine", "ours_wd_lr"), 5),
    )
    lines = {missing.methods: missing.datasets for missing in found.missing}
    assert lines == {
        ("baydin",): ("uci_energy",),
        ("lorraine", "ours_wd_lr"): ("uci_energy", "uci_kin8nm"),
    }
    assert {(run.method, run.dataset) for run in found.runs()} == {
        ("random", "uci_energy"),
        ("random", "uci_kin8nm"),
        ("baydin", "uci_kin8nm"),
    }


def test_a_half_finished_grid_is_taken_and_reported(tmp_path):
    need = Need(
        ("uci_energy",),
        ("random",),
        5,
        {**standard.STARTS, "update_interval": (1, 2), "look_back": (5,)},
    )
    make_run(tmp_path, "random", "uci_energy", [1.0], update_interval=1)
    found = selection(tmp_path, need)
    assert len(found.runs()) == 1
    assert found.missing[0].methods == ("random",)
    make_run(tmp_path, "random", "uci_energy", [1.0], update_interval=2)
    assert selection(tmp_path, need).missing == ()


@pytest.mark.parametrize(
    "config",
    [
        {"init.log10_lr": [-6, 1]},
        {"init.momentum": [0.5, 0.5]},
        {"look_back": 3},
        {"validation_share": 0.25},
        {"hyper.clip_log10_lr": None},
    ],
)
def test_runs_of_other_experiments_are_not_taken(config, tmp_path):
    make_run(tmp_path, "random", "uci_energy", [1.0], config=config)
    assert selection(tmp_path, Need(("uci_energy",), ("random",), 5)).empty


def test_a_preferred_setting_gives_way_where_there_is_no_such_run(tmp_path):
    need = Need(("uci_energy",), ("random", "baydin"), 5)
    for method, interval in (("random", 10), ("random", 2), ("baydin", 2)):
        make_run(tmp_path, method, "uci_energy", [1.0], update_interval=interval)
    taken = {
        (run.method, run.config["update_interval"]) for run in selection(tmp_path, need).runs()
    }
    assert taken == {("random", 10), ("baydin", 2)}


def test_conditions():
    assert fits(0.2, Except((0.25,)))
    assert not fits(0.25, Except((0.25,)))
    assert fits([0.6224593, 0.6224593], Fixed(0.6225))
    assert not any(fits(value, Fixed(0.6225)) for value in ([0, 1], [0.6225, 0.7], None, 0.6225))
    assert fits(3, range(1, 4))
    assert not fits(4, range(1, 4))
    assert fits([-6, -1], [-6.0, -1.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (range(1, 11), "range(1,11)"),
        ((1, 2), "1,2"),
        ([-6, 1], "[-6,1]"),
        (Fixed(0.5), "[0.5,0.5]"),
        (Except((1,)), None),
        (Preferably(1), None),
    ],
)
def test_values_in_hydras_grammar(value, text):
    assert override(value) == text


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(
        UserError, match=r"--dataset uci_enrgy: no such dataset; did you mean uci_energy"
    ):
        check_names("dataset", ["uci_enrgy"], ["uci_energy", "uci_wine"])


def test_a_figure_turned_to_another_dataset_takes_each_run_once(tmp_path):
    make_run(tmp_path, "random", "uci_energy", [1.0, 2.0])
    request = Request(
        str(tmp_path), find(tmp_path), tmp_path / "out", ("svg",), datasets=("uci_energy",)
    )
    made = next(iter(make(["fig12"], request)))
    assert made.drawn == "1 method, 1 dataset, 2 repetitions"
    assert len(made.missing) == 1


def test_other_methods_stand_in_for_those_compared_not_for_those_with_a_role_of_their_own():
    need = Need(("uci_energy",), ("random",), 5)
    assert need.narrowed((), ("baydin",), {}).methods == ("baydin",)
    assert replace(need, role="plain").narrowed((), ("baydin",), {}).methods == ("random",)


def test_an_audit_is_one_command_each():
    need = Need(("uci_energy", "uci_naval"), ("ours_wd_lr_m",), 7, folder=AUDITS)
    assert need.command(need.datasets, need.methods, "my runs") == " && ".join(
        f"hpo-bench audit --over-time method=ours_wd_lr_m dataset={name} repetitions=7 "
        "'results_dir=my runs'"
        for name in need.datasets
    )
