"""Settings in one table: each has a role, spellings of one value are one run, and what is stored
keeps its name.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from hpo_bench.analysis import tables
from hpo_bench.analysis.compare import compare
from hpo_bench.analysis.selection import comparable, each_data, find
from hpo_bench.cli import app
from hpo_bench.core.table import Table
from hpo_bench.datasets.preparation import fingerprint, split
from hpo_bench.datasets.uci import LOADER
from hpo_bench.errors import UserError
from hpo_bench.running import execute, identify, provenance
from hpo_bench.settings import compose, explain, identity, parse
from hpo_bench.settings.identity import DECISIVE, Role
from hpo_bench.settings.yamls import configs_folder
from hpo_bench.store import export
from hpo_bench.store.runs import Run, read_document, scan
from tests.make_store import make_run

RESULTS = Path(__file__).parents[2] / "results"
ANY = Table("any", "regression", np.zeros((3, 1)), np.zeros((3, 1)), 1, 1, 1, 1, 1.0, "f" * 64)


def yamls() -> Iterator[dict[str, Any]]:
    """What every yaml of the package says."""
    for file in configs_folder().rglob("*.yaml"):
        if file.parent.name != "experiment":
            yield yaml.safe_load(file.read_text(encoding="utf-8"))


def run_id(*overrides: str) -> str:
    """The id that a run would have on some table."""
    return identify.identify(parse.parse(compose.compose(overrides)), ANY)[0]


# --- the table ---


def test_every_setting_of_the_configuration_has_a_role() -> None:
    content = yaml.safe_load((configs_folder() / "config.yaml").read_text(encoding="utf-8"))
    settings = set(content) - {"defaults", "hydra"} | {"method", "dataset", "model"}
    assert settings == {key for key in identity.ROLES if "." not in key}


def test_the_table_names_nothing_that_is_not_there() -> None:
    keys = {
        key
        for content in yamls()
        for key in explain._with_sections(key for key, _ in identity.flat(content))
    }
    assert {key for key in identity.ROLES if key not in keys} <= {"method", "dataset", "model"}


def test_what_a_method_need_not_say_is_the_same_in_the_yamls_and_for_what_is_stored() -> None:
    content = yaml.safe_load((configs_folder() / "config.yaml").read_text(encoding="utf-8"))
    without = {"estimator": None, "optimiser": None, "schedule": None, "fixed": None}
    assert content["method"] == without | identity.METHOD_DEFAULTS


def test_what_the_yamls_say_although_it_is_the_default_is_listed() -> None:
    said: dict[str, list[set[str]]] = {}

    def walk(node: Any) -> None:
        if isinstance(node, Mapping):
            if "_target_" in node:
                said.setdefault(node["_target_"], []).append(set(node))
            for value in node.values():
                walk(value)

    for content in yamls():
        walk({key: value for key, value in content.items() if key in ("method", "model")})
    for target, keys in said.items():
        module, _, name = target.rpartition(".")
        defaults = identity._defaults(getattr(importlib.import_module(module), name))
        always = set.intersection(*keys) & set(defaults)
        assert always == set(identity.ALWAYS_SAID.get(target, ())), target


# --- values, not spellings ---


@pytest.mark.parametrize(
    "schedule", ["null", "constant", "{_target_: hpo_bench.core.schedules.Constant}"]
)
@pytest.mark.parametrize("method", ["random", "ours_wd_lr_m", "pbt_random"])
def test_no_schedule_is_no_part_of_a_run(method: str, schedule: str) -> None:
    """Runs that are stored had no schedules to name, and keep their ids."""
    overrides = (f"method={method}", f"method.schedule={schedule}")
    assert run_id(*overrides) == run_id(f"method={method}")
    settings = parse.parse(compose.compose(overrides))
    assert settings.method.schedule is None
    assert "schedule" not in settings.config["method"]


def test_a_schedule_by_name_is_its_component() -> None:
    cosine = "_target_: hpo_bench.core.schedules.WarmupCosine"
    named = run_id("method=random", "method.schedule=warmup_cosine")
    assert named == run_id("method=random", f"method.schedule={{{cosine}}}")
    assert named == run_id(
        "method=random", f"method.schedule={{{cosine}, warmup: 0.05, final: 0.0}}"
    )
    others = (
        run_id("method=random"),
        run_id("method=random", "method.schedule=linear"),
        run_id("method=random", f"method.schedule={{{cosine}, warmup: 0.1}}"),
    )
    assert len({named, *others}) == 4
    settings = parse.parse(compose.compose(["method.schedule=warmup_cosine"]))
    stored = settings.config["method"]["schedule"]
    assert stored == {"_target_": "hpo_bench.core.schedules.WarmupCosine"}


EQUAL = (
    ("init.log10_lr=[-6.0,-1.0]", "init.log10_lr=[-6,-1]"),
    ("init.log10_lr=[-6,-1]", "seed=0"),
    ("tuned=[momentum,lr,weight_decay]", "tuned=[lr,weight_decay,momentum]"),
    ("tuned=[momentum,lr]", "tuned=[lr,momentum]"),
    ("gradient_clip_norm=1.0", "gradient_clip_norm=1"),
    ("gradient_clip_norm=null", "seed=0"),
    ("hyper.lr=1e-3", "hyper.lr=0.001"),
    ("hyper.lr=1.0", "hyper.lr=1"),
    ("hyper.betas=[0.90,0.999]", "seed=0"),
    ("hyper.betas=[0.0,0]", "hyper.betas=[0,-0.0]"),
    ("hyper.clip_log10_lr=[-10.0,0.0]", "seed=0"),
    ("validation_share=2e-1", "validation_share=0.2"),
    ("save_weights=True", "save_weights=true"),
    ("save_weights=False", "seed=0"),
    ("data_for_weights=train", "data_for_weights=method"),
    ("model.hidden=[50]", "seed=0"),
    ("+model.batch_norm=false", "seed=0"),
    ("+model.closed_form=true", "seed=0"),
    ("~method.per_weight", "seed=0"),
    ("~method.full_validation", "seed=0"),
    ("+method.optimiser.eps=1e-8", "seed=0"),
    ("method.optimiser.lr=0.05", "seed=0"),
    ("~method.optimiser.betas", "seed=0"),
    ("method=pbt_random method.search.quantile=.25", "method=pbt_random"),
    ("method=pbt_random ~method.search.quantile", "method=pbt_random"),
    ("model=mlp_batchnorm model.batch_norm=false", "model=mlp"),
)


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_spellings_of_one_value_are_one_run(one: str, other: str) -> None:
    assert run_id(*one.split(" ")) == run_id(*other.split(" "))


def test_other_values_are_other_runs() -> None:
    overrides = (
        "seed=0",
        "seed=1",
        "repetitions=2",
        "init.log10_lr=[-6,-2]",
        "tuned=[lr]",
        "gradient_clip_norm=1",
        "hyper.lr=0.01",
        "hyper.clip_log10_lr=null",
        "+model.batch_norm=true",
        "data_for_weights=train_and_validation",
        "save_weights=true",
        "record_every=2",
        "+method.optimiser.eps=1e-7",
        "method.full_validation=true",
        "precision=float64",
    )
    assert len({run_id(override) for override in overrides}) == len(overrides)


@pytest.mark.parametrize(
    "key", [key for key, role in identity.ROLES.items() if role in (Role.PLACE, Role.SHOWN)]
)
def test_what_moves_no_number_makes_no_other_run(key: str) -> None:
    composed = compose.compose()
    settings = parse.parse(composed)
    changed = {**settings.config}
    section, _, leaf = key.rpartition(".")
    if section:
        changed[section] = {**changed[section], leaf: "other"}
    else:
        changed[key] = "other"
    assert identity.decisive(changed) == identity.decisive(settings.config)


# --- comparisons ---


@pytest.mark.parametrize(
    "key", [key for key, role in identity.ROLES.items() if role not in DECISIVE]
)
def test_what_moves_no_number_is_no_difference(tmp_path: Path, key: str) -> None:
    changed = {key: "other"} if key not in ("seed", "repetitions") else {}
    changed |= {key: 2} if key in ("dataset.metric_scale", "method.order", "record_every") else {}
    first = make_run(tmp_path, "random", "uci_energy", [1.0, 2.0, 3.0])
    make_run(tmp_path, "lorraine", "uci_energy", [1.0, 2.0, 3.0])
    third = make_run(tmp_path, "ours_wd_lr", "uci_energy", [1.0, 2.0, 3.0], config=changed)
    assert comparable(find(tmp_path)).notes == ()
    assert {each.key for each in compare(first, third).differences} == {"method.name"}


def test_spellings_of_one_value_are_no_difference(tmp_path: Path) -> None:
    spelt: tuple[dict[str, Any], ...] = (
        {"tuned": ["lr", "momentum"], "init.momentum": [0.0, 1.0], "gradient_clip_norm": 1.0},
        {"tuned": ["momentum", "lr"], "init.momentum": [0, 1], "gradient_clip_norm": 1},
    )
    runs = [
        make_run(tmp_path, name, "uci_energy", [1.0, 2.0], config=settings)
        for name, settings in zip(("random", "lorraine"), spelt, strict=True)
    ]
    assert comparable(find(tmp_path)).notes == ()
    assert {each.key for each in compare(*runs).differences} == {"method.name"}
    found = find(tmp_path, where={"tuned": ["momentum", "lr"], "gradient_clip_norm": 1.0})
    assert len(found) == 2


# --- what was trained on ---

SOURCE = {"_target_": "hpo_bench.datasets.csv.CSV", "path": "D.csv"}


def own(
    results: Path, method: str, content: str | None, values: list[float], **changes: Any
) -> Run:
    """A run on a table of one's own; without content as an earlier version stored it."""
    settings = {"dataset.source": SOURCE, "dataset.label": "D.csv: y", **changes.pop("config", {})}
    return make_run(
        results,
        method,
        "csv",
        values,
        config=settings,
        data={"content": content} if content else None,
        **changes,
    )


def test_runs_on_other_data_are_shown_apart(tmp_path: Path) -> None:
    for method, content in (("random", "a" * 64), ("lorraine", "a" * 64), ("ours_wd_lr", "b" * 64)):
        own(tmp_path, method, content, [1.0, 2.0, 3.0])
    runs = find(tmp_path)
    assert {(run.dataset, run.method) for run in runs} == {
        ("csv@aaaaaaaa", "random"),
        ("csv@aaaaaaaa", "lorraine"),
        ("csv@bbbbbbbb", "ours_wd_lr"),
    }
    assert {run.dataset_label for run in runs} == {"D.csv: y (aaaaaaaa)", "D.csv: y (bbbbbbbb)"}
    (note,) = comparable(runs).notes
    assert note.startswith(
        "csv: runs on 2 different data, shown apart and never compared: D.csv: y (aaaaaaaa)"
    )
    pairs = tables.build("pairs", tmp_path)
    assert "Ours" not in str(pairs.body.to_dict())
    assert len(find(tmp_path, datasets=["csv"])) == 3
    assert [run.method for run in find(tmp_path, datasets=["csv@bbbbbbbb"])] == ["ours_wd_lr"]
    assert each_data(runs, ["csv", "uci_energy"]) == ["csv@aaaaaaaa", "csv@bbbbbbbb", "uci_energy"]


def test_a_name_with_one_data_is_only_a_name(tmp_path: Path) -> None:
    runs = [own(tmp_path, method, "a" * 64, [1.0]) for method in ("random", "lorraine")]
    assert {run.dataset for run in find(tmp_path)} == {"csv"}
    assert comparable(find(tmp_path)).notes == ()
    assert compare(*runs).shared == 1


def test_data_that_an_earlier_version_did_not_note_are_compared_with_nothing_else(
    tmp_path: Path,
) -> None:
    shards = [own(tmp_path, "random", None, [1.0, 2.0], first_seed=seed) for seed in (0, 2)]
    own(tmp_path, "lorraine", None, [1.0, 2.0])
    runs = find(tmp_path)
    assert len({run.dataset for run in runs}) == 2
    assert len({run.dataset for run in runs if run.method == "random"}) == 1
    assert "data unknown" in comparable(runs).notes[-1]
    with pytest.raises(UserError, match="does not say what was in its table"):
        compare(shards[0], find(tmp_path, methods=["lorraine"])[0])


def test_runs_on_other_data_are_not_compared(tmp_path: Path) -> None:
    a, b = (
        own(tmp_path, "random", "a" * 64, [1.0, 2.0]),
        own(tmp_path, "lorraine", "b" * 64, [1.0, 2.0]),
    )
    with pytest.raises(
        UserError,
        match=r"is of D.csv: y \(aaaaaaaa\), .* of D.csv: y \(bbbbbbbb\): runs on different",
    ):
        compare(a, b)
    assert {run.dataset for run in export.choose(tmp_path, [])} == {"csv@aaaaaaaa", "csv@bbbbbbbb"}
    assert {run.dataset for run in export.choose(tmp_path, [a.run_id, b.run_id])} == {
        "csv@aaaaaaaa",
        "csv@bbbbbbbb",
    }


def test_stores_with_other_data_of_one_name_are_merged_apart(tmp_path: Path) -> None:
    own(tmp_path / "a", "random", "a" * 64, [1.0, 2.0])
    own(tmp_path / "b", "lorraine", "b" * 64, [1.0, 2.0])
    arguments = [
        "merge",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--results",
        str(tmp_path / "all"),
    ]
    done = CliRunner().invoke(app, arguments)
    assert (
        "note: csv stands for different data in these runs; they are shown apart and never compared"
        in done.output
    )
    assert {run.dataset for run in find(tmp_path / "all")} == {"csv@aaaaaaaa", "csv@bbbbbbbb"}


def test_another_validation_part_is_left_out_and_never_paired(tmp_path: Path) -> None:
    usual = [
        make_run(tmp_path, method, "uci_energy", [1.0, 2.0]) for method in ("random", "lorraine")
    ]
    other = make_run(
        tmp_path, "ours_wd_lr", "uci_energy", [1.0, 2.0], config={"validation_share": 0.3}
    )
    selection = comparable(find(tmp_path))
    assert {run.run_id for run in selection.runs} == {run.run_id for run in usual}
    assert selection.notes == (
        "uci_energy, ours_wd_lr: left out, it is trained on other rows than the other methods: "
        "validation_share=0.3 (others: 0.2)",
    )
    compared = compare(usual[0], other)
    assert compared.shared == 0
    assert compared.notes[0].startswith("different validation parts: nothing is paired")


def test_public_data_are_what_their_checksums_say_wherever_they_come_from() -> None:
    def key(*overrides: str, data: Mapping[str, Any] | None = None) -> str:
        resolved = parse.parse(compose.compose(overrides)).config
        return identity.data_key(resolved, data or {}, "hash")

    energy = key("dataset=uci_energy")
    assert energy == key(
        "dataset=uci_energy", "validation_share=0.3", "dataset.source.data.urls=[https://mirror]"
    )
    assert energy == key("dataset=uci_energy", data={"content": "c" * 64, "fingerprint": "f" * 64})
    assert energy != key("dataset=uci_energy", f"dataset.source.data.sha256={'0' * 64}")
    cifar = {key("dataset=cifar10"), key("dataset=cifar10", "dataset.subset=true")}
    assert len(cifar | {key("dataset=cifar10", "dataset.pixel_scale=paper")}) == 3
    fashion = "dataset.source.training_images"
    assert key("dataset=fashion_mnist") == key(
        "dataset=fashion_mnist", f"{fashion}.sha256={'0' * 64}"
    )
    assert key("dataset=fashion_mnist") != key(
        "dataset=fashion_mnist", f"{fashion}.unpacked_sha256={'0' * 64}"
    )


def written(path: Path, scale: float, end: str = "\n") -> Path:
    rows = [f"{row / 7},{row % 5},{scale * row * row}" for row in range(40)]
    path.write_text(end.join(["a,b,y", *rows, ""]), newline="")
    return path


def stored(results: Path, file: Path, *overrides: str) -> Run:
    """A short run on a table of one's own."""
    fixed = ["dataset=csv", "dataset.target=y", "hyperparameter_updates=1", "repetitions=2"]
    composed = compose.compose(
        [*fixed, f"dataset.path={file}", f"results_dir={results}", *overrides]
    )
    return execute.execute(parse.parse(composed)).run


def test_a_run_notes_what_it_was_trained_on(tmp_path: Path) -> None:
    run = stored(tmp_path, written(tmp_path / "A.csv", 1.0))
    assert run.data["rows"] == {"training": 29, "validation": 7, "test": 4}
    assert (run.data["inputs"], run.data["outputs"], run.data["target"]) == ([2], 1, "y")
    same = stored(tmp_path, written(tmp_path / "B.csv", 1.0), "method=random")
    assert same.data == run.data
    assert {run.dataset for run in find(tmp_path)} == {"csv"}
    changed = stored(tmp_path, written(tmp_path / "A.csv", 2.0))
    assert changed.data["content"] != run.data["content"]
    assert changed.run_id != run.run_id
    split = stored(tmp_path, tmp_path / "B.csv", "validation_share=0.4")
    assert split.data["content"] == run.data["content"]
    assert split.data["fingerprint"] != run.data["fingerprint"]
    assert len({run.dataset for run in find(tmp_path)}) == 2
    assert find(tmp_path, datasets=["csv"], methods=["random"])[0].dataset.startswith("csv@")


class Fixed:
    """A source of one's own that always names the same fingerprint."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def load(self, validation_share: float) -> Table:
        """Ten rows."""
        inputs = self.scale * np.linspace(-1, 1, 10)[:, None]
        return Table("own", "regression", inputs, inputs.copy(), 6, 2, 2, 1, 1.0, "always the same")


def test_a_source_of_ones_own_is_known_by_what_it_loads() -> None:
    settings = parse.parse(compose.compose())
    dataset = {**settings.config["dataset"], "source": {"_target_": "mine.Fixed"}}
    settings = replace(settings, config={**settings.config, "dataset": dataset})
    tables = [Fixed(scale).load(0.2) for scale in (1.0, 2.0, 1.0)]
    ids = [identify.identify(settings, table)[0] for table in tables]
    assert ids[0] == ids[2] != ids[1]
    contents = [identify.described_data(settings, table)["content"] for table in tables]
    assert contents[0] == contents[2] != contents[1]


def test_a_changed_file_of_ones_own_component_is_said(tmp_path: Path) -> None:
    target = f"{__name__}.Fixed"
    assert set(
        provenance.own_code({"model": {"_target_": target, "rule": {"_target_": "torch.nn.ReLU"}}})
    ) == {target}
    runs = [
        make_run(tmp_path, method, "uci_energy", [1.0, 2.0]) for method in ("random", "lorraine")
    ]
    for run, digest in zip(runs, ("a" * 64, "b" * 64), strict=True):
        document = json.loads((run.path / "run.json").read_text())
        (run.path / "run.json").write_text(json.dumps(document | {"own_code": {target: digest}}))
    runs = find(tmp_path)
    (note,) = comparable(runs).notes
    assert note.startswith(f"uci_energy: the file of {target} changed between runs: ")
    assert f"code of {target}" in {each.key for each in compare(*runs).differences}


# --- what is stored ---


@pytest.mark.skipif(
    not (RESULTS / "packed").is_dir(), reason="results/ is not part of an installed package"
)
def test_stored_runs_keep_their_names() -> None:
    checked = 0
    for run in scan(RESULTS):
        if not run.dataset.startswith("uci_"):
            continue
        document = read_document(run)
        source = document["config"]["dataset"]["source"]
        rows = split(source["training_and_validation"], document["config"]["validation_share"])
        files = [source["data"]["sha256"], source["order"]["sha256"]]
        content = {"files": files, "drop": source.get("drop", []), "parts": (*rows, source["test"])}
        name = document["config"]["dataset"]["name"]
        decisive = {
            **identity.decisive(document["config"]),
            "dataset": {"name": name, "fingerprint": fingerprint(LOADER, content)},
            "numbers": document["code"]["numbers"],
        }
        assert identify._digest(decisive) == document["config_hash"]
        checked += 1
    assert checked > 600


@pytest.mark.parametrize(
    ("overrides", "discount"),
    [
        (["method=ours_discounted"], 0.95),
        (["method=ours_discounted", "method.estimator.discount=1"], 1),
        (["method=rtho"], 1),
    ],
)
def test_every_cell_of_a_grid_over_the_discount_says_it(overrides, discount):
    assert (
        parse.parse(compose.compose(overrides)).config["method"]["estimator"]["discount"]
        == discount
    )
