"""Experiments as data: every yaml reads at every scale, and what a user asks for on top is
applied.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hpo_bench.analysis.paper import UCI
from hpo_bench.analysis.rivals import METHODS
from hpo_bench.errors import UserError
from hpo_bench.experiments import definition as plan
from hpo_bench.experiments.definition import Part, groups, narrow, read, unknown
from hpo_bench.settings.yamls import SCALES_OF_ALL, configs_folder

CONTRACT = {
    "proof_of_concept",
    "sensitivity",
    "hypergradient_error",
    "uci_main",
    "fashion_mnist",
    "cifar10",
    "penn_treebank",
    "short_horizon",
    "full_horizon",
    "multi_pass",
    "batchnorm",
    "validation_share",
}
BEYOND_THE_PAPER = {"rivals", "any_update", "horizons"}


def repetitions(experiment: plan.Experiment) -> int:
    return sum(
        part.repetitions * len(part.cells()) * len(part.datasets) * len(part.methods)
        for part in experiment.parts
    )


def test_all_experiments_of_the_contract_are_there() -> None:
    assert set(plan.names()) == CONTRACT | BEYOND_THE_PAPER


@pytest.mark.parametrize("name", sorted({*CONTRACT, *BEYOND_THE_PAPER}))
def test_scales_grow(name: str) -> None:
    smoke, small, paper = (read(name, scale) for scale in SCALES_OF_ALL)
    assert 0 < repetitions(smoke) <= repetitions(small) <= repetitions(paper)
    assert (
        {part.name for part in smoke.parts}
        <= {part.name for part in small.parts}
        <= {p.name for p in paper.parts}
    )
    assert paper.figures
    assert paper.figures == smoke.figures


@pytest.mark.parametrize("name", ["penn_treebank", "cifar10"])
def test_what_wants_a_gpu_has_a_scale_for_two_cores(name: str) -> None:
    """Every method with at least eight repetitions; and 50 steps, in which a learning rate changes
    by two orders of magnitude.
    """
    small, cpu, paper = (read(name, scale).parts[0] for scale in ("small", "cpu", "paper"))
    assert (cpu.datasets, cpu.methods) == (paper.datasets, paper.methods)
    assert small.repetitions < cpu.repetitions < paper.repetitions
    assert cpu.repetitions >= 8
    (steps,) = (word for word in cpu.overrides if word.startswith("hyperparameter_updates="))
    assert int(steps.partition("=")[2]) >= 50
    assert not any(word.startswith(("update_interval", "look_back")) for word in cpu.overrides)


def test_the_papers_budgets() -> None:
    assert repetitions(read("uci_main")) == 8 * 9 * 200
    assert repetitions(read("sensitivity")) == 100 + 100 * 100 + 55 * 100
    assert repetitions(read("hypergradient_error")) == 2 * 55 * 50
    assert repetitions(read("proof_of_concept")) == 550
    assert repetitions(read("validation_share")) == 3 * 9 * 200
    assert repetitions(read("full_horizon")) == 4 * 36


def test_what_is_beyond_the_paper_runs_on_all_sets_in_the_end_and_offline_at_first() -> None:
    for name in BEYOND_THE_PAPER:
        smoke = {dataset for part in read(name, "smoke").parts for dataset in part.datasets}
        assert smoke == {"diabetes", "digits"}
        for scale in ("small", "paper"):
            datasets = {dataset for part in read(name, scale).parts for dataset in part.datasets}
            assert datasets >= set(UCI)
    for name in ("rivals", "any_update"):
        parts = read(name, "small").parts
        assert {dataset for part in parts for dataset in part.datasets} == {*UCI, "fashion_mnist"}
    discounts = next(part for part in read("horizons").parts if part.grid)
    assert discounts.grid["method.estimator.discount"] == (0, 0.9, 0.95, 0.98, 0.99, 0.999, 1)
    rivals = {method for part in read("rivals").parts for method in part.methods}
    assert rivals == set(METHODS)


def test_cells_keep_within_their_bound() -> None:
    part = next(part for part in read("sensitivity").parts if part.name == "exact")
    assert len(part.cells()) == 55
    assert all(cell["look_back"] <= cell["update_interval"] for cell in part.cells())
    assert Part("p", ("d",), ("m",), 1).cells() == [{}]


def test_users_choose_datasets_methods_repetitions_and_cells() -> None:
    chosen = narrow(
        read("uci_main"),
        ["dataset=uci_wine,uci_energy", "method=random", "repetitions=3", "seed=7", "x=1"],
    )
    (part,) = chosen.parts
    assert (part.datasets, part.methods, part.repetitions) == (
        ("uci_energy", "uci_wine"),
        ("random",),
        3,
    )
    (first, _) = groups(chosen)
    assert first.overrides == (
        "method=random",
        "dataset=uci_energy",
        "seed=7",
        "repetitions=3",
        "x=1",
    )
    cells = narrow(read("sensitivity"), ["update_interval=2", "look_back=range(1,4)"])
    assert [len(part.cells()) for part in cells.parts] == [1, 3, 2]
    assert [len(part.cells()) for part in narrow(read("sensitivity"), ["look_back=1,5"]).parts] == [
        1,
        20,
        16,
    ]


def test_a_name_of_no_part_takes_the_place_of_all() -> None:
    (part,) = narrow(read("uci_main"), ["method=mine", "dataset=diabetes"]).parts
    assert (part.datasets, part.methods) == (("diabetes",), ("mine",))
    assert set(unknown(narrow(read("uci_main"), ["method=mine", "dataset=diabetes"]))) == {
        "method=mine"
    }


def test_what_is_missing_is_a_line_that_names_it() -> None:
    lines = unknown(narrow(read("uci_main"), ["method=ours_wd_lrm"]))
    assert (
        "no such method (needed by part main of uci_main); did you mean ours_wd_lr"
        in lines["method=ours_wd_lrm"]
    )
    assert not unknown(read("uci_main"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {
                "parts": {
                    "main": {"datasets": "uci_energy", "methods": ["random"], "repetitions": 1}
                }
            },
            "parts.main.datasets",
        ),
        (
            {"parts": {"main": {"datasets": ["a"], "methods": ["b"], "repetitions": 0}}},
            "parts.main.repetitions=0",
        ),
        ({"parts": {"main": {"datasets": ["a"], "methods": ["b"]}}}, "repetitions"),
        ({"scales": {"smoke": {}, "small": {}}}, "paper"),
        (
            {"scales": {"smoke": {"parts": {"mian": {}}}, "small": {}, "paper": {}}},
            "did you mean main",
        ),
        (
            {"scales": {"smoke": {"repetition": 2}, "small": {}, "paper": {}}},
            "did you mean repetitions",
        ),
        ({"figure": []}, "did you mean figures"),
    ],
)
def test_a_wrong_yaml_is_one_line_with_its_file(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    content = (
        yaml.safe_load((configs_folder() / "experiment" / "uci_main.yaml").read_text()) | change
    )
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        read("mine", "smoke", tmp_path)
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "scale", "overrides", "message"),
    [
        ("uci_mian", "smoke", [], "uci_mian: no such experiment; did you mean uci_main"),
        ("uci_main", "big", [], "--scale big: allowed: paper, small, smoke"),
        ("uci_main", "cpu", [], "--scale cpu: allowed: paper, small, smoke (of uci_main; "),
        ("cifar10", "big", [], "--scale big: allowed: cpu, paper, small, smoke"),
        ("uci_main", "smoke", ["repetitions"], "repetitions: must be KEY=VALUE"),
        (
            "uci_main",
            "smoke",
            ["repetitions=0"],
            "repetitions=0: must be a whole number, 1 or more",
        ),
    ],
)
def test_mistakes_are_one_line(name: str, scale: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        narrow(read(name, scale), overrides)


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_figures_and_tables_are_there(name: str) -> None:
    from hpo_bench import figures
    from hpo_bench.analysis.tables import TABLES

    experiment = read(name)
    assert set(experiment.figures) <= set(figures.names())
    assert set(experiment.tables) <= set(TABLES)
