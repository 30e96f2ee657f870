"""Packs: runs in a few files read as the folders that they were made of."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import hpo_bench
from hpo_bench.analysis import frames, selection
from hpo_bench.cli import app
from hpo_bench.cli.completion import runs as completed
from hpo_bench.errors import StoreError, UserError
from hpo_bench.experiments.artefacts import stored_runs
from hpo_bench.running.execute import execute
from hpo_bench.store import bundle, held, index, packed, packing
from hpo_bench.store.files import write_table
from hpo_bench.store.held import Wanted
from hpo_bench.store.packing import same_bits
from hpo_bench.store.runs import (
    Run,
    read_arrow,
    read_document,
    read_run,
    read_table,
    runs_folder,
    scan,
    tables_of,
)
from hpo_bench.store.writer import Writer
from hpo_bench.system import notices
from tests.make_store import make_run
from tests.problems import make_settings

ENERGY, KIN8NM = "uci_energy", "uci_kin8nm"
NAN = float("nan")


def fill(store: Path) -> None:
    """Runs whose tables have different columns, types and lengths."""
    make_run(store, "random", ENERGY, [0.5, 0.4, NAN, 0.3])
    make_run(store, "ours_wd_lr_m", ENERGY, [0.2, -0.0, 0.4, 0.1], gradients=[4, 5, 6, 7])
    make_run(store, "baydin", ENERGY, np.stack([[9.0, *[NAN] * 4], np.ones(5)]))
    hypergradients = pa.table({"seed": [0, 1], "hyper_step": [0, 0], "hypergradient_lr": [1, NAN]})
    make_run(store, "lorraine", ENERGY, [0.3, 0.2], hypergradients=hypergradients)
    search = {"method.search": {"_target_": "hpo_bench.search.asha.ASHA"}}
    work = {"gradients": [4], "hessian_products": [0]}
    found = make_run(store, "asha_random", ENERGY, [0.25], config=search, **work)
    write_table(found.path / "trials.parquet", pa.table({"seed": [0, 0], "trial": [0, 1]}))
    curves = pq.read_table(found.path / "curves.parquet", partitioning=None)
    single = curves.set_column(3, "validation_loss", curves["validation_loss"].cast(pa.float32()))
    nothing = pa.nulls(len(curves))
    write_table(found.path / "curves.parquet", single.set_column(2, "train_loss", nothing))
    for method in ("random", "ours_wd_lr_m"):
        make_run(store, method, KIN8NM, [0.5, 0.4, 0.3])


def pack(store: Path, target: Path) -> None:
    """Pack all runs of a store into another one, a pack for each dataset."""
    runs = [packing.whole(run) for run in scan(store)]
    for dataset in (ENERGY, KIN8NM):
        of_dataset = [run for run in runs if run.document["config"]["dataset"]["name"] == dataset]
        packing.add(target, dataset, of_dataset)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One store in both forms; neither is to be changed."""
    folder = tmp_path_factory.mktemp("forms")
    plain, packs = folder / "plain" / "results", folder / "packs" / "results"
    fill(plain)
    pack(plain, packs)
    return plain, packs


@pytest.fixture
def plain(pair: tuple[Path, Path]) -> Path:
    """A store of folders, not to be changed."""
    return pair[0]


@pytest.fixture
def packs(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    """The same store in packs, which may be changed."""
    return Path(shutil.copytree(pair[1], tmp_path / "results"))


def files(store: Path) -> dict[str, bytes]:
    """Content of every file by its name."""
    paths = (path for path in sorted(store.rglob("*")) if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in paths}


# --- both forms read alike ---


def test_every_run_says_and_holds_what_its_folder_did(plain: Path, packs: Path) -> None:
    assert not runs_folder(packs).exists()
    originals, found = list(scan(plain)), list(scan(packs))
    assert [run.run_id for run in found] == [run.run_id for run in originals]
    for one, other in zip(originals, found, strict=True):
        assert other.pack is not None
        assert read_document(other) == read_document(one)
        assert list(read_document(other)) == list(read_document(one))
        assert tables_of(other) == tables_of(one)
        for table in tables_of(one):
            assert same_bits(read_arrow(one, table), read_arrow(other, table))
            assert read_table(one, table).equals(read_table(other, table))
            some = read_table(one, table).columns[:3:2]
            assert read_table(one, table, some).equals(read_table(other, table, some))


def test_every_list_names_them(plain: Path, packs: Path) -> None:
    one, other = (index.read(runs_folder(store)) for store in (plain, packs))
    assert one == other
    names = list(one.entries)
    assert index.names(runs_folder(packs)) == index.names(runs_folder(plain)) == names
    assert set(index.statuses(runs_folder(packs), names).values()) == {"complete"}
    for config_hash in {entry.config_hash for entry in one.entries.values()}:
        for _ in range(2):  # the second call reads less
            alike = [index.holders(runs_folder(store), config_hash) for store in (plain, packs)]
            assert alike[0] == alike[1] != []

    context = SimpleNamespace(params={"results": str(packs)})
    assert completed(context, "uci_kin8nm-r") == [names[-1]]


def test_frames_are_equal(plain: Path, packs: Path) -> None:
    one, other = hpo_bench.load(plain), hpo_bench.load(packs)
    for table in ("final", "curves", "trials"):
        pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table))
    pd.testing.assert_frame_equal(one.summary(), other.summary())
    columns = ["test_metric", "gradients"]
    runs = [
        selection.find(store, methods=["ours_wd_lr_m"], datasets=[ENERGY])
        for store in (plain, packs)
    ]
    pd.testing.assert_frame_equal(*(frames.curves(each, columns, every=20) for each in runs))
    pd.testing.assert_frame_equal(one.final, (one + other).final)


COMMANDS = {
    "status": ["status"],
    "table": ["table", "uci_main", "--dataset", ENERGY],
    "compare": ["compare", "uci_energy-random", "uci_energy-ours"],
    "export": ["export", "--out", "made"],
    "schedule": ["export", "uci_energy-ours", "--schedule", "--out", "made"],
    "plot": ["plot", "fig09", "--dataset", ENERGY, "--format", "png", "--out", "made"],
    "report": ["report", "--out", "made/report.html"],
}


SLOW = pytest.param("report", marks=pytest.mark.slow)


@pytest.mark.parametrize("command", [*(name for name in COMMANDS if name != "report"), SLOW])
def test_commands_make_the_same_of_both(
    command: str, plain: Path, packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, made = [], []
    for number, store in enumerate((plain, packs)):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "results").symlink_to(store)
        monkeypatch.chdir(place)
        before = files(packs)
        done = CliRunner().invoke(app, COMMANDS[command], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert files(packs) == before
        told.append(re.sub(r"\(\d+\.\d s\)", "", done.output))
        made.append(files(place / "made") if (place / "made").exists() else {})
    assert told[0] == told[1]
    assert made[0].keys() == made[1].keys()
    assert made[0] == made[1]


def test_pandas_reads_a_pack_by_itself(packs: Path) -> None:
    folder = packed.folder(packs) / ENERGY
    lines = pd.read_json(folder / "runs.jsonl", lines=True)
    assert list(lines["run_id"]) == sorted(lines["run_id"])
    for table in ("final", "curves", "trials", "hypergradients"):
        frame = pd.read_parquet(folder / f"{table}.parquet")
        assert frame.columns[0] == "run_id"
        assert set(frame["run_id"]) <= set(lines["run_id"])
        for run_id, rows in frame.groupby("run_id"):
            run = read_run(runs_folder(packs) / str(run_id))
            stored = read_table(run, table).dropna(axis="columns", how="all")
            same = rows.drop(columns="run_id").reset_index(drop=True)[stored.columns]
            pd.testing.assert_frame_equal(same, stored, check_dtype=False)


def test_a_run_is_found_by_its_name_and_by_the_path_that_it_would_have(packs: Path) -> None:
    path = runs_folder(packs) / index.names(runs_folder(packs))[0]
    for name in (path.name, path):
        done = CliRunner().invoke(
            app, ["export", str(name), "--results", str(packs), "--out", str(packs / "made")]
        )
        assert done.exit_code == 0, done.output
    assert (packs / "made" / "curves" / f"{path.name}.csv").is_file()


# --- beside folders ---


def test_a_folder_of_its_own_is_the_run(plain: Path, packs: Path) -> None:
    (run,) = selection.find(packs, datasets=[KIN8NM], methods=["random"])
    shutil.copytree(runs_folder(plain) / run.run_id, run.path)
    document = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(document | {"code": {"version": "own"}}))
    found = read_run(run.path)
    assert found is not None
    assert (found.pack, found.code) == (None, {"version": "own"})
    assert [each.code for each in scan(packs) if each.run_id == run.run_id] == [found.code]
    assert len(index.read(runs_folder(packs)).entries) == len(list(scan(packs))) == 7
    (run.path / "run.json").write_text("{")
    with pytest.raises(StoreError, match=r"run\.json is damaged"):
        list(scan(packs))
    listing = index.read(runs_folder(packs))
    assert list(listing.damaged) == [run.run_id]
    assert run.run_id not in listing.entries


def test_a_folder_that_is_not_finished_yet_is_not(packs: Path) -> None:
    (run,) = selection.find(packs, datasets=[KIN8NM], methods=["random"])
    (run.path / "blocks").mkdir(parents=True)
    assert len(list(scan(packs))) == 7
    listing = index.read(runs_folder(packs))
    assert listing.entries[run.run_id].status == "complete"
    assert listing.unfinished == ()
    # computing it again fails: it stays what it was
    with Writer(packs, run.run_id, force=True) as writer:
        writer.fail(run.seeds, {"config": run.config, "config_hash": run.config_hash}, "no")
    found = read_run(run.path)
    assert found is not None
    assert (found.status, found.pack is None) == ("complete", False)


@pytest.fixture
def computed(tmp_path: Path) -> tuple[Path, Run]:
    """A store with one computed run, in a pack."""
    run = execute(make_settings(tmp_path / "whole")).run
    store = tmp_path / "store"
    packing.add(store, "kept", [packing.whole(run)])
    return store, run


def test_what_a_pack_holds_is_not_computed_again(computed: tuple[Path, Run]) -> None:
    store, run = computed
    before = files(packed.folder(store))
    again = execute(make_settings(store))
    assert (again.computed, again.run.run_id) == (0, run.run_id)
    assert again.run.place == packed.folder(store) / "kept"
    assert not list(runs_folder(store).iterdir())
    # repetitions of it are copied into a run of more
    more = execute(make_settings(store, repetitions=4))
    assert more.computed == 1
    assert [source["run_id"] for source in more.run.taken_from] == [run.run_id]
    curves = read_arrow(more.run, "curves")
    assert same_bits(curves.filter(pc.field("seed") < 3), read_arrow(run, "curves"))
    # and are enough for somebody who wants some of them
    wanted = Wanted("another", run.config_hash, (1, 2))
    (part,) = held.runs_with(store, wanted)
    assert read_table(part, "final")["seed"].tolist() in ([1, 2], [1, 2, 3])
    assert files(packed.folder(store)) == before


def test_computing_again_leaves_the_pack_alone(computed: tuple[Path, Run]) -> None:
    store, run = computed
    before = files(packed.folder(store))
    forced = execute(replace(make_settings(store), force=True))
    assert (forced.computed, forced.run.pack) == (3, None)
    assert files(packed.folder(store)) == before
    found = read_run(runs_folder(store) / run.run_id)
    assert found is not None
    assert found.pack is None


# --- handing on ---


def test_merging_makes_folders_of_packed_runs(plain: Path, packs: Path, tmp_path: Path) -> None:
    target = tmp_path / "all"
    for told in ("copied 7 runs", "copied 0 runs"):
        done = CliRunner().invoke(app, ["merge", str(packs), "--results", str(target)])
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith(told)
    assert not packed.folder(target).exists()
    for run in scan(target):
        original = read_run(runs_folder(plain) / run.run_id)
        assert (run.pack, read_document(run)) == (None, read_document(original))
        assert tables_of(run) == tables_of(original)
        for table in tables_of(run):
            assert same_bits(read_arrow(run, table), read_arrow(original, table))
            notes = pq.read_schema(run.path / f"{table}.parquet").metadata
            assert notes[b"hpo_bench.config_hash"] == run.config_hash.encode()
    done = CliRunner().invoke(app, ["merge", str(plain), "--results", str(packs)])
    assert done.stdout.startswith("copied 0 runs")
    assert "7 identical" in done.stdout


def test_runs_that_disagree_are_told_with_their_pack(
    plain: Path, packs: Path, tmp_path: Path
) -> None:
    (run, *_) = scan(packs)
    other = shutil.copytree(runs_folder(plain) / run.run_id, runs_folder(tmp_path / "b") / "x")
    table = pq.read_table(other / "final.parquet", partitioning=None)
    changed = table.set_column(table.column_names.index("lr"), "lr", pa.array([9.0] * len(table)))
    write_table(other / "final.parquet", changed)
    done = CliRunner().invoke(app, ["merge", str(tmp_path / "b"), "--results", str(packs)])
    assert f"{run.run_id} in {packed.folder(packs) / ENERGY}" in str(done.exception)
    assert "different numbers" in str(done.exception)


def test_a_bundle_of_packed_runs_is_that_of_their_folders(packs: Path, tmp_path: Path) -> None:
    wanted = [Wanted(run.run_id, run.config_hash, run.seeds) for run in scan(packs)]
    runs = stored_runs(packs, wanted)
    assert len(runs) == 7
    for target in (tmp_path / "one", tmp_path / "two"):
        for run in runs:
            packing.unpack(run, runs_folder(target) / run.run_id)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for run in scan(tmp_path / "one"):
        assert len(bundle.files_of(run.path)) == 1 + len(tables_of(run))


# --- damage ---


def cut(file: Path) -> None:
    """Cut the end of a file off."""
    file.write_bytes(file.read_bytes()[:-9])


def spoil(file: Path) -> None:
    """Overwrite the beginning of a table's rows."""
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(300) + content[304:])


def edit(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of a pack."""
    file = folder / "runs.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(change(lines)), encoding="utf-8")


def with_key(line: str, key: str, value: object) -> str:
    """A line with another value of a key."""
    return json.dumps(json.loads(line) | {key: value}) + "\n"


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "lines cut": ("runs.jsonl", lambda folder: cut(folder / "runs.jsonl")),
    "lines empty": ("runs.jsonl", lambda folder: (folder / "runs.jsonl").write_bytes(b"")),
    "no lines": ("runs.jsonl", lambda folder: (folder / "runs.jsonl").unlink()),
    "not UTF-8": ("runs.jsonl", lambda folder: (folder / "runs.jsonl").write_bytes(b"\xff\n")),
    "no JSON": ("runs.jsonl", lambda folder: edit(folder, lambda lines: ["{\n", *lines])),
    "a list": ("runs.jsonl", lambda folder: edit(folder, lambda lines: ["[]\n", *lines])),
    "newer": (
        "runs.jsonl",
        lambda folder: edit(folder, lambda lines: [with_key(lines[0], "format", 2), *lines[1:]]),
    ),
    "no tables": (
        "runs.jsonl",
        lambda folder: edit(folder, lambda lines: [with_key(lines[0], "tables", {}), *lines[1:]]),
    ),
    "rows no number": (
        "runs.jsonl",
        lambda folder: edit(
            folder,
            lambda lines: [
                with_key(lines[0], "tables", {"final": {"rows": "1"}, "curves": {"rows": 1}}),
                *lines[1:],
            ],
        ),
    ),
    "a run twice": ("runs.jsonl", lambda folder: edit(folder, lambda lines: [lines[0], *lines])),
    "a line lost": ("final.parquet", lambda folder: edit(folder, lambda lines: lines[1:])),
    "lines in another order": (
        "final.parquet",
        lambda folder: edit(folder, lambda lines: [lines[1], lines[0], *lines[2:]]),
    ),
    "a table cut": ("curves.parquet", lambda folder: cut(folder / "curves.parquet")),
    "a table empty": ("final.parquet", lambda folder: (folder / "final.parquet").write_bytes(b"")),
    "no table": ("final.parquet", lambda folder: (folder / "final.parquet").unlink()),
    "a table of others": (
        "final.parquet",
        lambda folder: shutil.copyfile(
            folder.parent / KIN8NM / "final.parquet", folder / "final.parquet"
        ),
    ),
    "rows spoilt": ("final.parquet", lambda folder: spoil(folder / "final.parquet")),
}
LATE = ("rows spoilt", "lines in another order")  # found where rows are read


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line_that_names_the_file_and_the_rest_is_made(
    damage: str, packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, spoiled = DAMAGES[damage]
    file = Path("results") / "packed" / ENERGY / name
    spoiled(file.parent)
    commands = {
        "status": ["status"],
        "table": ["table", "uci_main", "--dataset", KIN8NM],
        "export": ["export"],
        "merge": ["merge", "results", "--results", "all"],
    }
    if damage in (*LATE, "a line lost", "a table of others"):
        del commands["status"]  # which reads no table
    if damage in LATE:
        del commands["table"]  # which reads no other dataset
    for command, arguments in commands.items():
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 2, (command, done.output)
        naming = [line for line in done.stderr.splitlines() if str(file) in line]
        assert len(naming) == 1, (command, done.stderr)
        assert f"move {file.parent} aside" in naming[0] or "newer hpo-bench" in naming[0]
        assert "delete" not in naming[0]
        assert done.stdout.strip(), command
    assert KIN8NM in set(pd.read_csv("exported/finals.csv")["dataset"])
    assert {run.dataset for run in scan("all")} >= {KIN8NM}


@pytest.mark.parametrize("damage", DAMAGES)
def test_in_python_damage_is_an_error(damage: str, packs: Path) -> None:
    name, spoiled = DAMAGES[damage]
    folder = packed.folder(packs) / ENERGY
    spoiled(folder)
    with pytest.raises(UserError, match=name) as error:
        _ = hpo_bench.load(packs, dataset=ENERGY).final
    assert "\n" not in str(error.value)
    with notices.leaving_out() as left_out:
        found = notices.started_again(lambda: frames.finals(selection.find(packs)))
    assert set(found["dataset"]) == {KIN8NM}
    assert left_out.folders == {folder}


def test_a_run_that_is_asked_for_by_name_is_not_passed_over(packs: Path) -> None:
    names = index.names(runs_folder(packs))
    cut(packed.folder(packs) / ENERGY / "curves.parquet")
    for name in (names[0], "uci_energy-random"):
        done = CliRunner().invoke(app, ["export", name, "--results", str(packs)])
        assert isinstance(done.exception, StoreError)
        assert "curves.parquet is damaged" in str(done.exception)


def test_a_damaged_pack_is_no_matter_of_other_runs(packs: Path) -> None:
    names = index.names(runs_folder(packs))
    cut(packed.folder(packs) / ENERGY / "runs.jsonl")
    assert read_run(runs_folder(packs) / names[-1]) is not None
    with pytest.raises(StoreError, match=r"runs\.jsonl is damaged"):
        read_run(runs_folder(packs) / names[0])
    listing = index.read(runs_folder(packs))
    assert list(listing.entries) == names[-2:]
    assert list(listing.damaged) == [str(packed.folder(packs) / ENERGY)]


# --- making packs ---


def test_adding_keeps_what_is_there_and_replaces_what_comes_again(
    plain: Path, packs: Path, tmp_path: Path
) -> None:
    before = {run.run_id: read_arrow(run, "curves") for run in scan(packs)}
    lines = (packed.folder(packs) / KIN8NM / "runs.jsonl").read_bytes()
    new = make_run(tmp_path / "new", "ours_wd_lr", ENERGY, [0.1, 0.2], beta1=[0.9, 0.8])
    pack = packing.add(packs, ENERGY, [packing.whole(new)])
    assert new.run_id in pack.lines
    for run in scan(packs):
        if run.run_id in before:
            assert same_bits(read_arrow(run, "curves"), before[run.run_id])
    assert (packed.folder(packs) / KIN8NM / "runs.jsonl").read_bytes() == lines
    again = packing.WholeRun(
        new.run_id, {**read_document(new), "code": {}}, packing.whole(new).tables
    )
    packing.add(packs, ENERGY, [again])
    assert read_run(runs_folder(packs) / new.run_id).code == {}
    with pytest.raises(UserError, match=r"is in .*uci_energy already"):
        packing.add(packs, KIN8NM, [again])
    assert sorted(path.name for path in packed.folder(packs).iterdir()) == [ENERGY, KIN8NM]


def test_the_same_runs_are_the_same_bytes(plain: Path, packs: Path, tmp_path: Path) -> None:
    runs = [packing.whole(run) for run in scan(plain)]
    for run in reversed(runs):
        packing.add(tmp_path / "one", "x", [run])
    packing.add(tmp_path / "two", "x", runs)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_process_that_was_killed_leaves_the_pack_that_was_there(
    packs: Path, tmp_path: Path
) -> None:
    new = packing.whole(make_run(tmp_path / "new", "ours_wd_lr", ENERGY, [0.1, 0.2]))
    parent = packed.folder(packs)
    (parent / ENERGY).rename(parent / f".{ENERGY}.old")  # between the two names
    (parent / f".{ENERGY}.new").mkdir()
    assert set(packing.add(packs, ENERGY, [new]).lines) > {new.run_id}
    assert sorted(path.name for path in parent.iterdir()) == [ENERGY, KIN8NM]


def test_what_cannot_be_packed_as_it_is_leaves_the_pack_alone(packs: Path, tmp_path: Path) -> None:
    run = packing.whole(make_run(tmp_path / "new", "ours_wd_lr", ENERGY, [0.1, 0.2]))
    curves = run.tables["curves"]
    texts = curves.set_column(2, "train_loss", pa.array(["a"] * len(curves)))
    odd = curves.append_column("odd", pa.array([b"x"] * len(curves), pa.binary(1)))
    before = files(packs)
    for table in (texts, odd):
        with pytest.raises(UserError, match="pack"):
            packing.add(packs, ENERGY, [replace(run, tables={**run.tables, "curves": table})])
        assert files(packs) == before
